"""The picture of every label's average precision over experiences: forgotten labels fade to the right."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.transforms import ScaledTranslation, Transform

from cml_bench.report.figures.picture import Picture
from cml_bench.report.figures.section import Section, first_order
from cml_bench.report.figures.style import PAPER, SHOWN, Look, printable
from cml_bench.report.figures.wording import in_csv, sentences

_ACROSS: Final = 5
"""Maps in one row."""
_NAMED: Final = 120
"""More labels than this are drawn without names."""
_NUMBERED: Final = 15
"""More labels than this are drawn without figures in the cells."""
_LONGEST: Final = 18
_STEP: Final = 1.6
_ABOVE: Final = 0.4
_BELOW: Final = 0.65
_LETTERS: Final = 24
"""Inches from one map to the next, above the first row of maps and below each row."""
_COLOURS: Final = "cividis"
"""Even to the eye, with and without colour vision, and in grey."""
_DARK: Final = 0.5
"""Below it a colour is dark."""

Values = npt.NDArray[np.float64]


def draw(section: Section) -> Picture | None:
    """Draw average precision as colour, a map a method: labels in order of arrival down, experiences across.

    None if no result holds it.
    """
    order = first_order(section.runs)
    maps, names, n_seen = _maps(section, order)
    shown = [look for look in section.looks.values() if look.shown and look.method in maps]
    if not shown or not names:
        return None
    figure = _drawn(shown, maps, names if len(names) <= _NAMED else (), n_seen)
    lacking = [look.name for look in section.looks.values() if look.shown and look.method not in maps]
    caption = sentences(
        f"Average precision of each label after each experience, class order {order}, mean over seeds.",
        "Labels are in order of arrival, a gap between experiences; a label that is forgotten grows dark to the right.",
        "Blank: not arrived yet, or without a positive among the images tested.",
        "" if len(names) <= _NAMED else f"{len(names)} labels are too many to name: the CSV file does.",
        f"Without a job on this order: {', '.join(lacking)}." if lacking else "",
        in_csv(len(section.looks), SHOWN),
    )
    data = _data(maps, names, n_seen, order)
    return Picture.settled("label_ap", "Average precision of every label", caption, data, figure, wide=True)


def _drawn(shown: Sequence[Look], maps: dict[str, Values], names: Sequence[str], n_seen: tuple[int, ...]) -> Figure:
    """Draw the maps side by side, in rows; places are computed here, in inches.

    There are no ticks and no layout engine: of so many labels both take seconds.
    """
    across = min(_ACROSS, len(shown))
    down = -(-len(shown) // across)
    # Room for letters of a readable size, or for a map as high as wide.
    height = max(1.3, (0.098 if names else 0.02) * n_seen[-1])
    size = 7.5 if len(names) <= 40 else 6.0
    named = [_short(name) for name in names]
    left = 0.15 + 0.6 * size / 72 * max(map(len, named), default=0)
    width, length = left + across * _STEP + 0.7, _ABOVE + down * (height + _BELOW)
    figure = Figure(figsize=(width, length), dpi=200)

    def add(x: float, y: float, wide: float, high: float) -> Axes:
        return figure.add_axes((x / width, 1 - (y + high) / length, wide / width, high / length))

    scale = mpl.colors.Normalize(0, 100)
    for i, look in enumerate(shown):
        row, column = divmod(i, across)
        axes = add(left + column * _STEP, _ABOVE + row * (height + _BELOW), _STEP - 0.1, height)
        _draw_map(axes, maps[look.method], n_seen, scale)
        title = textwrap.fill(look.name, _LETTERS, max_lines=2, placeholder=" …")
        axes.text(0, 1, title, transform=_shifted(axes.transAxes, figure, 3), va="bottom", fontsize=8)
        if column == 0:
            for c, name in enumerate(named):
                axes.text(-0.6, c, name, ha="right", va="center", fontsize=size)
        if i + across >= len(shown):
            below = _shifted(axes.transAxes, figure, -16)
            axes.text(0.5, 0, "experience", transform=below, ha="center", va="top", fontsize=8)
    bar = add(left + across * _STEP + 0.05, _ABOVE, 0.12, min(2.2, height))
    colours = figure.colorbar(mpl.cm.ScalarMappable(scale, _COLOURS), cax=bar)
    colours.set_label("average precision (%)", fontsize=8)
    colours.outline.set_visible(False)
    return figure


def _maps(section: Section, order: str) -> tuple[dict[str, Values], tuple[str, ...], tuple[int, ...]]:
    """Return a (C, T) mean over seeds for each method, the labels in order of arrival and how many are seen when."""
    runs = [run for run in section.runs if run.class_order == order]
    # A class order may leave something to the seed; then jobs of the first seed's order are shown.
    names, n_seen = runs[0].history.label_names, runs[0].history.n_seen
    maps = {}
    for method in section.looks:
        own = [run.history for run in runs if run.method == method and run.history.label_names == names]
        own = [history for history in own if history.label_ap.shape == (len(n_seen), len(names))]
        if own:
            stacked = np.ma.masked_invalid(np.stack([history.label_ap for history in own]))
            maps[method] = 100 * stacked.mean(axis=0).filled(np.nan).T
    return maps, names, n_seen


def _draw_map(axes: Axes, values: Values, n_seen: tuple[int, ...], scale: Any) -> None:
    n_labels, experiences = values.shape
    # Cells stay cells however the picture is enlarged.
    axes.imshow(values, cmap=_COLOURS, norm=scale, aspect="auto", interpolation="none")
    for boundary in n_seen[:-1]:
        axes.axhline(boundary - 0.5, color=PAPER, linewidth=0.8)
    axes.set_axis_off()
    below = _shifted(axes.get_xaxis_transform(), axes.figure, -4)
    for t in range(experiences)[:: max(1, -(-experiences // 8))]:
        axes.text(t, 0, str(t + 1), transform=below, ha="center", va="top", fontsize=7)
    if n_labels <= _NUMBERED and experiences <= _NUMBERED:
        for (c, t), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "#fffffe" if value / 100 < _DARK else "#000000"
                axes.text(t, c, f"{value:.0f}", ha="center", va="center", fontsize=6.5, color=colour)


def _shifted(transform: Transform, figure: Figure | SubFigure, points: float) -> Transform:
    """Return a transform moved up by so many points, whatever the resolution."""
    return transform + ScaledTranslation(0, points / 72, figure.dpi_scale_trans)


def _data(maps: dict[str, Values], names: tuple[str, ...], n_seen: tuple[int, ...], order: str) -> pd.DataFrame:
    arrived = np.searchsorted(n_seen, np.arange(len(names)), side="right") + 1
    parts = []
    for method, values in maps.items():
        c, t = np.nonzero(np.isfinite(values))
        parts.append(
            pd.DataFrame(
                {
                    "method": method,
                    "class_order": order,
                    "label": np.array(names)[c],
                    "arrived": arrived[c],
                    "experience": t + 1,
                    "ap": values[c, t],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _short(name: str) -> str:
    name = " ".join(printable(name).split())
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
