"""The picture of mAP over experiences."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cml_bench.report.figures.labelling import beside
from cml_bench.report.figures.picture import Picture
from cml_bench.report.figures.section import Section
from cml_bench.report.figures.style import SHOWN, blank, ruled
from cml_bench.report.figures.wording import also_grey, interval_words, percent_axis, sentences
from cml_bench.report.statistics.estimates import estimates
from cml_bench.report.statistics.units import one_an_order


def draw(section: Section) -> Picture | None:
    """Draw how mAP develops: one line a method, a band where the mean of its jobs lies. None if no result holds it."""
    data = _data(section)
    if data.empty:
        return None
    figure, axes = blank()
    lowest = percent_axis(axes, "y", data[["low", "high", "map"]])
    ends = []
    for method, rows in data.groupby("method", sort=False):
        look = section.legend[str(method)]
        axes.plot(rows["experience"], rows["map"], **look.of_line)
        if look.shown:
            axes.fill_between(rows["experience"], rows["low"], rows["high"], color=look.colour, alpha=0.14, linewidth=0)
            ends.append((float(rows["map"].iloc[-1]), look))
    beside(axes, ends)
    _label_experiences(axes, section)
    axes.set_ylabel("mAP of seen labels (%)")
    ruled(axes)
    caption = sentences(
        "mAP over the labels seen so far, after each experience: mean over seeds and class orders.",
        interval_words(data, section.n_orders),
        lowest,
        also_grey(len(section.looks), SHOWN),
    )
    return Picture.settled("map_over_experiences", "mAP over experiences", caption, data, figure)


def _data(section: Section) -> pd.DataFrame:
    groups, samples = [], []
    for method in section.looks:
        runs = section.runs_of(method)
        for t in range(max(len(run.history.map) for run in runs)):
            reached = [run for run in runs if t < len(run.history.map)]
            groups.append((method, t + 1))
            figures = [100 * run.history.map[t] for run in reached]
            samples.append(one_an_order(figures, [run.class_order for run in reached]))
    rows = [
        {
            "method": method,
            "experience": experience,
            "map": found.mean,
            "deviation": found.deviation,
            "low": found.low,
            "high": found.high,
            "level": found.level,
            "n": found.n,
        }
        for (method, experience), found in zip(groups, estimates(samples), strict=True)
    ]
    return pd.DataFrame(rows)


def _label_experiences(axes: Axes, section: Section) -> None:
    """Write experiences below the axis, and how many labels have been seen by then where all jobs agree."""
    n_seen = {run.history.n_seen for run in section.runs}
    longest = max(len(run.history.map) for run in section.runs)
    ticks = np.arange(1, longest + 1)[:: max(1, -(-longest // 10))]
    names = [str(tick) for tick in ticks]
    axes.set_xlabel("experience")
    if len(n_seen) == 1 and len(seen := n_seen.pop()) == longest:
        names = [f"{tick}\n{seen[tick - 1]}" for tick in ticks]
        axes.set_xlabel("experience; below it the labels seen")
    axes.set_xticks(ticks, names)
    axes.set_xlim(0.9, longest + 0.05 if longest > 1 else 1.1)
