"""Result files: whole or not there."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cml_bench.errors import CmlBenchError
from cml_bench.runs.job import Job
from cml_bench.runs.results import is_done, result_path, write_result
from cml_bench.runs.run import run_and_store

JOB = Job("digits", "naive lr=0.5", "default", 0, (("epochs", "1.5"),))


def full(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_predictions_lie_beside_the_json(tmp_path: Path) -> None:
    path = result_path(tmp_path, JOB)
    assert path.suffix == ".json"
    assert path.stem == Path(JOB.slug).name, "a dot in the name was taken for a suffix"
    assert path.with_suffix(".npz").stem == path.stem


def test_a_write_replaces_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "er" / "result.json"
    write_result(path, {"status": "ok", "n": 1})
    seen: list[dict[str, Any]] = []
    replace = os.replace

    def watched(source: Path, target: Path) -> None:
        seen.append(json.loads(Path(target).read_text()))
        assert json.loads(Path(source).read_text())["n"] == 2
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    write_result(path, {"status": "ok", "n": 2})
    assert seen == [{"status": "ok", "n": 1}], "the old result was gone before the new one was whole"
    assert json.loads(path.read_text())["n"] == 2
    assert [file.name for file in path.parent.iterdir()] == ["result.json"]


@pytest.mark.parametrize("step", ["open", "replace"])
def test_a_full_disk_ends_in_one_sentence_and_leaves_the_old_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "result.json"
    write_result(path, {"n": 1})
    monkeypatch.setattr(*((Path, "open") if step == "open" else (os, "replace")), full)
    with pytest.raises(CmlBenchError) as caught:
        write_result(path, {"n": 2})
    assert str(path) in str(caught.value)
    assert "No space left on device" in str(caught.value)
    monkeypatch.undo()
    assert json.loads(path.read_text()) == {"n": 1}
    assert not list(tmp_path.glob("*.part"))


def test_a_folder_that_cannot_be_is_named(small_jobs: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    (job,) = small_jobs()
    with pytest.raises(CmlBenchError, match=r"cannot be written .*--results"):
        run_and_store(job, tmp_path / "file" / "results")


def test_a_disk_that_fills_up_under_the_predictions(
    small_jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = small_jobs()
    monkeypatch.setattr(np, "savez_compressed", full)
    result = run_and_store(job, tmp_path)
    assert result["status"] == "failed"
    assert "No space left on device" in result["error"]
    assert not is_done(tmp_path, job)
    assert not list(tmp_path.rglob("*.part"))


def test_what_no_json_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_result(tmp_path / "result.json", {"map": float("nan")})


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '{"status": "failed"}', "{}", '"ok"'])
def test_only_a_whole_success_counts_as_done(small_jobs: Any, tmp_path: Path, text: str) -> None:
    (job,) = small_jobs()
    run_and_store(job, tmp_path)
    path = result_path(tmp_path, job)
    whole = path.read_text()
    path.write_text(text)
    assert not is_done(tmp_path, job)
    path.write_text(whole)
    assert is_done(tmp_path, job)
    path.with_suffix(".npz").unlink()
    assert not is_done(tmp_path, job)
