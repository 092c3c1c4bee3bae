"""Blocks: jobs that differ in one key alone, and who competes within them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pandas as pd

from cml_bench.report.statistics.rivals import fair_part
from cml_bench.report.tables.keys import BLOCK, RANKED


def comparable(keys: pd.DataFrame, row: str) -> tuple[pd.Index[int], tuple[str, ...]]:
    """Choose the jobs that a fair average of each row is over.

    A row that is a part of methods, or a condition, averages over whole methods. A method that only one row has would
    speak for that row alone, so only blocks count that at least two rows have. A row that is a method averages seeds
    and class orders, all of which count. Where no two rows share a block, nothing is left out (and nothing compared).

    Args:
        keys: What ``job_keys`` returned, for finished jobs.
        row: One of ``KEYS``.

    Returns:
        The index of the jobs that count, and the methods that do not.
    """
    if row == "method" or keys[row].nunique() < 2:
        return keys.index, ()
    shared = keys.groupby(list(BLOCK[row]))[row].transform("nunique") > 1
    if not shared.any():
        return keys.index, ()
    alone = set(keys.loc[~shared, "method"]) - set(keys.loc[shared, "method"])
    return keys.index[shared], tuple(sorted(alone))


def even_cells(keys: pd.DataFrame, row: str, across: str, by: str) -> tuple[pd.Index[int], bool]:
    """Choose the jobs that the cells of a table may be compared over: those of methods that each of them has.

    Cells that average over methods would else differ by what they average over: a criterion that was tried with good
    strategies alone would look good. Where either rows or columns are conditions (benchmarks, say), the cells of one
    condition are compared; else all of them. Cells without a job are left aside, and where the others share no method
    nothing is left out. As for rows that are methods, all seeds and class orders count.

    Args:
        keys: What ``job_keys`` returned, for finished jobs.
        row: One of ``KEYS``.
        across: Another one.
        by: That of the two which competes; ``row`` where both or neither do.

    Returns:
        The index of the jobs that count, and whether some cells average different methods all the same.
    """
    others = [key for key in BLOCK[by] if key not in (row, across, "class_order", "seed")]
    if "method" in (row, across) or not others:
        return keys.index, False
    conditions = [key for key in (row, across) if key not in RANKED]
    place = keys[conditions[0]] if len(conditions) == 1 else pd.Series("", index=keys.index)
    alike = keys[others].assign(place=place, cell=keys.groupby([row, across]).ngroup())
    cells_with_it = alike.groupby([*others, "place"])["cell"].transform("nunique")
    shared = cells_with_it == alike.groupby("place")["cell"].transform("nunique")
    some = shared.groupby(place).transform("any")
    return keys.index[shared | ~some], not some.all()


def make_blocks(keys: pd.DataFrame, figures: pd.Series[float], key: str) -> pd.DataFrame:
    """Return figures with one row a block and one column a value of the key; NaN where there is no job or figure."""
    cells = keys.assign(figure=figures).groupby([*BLOCK[key], key])["figure"].mean()
    return cells.unstack(key)


def by_images(blocks: pd.DataFrame, data: Mapping[str, str]) -> pd.DataFrame:
    """Return blocks in which the benchmarks of the same images are called the same, after these.

    The same images under other settings are no further evidence: their jobs share photos, seeds and class orders, and
    would make any difference look real.

    Args:
        blocks: What ``make_blocks`` returned.
        data: For each benchmark, as the blocks name it, what its images are known by.
    """
    if "benchmark" not in blocks.index.names or len(set(data.values())) == len(data):
        return blocks
    levels = blocks.index.to_frame(index=False)
    return blocks.set_axis(pd.MultiIndex.from_frame(levels.assign(benchmark=levels["benchmark"].map(data))))


def find_competitors(keys: pd.DataFrame, key: str, bounds: Collection[str] = ()) -> tuple[str, ...]:
    """Return the values of the key whose means are over the same jobs, unless there is but one such, or one block.

    These jobs are those of the ``fair_part``; who has more than the others is no competitor, for its mean is over more.

    Args:
        keys: What ``job_keys`` returned, for the finished jobs that count.
        key: One of ``KEYS``.
        bounds: Values that do not compete; blocks that they alone have count for nothing.
    """
    rivals = keys[~keys[key].isin(bounds)]
    present = rivals.groupby([*BLOCK[key], key]).size().unstack(key)
    shared, _ = fair_part(present)
    found = tuple(str(label) for label in shared if present[label].count() == len(shared))
    return found if len(found) > 1 and len(shared) > 1 else ()
