"""Sweeps: engines agree, only what is missing runs, failures stay where they are, suite files."""

from __future__ import annotations

import io
import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import cml_bench
from cml_bench.api import run_jobs
from cml_bench.errors import CmlBenchError
from cml_bench.runs.engines import serial
from cml_bench.runs.events import Event
from cml_bench.runs.freshness import judge
from cml_bench.runs.job import Job, make_jobs
from cml_bench.runs.results import is_done, result_path
from cml_bench.runs.run import store_failure
from cml_bench.runs.sweep import execute, read_suite

SMALL = {"n_train": 40, "n_test": 40, "epochs": 1, "increment": 5}
STRATEGY = """
from dataclasses import dataclass
from cml_bench.training.strategy import Strategy, StrategyMeta

@dataclass(frozen=True)
class Mine(Strategy):
    meta = StrategyMeta(name="mine", title="{title}", family="test")

    def plugins(self, run):
        {body}
        return []
"""


def plugin(folder: Path, title: str = "Mine", body: str = "pass") -> str:
    path = folder / "mine.py"
    path.write_text(STRATEGY.format(title=title, body=body))
    return f"{path}:Mine"


def run(jobs: list[Job], results: Path, workers: int = 1) -> list[Event]:
    """Run what is missing, as the command line does; returns the events."""
    events: list[Event] = []
    missing = judge(jobs, results).to_run()
    if missing:
        execute(missing, results, workers=workers, report=events.append)
    return events


def blobs(jobs: list[Job], results: Path) -> list[bytes]:
    return [result_path(results, job).with_suffix(".npz").read_bytes() for job in jobs]


# -- engines ---------------------------------------------------------------------------------------------------------


def test_processes_give_what_serial_gives_and_a_failure_stops_nobody(small_jobs: Any, tmp_path: Path) -> None:
    good = small_jobs(["naive", "er memory_size=20"], seeds=[0, 1])
    bad = small_jobs(["naive lr=1e30"])
    jobs = [good[0], *bad, *good[1:]]
    events = run(jobs, tmp_path / "many", workers=2)
    assert not list((tmp_path / "many").rglob("*.part"))
    failures = [event for event in events if event.kind == "failed"]
    assert [event.job for event in failures] == [1]
    assert "lower" in failures[0].message
    assert sorted(event.job for event in events if event.kind == "done") == [0, 2, 3, 4]
    run(jobs, tmp_path / "one")
    assert blobs(good, tmp_path / "one") == blobs(good, tmp_path / "many")
    assert judge(jobs, tmp_path / "many").to_run() == bad
    assert judge(jobs, tmp_path / "one").to_run() == bad


def test_bad_input_stops_a_pool_before_anything_runs(small_jobs: Any, tmp_path: Path) -> None:
    with pytest.raises(CmlBenchError, match="did you mean 'naive'"):
        run([*small_jobs(), *small_jobs(["nave"])], tmp_path, workers=2)
    assert not list(tmp_path.rglob("*.json"))


def test_a_killed_worker_loses_nothing_that_is_done(small_jobs: Any, tmp_path: Path) -> None:
    """The first job is over before the second kills its process, because the second waits for the first's result."""
    (good,) = small_jobs()
    done = result_path(tmp_path / "results", good)
    body = (
        "import os, signal, sys, time, pathlib\n"
        f"        while not pathlib.Path({str(done)!r}).is_file(): time.sleep(0.05)\n"
        "        time.sleep(0.2)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)"
    )
    (deadly,) = small_jobs([plugin(tmp_path, body=body)])
    events = run([good, deadly], tmp_path / "results", workers=2)
    outcomes = [(event.job, event.kind) for event in events if event.kind in ("done", "failed", "note")]
    assert outcomes == [(0, "done"), (1, "note"), (1, "failed")]
    assert "the process was killed" in json.loads(result_path(tmp_path / "results", deadly).read_text())["error"]
    assert judge([good, deadly], tmp_path / "results").to_run() == [deadly]


