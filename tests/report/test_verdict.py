"""The line under a table: what it says, and that it seldom calls chance real."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cml_bench.report.statistics.differences import differences_from
from cml_bench.report.statistics.verdict import few_seeds, format_p, rank_verdict, verdict


def blocks(seeds: int, orders: int = 1, /, **methods: list[float]) -> pd.DataFrame:
    names = ["default", *(f"random:{i}" for i in range(1, orders))]
    index = pd.MultiIndex.from_product([names, range(seeds)], names=["class_order", "seed"])
    return pd.DataFrame(methods, index=index)


def test_a_real_lead() -> None:
    base = np.linspace(0.5, 0.6, 9)
    told = verdict(blocks(3, 3, joint=base, l3a=base + np.linspace(0.02, 0.04, 9), er=base - 0.1), "last mAP")
    assert told.text == (
        "Best last mAP: l3a, 3.0 above joint (95 % interval 2.5 to 3.5 over 9 pairs, 3 seeds x 3 class orders, "
        "Wilcoxon p = 0.0039): real on these 3 class orders."
    )
    assert (told.best, told.real) == ("l3a", True)


def test_real_on_one_class_order_is_no_more_than_that() -> None:
    base = np.linspace(0.5, 0.6, 6)
    told = verdict(blocks(6, a=base, b=base + 0.1), "last mAP")
    assert told.text.endswith("6 pairs, 6 seeds x 1 class order, Wilcoxon p = 0.031): real on this class order.")


def test_a_lead_that_one_class_order_turns_around_is_not_real() -> None:
    """Seven of nine jobs are for b, and the test finds it; but all that are not are on one order."""
    base = np.linspace(0.5, 0.6, 9)
    told = verdict(blocks(3, 3, a=base, b=base + np.array([0.1] * 6 + [0.01, -0.009, -0.008])), "last mAP")
    assert told.text.endswith("cannot be told apart from a, which leads on random:2.")
    assert not told.real


def test_many_class_orders_speak_for_others() -> None:
    base = np.linspace(0.5, 0.6, 6)
    assert verdict(blocks(1, 6, a=base, b=base + 0.1), "last mAP").text.endswith("Wilcoxon p = 0.031): real.")


@pytest.mark.parametrize(
    ("seeds", "orders", "pairs"), [(1, 1, "1 pair"), (2, 1, "2 pairs"), (5, 1, "5 pairs"), (1, 5, "5 pairs")]
)
def test_too_few_pairs_for_any_test(seeds: int, orders: int, pairs: str) -> None:
    n = seeds * orders
    told = verdict(blocks(seeds, orders, a=[0.5] * n, b=[0.9] * n), "last mAP")
    remedy = "A test needs 6 pairs: run --class-orders 6."
    assert told.text == f"Best last mAP: b, 40.0 above a over {pairs}: cannot be told apart. {remedy}"
    assert (told.best, told.real) == ("b", False)


def test_what_it_advises_makes_a_test_possible() -> None:
    assert verdict(blocks(1, 6, a=[0.5] * 6, b=[0.9] * 6), "last mAP").real


def test_the_lead_must_hold_against_every_other_and_not_the_second_alone() -> None:
    base = np.full(6, 0.5)
    steady = base - 0.01 * np.arange(1, 7)
    wild = base - np.array([0.9, 0.8, 0.9, -0.3, -0.2, -0.1])
    told = verdict(blocks(6, lead=base, steady=steady, wild=wild), "last mAP")
    assert told.text.startswith("Best last mAP: lead, 3.5 above steady (95 % interval")
    assert told.text.endswith("Wilcoxon p = 0.031): cannot be told apart from wild (p = 0.41).")
    assert not told.real


def test_a_lead_that_chance_would_undo_is_not_real_whatever_the_ranks_say() -> None:
    """Fifteen small differences for b and a large one for a: ranks tell them apart, the mean does not."""
    base = np.linspace(0.5, 0.6, 16)
    told = verdict(blocks(16, a=base, b=base + np.array([0.01] * 15 + [-0.1])), "last mAP")
    assert "Wilcoxon p = 0.0" in told.text
    assert told.text.endswith("cannot be told apart from a.")


def test_many_that_are_alike_are_counted() -> None:
    figures = np.random.default_rng(0).normal(0.5, 0.1, size=(7, 6))
    told = verdict(blocks(6, **{f"m{i}": list(row) for i, row in enumerate(figures)}), "last mAP")
    assert told.text.endswith("and 3 more.")


def test_lower_may_be_better() -> None:
    base = np.linspace(0.1, 0.2, 6)
    told = verdict(blocks(6, er=base + 0.05, ewc=base), "forgetting", lower_is_better=True)
    assert told.text.startswith("Best forgetting: ewc, 5.0 below er (95 % interval 5.0 to 5.0")
    assert told.real


def test_only_methods_with_as_many_jobs_compete() -> None:
    told = verdict(blocks(2, a=[0.5, 0.5], b=[0.6, 0.6], lucky=[0.9, math.nan]), "last mAP")
    assert told.best == "b"
    # Of two, what both have.
    both = verdict(blocks(2, a=[0.5, 0.5], lucky=[0.9, math.nan]), "mAP")
    assert "lucky, 40.0 above a over 1 pair: cannot be told apart" in both.text
    assert both.text.endswith("Jobs that not all of them have are left out.")
    apart = verdict(blocks(2, a=[0.5, math.nan], b=[math.nan, 0.6]), "mAP")
    assert apart.text == (
        "No verdict on mAP: there are no two to compare on as many jobs. Not compared, for lack of jobs: a, b."
    )
    assert "no two to compare" in verdict(blocks(1, a=[math.nan]), "mAP").text


def test_a_job_more_takes_no_comparison_from_the_rest() -> None:
    base = np.linspace(0.5, 0.6, 7)
    six = [*base[:6], math.nan]
    told = verdict(blocks(7, er=np.add(six, 0.1), naive=six, lwf=base), "mAP")
    assert told.best == "er"
    assert told.real
    assert "over 6 pairs" in told.text


def test_chance_is_seldom_called_real() -> None:
    """Of equal methods, one is called better in no more than 5 % of tables (with six pairs, 3 % of two methods)."""
    generator = np.random.default_rng(1)
    for k in (2, 4):
        called = [
            verdict(blocks(3, 3, **{f"m{i}": list(generator.normal(size=9)) for i in range(k)}), "x").real
            for _ in range(200)
        ]
        assert np.mean(called) < 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200)


def test_ranks_over_benchmarks() -> None:
    index = pd.MultiIndex.from_product([["coco", "voc"], range(6)], names=["benchmark", "seed"])
    clear = pd.DataFrame(np.tile([0.9, 0.5, 0.1], (12, 1)), index=index, columns=["a", "b", "c"])
    told = rank_verdict(clear, "last mAP")
    assert told.text == (
        "Best average rank of last mAP: a (1, next b 2) over 12 blocks of 2 benchmarks, Friedman p < 0.001: real on "
        "these 2 benchmarks, by Nemenyi's test."
    )
    clear.iloc[::2, :2] = clear.iloc[::2, 1::-1].to_numpy(copy=True)
    assert "cannot be told apart from" in rank_verdict(clear, "last mAP").text
    clear["d"], clear.loc[("coco", 0), "c"] = 0.0, math.nan
    assert rank_verdict(clear, "last mAP").text.endswith(" Not compared, for lack of jobs: c.")
    clear = clear.drop(columns="d")
    assert "Wilcoxon p = 1.00): cannot be told apart from" in rank_verdict(clear, "last mAP").text
    assert rank_verdict(clear.iloc[:, :1], "last mAP").best is None


def test_blocks_that_rivals_lack_are_out_of_the_ranks() -> None:
    index = pd.MultiIndex.from_product([["coco", "voc"], range(3)], names=["benchmark", "seed"])
    figures = pd.DataFrame(np.tile([0.9, 0.5, 0.1], (6, 1)), index=index, columns=["a", "b", "c"])
    figures.loc[("coco", 0), "a"] = figures.loc[("coco", 1), "b"] = figures.loc[("voc", 2), "c"] = math.nan
    told = rank_verdict(figures, "last mAP")
    assert "over 3 blocks of 2 benchmarks" in told.text
    assert told.text.endswith(" Jobs that not all of them have are left out.")


def test_heads_on_one_seed_are_one_block_of_the_ranks() -> None:
    names = ["benchmark", "head", "seed"]
    index = pd.MultiIndex.from_product([["coco", "voc"], ["linear", "dlfl"], range(3)], names=names)
    figures = pd.DataFrame(np.tile([0.9, 0.5, 0.1], (12, 1)), index=index, columns=["a", "b", "c"])
    assert "over 6 blocks of 2 benchmarks" in rank_verdict(figures, "last mAP").text
    # Where one lacks a head on a seed, the others are taken without it, too.
    figures.loc[("coco", "dlfl", 0), "a"] = figures.loc[("voc", "dlfl", 1), "b"] = math.nan
    figures.loc[("voc", "linear", 2), "c"] = math.nan
    told = rank_verdict(figures, "last mAP").text
    assert "over 6 blocks of 2 benchmarks" in told
    assert "left out" in told


def test_six_class_orders_are_the_pairs_whatever_their_seeds() -> None:
    """Three seeds on each of six orders: on one order the other leads, as chance has it in one of six."""
    base = np.repeat(np.linspace(0.5, 0.6, 6), 3)
    lead = np.repeat([0.1, 0.11, 0.12, 0.13, 0.14, -0.001], 3)
    told = verdict(blocks(3, 6, a=base, b=base + lead), "last mAP").text
    assert "over 6 class orders, Wilcoxon p = 0.062): cannot be told apart from a" in told
    lead[15:] = 0.09
    assert verdict(blocks(3, 6, a=base, b=base + lead), "last mAP").text.endswith(
        "over 6 class orders, Wilcoxon p = 0.031): real."
    )
    # On nine orders a lead need not hold on each.
    lead = np.array([0.1, 0.11, 0.12, 0.13, 0.14, 0.15, 0.16, 0.17, -0.001])
    told = verdict(blocks(1, 9, a=np.full(9, 0.5), b=0.5 + lead), "last mAP").text
    assert told.endswith("over 9 class orders, Wilcoxon p = 0.0078): real.")


def test_a_baseline_is_compared_over_class_orders_where_they_are_six() -> None:
    generator = np.random.default_rng(0)
    figures = {name: generator.normal(size=18) for name in ("a", "b")}
    found = differences_from(blocks(3, 6, **{name: list(values) for name, values in figures.items()}), "a").loc["b"]
    by_order = (figures["b"] - figures["a"]).reshape(6, 3).mean(1)
    assert found["n"] == 6
    assert found["difference"] == pytest.approx(by_order.mean())
    assert found["p"] == pytest.approx(stats.wilcoxon(by_order).pvalue)
    assert differences_from(blocks(3, 5, a=[0.0] * 15, b=[1.0] * 15), "a").loc["b", "n"] == 15


def test_few_seeds_are_warned_of() -> None:
    assert few_seeds(blocks(2, 5, a=[0.1] * 10)).startswith("Warning: 2 seeds on 5 class orders only")
    assert few_seeds(blocks(1, 6, a=[0.1] * 6)) == ""
    assert few_seeds(blocks(3, a=[0.1] * 3)) == ""
    assert few_seeds(blocks(3, a=[0.1, math.nan, math.nan])).startswith("Warning: 1 seed only")


def test_p_values_in_words() -> None:
    assert [format_p(p) for p in (0.0004, 0.03125, 0.5, math.nan)] == [
        "p < 0.001",
        "p = 0.031",
        "p = 0.50",
        "p = -",
    ]
