"""What pictures say about themselves: their axes, their intervals and what is drawn in grey."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cml_bench.report.statistics.estimates import pairs_needed


def percent_axis(axes: Axes, axis: Literal["x", "y"], values: Any) -> str:
    """Let an axis of percentages begin at 0, or say that it does not: a scale that begins elsewhere enlarges."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 100.0)
    begin = 10 * math.floor((low - 5) / 10) if low > 35 else min(0.0, 10 * math.floor(low / 10))
    end = min(100.0, 10 * math.ceil((high + 2) / 10))
    (axes.set_xlim if axis == "x" else axes.set_ylim)(begin, max(end, begin + 10))
    which = "horizontal" if axis == "x" else "vertical"
    return f"The {which} axis begins at {begin:g}, not at 0." if begin > 0 else ""


def sentences(*parts: str) -> str:
    """Join the sentences that are not empty."""
    return " ".join(filter(None, parts))


def interval_words(data: pd.DataFrame, orders: int, marks: str = "Bands") -> str:
    """Say what the bands hold, and of what they speak.

    Args:
        data: A table with ``level`` and ``n``.
        orders: How many class orders there are.
        marks: What the intervals are drawn as.
    """
    levels = data.loc[data["n"] > 1, "level"].dropna().round(2)
    if levels.empty:
        return f"One job a method: no {marks.lower()}."
    low, high = levels.min(), levels.max()
    told = f"{100 * low:.0f} %" if low == high else f"{100 * low:.0f} to {100 * high:.0f} %"
    where = "" if orders >= pairs_needed() else f" on {'this class order' if orders == 1 else 'these class orders'}"
    return f"{marks}: {told} interval of the mean{where}."


def also_grey(methods: int, shown: int) -> str:
    """Say how many methods are drawn in grey."""
    if methods <= shown:
        return ""
    others = f"in grey the other {methods - shown}, by name in the CSV file"
    return f"In colour: the first {shown} methods of the table; {others}."


def in_csv(methods: int, shown: int) -> str:
    """Say how many methods are not drawn."""
    if methods <= shown:
        return ""
    return f"Drawn: the first {shown} methods of the table; the CSV file holds all {methods}."


def only_shown(methods: int, shown: int) -> str:
    """Say that other methods were not looked at."""
    return "" if methods <= shown else f"The other {methods - shown} methods are neither drawn nor in the CSV file."
