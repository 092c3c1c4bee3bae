"""Rows, columns, marks and costs of comparison tables, over jobs written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cml_bench
from cml_bench.errors import CmlBenchError
from cml_bench.report.formats.csv import to_csv
from cml_bench.report.formats.grid import make_grid
from cml_bench.report.stored.collect import collect
from cml_bench.report.tables.compare import compare


def test_intervals_are_those_of_the_statistics(one: Any, frame_of: Any, grid_of: Any) -> None:
    rows = one(frame_of(*grid_of(3, 3, er=0.5))).rows
    values = [each["last_map"] for each in grid_of(3, 3, er=0.5)]
    assert rows.loc[0, "last_map_level"] == 0.95
    assert min(values) < rows.loc[0, "last_map_low"] < np.mean(values) < rows.loc[0, "last_map_high"] < max(values)
    few = one(frame_of(*grid_of(3, 1, er=0.5))).rows
    assert few.loc[0, ["last_map_low", "last_map_high", "last_map_level"]].tolist() == [0.5, 0.5064, 0.75]


def test_strategies_by_heads(one: Any, frame_of: Any, grid_of: Any) -> None:
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


def test_losses_with_the_same_title_are_told_apart_by_their_options(one: Any, frame_of: Any, grid_of: Any) -> None:
    jobs = grid_of(1, 1, **{"er": 0.1, "er__loss=an__loss.scope=seen": 0.2, "er__loss=an__loss.scope=unmarked": 0.3})
    for each in jobs[1:]:
        each["loss"] = "AN"
    rows = one(frame_of(*jobs), rows="loss").rows
    assert sorted(rows["loss"]) == ["AN scope=seen", "AN scope=unmarked", "BCE"]


def test_benchmarks_side_by_side(one: Any, frame_of: Any, grid_of: Any) -> None:
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


def test_ranks_stand_under_three_methods_on_several_benchmarks(one: Any, frame_of: Any, grid_of: Any) -> None:
    frame = frame_of(*grid_of(6, 1, er=0.5, lwf=0.4, naive=0.3), *grid_of(6, 1, "voc", er=0.8, lwf=0.7, naive=0.2))
    table = one(frame, "last_map", columns="benchmark")
    assert table.notes[0].startswith(
        "Best average rank of last mAP: er (1, next lwf 2) over 12 blocks of 2 benchmarks, Friedman p < 0"
    )


def test_versions_of_a_benchmark_are_columns_of_their_own(one: Any, frame_of: Any, grid_of: Any) -> None:
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
        "2 benchmarks or settings of one, a table each: --columns benchmark puts them side by side.",
        "No job on Voc, B0-C2: lwf.",
    )
    assert compare(frame, columns="benchmark").notes == ("No job on Voc, B0-C2: lwf.",)
    assert compare(frame_of(*grid_of(2, 1, er=0.5))).notes == ()


def test_conditions_are_not_ranked(one: Any, frame_of: Any, grid_of: Any) -> None:
    table = one(frame_of(*grid_of(3, 2, er=0.5, lwf=0.4)), rows="class_order")
    assert table.verdict is None
    assert table.rows["class_order"].tolist() == ["default", "random:1"]
    assert not make_grid(table).marks.to_numpy().any()
    assert table.notes == ("Each class order is averaged over method (er, lwf).",)


def test_bounds_lead_nothing(one: Any, frame_of: Any, grid_of: Any) -> None:
    table = one(frame_of(*grid_of(3, 2, joint=0.9, er=0.5, lwf=0.4)))
    assert table.competitors == ("er", "lwf")
    assert table.verdict is not None
    assert table.verdict.best == "er"
    assert table.notes[1] == "Bounds, not ranked: joint."
    marks = make_grid(table).marks
    assert marks["last mAP"].tolist() == ["", "best", ""], "of two, none is the second"


def test_blocks_of_bounds_alone_take_no_mark_from_others(one: Any, frame_of: Any, grid_of: Any) -> None:
    table = one(frame_of(*grid_of(5, 1, joint=0.9), *grid_of(3, 1, er=0.5, lwf=0.4)))
    assert table.competitors == ("er", "lwf")
    assert table.verdict is not None
    assert table.verdict.best == "er"
    assert make_grid(table).marks["last mAP"].tolist() == ["", "best", ""]


def test_equal_figures_are_marked_alike(one: Any, frame_of: Any, job: Any) -> None:
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
def test_marks_are_competition_ranks(one: Any, frame_of: Any, job: Any, levels: list[int]) -> None:
    jobs = [job(f"m{i}", seed, level / 10) for i, level in enumerate(levels) for seed in (0, 1)]
    table = one(frame_of(*jobs), "last_map")
    marks = dict(zip(table.rows["method"], make_grid(table).marks["last mAP"], strict=True))
    for i, level in enumerate(levels):
        better = sum(other > level for other in levels)
        assert marks[f"m{i}"] == {0: "best", 1: "second"}.get(better, "")


def test_sorting(one: Any, frame_of: Any, job: Any) -> None:
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


def test_rows_that_only_have_easy_columns_are_not_lifted(one: Any, frame_of: Any, grid_of: Any) -> None:
    frame = frame_of(*grid_of(2, 1, er=0.3, lwf=0.2), *grid_of(2, 1, "voc", er=0.9, lwf=0.8, easy=0.7))
    assert one(frame, "last_map", columns="benchmark").rows["method"].tolist() == ["er", "lwf", "easy"]


def test_costs_are_columns(one: Any, frame_of: Any, job: Any) -> None:
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


@pytest.mark.parametrize("columns", ["benchmark", "class_order", "metric"])
def test_a_configuration_of_which_nothing_finished_leaves_the_others_their_tables(
    stored_runs: Any, as_failed: Any, tmp_path: Path, columns: str
) -> None:
    def fail(result: dict[str, Any]) -> None:
        if result["job"]["benchmark"] == "broken":
            kept = as_failed(result, "no such file")
            result.clear()
            result.update(kept)

    runs = stored_runs(tmp_path / "runs", ["er", "naive"], benchmarks=("digits", "broken"), change=fail)
    table = compare(collect(runs), ["last_map"], columns=columns)
    assert to_csv(table).count("\n") > 2


def test_the_order_of_rows_over_several_columns_is_told(one: Any, frame_of: Any, grid_of: Any) -> None:
    """Mean distance from the columns' means, worked out anew: a row that has an easy column alone is not lifted."""
    frame = frame_of(*grid_of(2, 1, er=0.3, lwf=0.2), *grid_of(2, 1, "voc", er=0.9, lwf=0.8, easy=0.7))
    table = one(frame, "last_map", columns="benchmark")
    told = "Rows are in order of their mean distance from the means of the columns."
    assert told in table.notes
    means = table.rows.set_index("method")[[f"{column.key}_mean" for column in table.columns]]
    assert (means - means.mean()).mean(axis=1).is_monotonic_decreasing
    assert told not in one(frame, "last_map", columns="benchmark", sort="method").notes


def test_an_interval_of_few_pairs_says_its_level_beside_others(one: Any, frame_of: Any, grid_of: Any) -> None:
    frame = frame_of(*grid_of(6, 1, er=0.5, lwf=0.4), *grid_of(2, 1, new=0.45))
    cells = make_grid(one(frame, "last_map", baseline="er")).cells.set_index("method")["last mAP vs er"]
    assert cells["new"].endswith("; 50 %]")
    assert "%" not in cells["lwf"]
