"""Means, intervals and paired tests against enumeration, simulation, other formulas and hand computation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from cml_bench.errors import CmlBenchError
from cml_bench.report.statistics.differences import differences_from, holm, judged, smallest_p
from cml_bench.report.statistics.estimates import estimate, estimates, pairs_needed

FIGURES = st.lists(st.integers(-8, 8).map(lambda tenth: tenth / 10), min_size=1, max_size=9)


def enumerated_signed_rank_p(differences: list[float]) -> float:
    """Return the two-sided p-value by trying every assignment of signs to the ranks of what is not zero."""
    kept = [difference for difference in differences if difference != 0]
    if not kept:
        return 1.0
    sizes = [abs(difference) for difference in kept]
    ranks = [1 + sum(b < a for b in sizes) + (sum(b == a for b in sizes) - 1) / 2 for a in sizes]
    sums = [
        sum(rank for rank, positive in zip(ranks, signs, strict=True) if positive)
        for signs in itertools.product((False, True), repeat=len(ranks))
    ]
    observed = sum(rank for rank, difference in zip(ranks, kept, strict=True) if difference > 0)
    below, above = sum(s <= observed for s in sums), sum(s >= observed for s in sums)
    return min(1.0, 2 * min(below, above) / len(sums))


@settings(max_examples=80, deadline=None)
@given(differences=FIGURES)
def test_the_signed_rank_test_is_exact_with_ties_and_zeros(differences: list[float]) -> None:
    (found,) = judged([differences])
    assert found.p == pytest.approx(enumerated_signed_rank_p(differences))
    assert found.smallest_p <= found.p + 1e-12


def test_machine_rounding_is_no_difference() -> None:
    # 0.3 - 0.1 and 0.2 differ in the last bit.
    found = judged([np.subtract([0.3, 0.3], [0.1 + 0.2, 0.3]), np.subtract([0.3] * 3, [0.1 + 0.2] * 3)])
    assert (found[0].p, found[1].estimate.mean) == (1.0, 0.0)


@pytest.mark.parametrize("n", range(2, 12))
def test_the_smallest_p_is_reached_when_all_pairs_agree(n: int) -> None:
    (found,) = judged([np.arange(1, n + 1)])
    assert found.p == pytest.approx(found.smallest_p) == smallest_p(n) == 2 / 2**n
    assert (found.p < 0.05) == (n >= pairs_needed())


def test_pairs_needed_for_several_comparisons() -> None:
    for comparisons in range(1, 30):
        needed = pairs_needed(comparisons)
        assert smallest_p(needed) * comparisons <= 0.05 < smallest_p(needed - 1) * comparisons
    assert (pairs_needed(), pairs_needed(8)) == (6, 9)


def test_an_estimate_counted_by_hand() -> None:
    found = estimate([0.5, math.nan, 0.7])
    assert (found.mean, found.deviation, found.n) == (pytest.approx(0.6), pytest.approx(0.1 * math.sqrt(2)), 2)
    assert (found.low, found.high, found.level) == (0.5, 0.7, 0.5)
    assert [estimate(range(n)).level for n in (3, 4, 5, 6)] == [0.75, 0.875, 0.9375, 0.95]
    alone, nothing = estimate([0.3]), estimate([])
    assert (alone.mean, alone.n) == (0.3, 1)
    assert np.isnan([alone.deviation, alone.low, alone.high, alone.level, nothing.mean, nothing.low]).all()


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.floats(0, 1, width=32), min_size=2, max_size=12), shift=st.floats(-1, 1))
def test_intervals_hold_the_mean_stay_in_range_and_move_along(values: list[float], shift: float) -> None:
    found = estimate(values)
    assert min(values) - 1e-9 <= found.low <= found.mean + 1e-9
    assert found.mean - 1e-9 <= found.high <= max(values) + 1e-9
    moved = estimate(np.array(values) + shift)
    assert (moved.low, moved.high) == (
        pytest.approx(found.low + shift, abs=1e-9),
        pytest.approx(found.high + shift, abs=1e-9),
    )
    assert found == estimate(values), "drawn anew, the interval is the same"


def test_estimates_together_are_those_one_by_one() -> None:
    generator = np.random.default_rng(0)
    samples = [generator.normal(size=n) for n in (9, 2, 0, 6, 9, 1, 6)]
    samples[0][3] = math.nan
    for together, alone in zip(estimates(samples), map(estimate, samples), strict=True):
        assert np.array_equal(list(vars(together).values()), list(vars(alone).values()), equal_nan=True)
    assert estimates([]) == []


@pytest.mark.parametrize(("n", "wanted"), [(2, 0.5), (3, 0.75), (5, 0.9375), (6, 0.93), (9, 0.945), (15, 0.945)])
def test_intervals_hold_what_they_promise(n: int, wanted: float) -> None:
    """Of normal samples with mean 0, the share of intervals that hold it is the promised one (7 % of six miss)."""
    drawn = np.random.default_rng(n).normal(size=(1200, n))
    held = np.mean([found.low <= 0 <= found.high for found in estimates(list(drawn))])
    assert held == pytest.approx(wanted, abs=0.02 if n > 5 else 0.035)


def test_the_interval_is_the_bootstrap_of_all_resamples() -> None:
    """Six values have 6^6 resamples: their percentiles are what drawing approaches."""
    values = np.array([0.1, 0.15, 0.22, 0.4, 0.41, 0.7])
    means = np.array([np.mean(each) for each in itertools.product(values, repeat=6)])
    tail = stats.norm.sf(math.sqrt(6 / 5) * stats.t.ppf(0.975, 5))
    found = estimate(values)
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [tail, 1 - tail]), abs=0.01)


def test_global_generators_are_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the global generator is what is looked at
    estimate(np.arange(9))
    judged([[1, -1, 0]])
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@settings(max_examples=60, deadline=None)
@given(p=st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=8))
def test_holm_steps_down(p: list[float]) -> None:
    found = holm(p)
    tested = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    running = 0.0
    for rank, (value, i) in enumerate(tested):
        running = max(running, min(1.0, (len(tested) - rank) * value))
        assert found[i] == pytest.approx(running)
    assert all(math.isnan(found[i]) == math.isnan(value) for i, value in enumerate(p))


def test_holm_is_that_of_statsmodels() -> None:
    generator = np.random.default_rng(0)
    for n in (1, 2, 5, 9):
        p = generator.choice([0.001, 0.01, 0.02, 0.04, 0.3, 1.0], size=n)
        assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_every_method_is_compared_over_the_blocks_it_shares() -> None:
    blocks = pd.DataFrame(
        {
            "er": [0.5, 0.6, 0.7, 0.8, 0.9, 0.4],
            "good": [0.6, 0.72, 0.83, 0.94, 0.99, 0.55],
            "some": [0.4, math.nan, 0.6, math.nan, 0.8, 0.3],
            "none": [math.nan] * 6,
        },
        index=pd.MultiIndex.from_product([["default"], range(6)], names=["class_order", "seed"]),
    )
    table = differences_from(blocks, "er")
    assert list(table.index) == ["good", "some", "none"]
    assert table["n"].tolist() == [6, 4, 0]
    assert table.loc["good", "difference"] == pytest.approx((0.1 + 0.12 + 0.13 + 0.14 + 0.09 + 0.15) / 6)
    assert table.loc["some", ["difference", "p"]].tolist() == [pytest.approx(-0.1), 2 / 2**4]
    # Four pairs find nothing, whatever they are: the first is corrected for itself alone.
    assert table["p_holm"].tolist()[:1] == table["smallest_p"].tolist()[:1] == [pytest.approx(2 / 2**6)]
    assert table.loc["some", ["p_holm", "smallest_p"]].isna().all()
    assert table.loc["none", ["difference", "p", "p_holm"]].isna().all()
    few = differences_from(blocks.iloc[:5], "er")
    assert few["p_holm"].tolist()[:2] == [pytest.approx(2 * 2 / 2**5), pytest.approx(2 / 2**3)]
    # The second is corrected for itself alone: 0.5 would be more than the p-value that it bounds.
    assert few["smallest_p"].tolist()[:2] == [2 * 2 / 2**5, 2 / 2**3]
    assert (few["smallest_p"] <= few["p_holm"]).tolist()[:2] == [True, True]


def test_what_nobody_asks_about_is_not_tested() -> None:
    names, draws = ["er", "good", "bound"], np.random.default_rng(0).normal(size=(6, 3))
    blocks = pd.DataFrame(draws + np.array([0, 5, 9]), columns=names)
    table = differences_from(blocks, "er", known={"bound"})
    assert table.loc["bound", "difference"] == pytest.approx((blocks["bound"] - blocks["er"]).mean())
    assert table["p_holm"].isna().tolist() == [False, True]
    assert table.loc["good", "p_holm"] == pytest.approx(2 / 2**6), "corrected for one comparison"


def test_methods_are_compared_with_a_baseline_that_is_there() -> None:
    blocks = pd.DataFrame({"er": [0.5], "good": [0.6]})
    with pytest.raises(CmlBenchError, match="baseline 'god' is not in the table; did you mean 'good'"):
        differences_from(blocks, "god")
