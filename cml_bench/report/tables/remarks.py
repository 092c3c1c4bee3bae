"""What is said under a table: whether the lead is real, and what to keep in mind."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pandas as pd

from cml_bench.report.statistics.differences import has_orders_enough
from cml_bench.report.statistics.estimates import CONFIDENCE, SIGNIFICANCE, pairs_needed
from cml_bench.report.statistics.verdict import listed
from cml_bench.report.tables.grids import grids
from cml_bench.report.tables.keys import BLOCK


def word(key: str) -> str:
    """Return what a key is called in a sentence."""
    return {"class_order": "class order", "loss": "criterion"}.get(key, key)


def named_remark(jobs: pd.DataFrame) -> str:
    """Say which methods were run under other names, too, that spell out defaults; nothing if there are none."""
    spelt = jobs.loc[jobs["named"].fillna(jobs["method"]) != jobs["method"], ["named", "method"]].drop_duplicates()
    told = listed(sorted(f"{row.named} ({row.method})" for row in spelt.itertuples()))
    return f"The same under a longer name, and counted as what stands in brackets: {told}." if told else ""


def bounds_remark(bounds: Collection[str]) -> str:
    """Say which rows lead nothing, for they see what a learner of the stream may not; nothing if there are none."""
    return f"Bounds, not ranked: {listed(sorted(bounds))}." if bounds else ""


def averaged_remark(keys: pd.DataFrame, row: str, across: str) -> str:
    """Say what else the jobs of a row differ in, for rows that are no methods."""
    if row == "method":
        return ""
    parts = []
    for key in BLOCK[row]:
        values = sorted(keys[key].astype(str).unique())
        if key not in ("seed", across) and len(values) > 1:
            parts.append(f"{word(key)} ({listed(values)})")
    each = word(row) if across == "metric" else "figure"
    return f"Each {each} is averaged over {', '.join(parts)}." if parts else ""


def orders_remark(keys: pd.DataFrame, row: str, across: str) -> str:
    """Say that class orders are what figures are over, where seeds make no difference to how many there are."""
    if "class_order" in (row, across):
        return ""
    cells = [key for key in (row, *BLOCK[row]) if key != "seed"]
    many = keys.groupby(row)["class_order"].transform("nunique") >= pairs_needed()
    if not keys.loc[many, cells].duplicated().any():
        return ""
    told = f"Means, deviations and intervals of rows with {pairs_needed()} class orders or more"
    return f"{told} are over these, each by the mean of its seeds."


def edited_remark(older: pd.DataFrame, kept: pd.DataFrame) -> str:
    """Say which methods have results of their files as they were before they were edited, which no mean holds.

    Args:
        older: Finished jobs that no mean holds.
        kept: Those that means hold.
    """
    now = older["method"].map(kept.groupby("method")["files"].first())
    counts = older.loc[older["files"].notna() & (older["files"] != now), "method"].value_counts().sort_index()
    told = listed([f"{method} ({count})" for method, count in counts.items()])
    return f"Left out, for their file was edited since: results of {told}. Run them again." if told else ""


def unpaired_remark(unpaired: pd.DataFrame, alone: Collection[str], key: str, *, shown: bool) -> str:
    """Name the jobs that no two values of a key share: they are not compared, and left out where rows average.

    Args:
        unpaired: Keys of these jobs.
        alone: Their methods that only one value of the key has.
        key: One of ``KEYS``.
        shown: Whether the table shows their figures all the same.
    """
    told = "Not compared" if shown else "Left out"
    remarks = [f"{told}, for only one {word(key)} has them: {listed(sorted(alone))}."] if alone else []
    counts = unpaired.loc[~unpaired["method"].isin(alone), "method"].value_counts().sort_index()
    if len(counts):
        jobs = listed([f"{method} ({count})" for method, count in counts.items()])
        remarks.append(f"{told}, for no other {word(key)} has the same seed and class order: jobs of {jobs}.")
    return " ".join(remarks)


def cells_remark(left: pd.DataFrame, *, uneven: bool) -> str:
    """Say which methods cells of a table leave out to average the same ones, and if some average different ones.

    Args:
        left: Keys of the jobs left out.
        uneven: Whether there are cells that share no method.
    """
    methods = listed(sorted(left["method"].unique()))
    told = [f"Left out, so that figures beside each other are over the same methods: {methods}."] if methods else []
    if uneven:
        told.append("No method is in all cells: figures beside each other are over different ones, and compare little.")
    return " ".join(told)


def unlike_remark(blocks: pd.DataFrame, key: str) -> str:
    """Say that no two values of a key other than the method have a pair, so that their means are no comparison.

    Args:
        blocks: One row a block, one column a value of the key.
        key: One of ``KEYS``.
    """
    if key == "method" or blocks.shape[1] < 2 or (blocks.notna().sum(axis=1) > 1).any():
        return ""
    return f"No two of these differ in the {word(key)} alone: their means are over different jobs and compare nothing."


def fewer_jobs_remark(keys: pd.DataFrame, by: str, beside: str) -> str:
    """Say which means are over other jobs than those that they stand beside, and how to run what these lack.

    Args:
        keys: Keys of the jobs averaged.
        by: Key whose values stand beside each other.
        beside: The other key of the table, each value of which has figures of its own; ``metric`` for none.
    """
    fewer: list[str] = []
    absent: set[tuple[Any, ...]] = set()
    run: set[tuple[Any, ...]] = set()
    places = [("", keys)] if beside == "metric" else [(f" on {place}", each) for place, each in keys.groupby(beside)]
    for place, here in places:
        wanted = _blocks(here, by)
        run |= wanted
        for label, own in here.groupby(by):
            lacking = wanted - _blocks(own, by)
            if lacking:
                fewer.append(f"{label} ({len(wanted) - len(lacking)} of {len(wanted)} jobs{place})")
                absent |= lacking
    if not fewer:
        return ""
    told = f"Means over other jobs than the rest compare little: {listed(fewer)}."
    if by != "method":
        return told
    jobs = [each[1:] for each in absent], [each[1:] for each in run]
    commands = [f"with --seeds {_quoted(seeds)} --class-orders {_quoted(orders)}" for orders, seeds in grids(*jobs)]
    return f"{told} Their command {', and '.join(commands)} completes them."


def _quoted(text: str) -> str:
    """Return a list with quotes if need be: "1," is one of one seed, and its comma would be the sentence's."""
    return f"'{text}'" if text.endswith(",") else text


