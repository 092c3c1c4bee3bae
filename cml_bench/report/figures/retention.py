"""The picture of plasticity and forgetting: how well labels were learnt, and what was left of it at the end."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cml_bench.report.figures.labelling import beside
from cml_bench.report.figures.picture import Picture
from cml_bench.report.figures.section import Section
from cml_bench.report.figures.style import FAINT, SHOWN, blank, ruled
from cml_bench.report.figures.wording import also_grey, interval_words, percent_axis, sentences
from cml_bench.report.statistics.estimates import estimates
from cml_bench.report.statistics.units import one_an_order
from cml_bench.report.stored.history import History


def draw(section: Section) -> Picture | None:
    """Draw each method at (mAP when learnt, mAP at the end); None where there is one experience, or nothing defined.

    Both are means over the labels of the same experiences, all but the last, so the height above the diagonal is the
    backward transfer (Lopez-Paz and Ranzato 2017) and the depth below it the forgetting with the diagonal reference.
    """
    data = _data(section)
    if data.empty:
        return None
    figure, axes = blank(6.0, 4.9)
    # One scale for both, so that the diagonal is one.
    spans = data[["learnt_low", "learnt_high", "kept_low", "kept_high", "learnt", "kept"]]
    begins = percent_axis(axes, "x", spans)
    percent_axis(axes, "y", spans)
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color=FAINT, linewidth=0.7, linestyle=(0, (4, 3)))
    axes.text(
        low,
        low + 0.015 * (high - low),
        "    nothing forgotten",
        va="bottom",
        fontsize=7,
        color=FAINT,
        rotation=45,
        rotation_mode="anchor",
        transform_rotates_text=True,
    ).set_in_layout(False)
    named = []
    for row in data.to_dict("records"):
        look = section.legend[row["method"]]
        if look.shown:
            bars = {"color": look.colour, "linewidth": 0.7, "alpha": 0.6, "zorder": 2}
            axes.plot([row["learnt_low"], row["learnt_high"]], [row["kept"], row["kept"]], **bars)
            axes.plot([row["learnt"], row["learnt"]], [row["kept_low"], row["kept_high"]], **bars)
            named.append((row["kept"], look))
        axes.plot([row["learnt"]], [row["kept"]], linestyle="", **look.of_marker)
    axes.set_xlabel("plasticity: mAP when just learnt (%)")
    axes.set_ylabel("mAP of the same labels at the end (%)")
    ruled(axes, "both")
    beside(axes, named, leaders=False)
    caption = sentences(
        "Right: learns new labels well. Below the dashed diagonal: has forgotten, by the distance down to the point;",
        "above it: has gained. Means over the labels of all experiences but the last, on fixed images.",
        interval_words(data, section.n_orders, "Thin crosses"),
        begins.replace("horizontal axis begins", "axes begin"),
        also_grey(len(section.looks), SHOWN),
    )
    return Picture.settled("plasticity_forgetting", "Plasticity and forgetting", caption, data, figure)


def learnt_and_kept(history: History) -> tuple[float, float]:
    """Return the mean mAP of earlier experiences' labels right after each, and at the end; NaN of one experience."""
    if len(history.performance) < 2:
        return float("nan"), float("nan")
    learnt, kept = np.diagonal(history.performance)[:-1], history.performance[:-1, -1]
    both = np.isfinite(learnt) & np.isfinite(kept)
    return (float(learnt[both].mean()), float(kept[both].mean())) if both.any() else (float("nan"), float("nan"))


def _data(section: Section) -> pd.DataFrame:
    methods = list(section.looks)
    pairs = [np.array([learnt_and_kept(run.history) for run in section.runs_of(method)]) for method in methods]
    orders = [[run.class_order for run in section.runs_of(method)] for method in methods]
    found = estimates(
        [one_an_order(100 * figures, own) for values, own in zip(pairs, orders, strict=True) for figures in values.T]
    )
    rows = [
        {
            "method": method,
            "learnt": learnt.mean,
            "learnt_low": learnt.low,
            "learnt_high": learnt.high,
            "kept": kept.mean,
            "kept_low": kept.low,
            "kept_high": kept.high,
            "level": learnt.level,
            "forgetting": learnt.mean - kept.mean,
            "n": learnt.n,
        }
        for method, learnt, kept in zip(methods, found[::2], found[1::2], strict=True)
    ]
    return pd.DataFrame(rows).dropna(subset=["learnt", "kept"])
