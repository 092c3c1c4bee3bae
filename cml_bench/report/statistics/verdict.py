"""Is the lead real? One line under a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from cml_bench.errors import CmlBenchError
from cml_bench.report.statistics.differences import DECIMALS, Difference, has_orders_enough, judged, one_a_pair
from cml_bench.report.statistics.estimates import FEWEST_SEEDS, SIGNIFICANCE, pairs_needed
from cml_bench.report.statistics.ranks import FEWEST_BLOCKS, Ranking, rank_methods
from cml_bench.report.statistics.rivals import fair_part

_NAMED: Final = 3


@dataclass(frozen=True)
class Verdict:
    """Which method leads, and whether that can be told from chance.

    Attributes:
        text: One line for readers.
        best: The leading method; None if there is nothing to compare.
        real: Whether the lead over every other method is told from chance.
    """

    text: str
    best: str | None = None
    real: bool = False

    def __str__(self) -> str:
        """Return the line."""
        return self.text


def verdict(blocks: pd.DataFrame, what: str, *, lower_is_better: bool = False, scale: float = 100.0) -> Verdict:
    """Say whether the best method is better than each other one, by paired tests on the same seeds and class orders.

    Only methods that have the blocks of the others compete, see ``fair_part``. The lead is called real if the
    difference from every other competitor has a signed-rank p-value below 0.05 and an interval above zero. No
    correction for the number of methods is needed for this one claim, although the data chose the method: to call the
    wrong one best, all tests must err together, and if two are equal at the top, each is called better with half of
    5 %.

    Seeds on one class order are alike: nine jobs on three orders say little about a fourth. So six class orders or more
    are the pairs, each by the mean of its seeds. Below six (no test over orders alone can find anything) seeds are
    pairs, too, the lead must hold on each class order, and the line says that it speaks of these.

    Source: Gutmann and Maymin 1987, "Is the Selected Population the Best?", Annals of Statistics 15.

    Args:
        blocks: One row a block, its index levels named (``class_order``, ``seed`` ...), one column a method; NaN where
            a job is missing.
        what: What the figures are, in words.
        lower_is_better: Whether the lowest figure is the best.
        scale: Factor of printed differences.
    """
    rivals, apart = _rivals(blocks)
    speaks_of_orders = has_orders_enough(rivals)
    rivals = one_a_pair(rivals)
    if rivals.shape[1] < 2:
        return Verdict(f"No verdict on {what}: there are no two to compare on as many jobs.{apart}")
    sign = -1.0 if lower_is_better else 1.0
    means = (sign * rivals.mean()).sort_values(ascending=False, kind="stable")
    best = str(means.index[0])
    others = [str(other) for other in means.index[1:]]
    leads = [sign * (rivals[best] - rivals[other]) for other in others]
    found = dict(zip(others, judged(leads), strict=True))
    second, lead = next(iter(found.items()))
    among = " of those compared" if apart else ""
    side = "below" if lower_is_better else "above"
    opening = f"Best {what}{among}: {best}, {_size(lead, scale)} {side} {second}"
    n = len(rivals)
    if n < pairs_needed():
        pairs = "1 pair" if n == 1 else f"{n} pairs"
        remedy = f"A test needs {pairs_needed()} pairs: run --class-orders {pairs_needed()}."
        return Verdict(f"{opening} over {pairs}: cannot be told apart. {remedy}{apart}", best)
    evidence = f"{_interval(lead, scale)} over {_pairs(rivals)}, Wilcoxon {format_p(lead.p)}"
    doubtful = [other for other, difference in found.items() if not _is_told(difference)]
    if doubtful:
        names = listed([f"{other} ({format_p(found[other].p)})" if other != second else other for other in doubtful])
        return Verdict(f"{opening} ({evidence}): cannot be told apart from {names}.{apart}", best)
    turned = "" if speaks_of_orders else _turned(sign * rivals, best)
    if turned:
        return Verdict(f"{opening} ({evidence}): cannot be told apart from {turned}.{apart}", best)
    orders = _count(rivals, "class_order")
    where = " on this class order" if orders == 1 else f" on these {orders} class orders"
    scope = where if orders and not speaks_of_orders else ""
    return Verdict(f"{opening} ({evidence}): real{scope}.{apart}", best, real=True)


def rank_verdict(blocks: pd.DataFrame, what: str, *, lower_is_better: bool = False, scale: float = 100.0) -> Verdict:
    """Say which method ranks first over blocks of several benchmarks, and which others it cannot be told apart from.

    Friedman's test must find a difference at all, then Nemenyi's tells the best from others; see ``rank_methods``. As
    in ``verdict``, only methods compete that have the blocks of the others; of two there are no ranks to speak of, and
    ``verdict`` says which is better. Blocks of one benchmark are alike, so that the line speaks of these benchmarks.

    Args:
        blocks: One row a block with a level ``benchmark``, one column a method; NaN where a job is missing.
        what: What the figures are, in words.
        lower_is_better: Whether the lowest figure ranks first.
        scale: Factor of printed differences.
    """
    rivals, apart = _rivals(blocks)
    if rivals.shape[1] <= 2:
        return verdict(blocks, what, lower_is_better=lower_is_better, scale=scale)
    rivals = one_a_pair(rivals)
    shared = len(rivals)
    if shared < FEWEST_BLOCKS:
        told = "1 job" if shared == 1 else f"{shared} jobs"
        return Verdict(
            f"No verdict on {what}: ranks take {FEWEST_BLOCKS} jobs of the same benchmark, class order and seed, and "
            f"these {rivals.shape[1]} methods share {told}.{apart}"
        )
    try:
        ranking = rank_methods(rivals, lower_is_better=lower_is_better)
    except CmlBenchError as error:
        return Verdict(f"No verdict on {what}: {error}.{apart}")
    # Jobs on the same images are no evidence about others: the reader should see how many of each there are.
    benchmarks = _count(rivals, "benchmark")
    return _rank_verdict(ranking, what, f"{benchmarks} benchmark{'s' if benchmarks > 1 else ''}", apart)


def few_seeds(blocks: pd.DataFrame) -> str:
    """Return a warning if there are fewer than three seeds behind a table, and no class orders in their place."""
    there = blocks.dropna(how="all")
    seeds = _count(there, "seed")
    if has_orders_enough(there) or not 0 < seeds < FEWEST_SEEDS:
        return ""
    orders = _count(there, "class_order")
    told = ("1 seed" if seeds == 1 else f"{seeds} seeds") + (f" on {orders} class orders" if orders > 1 else "")
    advice = f"Run --class-orders {pairs_needed()}: more seeds would speak of no other order"
    return f"Warning: {told} only; means and deviations of so few say little. {advice}."


def format_p(p: float) -> str:
    """Return a p-value in a sentence, as ``p = 0.004`` or ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p_cell(p)}"


