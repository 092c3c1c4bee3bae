"""Pictures of accuracy against cost, with the methods that no other one beats on both."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from cml_bench.report.figures.labelling import beside
from cml_bench.report.figures.picture import Picture
from cml_bench.report.figures.section import Section
from cml_bench.report.figures.style import FAINT, INK, SHOWN, blank, ruled
from cml_bench.report.figures.wording import also_grey, interval_words, percent_axis, sentences
from cml_bench.report.statistics.estimates import estimates
from cml_bench.report.statistics.rivals import fair_part
from cml_bench.report.statistics.units import one_an_order

COSTS: Final = {
    "training_seconds": ("training time", "seconds of training a job"),
    "memory_mb": ("memory of the method", "megabytes (MiB) of stored images at most"),
    "trainable_parameters": ("trainable parameters", "parameters trained"),
}
"""Columns of ``collect`` to what they cost, and how an axis says it."""
_LOG_FROM: Final = 10.0
"""Costs that differ by a larger factor get a logarithmic axis."""


def draw(section: Section, column: str) -> Picture | None:
    """Draw last mAP over one cost; None where it was not measured or is the same for all methods."""
    data = _data(section, column)
    if data["cost"].nunique() < 2:
        return None
    short, axis = COSTS[column]
    figure, axes = blank(6.0, 4.0)
    logarithmic = data["cost"].min() > 0 and data["cost"].max() > _LOG_FROM * data["cost"].min()
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
    # Plain figures: names are no formulas here, so powers would not be either.
    axes.xaxis.set_major_formatter("{x:,g}")
    begins = percent_axis(axes, "y", data[["map_low", "map_high", "map"]])
    _draw_front(axes, data[data["pareto"]].sort_values("cost"))
    for row in data.itertuples():
        look = section.looks[str(row.method)]
        if look.shown:
            axes.plot([row.cost, row.cost], [row.map_low, row.map_high], color=look.colour, linewidth=0.7, alpha=0.6)
        axes.plot([row.cost], [row.map], linestyle="", **look.of_marker)
    if not logarithmic:
        axes.set_xlim(0, 1.05 * data["cost"].max())
    axes.margins(x=0.08)
    axes.set_xlabel(axis + (" (logarithmic)" if logarithmic else ""))
    axes.set_ylabel("last mAP (%)")
    ruled(axes, "both")
    shown = {method: look for method, look in section.legend.items() if look.shown}
    heights = data.set_index("method")["map"]
    beside(axes, [(float(heights[method]), look) for method, look in shown.items() if method in heights], leaders=False)
    grey = [section.looks[method].name for method in data.loc[data["pareto"], "method"] if method not in shown]
    bounds = [section.looks[method].name for method in data["method"] if method in section.table.bounds]
    whole = whole_rows(section)
    fewer = [section.looks[method].name for method in data["method"] if method not in (*whole, *section.table.bounds)]
    lacking = [look.name for method, look in section.looks.items() if method not in set(data["method"])]
    caption = sentences(
        f"Last mAP against {short}, means over seeds and class orders.",
        interval_words(data, section.n_orders, "Thin bars"),
        "Ringed and joined: the Pareto front, methods that no other one beats on both.",
        f"Bounds, which may see what others may not, have no part in it: {', '.join(bounds)}." if bounds else "",
        f"Not looked at for it, for lack of jobs of the others: {', '.join(fewer)}." if fewer else "",
        f"On the front, but in grey: {', '.join(grey)}." if grey else "",
        begins,
        f"Not measured: {', '.join(lacking)}." if lacking else "",
        also_grey(len(section.looks), SHOWN),
    )
    return Picture.settled(f"cost_{column}", f"Accuracy against {short}", caption, data, figure)


def on_front(cost: npt.ArrayLike, value: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return which points no other point beats: none is at least as good on both and better on one."""
    costs, values = np.asarray(cost, dtype=np.float64), np.asarray(value, dtype=np.float64)
    as_good = (costs[:, None] <= costs) & (values[:, None] >= values)
    better = (costs[:, None] < costs) | (values[:, None] > values)
    beaten: npt.NDArray[np.bool_] = np.any(as_good & better, axis=0)
    return ~beaten


def whole_rows(section: Section) -> tuple[str, ...]:
    """Return the methods that are no bounds and have the jobs of the others."""
    rivals = section.table.rivals
    whole = (*rivals.columns,) if rivals.shape[1] < 2 else (*fair_part(rivals)[0].columns,)
    return tuple(map(str, whole))


def _draw_front(axes: Axes, front: pd.DataFrame) -> None:
    axes.step(front["cost"], front["map"], where="post", color=FAINT, linewidth=0.8, zorder=1)
    ring: dict[str, Any] = {"markersize": 10, "markerfacecolor": "none", "markeredgecolor": INK}
    axes.plot(front["cost"], front["map"], "o", markeredgewidth=0.7, zorder=2, **ring)


def _data(section: Section, column: str) -> pd.DataFrame:
    jobs = section.jobs.groupby("method")
    methods = list(section.looks)
    of_each = [jobs.get_group(method) for method in methods]
    maps = estimates([one_an_order(100 * each["last_map"], [*each["class_order"]]) for each in of_each])
    rows = [
        {
            "method": method,
            "cost": each[column].mean() if column in section.jobs else float("nan"),
            "map": found.mean,
            "map_low": found.low,
            "map_high": found.high,
            "level": found.level,
            "n": found.n,
        }
        for method, each, found in zip(methods, of_each, maps, strict=True)
    ]
    data = pd.DataFrame(rows).dropna(subset=["cost", "map"])
    # A mean over fewer jobs would beat others by what it lacks.
    rivals = data["method"].isin(whole_rows(section))
    data["pareto"] = False
    data.loc[rivals, "pareto"] = on_front(data.loc[rivals, "cost"], data.loc[rivals, "map"])
    return data
