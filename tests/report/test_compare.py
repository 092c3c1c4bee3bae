"""Rows, columns, baselines and costs of comparison tables, over jobs written by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import cml_bench
from cml_bench.errors import CmlBenchError
from cml_bench.report.formats.grid import make_grid
from cml_bench.report.tables.compare import compare
from cml_bench.report.tables.table import BenchmarkTable


def one(frame: pd.DataFrame, *metrics: str, **options: Any) -> BenchmarkTable:
    (table,) = compare(frame, metrics or ("last_map", "forgetting"), **options).benchmarks
    return table


def test_intervals_are_those_of_the_statistics(frame_of: Any, grid_of: Any) -> None:
    rows = one(frame_of(*grid_of(3, 3, er=0.5))).rows
    values = [each["last_map"] for each in grid_of(3, 3, er=0.5)]
    assert rows.loc[0, "last_map_level"] == 0.95
    assert min(values) < rows.loc[0, "last_map_low"] < np.mean(values) < rows.loc[0, "last_map_high"] < max(values)
    few = one(frame_of(*grid_of(3, 1, er=0.5))).rows
    assert few.loc[0, ["last_map_low", "last_map_high", "last_map_level"]].tolist() == [0.5, 0.5064, 0.75]


def test_a_baseline_is_compared_over_pairs(frame_of: Any, grid_of: Any) -> None:
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
    assert "Holm-corrected for 2 comparisons." in table.notes[-1]
    assert "with 95 % or 75 % interval" in table.notes[-1]


def test_bounds_are_compared_with_a_baseline_and_not_tested(frame_of: Any, grid_of: Any) -> None:
    table = one(frame_of(*grid_of(3, 2, er=0.5, good=0.6, joint=0.9)), baseline="er")
    cells = make_grid(table).cells.set_index("method")
    assert cells.loc["joint", "last mAP vs er"].startswith("+40.0 [")
    assert cells["p (Holm)"].to_dict() == {"joint": "-", "good": "0.031", "er": ""}  # 2 / 2^6: one comparison
    assert "Holm-corrected for 1 comparison." in table.notes[-1]
    alone = one(frame_of(*grid_of(3, 2, er=0.5, joint=0.9)), baseline="er")
    assert alone.notes[-1].endswith("with 95 % interval. Bounds are not tested.")


def test_two_heads_on_one_seed_are_one_pair(frame_of: Any, grid_of: Any) -> None:
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
    assert "Holm-corrected for 2 comparisons." in table.notes[-1]


def test_a_strategy_is_a_bound_if_all_its_jobs_are(frame_of: Any, grid_of: Any) -> None:
    jobs = grid_of(3, 2, **{"er": 0.5, "er__head=dlfl": 0.5, "joint": 0.8, "other": 0.9, "other__head=dlfl": 0.9})
    for each in jobs:
        if each["method"] in ("joint", "other"):
            each["family"] = "bound"
    table = one(frame_of(*jobs), rows="strategy")
    assert table.bounds == {"joint"}
    assert table.notes[1] == "Bounds, not ranked: joint."


def test_a_baseline_that_cannot_be_tested_says_so(frame_of: Any, grid_of: Any, job: Any) -> None:
    table = one(frame_of(*grid_of(2, 2, er=0.5, a=0.6, b=0.7)), baseline="er")
    assert table.notes[-1].endswith("No p can reach 0.05 with 4 pairs: that takes 7, as --seeds 3 --class-orders 3.")
    apart = one(frame_of(job("er", 0, 0.5), job("a", 1, 0.6)), baseline="er")
    assert apart.notes[-1] == "No job of another row has the seed and class order of one of er: nothing to compare."


def test_baselines_are_found_by_name(frame_of: Any, grid_of: Any) -> None:
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


def test_heads_are_compared_where_all_else_is_the_same(frame_of: Any, grid_of: Any) -> None:
    jobs = grid_of(
        3, 2, **{"er": 0.5, "er__head=dlfl": 0.6, "lwf": 0.3, "lwf__head=dlfl": 0.4, "krt__head=krt": 0.9, "joint": 0.8}
    )
    table = one(frame_of(*jobs), rows="head")
    assert table.rows["head"].tolist() == ["dlfl", "linear"]
    assert table.rows["n"].tolist() == [12, 12]
    means = {
        head: np.mean([each["last_map"] for each in jobs if each["method"] in methods])
        for head, methods in {"linear": ("er", "lwf"), "dlfl": ("er head=dlfl", "lwf head=dlfl")}.items()
    }
    assert table.rows.set_index("head")["last_map_mean"].to_dict() == pytest.approx(means)
    assert table.notes[1:] == (
        "Each head is averaged over strategy (er, lwf), class order (default, random:1).",
        "Left out, for only one head has them: joint, krt head=krt.",
    )
    # Two strategies on one seed are no two pairs.
    assert table.notes[0] == (
        "Best last mAP: dlfl, 10.0 above linear (95 % interval 10.0 to 10.0 over 6 pairs, 3 seeds x 2 class orders, "
        "Wilcoxon p = 0.031): real on these 2 class orders."
    )


def test_jobs_without_a_pair_are_named(frame_of: Any, grid_of: Any) -> None:
    jobs = [*grid_of(3, 1, er=0.5), *grid_of(5, 1, **{"er__head=dlfl": 0.6})]
    table = one(frame_of(*jobs), rows="head")
    assert table.rows["n"].tolist() == [3, 3]
    told = "for no other head has the same seed and class order: jobs of er head=dlfl (2)."
    assert table.notes[-1] == f"Left out, {told}"
    (shown,) = compare(frame_of(*jobs), ["last_map"], rows="benchmark", columns="head").benchmarks
    assert shown.rows["n"].tolist() == [8]
    assert shown.notes[-1] == f"Not compared, {told}"


def test_means_over_other_jobs_are_named_with_what_completes_them(frame_of: Any, grid_of: Any) -> None:
    told = "Means over other jobs than the rest compare little: "
    jobs = [*grid_of(2, 1, lucky=0.9), *grid_of(2, 3, er=0.5, lwf=0.4)]
    table = one(frame_of(*jobs), "last_map")
    assert table.rows["method"].tolist()[0] == "lucky"
    assert table.notes[-1] == (
        f"{told}lucky (2 of 6 jobs). Their command with --seeds 2 --class-orders random:1,random:2 completes them."
    )
    assert not [note for note in one(frame_of(*jobs[2:]), "last_map").notes if "other jobs" in note]
    # Half of six each, and none of them the same.
    apart = [each for each in grid_of(6, 1, er=0.5, lwf=0.4) if (each["seed"] < 3) == (each["method"] == "er")]
    assert one(frame_of(*apart), "last_map").notes[-1] == (
        f"{told}er (3 of 6 jobs), lwf (3 of 6 jobs). Their command with --seeds 6 --class-orders default completes "
        "them."
    )
    few = [*jobs[:1], *jobs[2:], *grid_of(2, 3, "voc", er=0.8)]
    side = one(frame_of(*few), "last_map", columns="benchmark")
    assert [note for note in side.notes if "other jobs" in note] == [
        f"{told}lucky (1 of 6 jobs on Digits, B0-C2). Their command with --seeds 2 --class-orders "
        "default,random:1,random:2 completes them."
    ]
    turned = one(frame_of(*few), "last_map", rows="benchmark", columns="method")
    assert [note for note in turned.notes if "other jobs" in note] == [
        note for note in side.notes if "other jobs" in note
    ]


def test_heads_that_some_strategies_lack_are_named(frame_of: Any, grid_of: Any) -> None:
    names = ("er", "er head=dlfl", "er head=krt", "lwf", "lwf head=dlfl")
    jobs = grid_of(2, 1, **{name.replace(" ", "__"): 0.5 for name in names})
    told = "Means over other jobs than the rest compare little: krt (2 of 4 jobs)."
    assert told in one(frame_of(*jobs), "last_map", rows="head").notes
    # In a grid the figures beside each other are over the same jobs.
    grid = one(frame_of(*jobs), "last_map", rows="head", columns="strategy")
    assert not [note for note in grid.notes if "other jobs" in note]


def test_heads_of_unlike_methods_are_no_comparison(frame_of: Any, grid_of: Any) -> None:
    table = one(frame_of(*grid_of(6, 1, **{"er": 0.5, "lwf__head=dlfl": 0.9})), rows="head")
    assert table.verdict is not None
    assert not table.verdict.real
    told = "No two of these differ in the head alone: their means are over different jobs and compare nothing."
    assert told in table.notes
    assert not make_grid(table).marks.to_numpy().any()
    alike = one(frame_of(*grid_of(6, 1, **{"er": 0.5, "er__head=dlfl": 0.9})), rows="head")
    assert told not in alike.notes


def test_strategies_by_heads(frame_of: Any, grid_of: Any) -> None:
    jobs = grid_of(
        3, 2, **{"er__size=5": 0.5, "er__head=dlfl__size=5": 0.6, "lwf": 0.3, "lwf__head=dlfl": 0.2, "joint": 0.8}
    )
    table = one(frame_of(*jobs), "last_map", rows="strategy", columns="head")
    assert [column.heading for column in table.columns] == ["dlfl", "linear"]
    assert table.heading.startswith("last mAP by strategy and head: Digits, B0-C2")
    grid = make_grid(table)
    cells = grid.cells.set_index("strategy")
    assert cells.loc["joint", "dlfl"] == "-"
    assert cells.loc["er size=5", "linear"].startswith("50.8 ± 0.6")
    marks = grid.marks.set_index(grid.cells["strategy"])
    assert marks.loc[["er size=5", "joint", "lwf"], "linear"].tolist() == ["best", "", ""]
    assert cells.loc["joint", "notes"] == "incomplete: 6 of 12 jobs"


def test_losses_with_the_same_title_are_told_apart_by_their_options(frame_of: Any, grid_of: Any) -> None:
    jobs = grid_of(1, 1, **{"er": 0.1, "er__loss=an__loss.scope=seen": 0.2, "er__loss=an__loss.scope=unmarked": 0.3})
    for each in jobs[1:]:
        each["loss"] = "AN"
    rows = one(frame_of(*jobs), rows="loss").rows
    assert sorted(rows["loss"]) == ["AN scope=seen", "AN scope=unmarked", "BCE"]


def test_benchmarks_side_by_side(frame_of: Any, grid_of: Any) -> None:
    frame = frame_of(*grid_of(3, 2, er=0.5, lwf=0.4, naive=0.3), *grid_of(3, 2, "voc", er=0.8, lwf=0.7))
    table = one(frame, "last_map", columns="benchmark")
    assert (table.benchmark, table.data) == ("", None)
    assert [column.heading for column in table.columns] == ["Digits, B0-C2", "Voc, B0-C2"]
    cells = make_grid(table).cells.set_index("method")
    assert cells.loc["naive", "Voc, B0-C2"] == "-"
    assert cells.loc["naive", "notes"] == "incomplete: 6 of 12 jobs"
    # Two are whole, so they are compared pair by pair.
    assert table.notes[0].startswith("Best last mAP of those compared: er, 10.0 above lwf (95 % interval")
    assert table.notes[0].endswith("Not compared, for lack of jobs: naive.")
    turned = one(frame, "last_map", rows="benchmark", columns="method")
    assert turned.verdict == table.verdict
    grid = make_grid(turned)
    assert grid.cells["benchmark"].tolist() == ["Digits, B0-C2", "Voc, B0-C2"]
    assert grid.marks["er"].tolist() == ["best", "best"]
    assert grid.marks[["lwf", "naive"]].to_numpy().tolist() == [["", ""], ["", ""]]


def test_ranks_stand_under_three_methods_on_several_benchmarks(frame_of: Any, grid_of: Any) -> None:
    frame = frame_of(*grid_of(6, 1, er=0.5, lwf=0.4, naive=0.3), *grid_of(6, 1, "voc", er=0.8, lwf=0.7, naive=0.2))
    table = one(frame, "last_map", columns="benchmark")
    assert table.notes[0].startswith(
        "Best average rank of last mAP: er (1, next lwf 2) over 12 blocks of 2 benchmarks, Friedman p < 0"
    )


def test_versions_of_a_benchmark_are_columns_of_their_own(frame_of: Any, grid_of: Any) -> None:
    jobs = [*grid_of(2, 1, er=0.5), *({**each, "version": "2"} for each in grid_of(2, 1, er=0.7))]
    table = one(frame_of(*jobs), "last_map", columns="benchmark")
    assert [column.heading for column in table.columns] == [
        "Digits, B0-C2, version 1",
        "Digits, B0-C2, version 2",
    ]
    assert "The same in all of Digits, B0-C2: data d." in table.notes


def test_several_benchmarks_and_what_they_lack_are_named(frame_of: Any, grid_of: Any) -> None:
    frame = frame_of(*grid_of(2, 1, er=0.5, lwf=0.4), *grid_of(2, 1, "voc", er=0.8))
    assert compare(frame).notes == (
        "2 benchmarks, one table each: --columns benchmark puts them side by side.",
        "No job on Voc, B0-C2: lwf.",
    )
    assert compare(frame, columns="benchmark").notes == ("No job on Voc, B0-C2: lwf.",)
    assert compare(frame_of(*grid_of(2, 1, er=0.5))).notes == ()


def test_conditions_are_not_ranked(frame_of: Any, grid_of: Any) -> None:
    table = one(frame_of(*grid_of(3, 2, er=0.5, lwf=0.4)), rows="class_order")
    assert table.verdict is None
    assert table.rows["class_order"].tolist() == ["default", "random:1"]
    assert not make_grid(table).marks.to_numpy().any()
    assert table.notes == ("Each class order is averaged over method (er, lwf).",)


def test_bounds_lead_nothing(frame_of: Any, grid_of: Any) -> None:
    table = one(frame_of(*grid_of(3, 2, joint=0.9, er=0.5, lwf=0.4)))
    assert table.competitors == ("er", "lwf")
    assert table.verdict is not None
    assert table.verdict.best == "er"
    assert table.notes[1] == "Bounds, not ranked: joint."
    marks = make_grid(table).marks
    assert marks["last mAP"].tolist() == ["", "best", ""], "of two, none is the second"


def test_blocks_of_bounds_alone_take_no_mark_from_others(frame_of: Any, grid_of: Any) -> None:
    table = one(frame_of(*grid_of(5, 1, joint=0.9), *grid_of(3, 1, er=0.5, lwf=0.4)))
    assert table.competitors == ("er", "lwf")
    assert table.verdict is not None
    assert table.verdict.best == "er"
    assert make_grid(table).marks["last mAP"].tolist() == ["", "best", ""]


def test_equal_figures_are_marked_alike(frame_of: Any, job: Any) -> None:
    jobs = [
        job(method, seed, level)
        for method, level in zip("abcd", (0.9, 0.90001, 0.8, 0.8), strict=True)
        for seed in (0, 1)
    ]
    table = one(frame_of(*jobs))
    assert make_grid(table).marks["last mAP"].tolist() == ["best", "best", "", ""]
    jobs = [
        job(method, seed, level) for method, level in zip("abcd", (0.9, 0.8, 0.8, 0.7), strict=True) for seed in (0, 1)
    ]
    assert make_grid(one(frame_of(*jobs))).marks["last mAP"].tolist() == ["best", "second", "second", ""]
    assert make_grid(one(frame_of(*jobs))).marks["forgetting"].tolist() == ["best", "second", "second", ""]


@settings(max_examples=30, deadline=None)
@given(levels=st.lists(st.integers(0, 3), min_size=3, max_size=6))
def test_marks_are_competition_ranks(frame_of: Any, job: Any, levels: list[int]) -> None:
    jobs = [job(f"m{i}", seed, level / 10) for i, level in enumerate(levels) for seed in (0, 1)]
    table = one(frame_of(*jobs), "last_map")
    marks = dict(zip(table.rows["method"], make_grid(table).marks["last mAP"], strict=True))
    for i, level in enumerate(levels):
        better = sum(other > level for other in levels)
        assert marks[f"m{i}"] == {0: "best", 1: "second"}.get(better, "")


def test_sorting(frame_of: Any, job: Any) -> None:
    jobs = [
        job(method, seed, level, seconds=cost)
        for method, level, cost in (("b", 0.9, 1), ("a", 0.5, 2), ("c", 0.7, 0))
        for seed in (0, 1)
    ]
    frame = frame_of(*jobs)

    def order(*metrics: str, **options: Any) -> str:
        return "".join(one(frame, *metrics, **options).rows["method"])

    assert order() == "bca"
    assert order("forgetting") == "bca"
    assert order(sort="seconds") == "cba"
    assert order(sort="method") == "abc"
    with pytest.raises(CmlBenchError, match="sort='secnods' is no column of the table; did you mean 'seconds'"):
        order(sort="secnods")


def test_rows_that_only_have_easy_columns_are_not_lifted(frame_of: Any, grid_of: Any) -> None:
    frame = frame_of(*grid_of(2, 1, er=0.3, lwf=0.2), *grid_of(2, 1, "voc", er=0.9, lwf=0.8, easy=0.7))
    assert one(frame, "last_map", columns="benchmark").rows["method"].tolist() == ["er", "lwf", "easy"]


def test_costs_are_columns(frame_of: Any, job: Any) -> None:
    costs = {
        "training_seconds": 61.25,
        "images_per_second": 1524.4,
        "peak_memory_mb": 1234.5,
        "peak_gpu_memory_mb": 8191.9,
        "stored_images": 2000.0,
        "trainable_parameters": 25557032.0,
    }
    jobs = [job("er", seed, 0.5, **{**costs, "training_seconds": 61.25 + seed}) for seed in (0, 1)]
    cells = make_grid(one(frame_of(*jobs), cost=True)).cells
    headings = ["training seconds", "images/s", "peak MB", "GPU peak MB", "stored images", "trainable parameters"]
    printed = ["61.8 ± 0.7", "1,524", "1,234", "8,192", "2,000", "25,557,032"]
    assert cells.loc[0, headings].tolist() == printed
    grid = make_grid(one(frame_of(*jobs), "stored_images"))
    assert grid.cells["stored images"].tolist() == ["2,000"]
    old = [job("er", seed, 0.5, peak_memory_mb=5.0) for seed in (0, 1)]
    unknown = {"images/s", "GPU peak MB", "stored images"}
    assert not unknown & set(make_grid(one(frame_of(*old), cost=True)).cells), "results that did not measure it"
    faster = [job("naive", seed, 0.4, images_per_second=2000.0) for seed in (0, 1)]
    rows = one(frame_of(*jobs, *faster), cost=True, sort="images_per_second").rows
    assert rows["method"].tolist() == ["naive", "er"], "the most images a second first"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rows": "seed"}, "rows='seed' cannot be rows of a table: use one of method, strategy"),
        ({"columns": "seed"}, "columns='seed' cannot be columns"),
        ({"rows": "head", "columns": "head"}, "rows=head and columns=head say the same twice"),
        ({"columns": "strategy"}, "rows=method and columns=strategy say the same twice"),
    ],
)
def test_impossible_tables(frame_of: Any, grid_of: Any, options: dict[str, str], told: str) -> None:
    with pytest.raises(CmlBenchError, match=told):
        compare(frame_of(*grid_of(2, 1, er=0.5)), **options)


def test_the_python_call_takes_several_folders(
    frame_of: Any, grid_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = {"a": frame_of(*grid_of(1, 1, er=0.5)), "b": frame_of(*grid_of(1, 1, lwf=0.4))}
    frames["all"] = pd.concat([frames["a"], frames["b"]])
    monkeypatch.setattr("cml_bench.report.stored.collect.collect", lambda folder: frames[folder.name])
    monkeypatch.chdir(tmp_path)
    (table,) = cml_bench.compare(["a", Path("b"), "all"]).benchmarks
    assert table.rows["method"].tolist() == ["er", "lwf"]
    assert table.rows["duplicates"].tolist() == [0, 0]
    (table,) = cml_bench.compare("a", ["forgetting"], rows="head").benchmarks
    assert table.rows["head"].tolist() == ["linear"]


@pytest.mark.parametrize(
    ("name", "meant"), [("mAP", "last_map"), ("cf1_macro", "last_cf1_macro@0.5"), ("forgeting", "forgetting")]
)
def test_a_bare_metric_is_taken_for_the_last_one(frame_of: Any, grid_of: Any, name: str, meant: str) -> None:
    frame = frame_of(*grid_of(2, 1, er=0.5)).assign(**{"last_cf1_macro@0.5": 0.1, "avg_cf1_macro@0.8": 0.1})
    with pytest.raises(CmlBenchError, match=f"did you mean '{meant}'"):
        compare(frame, [name])


def test_methods_that_share_no_job_are_not_ranked(frame_of: Any, grid_of: Any) -> None:
    frame = frame_of(*grid_of(3, 1, er=0.5, lwf=0.4), *grid_of(3, 1, "voc", naive=0.3))
    note = one(frame, "last_map", columns="benchmark").notes[0]
    assert note == (
        "No verdict on last mAP: ranks take 2 jobs of the same benchmark, class order and seed, and these 3 methods "
        "share 0 jobs."
    )


def test_the_same_images_under_two_settings_are_one_block(frame_of: Any, grid_of: Any) -> None:
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


def test_cells_average_the_same_methods(frame_of: Any, grid_of: Any, job: Any) -> None:
    """Good strategies alone were tried with ASL: its column must not look better for that."""
    asl = {"loss": "ASL"}
    jobs = [
        {**each, "loss": loss, "method": f"{each['method']}{' loss=asl' * (loss == 'ASL')}"}
        for loss, kept in (("BCE", ("er", "naive", "er head=dlfl", "naive head=dlfl")), ("ASL", ("er", "er head=dlfl")))
        for each in grid_of(3, 1, **{"er": 0.6, "naive": 0.2, "er__head=dlfl": 0.7, "naive__head=dlfl": 0.3})
        if each["method"] in kept
    ]
    table = one(frame_of(*jobs), "last_map", rows="head", columns="loss")
    cells = table.rows.set_index("head")
    good = {
        head: np.mean([each["last_map"] for each in jobs if each["method"] == name])
        for head, name in (("linear", "er"), ("dlfl", "er head=dlfl"))
    }
    for head, level in good.items():
        assert cells.loc[head, ["BCE_mean", "ASL_mean"]].tolist() == pytest.approx([level, level])
    assert table.notes[-1] == (
        "Left out, so that figures beside each other are over the same methods: naive, naive head=dlfl."
    )
    apart = [*jobs[:12], *({**each, **asl} for each in grid_of(3, 1, **{"lwf__loss=asl": 0.5}))]
    uneven = one(frame_of(*apart), "last_map", rows="head", columns="loss")
    assert uneven.rows.set_index("head").loc["linear", "BCE_mean"] == pytest.approx(0.4031, abs=1e-3)
    assert uneven.notes[-1].startswith("No method is in all cells")
    # Benchmarks are conditions: what is compared stands in one of them.
    voc = [{**each, "title": "VOC"} for each in grid_of(3, 1, "voc", **{"lwf": 0.5, "lwf__head=dlfl": 0.6})]
    both = one(frame_of(*jobs[:12], *voc), "last_map", rows="benchmark", columns="head")
    assert both.rows["n"].tolist() == [12, 6]
    assert not [note for note in both.notes if "beside each other" in note]
