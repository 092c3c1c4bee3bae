"""The picture of an explanation: an image beside where each label looks in it, after one experience and another."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch.nn import functional as F

from cml_bench.models.angles import angle_law
from cml_bench.report.picture_file import check_suffix, save

if TYPE_CHECKING:
    from cml_bench.report.explanation.explain import Explanation, Values

_CELL = 2.6
"""Inches of the longer side of an image."""
_LEAST_SCALE = 3.0
"""Where labels look everywhere alike, colours do not make it look as if they did not."""
_COLOURS = "inferno"


def upsampled(attention: Values, height: int, width: int) -> Values:
    """Return (height, width) values for a (h, w) map that covers the whole image, each at the middle of its part."""
    grid = torch.from_numpy(np.ascontiguousarray(attention))[None, None]
    # Not the corners' middles on the image's corners: each position stands for the middle of its part of the image.
    return F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)[0, 0].numpy()


def draw(explanation: Explanation, path: Path) -> None:
    """Draw an explanation into a file; its suffix says of which kind (PNG, PDF, SVG).

    A row of the picture has one colour scale, in multiples of looking everywhere alike, so that its columns compare.

    Raises:
        CmlBenchError: If the file cannot be written.
    """
    check_suffix(path)
    image = explanation.image.permute(1, 2, 0).numpy()
    height, width = image.shape[:2]
    across, down = _CELL * width / max(height, width), _CELL * height / max(height, width)
    rows, columns = len(explanation.labels), len(explanation.experiences) + 1
    size = (max(6.0, columns * across + 1.2), rows * (down + 0.6) + 0.4)
    # Not pyplot: it would choose a window system and keep every figure.
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(h_pad=0.04, w_pad=0.04), dpi=120)
    figure.suptitle("\n".join(textwrap.wrap(explanation.title, int(12 * size[0]))), fontsize=9)
    axes = figure.subplots(rows, columns, squeeze=False)
    for c, label in enumerate(explanation.labels):
        _show(axes[c, 0], image, f"{label}\n{_said(explanation, c)}")
        relative = explanation.attention[:, c] * explanation.attention[0, 0].size
        scale = max(_LEAST_SCALE, float(np.nanmax(relative)))
        for t in range(columns - 1):
            _cell(axes[c, t + 1], explanation, t, c, image, relative[t], scale)
        colours = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, scale), _COLOURS)
        figure.colorbar(colours, ax=list(axes[c]), shrink=0.8, aspect=14).set_label("x uniform", fontsize=7)
    save(figure, path)


def _cell(axes: Any, explanation: Explanation, t: int, c: int, image: Any, relative: Values, scale: float) -> None:
    """Draw where one label looks after one experience."""
    after = f"after experience {explanation.experiences[t]}"
    if np.isnan(relative).any():
        _show(axes, np.full_like(image, 235), f"{after}\nnot seen yet")
        return
    height, width = image.shape[:2]
    grey = image.mean(axis=2) / 255
    heat = upsampled(relative, height, width) / scale
    colour = mpl.colormaps[_COLOURS](heat)[..., :3]
    words = [f"p {explanation.probability[t, c]:.2f}", f"peak {explanation.peak[t, c]:.1f}x"]
    if explanation.experiences[t] > explanation.arrived[c]:
        words.append(f"kept {explanation.kept[t, c]:.0%}")
    lines = [after, ", ".join(words)]
    if not np.isnan(explanation.angle[t, c]):
        lines.append(f"{explanation.angle[t, c]:.0f}° to its row (shared: {angle_law(explanation.n_seen[t]):.0f}°)")
    _show(axes, 0.45 * grey[..., None] + 0.55 * colour, "\n".join(lines))


def _show(axes: Any, picture: Any, title: str) -> None:
    axes.imshow(picture)
    axes.set_title(title, fontsize=7)
    axes.set_axis_off()


def _said(explanation: Explanation, c: int) -> str:
    """Return what the image shows of a label, and when that came."""
    shown = {True: "present", False: "absent", None: "truth unknown"}[explanation.truth[c]]
    return f"{shown}; came in experience {explanation.arrived[c]}"
