"""How sure a mean is, and a difference between two methods, over the seeds and class orders that were run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from cml_bench.errors import CmlBenchError, suggest

CONFIDENCE: Final = 0.95
SIGNIFICANCE: Final = 0.05
FEWEST_SEEDS: Final = 3
"""Below so many seeds a table warns."""

_RESAMPLES: Final = 9999
DECIMALS: Final = 12
"""What is ranked is rounded to so many: the rounding of the machine would break ties and make zeros differ."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over jobs, and how far it may be off.

    Attributes:
        mean: Mean; NaN of no values.
        deviation: Sample standard deviation (divisor n - 1); NaN of fewer than two values.
        low: Lower end of the interval for the mean; NaN of fewer than two values.
        high: Upper end.
        level: Confidence that the interval can hold: 0.95 from six values on, less below; NaN of fewer than two.
        n: Number of values.
    """

    mean: float
    deviation: float
    low: float
    high: float
    level: float
    n: int


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


def estimate(values: npt.ArrayLike) -> Estimate:
    """Return mean, deviation and interval of the values that are not NaN.

    From six values on the interval is a percentile bootstrap of the mean (scipy, 9,999 resamples drawn with a private
    generator, so that the same values give the same interval). Its percentiles are moved outwards to those that make
    it right for normal values of this number, because the plain one holds but 86 % with six of them and 90 % with nine
    (source: Hesterberg 2015, "What Teachers Should Know About the Bootstrap", arXiv 1411.5279, the expanded percentile
    interval; here 93 % and 95 %).

    Below six values no resampling can hold 95 %: a mean of resampled values never leaves their range, and the range of
    n values misses the centre of a symmetric distribution with probability 2^(1-n). The interval is then the range, and
    its ``level`` says what that holds: 50 %, 75 %, 88 % and 94 % with two to five values.

    Jobs count as independent. What the interval speaks of is another run of the same kind: with one class order, of
    other seeds on that order and of nothing else.

    Args:
        values: One figure a job, any shape.
    """
    return estimates([np.asarray(values, dtype=np.float64).ravel()])[0]


def estimates(samples: Sequence[npt.ArrayLike]) -> list[Estimate]:
    """Return ``estimate`` of each sample; many of the same size take little longer than one."""
    defined = [np.asarray(sample, dtype=np.float64) for sample in samples]
    defined = [sample[~np.isnan(sample)] for sample in defined]
    intervals: dict[int, tuple[float, float, float]] = {}
    for n in sorted({len(sample) for sample in defined}):
        places = [i for i, sample in enumerate(defined) if len(sample) == n]
        lows, highs, level = _intervals(np.stack([defined[i] for i in places]))
        intervals |= {i: (low, high, level) for i, low, high in zip(places, lows, highs, strict=True)}
    return [
        Estimate(
            mean=float(sample.mean()) if len(sample) else math.nan,
            deviation=float(sample.std(ddof=1)) if len(sample) > 1 else math.nan,
            low=float(intervals[i][0]),
            high=float(intervals[i][1]),
            level=intervals[i][2],
            n=len(sample),
        )
        for i, sample in enumerate(defined)
    ]


def paired_difference(values: npt.ArrayLike, baseline: npt.ArrayLike) -> Difference:
    """Return how much two methods differ on the same seeds and class orders.

    The p-value is that of scipy's signed-rank test: exact up to 50 pairs, with ties or zeros among the differences by
    counting all sign changes up to 13 pairs and by the normal approximation beyond. Zeros are left out, as Wilcoxon
    did; if all differences are zero, p is 1.

    Args:
        values: (n,) figures; NaN where a job is missing.
        baseline: (n,) figures of the other method on the same seeds and class orders, in the same order.
    """
    return paired_differences([values], baseline)[0]


def paired_differences(methods: Sequence[npt.ArrayLike], baseline: npt.ArrayLike) -> list[Difference]:
    """Return ``paired_difference`` of each method from the same baseline."""
    figures = np.asarray(baseline, dtype=np.float64)
    differences = [(np.asarray(values, dtype=np.float64) - figures).round(DECIMALS) for values in methods]
    differences = [each[~np.isnan(each)] for each in differences]
    return [
        Difference(found, _signed_rank_p(each), smallest_p(len(each)))
        for found, each in zip(estimates(differences), differences, strict=True)
    ]


def differences_from(blocks: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Compare every method with one, each over the blocks that both have, and correct for their number.

    Args:
        blocks: One row a block (seed x class order, perhaps x benchmark), one column a method; NaN where a job is
            missing.
        baseline: The column to compare with.

    Returns:
        A frame indexed by the other columns, in their order: ``difference``, ``deviation``, ``low``, ``high``,
        ``level``, ``n`` (pairs), ``p``, ``p_holm`` (Holm's correction over all rows with a p-value) and ``smallest_p``
        (the least that ``p_holm`` could be with so many pairs: above 0.05, nothing can be told from chance).

    Raises:
        CmlBenchError: If the baseline is no column.
    """
    if baseline not in blocks:
        raise CmlBenchError(f"baseline {baseline!r} is not in the table; {suggest(baseline, map(str, blocks))}")
    others = [column for column in blocks if column != baseline]
    found = paired_differences([blocks[other] for other in others], blocks[baseline])
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
    table.insert(7, "p_holm", holm(table["p"].to_numpy(dtype=np.float64)))
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


def pairs_needed(comparisons: int = 1) -> int:
    """Return how many pairs it takes before the smallest of so many p-values can reach 0.05 after Holm: 6 for one."""
    return math.ceil(1 - math.log2(SIGNIFICANCE / comparisons))


def _intervals(samples: Values) -> tuple[Values, Values, float]:
    """Return lower ends, upper ends and confidence level for the rows of (samples, n) values."""
    n = samples.shape[1]
    if n < 2:
        nothing = np.full(len(samples), math.nan)
        return nothing, nothing, math.nan
    if n < pairs_needed():
        return samples.min(axis=1), samples.max(axis=1), 1 - 2.0 ** (1 - n)
    expanded = math.sqrt(n / (n - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
    interval = stats.bootstrap(
        (samples,),
        np.mean,
        axis=-1,
        vectorized=True,
        method="percentile",
        n_resamples=_RESAMPLES,
        confidence_level=1 - 2 * stats.norm.sf(expanded),
        rng=np.random.default_rng(0),
        # So many resamples at once keep memory small for any number of jobs.
        batch=500,
    ).confidence_interval
    return interval.low, interval.high, CONFIDENCE


def _signed_rank_p(differences: Values) -> float:
    if not len(differences):
        return math.nan
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0
