"""Names beside lines and points, moved apart where they would lie on each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.transforms import blended_transform_factory
from scipy.optimize import isotonic_regression

from cml_bench.report.figures.style import FAINT, INK, Look

_SIZE: Final = 8.0
"""Points a letter is high."""
_LINE: Final = 1.35 * _SIZE
_LETTER: Final = 0.56 * _SIZE
"""Points a letter is wide, on average."""
_RADIUS: Final = 3.0
"""Points from the middle of a marker to its edge."""
_REACHES: Final = (7.0, 16.0, 28.0, 42.0)
"""Points from a marker at which its name is tried, near ones first."""
_ANGLES: Final = np.deg2rad([45, -45, 135, -135, 0, 180, 90, -90])
"""Slanting ones first: thin bars run along the axes."""

Values = npt.NDArray[np.float64]


def beside_lines(axes: Axes, ends: Sequence[tuple[float, Look]]) -> None:
    """Write names to the right of lines that end at these heights, each with the marker of its line."""
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
        axes.plot([1.005, 1.03], [y, height], transform=where, clip_on=False, color=FAINT, linewidth=0.4)
        axes.plot([1.05], [height], transform=where, clip_on=False, linestyle="", **look.of_marker)
        axes.text(1.075, height, look.name, transform=where, fontsize=_SIZE, va="center", color=INK)


def spread(heights: Values, gap: float, low: float, high: float) -> Values:
    """Return sorted heights moved as little as possible (in squares) until they lie a gap apart, within bounds."""
    steps = gap * np.arange(len(heights))
    free: Values = isotonic_regression(heights - steps).x
    # Where they do not all fit they begin at the lower bound.
    return np.clip(free, low, max(low, high - steps[-1])) + steps


def beside_points(
    axes: Axes, points: Sequence[tuple[float, float, str]], obstacles: Sequence[tuple[float, float]]
) -> None:
    """Write names near points, where they lie on no other name, on few markers and within the axes.

    Args:
        axes: Where the points are drawn; its limits must be final.
        points: x, y and name.
        obstacles: All points drawn, also those without a name.
    """
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    scale = 72 / axes.figure.dpi
    frame = axes.get_window_extent()
    bounds = np.array([frame.x0, frame.y0, frame.x1, frame.y1]) * scale
    markers = axes.transData.transform(np.array(obstacles)) * scale
    taken: list[Values] = []
    for x, y, name in sorted(points, key=lambda point: -point[1]):
        at = axes.transData.transform((x, y)) * scale
        others = markers[np.hypot(*(markers - at).T) > 1e-6]
        size = np.array([_LETTER * len(name), _LINE])
        offset, box = min(
            (_candidate(at, size, reach, angle) for reach in _REACHES for angle in _ANGLES),
            key=lambda candidate: _cost(candidate[1], taken, others, bounds) + 0.02 * float(np.hypot(*candidate[0])),
        )
        taken.append(box)
        leader: dict[str, Any] = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 3}
        far = float(np.hypot(*offset)) > 2 * _REACHES[0]
        axes.annotate(
            name,
            (x, y),
            xytext=offset,
            textcoords="offset points",
            fontsize=_SIZE,
            color=INK,
            ha=_horizontal(offset),
            va="center",
            arrowprops=leader if far else None,
        ).set_in_layout(False)


def _candidate(at: Values, size: Values, reach: float, angle: float) -> tuple[tuple[float, float], Values]:
    """Return the offset of a name from its point, and the box that it fills, in points."""
    offset = (round(reach * float(np.cos(angle)), 3), round(reach * float(np.sin(angle)), 3))
    left = {"left": 0.0, "center": -size[0] / 2, "right": -size[0]}[_horizontal(offset)]
    corner = at + np.array(offset) + np.array([left, -size[1] / 2])
    return offset, np.concatenate([corner, corner + size])


def _horizontal(offset: tuple[float, float]) -> str:
    return "center" if abs(offset[0]) < 0.5 else "left" if offset[0] > 0 else "right"


def _cost(box: Values, taken: Sequence[Values], markers: Values, bounds: Values) -> float:
    """Return how bad a place is: overlap with names counts most, then leaving the axes, then lying on markers."""
    names = sum(_overlap(box, other) for other in taken)
    outside = float(np.maximum(bounds[:2] - box[:2], 0).sum() + np.maximum(box[2:] - bounds[2:], 0).sum())
    covered = ((markers > box[:2] - _RADIUS) & (markers < box[2:] + _RADIUS)).all(axis=1).sum()
    return 10 * names + 10 * outside + 3 * float(covered)


def _overlap(first: Values, second: Values) -> float:
    """Return the area that two boxes share."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    return float(np.prod(np.maximum(sides, 0)))
