"""The picture of a stream: images of each experience, positives of each label, labels that occur together."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from cml_bench.report.picture_file import check_suffix, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cml_bench.report.stream.describe import StreamDescription

_HEIGHT = 8.6
_HEADING = 0.65
"""Inches that the title and the line below it take."""
_MATRIX_WIDTH = 5.0
"""Inches of a matrix as high as its row, with its scale; a wider panel would stand in a gap."""
_NAMED_LABELS = 120
"""More labels than this are drawn without names."""
_NUMBERED_EXPERIENCES = 20
"""More experiences than this are drawn without figures in the matrix, and with fewer ticks."""


def draw(description: StreamDescription, path: Path) -> None:
    """Draw a stream into a file; its suffix says of which kind (PNG, PDF, SVG).

    Raises:
        CmlBenchError: If the file cannot be written.
    """
    check_suffix(path)
    width = min(max(11.0, 0.17 * len(description.labels)), 22.0)
    # Not pyplot: it would choose a window system and keep every figure.
    layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.12, rect=(0.0, 0.0, 1.0, 1.0 - _HEADING / _HEIGHT))
    figure = Figure(figsize=(width, _HEIGHT), layout=layout, dpi=140)
    figure.text(0.5, 1.0 - 0.28 / _HEIGHT, description.title, fontsize=14, ha="center", va="center")
    if (options := description.facts.get("options", "default")) != "default":
        # About eleven small letters an inch.
        line = textwrap.shorten(options, int(11 * width), placeholder=" ...")
        figure.text(0.5, 1.0 - 0.55 / _HEIGHT, line, fontsize=10, color="0.35", ha="center", va="center")
    axes = figure.subplot_mosaic(
        [["images", "shares"], ["labels", "labels"]],
        height_ratios=(1.3, 1.0),
        width_ratios=(width - _MATRIX_WIDTH, _MATRIX_WIDTH),
    )
    colours = mpl.colormaps["viridis"](np.linspace(0.0, 0.92, len(description.rows)))
    _images(axes["images"], description, colours)
    _shares(axes["shares"], description)
    _labels(axes["labels"], description, colours)
    for name in ("images", "labels"):
        axes[name].spines[["top", "right"]].set_visible(False)
    save(figure, path)


def _images(axes: Axes, description: StreamDescription, colours: Any) -> None:
    rows = description.rows
    fresh = rows["images"] - rows["repeated_images"]
    axes.bar(rows["experience"], fresh, color=colours)
    striped: dict[str, Any] = {"alpha": 0.4, "hatch": "///", "edgecolor": "white", "linewidth": 0}
    axes.bar(rows["experience"], rows["repeated_images"], bottom=fresh, color=colours, **striped)
    if rows["repeated_images"].any():
        axes.legend(
            handles=[Patch(facecolor="0.3", label="in an earlier experience as well", **striped)], frameon=False
        )
    axes.set_title("Training images of each experience", loc="left", fontsize=11)
    axes.set(xlabel="experience", ylabel="images")
    axes.set_xticks(_ticks(len(rows)) + 1)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    # Room for the legend above the highest bar; margins would stop at the feet of empty upper bars.
    axes.set_ylim(0, 1.15 * rows["images"].max())


def _shares(axes: Axes, description: StreamDescription) -> None:
    n = len(description.shares)
    # On the diagonal stands every image, which says nothing and would take all the contrast.
    shares = np.where(np.eye(n, dtype=np.bool_), np.nan, 100 * description.shares)
    highest = np.nanmax(shares, initial=0.0)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=highest or 1.0)
    axes.set_facecolor("0.9")
    title = "Images (%) with labels of another experience\n(old ones below, future ones above the diagonal)"
    axes.set_title(title, loc="left", fontsize=11)
    axes.set(xlabel="labels of experience", ylabel="images of experience")
    axes.set_xticks(_ticks(n), _ticks(n) + 1)
    axes.set_yticks(_ticks(n), _ticks(n) + 1)
    if n <= _NUMBERED_EXPERIENCES:
        for (t, k), share in np.ndenumerate(shares):
            if t != k:
                colour = "white" if share > 0.6 * highest else "black"
                figure = "?" if np.isnan(share) else f"{share:.0f}"
                axes.text(k, t, figure, ha="center", va="center", fontsize=8 if n <= 12 else 6, color=colour)
    axes.figure.colorbar(picture, ax=axes, shrink=0.8)


def _labels(axes: Axes, description: StreamDescription, colours: Any) -> None:
    labels = description.labels
    place = np.arange(len(labels))
    axes.bar(place, labels["positives"], width=0.8, color=colours[labels["experience"] - 1])
    axes.set_yscale("log")
    axes.set_ylim(0.8, 2 * max(1, labels["positives"].max()))
    axes.set_xlim(-0.8, len(labels) - 0.2)
    for start in np.flatnonzero(np.diff(labels["experience"])) + 0.5:
        axes.axvline(start, color="0.6", linewidth=0.6, linestyle=":")
    if len(labels) <= _NAMED_LABELS:
        axes.set_xticks(place, labels["label"], rotation=90, fontsize=8)
    axes.set_title("Positives of each label in its own experience, in order of arrival", loc="left", fontsize=11)
    axes.set_ylabel("positives (log scale)")


def _ticks(n: int) -> Any:
    return np.arange(n)[:: max(1, -(-n // _NUMBERED_EXPERIENCES))]
