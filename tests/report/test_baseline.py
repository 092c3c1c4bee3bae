"""Differences from a baseline: what is a pair, what is tested, what is corrected for."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cml_bench.errors import CmlBenchError
from cml_bench.report.formats.grid import make_grid
from cml_bench.report.tables.compare import compare


def test_a_baseline_is_compared_over_pairs(one: Any, frame_of: Any, grid_of: Any) -> None:
    jobs = grid_of(3, 3, er=0.5, good=0.6, same=0.5, part=0.3)
    jobs = [each for each in jobs if each["method"] != "part" or each["class_order"] == "default"]
    table = one(frame_of(*jobs), baseline="er")
    values = {
        method: {(each["class_order"], each["seed"]): each["last_map"] for each in jobs if each["method"] == method}
        for method in ("er", "good", "same", "part")
    }
    assert table.baseline == "er"
    found = table.differences
    assert found is not None
    for method in ("good", "same", "part"):
        pairs = [(value, values["er"][block]) for block, value in values[method].items()]
        differences = np.subtract(*np.transpose(pairs)).round(12)
        assert found.loc[method, "difference"] == pytest.approx(differences.mean())
        assert found.loc[method, "p"] == pytest.approx(stats.wilcoxon(differences).pvalue)
    assert found["n"].to_dict() == {"good": 9, "part": 3, "same": 9}
    cells = make_grid(table).cells.set_index("method")
    assert cells.loc["er", "last mAP vs er"] == "baseline"
    assert re.fullmatch(r"\+10\.0 \[10\.0, 10\.\d\]", cells.loc["good", "last mAP vs er"])
    assert cells.loc["good", "p (Holm)"] == "0.0078"  # 2 x 2 / 2^9: three pairs of the third find nothing
    assert "Holm-corrected for 2 comparisons (the line on the best makes one claim, and is not)." in table.notes[-1]
    assert "with 95 % or 75 % interval" in table.notes[-1]


def test_bounds_are_compared_with_a_baseline_and_not_tested(one: Any, frame_of: Any, grid_of: Any) -> None:
    table = one(frame_of(*grid_of(3, 2, er=0.5, good=0.6, joint=0.9)), baseline="er")
    cells = make_grid(table).cells.set_index("method")
    assert cells.loc["joint", "last mAP vs er"].startswith("+40.0 [")
    assert cells["p (Holm)"].to_dict() == {"joint": "-", "good": "0.031", "er": ""}  # 2 / 2^6: one comparison
    assert "Holm-corrected for 1 comparison." in table.notes[-1]
    alone = one(frame_of(*grid_of(3, 2, er=0.5, joint=0.9)), baseline="er")
    assert alone.notes[-1].endswith("with 95 % interval. Bounds are not tested.")


def test_two_heads_on_one_seed_are_one_pair(one: Any, frame_of: Any, grid_of: Any) -> None:
    """The mean difference over the heads that both have; what one head alone tells is no less a pair."""
    jobs = grid_of(
        4, 2, **{"er": 0.5, "er__head=dlfl": 0.6, "lwf": 0.5, "lwf__head=dlfl": 0.62, "naive": 0.4, "joint": 0.9}
    )
    table = one(frame_of(*jobs), "last_map", rows="strategy", columns="head", baseline="er")
    values = {(each["method"], (each["class_order"], each["seed"])): each["last_map"] for each in jobs}
    assert table.differences is not None
    for strategy, heads in {"lwf": ("", " head=dlfl"), "naive": ("",)}.items():
        pairs = [
            np.mean([values[strategy + head, block] - values["er" + head, block] for head in heads])
            for block in {(each["class_order"], each["seed"]) for each in jobs}
        ]
        found = table.differences.loc[strategy]
        assert found["n"] == 8
        assert found["difference"] == pytest.approx(np.mean(pairs))
        assert found["p"] == pytest.approx(stats.wilcoxon(np.round(pairs, 12)).pvalue)
    assert table.verdict is not None
    assert "over 8 pairs, 4 seeds x 2 class orders" in table.verdict.text
    # Bounds are shown and not tested, as where rows are methods.
    assert table.differences["p_holm"].isna().to_dict() == {"joint": True, "lwf": False, "naive": False}
    assert "Holm-corrected for 2 comparisons (the line on the best makes one claim, and is not)." in table.notes[-1]


def test_a_strategy_is_a_bound_if_all_its_jobs_are(one: Any, frame_of: Any, grid_of: Any) -> None:
    jobs = grid_of(3, 2, **{"er": 0.5, "er__head=dlfl": 0.5, "joint": 0.8, "other": 0.9, "other__head=dlfl": 0.9})
    for each in jobs:
        if each["method"] in ("joint", "other"):
            each["family"] = "bound"
    table = one(frame_of(*jobs), rows="strategy")
    assert table.bounds == {"joint"}
    assert table.notes[1] == "Bounds, not ranked: joint."


def test_a_baseline_that_cannot_be_tested_says_so(one: Any, frame_of: Any, grid_of: Any, job: Any) -> None:
    table = one(frame_of(*grid_of(2, 2, er=0.5, a=0.6, b=0.7)), baseline="er")
    assert table.notes[-1].endswith("No p can reach 0.05 with 4 pairs: that takes 7, as --class-orders 7.")
    apart = one(frame_of(job("er", 0, 0.5), job("a", 1, 0.6)), baseline="er")
    assert apart.notes[-1] == "No job of another row has the seed and class order of one of er: nothing to compare."


def test_baselines_are_found_by_name(one: Any, frame_of: Any, grid_of: Any) -> None:
    frame = frame_of(*grid_of(2, 1, **{"er__memory_size=5": 0.5, "lwf": 0.4, "er__head=dlfl": 0.6}))
    assert one(frame, baseline="lwf").baseline == "lwf"
    assert one(frame, baseline="er head=dlfl").baseline == "er head=dlfl"
    with pytest.raises(CmlBenchError, match="baseline 'er' is several rows: name one in full, as 'er head=dlfl' or"):
        one(frame, baseline="er")
    with pytest.raises(CmlBenchError, match="baseline 'lfw' is in no table; did you mean 'lwf'"):
        one(frame, baseline="lfw")
    with pytest.raises(CmlBenchError, match="make method the rows"):
        compare(frame, rows="benchmark", columns="method", baseline="lwf")
    two = frame_of(*grid_of(2, 1, er=0.5, lwf=0.4), *grid_of(2, 1, "voc", lwf=0.4, naive=0.3))
    here, there = compare(two, baseline="er").benchmarks
    assert (here.baseline, there.baseline) == ("er", None)
    assert there.notes[-1] == "No job of the baseline er here."


def test_the_same_images_under_two_settings_are_one_block(one: Any, frame_of: Any, grid_of: Any) -> None:
    """Three seeds under two regimes are three pairs, of means; another data set is further evidence."""
    er, lwf = grid_of(3, 1, er=0.5), grid_of(3, 1, lwf=0.4)
    one_way = [{**each, "benchmark_options": '{"regime": "full"}'} for each in (*er, *lwf)]
    other = [{**each, "benchmark_options": '{"regime": "single_positive"}'} for each in (*er, *lwf)]
    table = one(frame_of(*one_way, *other), "last_map", columns="benchmark", baseline="lwf")
    assert table.notes[0].startswith("Best last mAP: er, 10.0 above lwf over 3 pairs: cannot be told apart.")
    assert table.differences is not None
    assert table.differences["n"].to_dict() == {"er": 3}
    note = one(frame_of(*one_way, *grid_of(3, 1, "voc", er=0.5, lwf=0.4)), "last_map", columns="benchmark").notes[0]
    assert "over 6 pairs" in note


def test_the_same_images_under_other_weights_are_one_block(one: Any, frame_of: Any, grid_of: Any) -> None:
    jobs = [{**each, "data": weights} for weights in ("d", "e") for each in grid_of(3, 1, er=0.5, lwf=0.4)]
    note = one(frame_of(*jobs), "last_map", columns="benchmark").notes[0]
    assert "over 3 pairs" in note


def test_differences_over_seeds_say_of_which_orders_they_speak(one: Any, frame_of: Any, grid_of: Any) -> None:
    """A gain on two of three orders is told from chance over nine jobs, and turned around on the third."""
    jobs = grid_of(3, 3, er=0.5, lwf=0.5)
    for each in jobs:
        if each["method"] == "lwf":
            each["last_map"] += -0.001 if each["class_order"] == "random:2" else 0.03
    table = one(frame_of(*jobs), "last_map", baseline="er")
    assert table.differences is not None
    assert table.differences.loc["lwf", "p_holm"] < 0.05
    assert table.notes[-1].endswith(" Over seeds they speak of these 3 class orders; turned around: lwf (random:2).")
    more = one(frame_of(*grid_of(2, 6, er=0.5, lwf=0.6)), "last_map", baseline="er")
    assert "paired over the same class orders, each by the mean of its seeds, with 95 % interval" in more.notes[-1]
    assert "speak of" not in more.notes[-1]


def test_a_row_with_fewer_orders_is_told_from_the_others(one: Any, frame_of: Any, grid_of: Any) -> None:
    """Four orders of two seeds are eight pairs, where the others have eight orders."""
    frame = frame_of(*grid_of(2, 8, er=0.5, lwf=0.4), *grid_of(2, 4, naive=0.3))
    table = one(frame, "last_map", baseline="er")
    assert table.differences is not None
    assert table.differences["n"].to_dict() == {"lwf": 8, "naive": 8}
    assert "each by the mean of its seeds (naive: seeds, too), with" in table.notes[-1]
    assert table.notes[-1].endswith(" Over seeds they speak of these 4 class orders.")
