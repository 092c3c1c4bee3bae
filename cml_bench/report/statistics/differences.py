"""How sure a difference between two methods is, on the same seeds and class orders."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from cml_bench.errors import CmlBenchError, suggest
from cml_bench.report.statistics.estimates import SIGNIFICANCE, Estimate, Values, estimates
from cml_bench.report.statistics.units import orders_enough

DECIMALS: Final = 12
"""What is ranked is rounded to so many: the rounding of the machine would break ties and make zeros differ."""

_PAIR: Final = ("benchmark", "class_order", "seed")
"""What tells pairs apart: jobs that share all three share images, order of arrival and draws, and are one witness."""


@dataclass(frozen=True)
class Difference:
    """One method minus another on the same seeds and class orders.

    Attributes:
        estimate: The mean of the paired differences with its interval; ``n`` is the number of pairs.
        p: Two-sided p-value of the Wilcoxon signed-rank test; NaN without pairs.
        smallest_p: The least p-value that so many pairs could give.
    """

    estimate: Estimate
    p: float
    smallest_p: float


def judged(samples: Sequence[npt.ArrayLike]) -> list[Difference]:
    """Return how much two methods differ, for each sample of differences on the same seeds and class orders.

    The p-value is that of scipy's signed-rank test: exact up to 50 pairs, with ties or zeros among the differences by
    counting all sign changes up to 13 pairs and by the normal approximation beyond. Zeros are left out, as Wilcoxon
    did; if all differences are zero, p is 1.

    Args:
        samples: Each (n,) differences of figures; NaN where a job is missing.
    """
    differences = [np.asarray(sample, dtype=np.float64).round(DECIMALS) for sample in samples]
    differences = [each[~np.isnan(each)] for each in differences]
    return [
        Difference(found, _signed_rank_p(each), smallest_p(len(each)))
        for found, each in zip(estimates(differences), differences, strict=True)
    ]


def one_a_pair(blocks: pd.DataFrame) -> pd.DataFrame:
    """Return blocks in which those of the same benchmark, class order and seed are one, by their mean.

    Two heads on one seed are no two pairs of strategies: their jobs share images and draws, and counted twice they
    would make any difference look real. So would seeds on one class order, which are much alike: where there are orders
    enough for a test, the orders are the pairs. With fewer, there is no test but over seeds as well, and ``verdict``
    says of which orders it speaks.

    Args:
        blocks: One row a block, its index levels named, one column a competitor; NaN where a job is missing.

    Returns:
        One row a pair; NaN where one of the averaged is.
    """
    levels = [name for name in blocks.index.names if name in _PAIR]
    if has_orders_enough(blocks):
        levels.remove("seed")
    if not blocks.index.to_frame(index=False)[levels].duplicated().any():
        return blocks
    means, whole = blocks.groupby(level=levels).mean(), blocks.notna().groupby(level=levels).all()
    return means.where(whole)


def has_orders_enough(blocks: pd.DataFrame) -> bool:
    """Return whether the class orders of these blocks are the pairs: whether they are ``orders_enough``."""
    levels = blocks.index.names
    if "seed" not in levels or "class_order" not in levels:
        return False
    return orders_enough(blocks.index.get_level_values("class_order"))


def differences_from(blocks: pd.DataFrame, baseline: str, known: Collection[str] = ()) -> pd.DataFrame:
    """Compare every method with one, each over the blocks that both have, and correct for their number.

    Blocks that share benchmark, class order and seed are one pair, by the mean of their differences; with six class
    orders or more, so are those that share benchmark and class order.

    A test that has too few pairs to find anything, whatever they are, is not counted among those that are corrected
    for, and has no corrected p-value (Tarone 1990, "A modified Bonferroni method for discrete data", Biometrics 46);
    unless that holds for all of them.

    Args:
        blocks: One row a block (seed x class order, perhaps x benchmark x head ...), one column a method; NaN where a
            job is missing.
        baseline: The column to compare with.
        known: Columns whose place nobody asks about, bounds say: their differences are shown, and not tested.

    Returns:
        A frame indexed by the other columns, in their order: ``difference``, ``deviation``, ``low``, ``high``,
        ``level``, ``n`` (pairs), ``p``, ``p_holm`` (Holm's correction over the rows that are tested) and ``smallest_p``
        (the least that ``p_holm`` could be with so many pairs: above 0.05, nothing can be told from chance).

    Raises:
        CmlBenchError: If the baseline is no column.
    """
    if baseline not in blocks:
        raise CmlBenchError(f"baseline {baseline!r} is not in the table; {suggest(baseline, map(str, blocks))}")
    others = [column for column in blocks if column != baseline]
    # What only one of two has says nothing of them, and must not take a pair from others.
    gaps = [blocks[[other]].sub(blocks[baseline], axis=0).dropna() for other in others]
    found = judged([one_a_pair(gap).to_numpy().ravel() for gap in gaps])
    table = pd.DataFrame(
        [
            {
                "difference": each.estimate.mean,
                "deviation": each.estimate.deviation,
                "low": each.estimate.low,
                "high": each.estimate.high,
                "level": each.estimate.level,
                "n": each.estimate.n,
                "p": each.p,
                "smallest_p": each.smallest_p,
            }
            for each in found
        ],
        index=pd.Index(others, name=blocks.columns.name),
        columns=["difference", "deviation", "low", "high", "level", "n", "p", "smallest_p"],
    )
    asked = pd.Series(~table.index.isin(known), table.index)
    able = asked & (table["smallest_p"] <= SIGNIFICANCE)
    tested = able if able.any() else asked
    table.insert(7, "p_holm", holm(table["p"].where(tested).to_numpy(dtype=np.float64)))
    table["smallest_p"] = table["smallest_p"].where(tested)
    # A corrected p grows with each of the others, so it is least where all are.
    table["smallest_p"] = holm(table["smallest_p"].to_numpy(dtype=np.float64))
    return table


def holm(p_values: npt.ArrayLike) -> Values:
    """Return Holm's step-down correction of the p-values that are not NaN; these stay NaN.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    # Three lines, and not statsmodels' function, because that collects garbage each time: 0.1 s a table.
    corrected = np.array(p_values, dtype=np.float64)
    order = np.argsort(corrected)[: np.count_nonzero(~np.isnan(corrected))]
    stepped = np.maximum.accumulate(corrected[order] * np.arange(len(order), 0, -1))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def smallest_p(pairs: int) -> float:
    """Return the least two-sided p-value that the exact signed-rank test of so many pairs can give: 2 / 2^n."""
    return min(1.0, 2.0 ** (1 - pairs)) if pairs else math.nan


def _signed_rank_p(differences: Values) -> float:
    if not len(differences):
        return math.nan
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0