def _blocks(keys: pd.DataFrame, by: str) -> set[tuple[Any, ...]]:
    return set(keys[list(BLOCK[by])].itertuples(index=False, name=None))


def dropped_remark(jobs: pd.DataFrame) -> str:
    """Say how many labels no mean holds, for want of a positive among the images tested; nothing if there are none."""
    most = jobs["dropped_labels"].max() if "dropped_labels" in jobs else 0
    if not most > 0:
        return ""
    return f"Labels without a positive among the images tested are left out of means: up to {most:.0f} at the end."


def versions_remark(versions: pd.Series[str]) -> str:
    """Say that jobs were run by several versions of the code, whose figures may differ for that alone."""
    found = sorted(versions.dropna().unique())
    return f"Run by several versions of cml_bench: {listed(found)}." if len(found) > 1 else ""


def differences_remark(differences: pd.DataFrame, baseline: str, what: str, blocks: pd.DataFrame) -> str:
    """Say what the differences from a baseline are and speak of, and when no test of them could find anything.

    Args:
        differences: What ``differences_from`` returned.
        baseline: The method compared with.
        what: What the figures are, in words.
        blocks: One row a block, one column a method.
    """
    comparisons = int(differences["p_holm"].notna().sum())
    if not differences["p"].notna().any():
        return f"No job of another row has the seed and class order of one of {baseline}: nothing to compare."
    levels = sorted({f"{100 * level:.0f} %" for level in differences["level"].dropna()}, reverse=True)
    interval = f"{' or '.join(levels)} interval" if levels else "no interval"
    tests = "1 comparison" if comparisons == 1 else f"{comparisons} comparisons"
    paired = differences.index[differences["n"] > 0]
    few = [label for label in paired if not has_orders_enough(blocks[[label, baseline]].dropna())]
    over = "class orders, each by the mean of its seeds" if len(few) < len(differences) else "seeds and class orders"
    pairs = f"{over} ({listed(few)}: seeds, too)" if few and len(few) < len(differences) else over
    remark = f"Difference of {what} from {baseline}, paired over the same {pairs}, with {interval}"
    if not comparisons:
        return f"{remark}. Bounds are not tested."
    apart = "" if comparisons == 1 else " (the line on the best makes one claim, and is not)"
    remark += f"; p: Wilcoxon signed-rank test, Holm-corrected for {tests}{apart}."
    if (differences["p"].notna() & differences["p_holm"].isna()).any():
        remark += " A dash: a bound, or too few pairs to be tested, and not counted."
    if differences["smallest_p"].min() > SIGNIFICANCE:
        needed, most = pairs_needed(comparisons), int(differences["n"].max())
        remark += (
            f" No p can reach {SIGNIFICANCE:g} with {most} pair{'s' * (most != 1)}: that takes {needed}, as "
            f"--class-orders {needed}."
        )
    elif few:
        remark += _scope(differences.loc[few], baseline, blocks)
    return remark


