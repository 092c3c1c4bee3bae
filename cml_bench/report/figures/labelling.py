"""Names beside a drawing, moved apart where they would lie on each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.transforms import blended_transform_factory
from scipy.optimize import isotonic_regression

from cml_bench.report.figures.style import FAINT, INK, Look

_SIZE: Final = 8.0
"""Points a letter is high."""
_LINE: Final = 1.35 * _SIZE
Values = npt.NDArray[np.float64]


def beside(axes: Axes, ends: Sequence[tuple[float, Look]], *, leaders: bool = True) -> None:
    """Write names to the right of lines or points at these heights, each after the marker of its method.

    Args:
        axes: Its vertical limits must be final.
        ends: Heights and looks of methods.
        leaders: Whether a thin line leads from each height at the right edge to its name, as is right for lines that
            end there.
    """
    ends = sorted(((y, look) for y, look in ends if np.isfinite(y)), key=lambda end: end[0])
    if not ends:
        return
    low, high = axes.get_ylim()
    inches = axes.figure.get_size_inches()[1]  # type: ignore[union-attr]
    # The axes take about four fifths of a figure's height.
    gap = (high - low) * _LINE / (0.8 * 72 * inches)
    heights = spread(np.array([y for y, _ in ends]), gap, low, high)
    where = blended_transform_factory(axes.transAxes, axes.transData)
    for (y, look), height in zip(ends, heights, strict=True):
        if leaders:
            axes.plot([1.005, 1.03], [y, height], transform=where, clip_on=False, color=FAINT, linewidth=0.4)
        axes.plot([1.05], [height], transform=where, clip_on=False, linestyle="", **look.of_marker)
        axes.text(1.075, height, look.name, transform=where, fontsize=_SIZE, va="center", color=INK)


def spread(heights: Values, gap: float, low: float, high: float) -> Values:
    """Return sorted heights moved as little as possible (in squares) until they lie a gap apart, within bounds."""
    steps = gap * np.arange(len(heights))
    free: Values = isotonic_regression(heights - steps).x
    # Where they do not all fit they begin at the lower bound.
    return np.clip(free, low, max(low, high - steps[-1])) + steps
