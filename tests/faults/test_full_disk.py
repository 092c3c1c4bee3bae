"""A disk runs full while something is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cml_bench.cli import main
from cml_bench.data.cache import cached_rows
from cml_bench.data.sets.image_folder import ImageFolder
from cml_bench.data.table import LabelTable
from cml_bench.errors import CmlBenchError
from cml_bench.runs.events import Event
from cml_bench.runs.freshness import judge
from cml_bench.runs.results import read_result, result_path
from cml_bench.runs.run import run_and_store, run_job
from cml_bench.runs.sweep import execute

FULL = "No space left on device"


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix not in (".lock", ""))


@pytest.mark.parametrize("workers", [1, 2])
def test_results_that_do_not_fit_end_the_sweep_in_a_sentence(
    small_jobs: Any, disk: Callable[..., Any], workers: int
) -> None:
    full = disk("512k")
    ballast = full.fill()
    jobs = small_jobs(seeds=[0, 1])
    with pytest.raises(CmlBenchError, match=rf"^result .*\.json cannot be written \({FULL}\): free space") as caught:
        execute(jobs, full.folder, workers=workers, report=lambda event: None)
    assert "\n" not in str(caught.value)
    assert files(full.folder) == []
    ballast.unlink()
    execute(jobs, full.folder, workers=1, report=lambda event: None)
    assert judge(jobs, full.folder).to_run() == []


def test_predictions_that_do_not_fit_are_a_failed_result(small_jobs: Any, disk: Callable[..., Any]) -> None:
    full = disk("512k")
    (job,) = small_jobs(n_test=1500)
    ballast = full.fill(left=16384)
    result = run_and_store(job, full.folder, checkpoint_every="never")
    assert result is not None
    assert result["error"].endswith(f".npz cannot be written ({FULL}): free space or name another folder")
    assert files(full.folder) == [result_path(full.folder, job).name]
    ballast.unlink()
    assert judge([job], full.folder).to_run() == [job]
    run_and_store(job, full.folder)
    assert read_result(result_path(full.folder, job)).status == "ok"


def test_a_job_whose_checkpoints_do_not_fit_goes_on_without(small_jobs: Any, disk: Callable[..., Any]) -> None:
    full = disk("8m")
    (job,) = small_jobs(["er memory_size=10"], increment=2)
    notes: list[str] = []

    def fill_up(event: Event) -> None:
        if event.kind == "note":
            notes.append(event.message)
        # The first checkpoint is there, the second one finds half a page.
        if event.kind == "epoch" and event.experience == 1:
            full.fill(left=4096)

    logits = run_job(job, checkpoints=full.folder, report=fill_up).predictions.logits
    assert notes == [f"checkpoint in {full.folder} cannot be written ({FULL}): free space to be able to go on"]
    (kept,) = full.folder.glob("*.safetensors")
    assert kept.name.startswith("0001-")
    assert not list(full.folder.glob("*.part"))
    assert [block.tobytes() for block in logits] == [block.tobytes() for block in run_job(job).predictions.logits]
    notes.clear()
    run_job(job, checkpoints=full.folder, report=lambda event: notes.append(event.message))
    assert "goes on after experience 1" in notes


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own thread
def test_a_job_whose_log_does_not_fit_goes_on_without(small_jobs: Any, disk: Callable[..., Any]) -> None:
    full = disk("64k")
    (job,) = small_jobs(epochs=60)
    notes: list[str] = []

    def fill_up(event: Event) -> None:
        if event.kind == "note":
            notes.append(event.message)
        if event.kind == "epoch" and event.epoch == 2 and event.experience == 0:
            full.fill()

    made = run_job(dataclasses.replace(job, log="tensorboard"), log=full.folder / "log", report=fill_up)
    assert notes == [f"log in {full.folder / 'log'} cannot be written ({FULL}): the job goes on without it"]
    assert made.result["status"] == "ok"


def test_features_that_do_not_fit_leave_nothing(disk: Callable[..., Any]) -> None:
    full = disk("256k")
    rows = torch.rand(100, 1000)

    def compute(start: int) -> Any:
        return iter(rows.split(10))

    with pytest.raises(CmlBenchError, match=rf"{FULL}.*free some space"):
        cached_rows(full.folder, {"a": 1}, 200, lambda start: iter([*rows.split(10), *rows.split(10)]))
    assert files(full.folder) == []
    assert torch.equal(cached_rows(full.folder, {"a": 1}, 100, compute), rows.half())


def test_a_label_table_that_does_not_fit_leaves_nothing(
    disk: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = disk("64k")
    labels = np.zeros((9000, 40), dtype=np.int8)
    table = LabelTable(label_names=tuple(f"l{i}" for i in range(40)), ids=np.arange(9000), labels=labels)
    with pytest.raises(OSError, match=FULL):
        table.save(full.folder / "table.npz")
    assert files(full.folder) == []
    (tmp_path / "train.csv").write_text(
        "file,cat\n" + "".join(f"a/long/name/of/an/image/{n}.jpg,1\n" for n in range(900))
    )
    monkeypatch.setenv("CML_BENCH_CACHE", str(full.folder))
    with pytest.warns(UserWarning, match=rf"the label table cannot be stored in .* \({FULL}\)"):
        assert len(ImageFolder(root=str(tmp_path)).table("train")) == 900
    assert files(full.folder) == []
    with pytest.raises(SystemExit) as left:
        main(["data", "prepare", "image_folder", "--root", str(tmp_path), "--split", "train"])
    assert left.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("cml-bench: the label table cannot be stored in ")
    assert said.count("\n") == 1
