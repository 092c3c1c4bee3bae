"""Two processes want the same job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cml_bench.runs.engines.engine import SKIPPED
from cml_bench.runs.events import Event
from cml_bench.runs.freshness import judge
from cml_bench.runs.results import result_path
from cml_bench.runs.run import run_and_store
from cml_bench.runs.sweep import execute


def outcomes(server: Any, starts: list[tuple[Any, tuple[Any, ...], dict[str, Any]]]) -> list[list[Event]]:
    """Run functions at once, each in a process; return what each reports."""
    queues = [server.SimpleQueue() for _ in starts]
    processes = [
        server.Process(target=function, args=arguments, kwargs={**options, "report": queue.put})
        for (function, arguments, options), queue in zip(starts, queues, strict=True)
    ]
    for process in processes:
        process.start()
    events: list[list[Event]] = []
    for process, queue in zip(processes, queues, strict=True):
        told = []
        while process.is_alive() or not queue.empty():
            if queue.empty():
                process.join(0.05)
            else:
                told.append(queue.get())
        assert process.exitcode == 0
        events.append(told)
    return events


def of_kind(events: list[Event], kind: str) -> list[int]:
    return [event.job for event in events if event.kind == kind]


def test_one_job_is_run_once(server: Any, small_jobs: Any, tmp_path: Path) -> None:
    (job,) = small_jobs(["er memory_size=10"])
    told = outcomes(server, [(run_and_store, (job, tmp_path), {})] * 2)
    assert sorted(event.kind for events in told for event in events if event.kind in ("start", "done", "skipped")) == [
        "done",
        "skipped",
        "start",
    ]
    assert SKIPPED in [event.message for events in told for event in events]
    assert sorted(path.suffix for path in result_path(tmp_path, job).parent.iterdir()) == [".json", ".npz"]


def test_two_sweeps_at_once_run_every_job_once(server: Any, small_jobs: Any, tmp_path: Path) -> None:
    jobs = small_jobs(["naive", "er memory_size=10"], seeds=[0, 1, 2])
    told = outcomes(server, [(execute, (jobs, tmp_path), {"workers": 1})] * 2)
    ran = [sorted(of_kind(events, "start")) for events in told]
    assert sorted(ran[0] + ran[1]) == list(range(len(jobs)))
    for events, own in zip(told, ran, strict=True):
        assert sorted(of_kind(events, "done")) == own
        assert sorted(of_kind(events, "done") + of_kind(events, "skipped")) == list(range(len(jobs)))
    assert judge(jobs, tmp_path).to_run() == []
    assert not list(tmp_path.rglob("*.lock"))


def test_a_job_that_was_finished_meanwhile_is_left_alone(small_jobs: Any, tmp_path: Path) -> None:
    """Whoever comes late chose the job while it had no result; a failed one is run again."""
    (job,) = small_jobs()
    first = run_and_store(job, tmp_path)
    path = result_path(tmp_path, job)
    written = path.read_bytes()
    events: list[Event] = []
    assert run_and_store(job, tmp_path, report=events.append) is None
    assert [(event.kind, event.message) for event in events] == [("skipped", SKIPPED)]
    assert path.read_bytes() == written
    path.write_text(json.dumps({**first, "status": "failed"}))
    assert run_and_store(job, tmp_path)["status"] == "ok"