def test_workers_are_never_more_than_jobs(small_jobs: Any, tmp_path: Path, monkeypatch: Any) -> None:
    used = []
    monkeypatch.setattr(serial.Serial, "execute", lambda engine, jobs, *_: used.append(len(jobs)))
    execute(small_jobs(), tmp_path, workers=8, report=lambda event: None)
    execute(small_jobs(device="cuda") * 3, tmp_path, workers=None, report=lambda event: None)
    execute(small_jobs(["naive device=cuda:1"]) * 2, tmp_path, workers=None, report=lambda event: None)
    assert used == [1, 3, 2]


# -- only what is missing --------------------------------------------------------------------------------------------


def ran(events: list[Event], jobs: list[Job], results: Path) -> int:
    return len([event for event in events if event.kind == "start"])


def test_a_rerun_runs_only_what_is_missing(small_jobs: Any, tmp_path: Path) -> None:
    first, more = small_jobs(["naive"]), small_jobs(["naive", "lwf"])
    assert ran(run(first, tmp_path), first, tmp_path) == 1
    written = result_path(tmp_path, first[0]).stat().st_mtime_ns
    assert ran(run(more, tmp_path), more, tmp_path) == 1
    assert ran(run(more, tmp_path), more, tmp_path) == 0
    assert result_path(tmp_path, first[0]).stat().st_mtime_ns == written
    assert all(is_done(tmp_path, job) for job in more)


@pytest.mark.parametrize("damage", ["json gone", "npz gone", "half a json", "no object", "failed"])
def test_half_a_result_runs_again(small_jobs: Any, tmp_path: Path, damage: str) -> None:
    jobs = small_jobs()
    run(jobs, tmp_path)
    path = result_path(tmp_path, jobs[0])
    before = blobs(jobs, tmp_path)
    if damage == "json gone":
        path.unlink()
    elif damage == "npz gone":
        path.with_suffix(".npz").unlink()
    elif damage == "half a json":
        path.write_text(path.read_text()[:100])
    elif damage == "no object":
        path.write_text("[1, 2]")
    else:
        path.write_text(json.dumps({**json.loads(path.read_text()), "status": "failed"}))
    assert judge(jobs, tmp_path).to_run() == jobs
    run(jobs, tmp_path)
    assert judge(jobs, tmp_path).to_run() == []
    assert blobs(jobs, tmp_path) == before


def test_a_mended_failure_becomes_a_result(small_jobs: Any, tmp_path: Path) -> None:
    """An edited plug-in file is another method: the broken version's result does not hide the mended one's."""
    broken = small_jobs([plugin(tmp_path, body="raise RuntimeError('not yet')")])
    run(broken, tmp_path / "results")
    assert judge(broken, tmp_path / "results").to_run() == broken
    failed = json.loads(result_path(tmp_path / "results", broken[0]).read_text())
    assert failed["error"].startswith("RuntimeError: not yet (mine.py, line ")
    mended = small_jobs([plugin(tmp_path)])
    run(mended, tmp_path / "results")
    assert judge(mended, tmp_path / "results").to_run() == []
    title = json.loads(result_path(tmp_path / "results", mended[0]).read_text())["method"]["title"]
    assert title == "Mine"
    edited = small_jobs([plugin(tmp_path, title="Mine, second edition")])
    assert judge(edited, tmp_path / "results").to_run() == edited
    run(edited, tmp_path / "results")
    title = json.loads(result_path(tmp_path / "results", edited[0]).read_text())["method"]["title"]
    assert title == "Mine, second edition"


def test_a_failure_that_is_kept_is_asked_for_no_data(small_jobs: Any, tmp_path: Path) -> None:
    """A failed result holds none where they could not be read then."""
    good, kept = small_jobs(["naive", "lwf"])
    run([good], tmp_path)
    failed = {**store_failure(kept, tmp_path, "the disk is not there"), "data": None}
    result_path(tmp_path, kept).write_text(json.dumps(failed))
    told = io.StringIO()
    run_jobs([kept, good], tmp_path, retry_failed=False, console=Console(file=told, width=200))
    assert told.getvalue().splitlines() == ["2 of 2 jobs done already; 0 left."]


