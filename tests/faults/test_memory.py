"""Memory runs out: the job has failed, the others go on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cml_bench.runs.events import Event
from cml_bench.runs.freshness import judge
from cml_bench.runs.results import read_result, result_path
from cml_bench.runs.sweep import execute

LIMITED = """
import resource, torch
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 28), resource.RLIM_INFINITY))
try:
    torch.zeros(1 << 30)
finally:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""
KILLED = """
import os
open({tasks!r}, "w").write(str(os.getpid()))
taken = [bytearray(os.urandom(1 << 20)) for _ in range(512)]
"""


@pytest.fixture
def group(until: Callable[..., None]) -> Iterator[Path]:
    """A group of processes that may take 64 MiB more than they have; the kernel kills who takes more."""
    folder = Path(f"/sys/fs/cgroup/memory/cml_bench_{os.getpid()}")
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(1 << 26))
    except OSError as error:
        pytest.skip(f"no memory group can be made here ({error})")
    yield folder
    until(lambda: not (folder / "cgroup.procs").read_text())
    folder.rmdir()


def test_an_allocation_that_fails_is_a_failed_result(small_jobs: Any, plugin: Any, tmp_path: Path) -> None:
    (hungry,) = small_jobs([plugin("hungry", LIMITED)])
    (good,) = small_jobs()
    execute([hungry, good], tmp_path / "results", workers=1, report=lambda event: None)
    error = read_result(result_path(tmp_path / "results", hungry)).error
    assert error is not None
    assert "can't allocate memory" in error
    assert "\n" not in error
    assert judge([hungry, good], tmp_path / "results").to_run() == [hungry]


def test_a_worker_that_the_kernel_kills_is_a_failed_result(
    server: Any, small_jobs: Any, plugin: Any, tmp_path: Path, group: Path
) -> None:
    (hungry,) = small_jobs([plugin("hungry", KILLED.format(tasks=str(group / "cgroup.procs")))])
    good = small_jobs(seeds=[0, 1])
    events: list[Event] = []
    execute([good[0], hungry, good[1]], tmp_path / "results", workers=2, report=events.append)
    # What a worker said last may be lost with its neighbour: then its job is found done when its turn comes again.
    assert {event.job for event in events if event.kind in ("done", "skipped")} == {0, 2}
    error = read_result(result_path(tmp_path / "results", hungry)).error
    assert error == "the process was killed (out of memory?): free memory, or run fewer jobs at once with --workers"
    assert [event.job for event in events if event.kind == "failed"] == [1]
    assert judge([*good, hungry], tmp_path / "results").to_run() == [hungry]
