"""Folders that can be read and not written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cml_bench.api import compare
from cml_bench.data.cache import cached_rows
from cml_bench.errors import CmlBenchError
from cml_bench.runs.run import run_and_store
from cml_bench.runs.sweep import execute

READ_ONLY = "Read-only file system"


def test_read_only_results_are_noticed_before_training_and_still_read(
    small_jobs: Any, disk: Callable[..., Any]
) -> None:
    done, more = small_jobs(["naive", "lwf"])
    results = disk("1m")
    run_and_store(done, results.folder)
    results.make_read_only()
    with pytest.raises(CmlBenchError, match=rf"cannot be written \({READ_ONLY}\): name a folder with --results"):
        execute([more], results.folder, workers=1, report=lambda event: pytest.fail("a job has started"))
    with pytest.raises(CmlBenchError, match=rf"cannot be written \({READ_ONLY}\): name a folder with --results"):
        run_and_store(more, results.folder)
    assert len(compare(results.folder).benchmarks[0].rows) == 1


def test_a_read_only_cache_is_used_and_not_added_to(disk: Callable[..., Any]) -> None:
    cache, rows = disk("1m"), torch.rand(20, 5)
    cached_rows(cache.folder, {"a": 1}, 20, lambda start: [rows])
    cache.make_read_only()
    stored = cached_rows(cache.folder, {"a": 1}, 20, lambda start: pytest.fail("computed although stored"))
    assert torch.equal(stored, rows.half())
    with pytest.raises(CmlBenchError, match=rf"{READ_ONLY}.*set CML_BENCH_CACHE elsewhere"):
        cached_rows(cache.folder, {"a": 2}, 20, lambda start: [rows])


def test_results_on_another_file_system_than_temporary_files(
    small_jobs: Any, disk: Callable[..., Any], tmp_path: Any, monkeypatch: Any
) -> None:
    """Files are written beside their place; moving one from elsewhere could not be one step."""
    temporary, results = disk("1m"), disk("1m")
    monkeypatch.setenv("TMPDIR", str(temporary.folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    temporary.make_read_only()
    jobs = small_jobs()
    assert temporary.folder.stat().st_dev != results.folder.stat().st_dev
    execute(jobs, results.folder, workers=1, report=lambda event: None)
    execute(jobs, tmp_path / "same", workers=1, report=lambda event: None)
    one, other = (sorted(folder.rglob("*.npz")) for folder in (results.folder, tmp_path / "same"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other] != []