@pytest.mark.parametrize("part", ["head", "loss"])
def test_an_edited_head_or_criterion_file_runs_again(tmp_path: Path, part: str) -> None:
    path = tmp_path / "my-part.py"
    spec = f"naive {part}={path}:Part"
    path.write_text("class Part: pass\n")
    before = make_jobs(["digits"], [spec], ["default"], [0])[0]
    assert before.method == spec, "the path was changed"
    key = before.key
    path.write_text("class Part: x = 1\n")
    assert make_jobs(["digits"], [spec], ["default"], [0])[0].key != key


# -- suite files -----------------------------------------------------------------------------------------------------


def suite(folder: Path, text: str) -> Path:
    path = folder / "suite.yaml"
    path.write_text(text)
    return path


def test_a_suite_is_the_product_of_its_lists(tmp_path: Path) -> None:
    text = """
title: Two by two
benchmarks: [digits]
methods: [naive, er memory_size=9]
class_orders: [default, "random:4"]
seeds: [3]
set: {epochs: 2, frozen: false, checkpoint: null, increment: 5}
"""
    made = read_suite(suite(tmp_path, text), ["epochs=7"])
    assert made.title == "Two by two"
    assert [(job.method, job.class_order, job.seed) for job in made.jobs] == [
        ("naive", "default", 3),
        ("er memory_size=9", "default", 3),
        ("naive", "random:4", 3),
        ("er memory_size=9", "random:4", 3),
    ]
    options = {"epochs": "7", "frozen": "false", "checkpoint": "none", "increment": "5"}
    assert all(dict(job.options) == options for job in made.jobs)


def test_counts_and_defaults(tmp_path: Path) -> None:
    made = read_suite(suite(tmp_path, "benchmarks: [digits]\nmethods: [naive]\nseeds: 2\nclass_orders: 2\n"))
    assert made.title == "suite"
    assert [(job.class_order, job.seed) for job in made.jobs] == [
        ("default", 0),
        ("random:1", 0),
        ("default", 1),
        ("random:1", 1),
    ]
    assert len(read_suite(suite(tmp_path, "benchmarks: [digits]\nmethods: [naive]\n")).jobs) == 1


def test_seeds_and_class_orders_that_are_given_win_over_those_of_the_file(tmp_path: Path) -> None:
    path = suite(tmp_path, "benchmarks: [digits]\nmethods: [naive]\nseeds: 2\nclass_orders: 2\n")
    made = read_suite(path, seeds="4,", class_orders="frequency,default")
    assert [(job.class_order, job.seed) for job in made.jobs] == [("frequency", 4), ("default", 4)]
    table = cml_bench.sweep(path, seeds=[4], class_orders="default", results=tmp_path / "r", **SMALL)
    assert [(part.rows["n"].tolist(), part.rows["n_expected"].tolist()) for part in table.benchmarks] == [([1], [1])]


def test_a_mapping_crosses_methods_and_vary_crosses_tables(tmp_path: Path) -> None:
    text = """
        benchmarks: [digits]
        methods:
          - joint
          - {strategy: [naive, er memory_size=20], head: [linear, dlfl], loss: [bce, "clml+asl reduction=sum"]}
        set: {epochs: 1}
        vary:
          regime: [full, missing_positives rate=0.6]
          increment: [2, 5]
    """
    made = read_suite(suite(tmp_path, textwrap.dedent(text)))
    methods = {"joint"} | {
        f"{strategy} head={head} loss={loss}{size}"
        for strategy, size in (("naive", ""), ("er", " memory_size=20"))
        for head in ("linear", "dlfl")
        for loss in ("bce", "clml loss.base='asl reduction=sum'")
    }
    assert {job.method for job in made.jobs} == methods
    assert len(made.jobs) == len(set(made.jobs)) == 9 * 4
    assert {tuple(value for _, value in sorted(job.options)) for job in made.jobs} == {
        ("1", increment, regime) for increment in ("2", "5") for regime in ("full", "missing_positives rate=0.6")
    }
    single = text.replace("[naive, er memory_size=20]", "naive").replace("[2, 5]", "5")
    assert set(read_suite(suite(tmp_path, textwrap.dedent(single))).jobs) == {
        job for job in made.jobs if not job.method.startswith("er ") and ("increment", "5") in job.options
    }
    narrowed = read_suite(suite(tmp_path, textwrap.dedent(text)), ["regime=full"])
    assert len(narrowed.jobs) == len(set(narrowed.jobs)) == 9 * 2