def p_cell(p: float) -> str:
    """Return a p-value in a table, as ``0.004``, ``<0.001`` or a dash for none."""
    if math.isnan(p):
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def listed(names: Sequence[str]) -> str:
    """Return the first few names and how many more there are."""
    shown, rest = names[:_NAMED], len(names) - _NAMED
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")


def _rivals(blocks: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the ``fair_part``, and a sentence that names who is not in it."""
    rivals, absent = fair_part(blocks)
    told = f" Not compared, for lack of jobs: {listed(absent)}." if absent else ""
    more = blocks[rivals.columns].notna().any(axis=1).sum() > len(rivals) > 0
    return rivals, f"{told} Jobs that not all of them have are left out." if more else told


def _rank_verdict(ranking: Ranking, what: str, benchmarks: str, apart: str) -> Verdict:
    best = str(ranking.average_ranks.index[0])
    ranks = ranking.average_ranks
    opening = (
        f"Best average rank of {what}: {best} ({ranks.iloc[0]:.2g}, next {ranks.index[1]} {ranks.iloc[1]:.2g}) over "
        f"{ranking.n_blocks} blocks of {benchmarks}, Friedman {format_p(ranking.p)}"
    )
    alike = ranking.together_with(best)
    if not alike:
        return Verdict(f"{opening}: real on these {benchmarks}, by Nemenyi's test.{apart}", best, real=True)
    return Verdict(f"{opening}: cannot be told apart from {listed(alike)}.{apart}", best)


def _is_told(difference: Difference) -> bool:
    return difference.p < SIGNIFICANCE and difference.estimate.low > 0


def _turned(rivals: pd.DataFrame, best: str) -> str:
    """Return which methods lead on some class order, and on which; nothing if none does."""
    if "class_order" not in rivals.index.names:
        return ""
    means = rivals.groupby(level="class_order").mean()
    ahead = means.gt(means[best] + 10**-DECIMALS, axis=0)
    told = [f"{method}, which leads on {listed([*means.index[rows]])}" for method, rows in ahead.items() if rows.any()]
    return "; ".join(told[:_NAMED])


def _size(difference: Difference, scale: float) -> str:
    return f"{difference.estimate.mean * scale:.1f}"


def _interval(difference: Difference, scale: float) -> str:
    ends = difference.estimate
    return f"{100 * ends.level:.0f} % interval {ends.low * scale:.1f} to {ends.high * scale:.1f}"


def _pairs(blocks: pd.DataFrame) -> str:
    """Return ``9 pairs``, and how they come about if they are a whole grid of seeds and class orders, or orders."""
    seeds, orders = _count(blocks, "seed"), _count(blocks, "class_order")
    if orders == len(blocks):
        return f"{orders} class orders"
    if orders * seeds != len(blocks):
        return f"{len(blocks)} pairs"
    return f"{len(blocks)} pairs, {seeds} seeds x {orders} class order{'s' if orders > 1 else ''}"


def _count(blocks: pd.DataFrame, level: str) -> int:
    return int(np.unique(blocks.index.get_level_values(level).astype(str)).size) if level in blocks.index.names else 0
