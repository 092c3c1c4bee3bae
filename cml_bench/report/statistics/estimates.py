"""How sure a mean is, over the seeds and class orders that were run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

CONFIDENCE: Final = 0.95
SIGNIFICANCE: Final = 0.05
FEWEST_SEEDS: Final = 3
"""Below so many seeds a table warns."""

_RESAMPLES: Final = 9999

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


def pairs_needed(comparisons: int = 1) -> int:
    """Return how many pairs it takes before the smallest of so many p-values can reach 0.05 after Holm: 6 for one."""
    return math.ceil(1 - math.log2(SIGNIFICANCE / comparisons))


def bootstrap_tail(n: int) -> float:
    """Return what share of resampled means lies beyond each end of a 95 % interval from n values: below 2.5 %.

    The expanded percentiles of Hesterberg 2015 (arXiv 1411.5279): those of a normal distribution that are as far out
    as the ends of Student's interval.

    Args:
        n: Number of values, two or more.
    """
    return float(stats.norm.sf(math.sqrt(n / (n - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)))


def _intervals(samples: Values) -> tuple[Values, Values, float]:
    """Return lower ends, upper ends and confidence level for the rows of (samples, n) values."""
    n = samples.shape[1]
    if n < 2:
        nothing = np.full(len(samples), math.nan)
        return nothing, nothing, math.nan
    if n < pairs_needed():
        return samples.min(axis=1), samples.max(axis=1), 1 - 2.0 ** (1 - n)
    interval = stats.bootstrap(
        (samples,),
        np.mean,
        axis=-1,
        vectorized=True,
        method="percentile",
        n_resamples=_RESAMPLES,
        confidence_level=1 - 2 * bootstrap_tail(n),
        rng=np.random.default_rng(0),
        # So many resamples at once keep memory small for any number of jobs.
        batch=500,
    ).confidence_interval
    return interval.low, interval.high, CONFIDENCE