def test_tables_that_vary_crosses_fill_evenly(tmp_path: Path) -> None:
    """A sweep that is stopped has the same seeds and class orders everywhere, save the last."""
    text = (
        "benchmarks: [digits]\nmethods: [naive]\nvary: {regime: [full, single_positive]}\nseeds: 2\nclass_orders: 2\n"
    )
    made = read_suite(suite(tmp_path, text)).jobs
    assert [(job.seed, job.class_order, dict(job.options)["regime"]) for job in made] == [
        (seed, order, regime)
        for seed in (0, 1)
        for order in ("default", "random:1")
        for regime in ("full", "single_positive")
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("benchmarks: [digits]\nmethod: [naive]\n", "has no key 'method': did you mean 'methods'?"),
        ("benchmarks: digits\nmethods: [naive]\n", "needs a list of names under 'benchmarks', not 'digits'"),
        ("benchmarks: [digits]\n", "has no methods: add a list of names under 'methods'"),
        (
            "benchmarks: [digits]\nmethods: [{er: {memory_size: 50}}]\n",
            "without 'strategy': write {strategy: er, memory_size: 50} or a plain text, er memory_size=50",
        ),
        ("benchmarks: [digits]\nmethods: []\n", "needs a list of names under 'methods', not []"),
        ("benchmarks: [digits]\nmethods: [3]\n", "needs a list of names under 'methods', not [3]"),
        ("benchmarks: [digits\n", "is no YAML: expected ',' or ']', but got '<stream end>' in line 2, column 1"),
        ("- digits\n", "holds no keys"),
        ("", "holds no keys"),
        ("benchmarks: [digits]\nmethods: [naive]\nseeds: none\n", "seeds 'none' cannot be read"),
        (
            "benchmarks: [digits]\nmethods: [naive]\nset: [epochs]\n",
            "needs key: value pairs under 'set', not ['epochs']",
        ),
        ("benchmarks: [digits]\nmethods: [naive, naive]\n", "method 'naive' is listed twice"),
        ("benchmarks: [digits]\nmethods: [{strategy: er, head: }]\n", "gives no value for 'head' under 'methods'"),
        ("benchmarks: [digits]\nmethods: [naive]\nvary: {lr: []}\n", "gives no value for 'lr' under 'vary'"),
        ("benchmarks: [digits]\nmethods: [naive]\nvary: [lr]\n", "needs key: list pairs under 'vary', not ['lr']"),
        (
            "benchmarks: [digits]\nmethods: [naive]\nset: {lr: 0.1}\nvary: {lr: [0.2]}\n",
            "has 'lr' under both 'set' and 'vary': keep one of them",
        ),
    ],
)
def test_bad_suites_end_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(CmlBenchError) as caught:
        read_suite(suite(tmp_path, text))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_suite_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(CmlBenchError, match="cannot be read"):
        read_suite(tmp_path / "no.yaml")
    with pytest.raises(CmlBenchError, match="cannot be read"):
        read_suite(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(CmlBenchError, match=r"binary\.yaml"):
        read_suite(tmp_path / "binary.yaml")


def test_a_results_folder_that_cannot_be_written_is_noticed_before_training(small_jobs: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CmlBenchError, match=r"results folder .*file cannot be written .*name a folder with --results"):
        execute(small_jobs(), tmp_path / "file", workers=1, report=lambda event: pytest.fail("a job has started"))
