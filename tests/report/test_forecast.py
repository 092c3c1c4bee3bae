"""What a sweep would run, told before it runs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from cml_bench.api import run_jobs
from cml_bench.report.forecast import forecast, to_terminal
from cml_bench.runs.results import result_path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


def test_done_failed_and_missing_jobs(small_jobs: Any, folder: Path) -> None:
    done, failed = small_jobs(["naive"], seeds=[0, 1]), small_jobs(["naive lr=1e30"])
    run_jobs([*done, *failed], folder, workers=1)
    jobs = [
        *done,
        *failed,
        *small_jobs(["naive"], seeds=[2]),
        *small_jobs(["lwf"]),
        *small_jobs(["naive"], increment=2),
    ]
    rows = forecast(jobs, folder)
    assert rows["status"].tolist() == ["done", "done", "failed", "missing", "missing", "missing"]
    assert rows["runs"].tolist() == [False, False, True, True, True, True]
    assert forecast(jobs, folder, retry_failed=False)["runs"].tolist() == [False, False, False, True, True, True]
    costs = [json.loads(result_path(folder, job).read_text())["cost"]["seconds"] for job in done]
    mean = sum(sum(cost.values()) - cost["cache"] for cost in costs) / 2
    # A method that never ran is taken for its neighbours; other options are another benchmark.
    assert rows["seconds"].tolist()[:5] == pytest.approx([mean] * 5)
    assert pd.isna(rows["seconds"].tolist()[5])

    stream = io.StringIO()
    Console(file=stream, width=200).print(to_terminal(rows, workers=2))
    lines = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    # What every job has is said once; a row says what is its own.
    assert lines[0] == "All jobs: epochs=1 n_test=40 n_train=40"
    assert "benchmark options method jobs done to run time a job" in lines
    assert any(line.startswith(f"{done[0].benchmark} increment=2 naive 1 0 1 ") for line in lines)
    last = lines[-1]
    assert last.startswith("6 jobs: 2 done, 1 failed, 4 to run (about 0:00:0")
    assert last.endswith("with 2 at once, and 1 of which no like has been run)")


@pytest.mark.parametrize(("workers", "told"), [(1, "about 0:06:40 with 1"), (2, "about 0:03:20 with 2")])
def test_workers_share_the_time(workers: int, told: str) -> None:
    rows = pd.DataFrame(
        {"benchmark": "b", "options": "", "method": [f"m{i}" for i in range(4)], "status": "missing", "runs": True}
    ).assign(seconds=100.0)
    stream = io.StringIO()
    Console(file=stream, width=200).print(to_terminal(rows, workers=workers))
    assert told in stream.getvalue()


def test_nothing_has_run_yet(small_jobs: Any, tmp_path: Path) -> None:
    rows = forecast(small_jobs(), tmp_path / "nowhere")
    assert rows["status"].tolist() == ["missing"]
    stream = io.StringIO()
    Console(file=stream, width=200).print(to_terminal(rows, workers=None))
    assert stream.getvalue().splitlines()[-1].endswith("1 job: 0 done, 0 failed, 1 to run (how long cannot be told)")
