"""Means beside each other are over the same jobs, or a table says which are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cml_bench.report.formats.grid import make_grid
from cml_bench.report.page.write import write_page
from cml_bench.report.stored.collect import collect
from cml_bench.report.tables.compare import compare


def test_heads_are_compared_where_all_else_is_the_same(one: Any, frame_of: Any, grid_of: Any) -> None:
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


def test_jobs_without_a_pair_are_named(one: Any, frame_of: Any, grid_of: Any) -> None:
    jobs = [*grid_of(3, 1, er=0.5), *grid_of(5, 1, **{"er__head=dlfl": 0.6})]
    table = one(frame_of(*jobs), rows="head")
    assert table.rows["n"].tolist() == [3, 3]
    told = "for no other head has the same seed and class order: jobs of er head=dlfl (2)."
    assert table.notes[-1] == f"Left out, {told}"
    (shown,) = compare(frame_of(*jobs), ["last_map"], rows="benchmark", columns="head").benchmarks
    assert shown.rows["n"].tolist() == [8]
    assert shown.notes[-1] == f"Not compared, {told}"


def test_means_over_other_jobs_are_named_with_what_completes_them(one: Any, frame_of: Any, grid_of: Any) -> None:
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
    # A list of one seed ends in a comma, which no sentence may swallow.
    later = [each for each in grid_of(2, 1, lucky=0.9, er=0.5) if each["method"] == "er" or each["seed"] == 0]
    assert (
        one(frame_of(*later), "last_map").notes[-1].endswith("with --seeds '1,' --class-orders default completes them.")
    )
    few = [*jobs[:1], *jobs[2:], *grid_of(2, 3, "voc", er=0.8)]
    side = one(frame_of(*few), "last_map", columns="benchmark")
    assert [note for note in side.notes if "other jobs" in note] == [
        f"{told}lucky (1 of 6 jobs on Digits, B0-C2). Their command with --seeds 2 --class-orders "
        "default,random:1,random:2 completes them."
    ]
    # A command runs no job that nobody else has: that would be one more for others to lack.
    gaps = [
        each
        for each in [*grid_of(3, 2, er=0.5, lwf=0.4), *grid_of(1, 4, er=0.5, lwf=0.4)]
        if (each["class_order"] in ("default", "random:1")) or each["seed"] == 0
        if each["method"] == "er" or (each["class_order"], each["seed"]) not in [("default", 2), ("random:3", 0)]
    ]
    assert (
        one(frame_of(*gaps), "last_map")
        .notes[-1]
        .endswith(
            "with --seeds 1 --class-orders random:3, and with --seeds '2,' --class-orders default completes them."
        )
    )
    turned = one(frame_of(*few), "last_map", rows="benchmark", columns="method")
    assert [note for note in turned.notes if "other jobs" in note] == [
        note for note in side.notes if "other jobs" in note
    ]


def test_heads_that_some_strategies_lack_are_named(one: Any, frame_of: Any, grid_of: Any) -> None:
    names = ("er", "er head=dlfl", "er head=krt", "lwf", "lwf head=dlfl")
    jobs = grid_of(2, 1, **{name.replace(" ", "__"): 0.5 for name in names})
    told = "Means over other jobs than the rest compare little: krt (2 of 4 jobs)."
    assert told in one(frame_of(*jobs), "last_map", rows="head").notes
    # In a grid the figures beside each other are over the same jobs.
    grid = one(frame_of(*jobs), "last_map", rows="head", columns="strategy")
    assert not [note for note in grid.notes if "other jobs" in note]


def test_heads_of_unlike_methods_are_no_comparison(one: Any, frame_of: Any, grid_of: Any) -> None:
    table = one(frame_of(*grid_of(6, 1, **{"er": 0.5, "lwf__head=dlfl": 0.9})), rows="head")
    assert table.verdict is not None
    assert not table.verdict.real
    told = "No two of these differ in the head alone: their means are over different jobs and compare nothing."
    assert told in table.notes
    assert not make_grid(table).marks.to_numpy().any()
    alike = one(frame_of(*grid_of(6, 1, **{"er": 0.5, "er__head=dlfl": 0.9})), rows="head")
    assert told not in alike.notes


def test_a_method_that_shares_no_job_is_not_compared(one: Any, frame_of: Any, grid_of: Any) -> None:
    frame = frame_of(*grid_of(3, 1, er=0.5, lwf=0.4), *grid_of(3, 1, "voc", naive=0.3))
    note = one(frame, "last_map", columns="benchmark").notes[0]
    assert note.startswith("Best last mAP of those compared: er, 10.0 above lwf over 3 pairs: cannot be told apart.")
    assert note.endswith("Not compared, for lack of jobs: naive.")


def test_cells_average_the_same_methods(one: Any, frame_of: Any, grid_of: Any, job: Any) -> None:
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


def test_a_failure_of_a_plug_in_that_has_been_mended_is_none(
    stored_runs: Any, as_failed: Any, tmp_path: Path, capsys: Any
) -> None:
    """The mended file is another job, with another key; the failure that nobody can try again stays in its file."""

    def fail(result: dict[str, Any]) -> None:
        kept = as_failed(result, "NameError: name 'tensor' is not defined (mine.py, line 3)")
        result.clear()
        result.update(kept, key=f"{kept['key']} before")

    runs = stored_runs(tmp_path / "runs", ["mine.py:Mine", "er"])
    stored_runs(runs / "before", ["mine.py:Mine"], change=fail)
    frame = collect(runs)
    assert (frame["status"] == "failed").sum() == 6
    (table,) = compare(frame).benchmarks
    assert table.rows["failed"].tolist() == [0, 0]
    page = write_page(frame, tmp_path / "page.html", figures=False).read_text()
    assert "NameError" not in page
    stored_runs(runs / "other", ["er"], orders=("random:7",), change=fail)
    (table,) = compare(collect(runs)).benchmarks
    assert table.rows.set_index("method")["failed"].to_dict() == {"mine.py:Mine": 0, "er": 3}