def _scope(differences: pd.DataFrame, baseline: str, blocks: pd.DataFrame) -> str:
    """Say of which class orders differences over seeds speak, and on which one that is told turns around."""
    if "class_order" not in blocks.index.names:
        return ""
    gaps = blocks[differences.index].sub(blocks[baseline], axis=0)
    means = gaps.groupby(level="class_order").mean().dropna(how="all")
    told = differences["p_holm"] < SIGNIFICANCE
    turned = [
        f"{label} ({', '.join(map(str, means.index[means[label] * differences.loc[label, 'difference'] < 0]))})"
        for label in differences.index[told]
        if (means[label] * differences.loc[label, "difference"] < 0).any()
    ]
    where = "this class order" if len(means) == 1 else f"these {len(means)} class orders"
    return f" Over seeds they speak of {where}" + (f"; turned around: {listed(turned)}." if turned else ".")


def benchmarks_remarks(keys: pd.DataFrame, *, one_table_each: bool) -> tuple[str, ...]:
    """Say that there are several benchmarks, and which methods have no job on one that others have."""
    labels = sorted(keys["benchmark"].unique())
    if len(labels) < 2:
        return ()
    remarks = []
    if one_table_each:
        remarks.append(
            f"{len(labels)} benchmarks or settings of one, a table each: --columns benchmark puts them side by side."
        )
    methods = set(keys["method"])
    for label in labels:
        absent = methods - set(keys.loc[keys["benchmark"] == label, "method"])
        if absent:
            remarks.append(f"No job on {label}: {listed(sorted(absent))}.")
    return tuple(remarks)


def interval_remark(rows: pd.DataFrame, keys: Iterable[str], blocks: pd.DataFrame) -> str:
    """Say of what intervals speak where it is not of other class orders, and what those hold that cannot hold 95 %.

    Args:
        rows: Rows of a table.
        keys: Its columns of figures.
        blocks: Its blocks.
    """
    orders = blocks.index.unique("class_order") if "class_order" in blocks.index.names else ()
    scope = ""
    if not any(rows[f"{key}_level"].notna().any() for key in keys):
        return ""
    if 0 < len(orders) < pairs_needed():
        where = "this class order" if len(orders) == 1 else f"these {len(orders)} class orders"
        scope = f"Intervals speak of other seeds on {where}, not of another order."
    held = {
        int(n): level
        for key in keys
        for n, level in zip(rows[f"{key}_n"], rows[f"{key}_level"], strict=True)
        if level < CONFIDENCE
    }
    if not held:
        return scope
    told = ", ".join(f"{100 * held[n]:.0f} % with {n} jobs" for n in sorted(held))
    which = "They" if scope else "Intervals"
    held_from = f"{which} hold 95 % from {pairs_needed()} jobs on; below they are the range of the jobs: {told}."
    return f"{scope} {held_from}".lstrip()
