"""Ranks by hand, Friedman's and Nemenyi's tests by their formulas and by the tables of Demsar 2006."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cml_bench.errors import CmlBenchError
from cml_bench.report.statistics.ranks import rank_methods


def blocks(rows: list[list[float]], methods: str = "abcdefghij") -> pd.DataFrame:
    index = pd.MultiIndex.from_product([["digits"], range(len(rows))], names=["benchmark", "seed"])
    return pd.DataFrame(rows, index=index, columns=list(methods[: len(rows[0])]))


def test_ranks_counted_by_hand() -> None:
    rows = [[0.9, 0.5, 0.5, 0.1], [0.7, 0.8, 0.2, 0.2], [0.9, 0.3, 0.3, 0.3]]
    ranking = rank_methods(blocks(rows))
    assert dict(ranking.average_ranks) == {
        "a": pytest.approx((1 + 2 + 1) / 3),
        "b": pytest.approx((2.5 + 1 + 3) / 3),
        "c": pytest.approx((2.5 + 3.5 + 3) / 3),
        "d": pytest.approx((4 + 3.5 + 3) / 3),
    }
    assert list(ranking.average_ranks.index) == ["a", "b", "c", "d"]
    turned = rank_methods(blocks(rows), lower_is_better=True)
    assert list(turned.average_ranks.index) == ["d", "c", "b", "a"]
    assert turned.p == pytest.approx(ranking.p)


def test_rounding_of_the_machine_is_a_tie() -> None:
    ranking = rank_methods(blocks([[0.1 + 0.2, 0.3, 0.1], [0.3, 0.1 + 0.2, 0.1]]))
    assert dict(ranking.average_ranks) == {"a": 1.5, "b": 1.5, "c": 3.0}


@pytest.mark.parametrize(
    ("k", "quantile"),
    [(3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (8, 3.031), (9, 3.102), (10, 3.164)],
)
def test_the_critical_difference_is_that_of_the_published_table(k: int, quantile: float) -> None:
    n = 12
    ranking = rank_methods(blocks(np.random.default_rng(k).random((n, k)).tolist()))
    assert ranking.critical_difference == pytest.approx(quantile * math.sqrt(k * (k + 1) / (6 * n)), abs=1e-3)
    # What lies further apart than that has a p-value below 0.05, and nothing else has.
    apart = np.abs(np.subtract.outer(ranking.average_ranks.to_numpy(), ranking.average_ranks.to_numpy()))
    assert np.array_equal(ranking.p_values.to_numpy() < 0.05, apart > ranking.critical_difference)


@settings(max_examples=40, deadline=None)
@given(
    figures=st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4), min_size=2, max_size=8),
    order=st.permutations(range(4)),
)
def test_tests_are_their_formulas_and_do_not_depend_on_order(figures: list[list[int]], order: list[int]) -> None:
    table = blocks(figures)
    ranking = rank_methods(table)
    ranks = np.array([[1 + sum(b > a for b in row) + (row.count(a) - 1) / 2 for a in row] for row in figures])
    n, k = ranks.shape
    # Friedman's statistic with Conover's correction for ties.
    spread = np.sum(ranks**2) - n * k * (k + 1) ** 2 / 4
    expected = (k - 1) * np.sum((ranks.sum(axis=0) - n * (k + 1) / 2) ** 2) / spread if spread else 0.0
    assert ranking.statistic == pytest.approx(expected)
    assert ranking.p == pytest.approx(stats.chi2.sf(expected, k - 1))
    for (i, one), (j, other) in itertools.permutations(enumerate(table.columns), 2):
        apart = abs(ranks[:, i].mean() - ranks[:, j].mean())
        q = apart / math.sqrt(k * (k + 1) / (12 * n))
        assert ranking.p_values.loc[one, other] == pytest.approx(stats.studentized_range.sf(q, k, np.inf), abs=1e-6)
    shuffled = rank_methods(table.iloc[:, order])
    assert shuffled.statistic == pytest.approx(ranking.statistic)
    assert shuffled.average_ranks.to_dict() == ranking.average_ranks.to_dict()


def test_friedman_agrees_with_permuting_within_blocks() -> None:
    rows = [[3, 2, 1], [3, 2, 1], [3, 1, 2], [2, 3, 1], [3, 2, 1], [3, 2, 1]]
    observed = rank_methods(blocks(rows)).statistic
    orders = [np.array(order) for order in itertools.permutations((1, 2, 3))]
    sums = np.zeros((1, 3))
    for _ in rows:
        sums = np.concatenate([sums + order for order in orders])
    drawn = 12 / (6 * 3 * 4) * (sums**2).sum(axis=1) - 3 * 6 * 4
    exact = np.mean(drawn >= observed - 1e-9)
    assert rank_methods(blocks(rows)).p == pytest.approx(exact, abs=0.01)


def test_what_is_left_out_is_named() -> None:
    rows = [[3, 2, 1, math.nan, math.nan], [3, 2, 1, 5, math.nan], [3, 2, 1, 5, math.nan]]
    ranking = rank_methods(blocks(rows))
    assert ranking.n_blocks == 2
    assert list(ranking.average_ranks.index) == ["d", "a", "b", "c"]
    assert ranking.left_out == (
        "d lacks 1 of 3 blocks, left out for all: benchmark digits, seed 0",
        "e has no figure and is not ranked",
    )


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([[1, 2], [2, 1]], "these are 2 on 2"),
        ([[1, 2, 3]], "these are 3 on 1"),
        ([[1, 2, math.nan], [1, 2, 3], [1, math.nan, 2]], r"3 on 1 \(b lacks 1 of 3 .* seed 2; c lacks 1 of 3"),
    ],
)
def test_too_little_to_rank(rows: list[list[float]], told: str) -> None:
    with pytest.raises(CmlBenchError, match=told):
        rank_methods(blocks(rows))


def test_nothing_is_told_apart_where_the_whole_is_not() -> None:
    tied = rank_methods(blocks([[1, 1, 1]] * 5))
    assert (tied.p, tied.statistic) == (1.0, 0.0)
    assert tied.together_with("a") == ("b", "c")
    clear = rank_methods(blocks([[3, 2, 1]] * 12))
    assert clear.together_with("a") == ()
    assert clear.together_with("b") == ()
    near = rank_methods(blocks([[3, 2, 1], [2, 3, 1]] * 6))
    assert near.together_with("a") == ("b",)
