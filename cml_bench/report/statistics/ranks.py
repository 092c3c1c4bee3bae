"""Which method ranks first over many blocks, and which ranks lie too close to be told apart."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import stats

from cml_bench.errors import CmlBenchError
from cml_bench.report.statistics.differences import DECIMALS
from cml_bench.report.statistics.estimates import SIGNIFICANCE

_FEWEST_METHODS: Final = 3
FEWEST_BLOCKS: Final = 2


@dataclass(frozen=True)
class Ranking:
    """Average ranks with Friedman's test and Nemenyi's: all that a critical-difference diagram shows.

    Attributes:
        average_ranks: Method to average rank, best (lowest) first; ties share the mean of their ranks.
        n_blocks: Blocks ranked.
        statistic: Friedman's chi-square, corrected for ties.
        p: Its p-value: whether any method differs from any other at all.
        p_values: Square frame in the order of ``average_ranks``: Nemenyi's p-value for each pair of methods, corrected
            for their number; 1 on the diagonal.
        critical_difference: Average ranks that lie further apart than this differ at 0.05 by Nemenyi's test.
        left_out: One clause for each method that lacks blocks; these blocks are left out for all methods, and a method
            without any figure is left out itself.
    """

    average_ranks: pd.Series[float]
    n_blocks: int
    statistic: float
    p: float
    p_values: pd.DataFrame
    critical_difference: float
    left_out: tuple[str, ...]

    def together_with(self, method: str) -> tuple[str, ...]:
        """Return the methods that cannot be told apart from one, best first: all if Friedman's test finds nothing."""
        alike = (self.p_values[method] >= SIGNIFICANCE) | (self.p >= SIGNIFICANCE)
        return tuple(str(other) for other in alike.index[alike] if other != method)


def rank_methods(blocks: pd.DataFrame, *, lower_is_better: bool = False) -> Ranking:
    """Rank the methods within each block, and test whether their average ranks differ.

    Blocks of one benchmark share its images: with one benchmark the test speaks of seeds and class orders there, not
    of other data. Friedman's chi-square is an approximation that is good from about ten blocks on.

    Source: Demsar 2006, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7. Ranks and Friedman's
    test are scipy's, Nemenyi's test is that of scikit-posthocs.

    Args:
        blocks: One row a block (seed x class order x benchmark), one column a method; NaN where a job is missing.
        lower_is_better: Whether the lowest figure ranks first.

    Raises:
        CmlBenchError: If fewer than three methods or two blocks are left; it says what was left out.
    """
    some = blocks.drop(columns=[method for method in blocks if blocks[method].isna().all()])
    whole = some.dropna()
    left_out = _left_out(blocks)
    if whole.shape[1] < _FEWEST_METHODS or len(whole) < FEWEST_BLOCKS:
        told = f" ({'; '.join(left_out)})" if left_out else ""
        raise CmlBenchError(
            f"ranks need {_FEWEST_METHODS} methods on {FEWEST_BLOCKS} common blocks, these are {whole.shape[1]} on "
            f"{len(whole)}{told}: run what is missing, or choose methods that share more seeds and class orders"
        )
    # Imported here because it takes matplotlib along.
    from scikit_posthocs import posthoc_nemenyi_friedman

    figures = whole.to_numpy(dtype=np.float64).round(DECIMALS) * (1 if lower_is_better else -1)
    average = pd.Series(stats.rankdata(figures, axis=1).mean(axis=0), index=whole.columns).sort_values(kind="stable")
    order = list(average.index)
    numbered = pd.DataFrame(posthoc_nemenyi_friedman(figures).to_numpy(), index=whole.columns, columns=whole.columns)
    n, k = figures.shape
    # Where every block is one tie there is nothing to test, and scipy would divide by zero.
    tied = bool((figures == figures[:, :1]).all())
    statistic, p = (0.0, 1.0) if tied else stats.friedmanchisquare(*figures.T)
    quantile = stats.studentized_range.ppf(1 - SIGNIFICANCE, k, math.inf) / math.sqrt(2)
    return Ranking(
        average_ranks=average,
        n_blocks=n,
        statistic=float(statistic),
        p=float(p),
        p_values=numbered.loc[order, order],
        critical_difference=float(quantile * math.sqrt(k * (k + 1) / (6 * n))),
        left_out=tuple(left_out),
    )


def _left_out(blocks: pd.DataFrame) -> tuple[str, ...]:
    """Name every method that has not all blocks, and the blocks that it takes out of the ranking."""
    sentences = []
    for method in blocks:
        lacking = blocks.index[blocks[method].isna()]
        if len(lacking) == len(blocks):
            sentences.append(f"{method} has no figure and is not ranked")
        elif len(lacking):
            names = "; ".join(map(_name, lacking.to_frame().to_dict("records")))
            sentences.append(f"{method} lacks {len(lacking)} of {len(blocks)} blocks, left out for all: {names}")
    return tuple(sentences)


def _name(block: dict[Hashable, Any]) -> str:
    """Return a block in words, as ``class_order default, seed 1``."""
    return ", ".join(f"{key} {value}" for key, value in block.items())
