"""Options that JSON does not know: they are kept as they are typed, or refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cml_bench.errors import CmlBenchError
from cml_bench.options import convert, recorded
from cml_bench.runs import run as runs
from cml_bench.runs.freshness import judge
from cml_bench.runs.plan import plan
from cml_bench.runs.results import read_result, result_path
from cml_bench.runs.sweep import execute

STRATEGY = """
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from cml_bench import Strategy, StrategyMeta

@dataclass(frozen=True)
class Mine(Strategy):
    value: {kind}

    meta = StrategyMeta(name="mine", title="Mine", family="test")

    def plugins(self, run):
        return []
"""


def plugin(folder: Path, kind: str) -> str:
    path = folder / f"{kind.lower()}.py"
    path.write_text(STRATEGY.format(kind=kind))
    return f"{path}:Mine"


def run(jobs: Any, results: Path) -> list[Any]:
    execute(jobs, results, workers=1, report=lambda event: None)
    return [read_result(result_path(results, job)) for job in jobs]


def test_what_json_does_not_know_is_kept_as_it_is_typed(small_jobs: Any, tmp_path: Path) -> None:
    methods = [f"{plugin(tmp_path, kind)} value={value}" for kind, value in (("float", "-inf"), ("Path", "a/b.npz"))]
    jobs = small_jobs([*methods, "l3a threshold=inf", "naive"])
    results = run(jobs, tmp_path / "results")
    assert [result.status for result in results] == ["ok"] * 4
    options = [result.method.options for result in results if result.method]
    assert [options[0]["value"], options[1]["value"], options[2]["threshold"]] == ["-inf", "a/b.npz", "inf"]
    learners = [plan(job).learner for job in jobs]
    for learner, kept in zip(learners, options, strict=True):
        assert convert(type(learner), {name: str(value) for name, value in kept.items()}, owner="it") == vars(learner)
    assert judge(jobs, tmp_path / "results").having("done") == jobs


@pytest.mark.parametrize("workers", [1, 2])
def test_what_no_result_can_hold_is_refused_before_anything_runs(small_jobs: Any, tmp_path: Path, workers: int) -> None:
    jobs = small_jobs(["naive", f"{plugin(tmp_path, 'Decimal')} value=0.1"])
    with pytest.raises(
        CmlBenchError, match=r"option value=Decimal\('0.1'\) of strategy .* is a Decimal, which no result"
    ):
        execute(jobs, tmp_path / "results", workers=workers, report=lambda event: None)
    assert not list((tmp_path / "results").rglob("*.json"))


def test_plain_options_stay_as_they_are() -> None:
    options = {"a": 1, "b": 0.5, "c": None, "d": True, "e": "x"}
    assert recorded({**options, "f": [options], "g": (1, (2.0,))}, "it") == {**options, "f": [options], "g": [1, [2.0]]}


def test_a_result_that_cannot_be_written_fails_its_job_alone(
    small_jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    success = runs.success

    def of_a_plug_in(job: Any, *rest: Any) -> Any:
        return {**success(job, *rest), "missing": [float("nan")] if job.seed == 0 else []}

    monkeypatch.setattr(runs, "success", of_a_plug_in)
    first, second = run(small_jobs(seeds=[0, 1]), tmp_path)
    assert (first.status, second.status) == ("failed", "ok")
    assert "ValueError" in str(first.error)
