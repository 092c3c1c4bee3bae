"""A stopped job goes on: the same predictions, whatever happens to the files meanwhile."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from cml_bench.errors import CmlBenchError
from cml_bench.runs import checkpoint
from cml_bench.runs.events import Event
from cml_bench.runs.job import Job
from cml_bench.runs.results import checkpoint_folder, result_path
from cml_bench.runs.run import run_and_store, run_job

Jobs = Callable[..., list[Job]]


class Stopped(BaseException):
    """The job is interrupted."""


def stopping(experience: int, notes: list[str] | None = None) -> Callable[[Event], None]:
    """Return a listener that interrupts a job at the end of an epoch of an experience."""

    def report(event: Event) -> None:
        if notes is not None and event.kind == "note":
            notes.append(event.message)
        if event.kind == "epoch" and event.experience == experience:
            raise Stopped

    return report


def stop(job: Job, folder: Path, experience: int) -> None:
    with pytest.raises(Stopped):
        run_job(job, checkpoints=folder, report=stopping(experience))


def go_on(job: Job, folder: Path) -> tuple[list[np.ndarray[Any, Any]], list[str]]:
    """Return the logits of a job that goes on, and what the user is told."""
    notes: list[str] = []
    made = run_job(job, checkpoints=folder, report=stopping(-1, notes))
    return list(made.predictions.logits), notes


def same(one: Any, two: Any) -> bool:
    return len(one) == len(two) and all(a.tobytes() == b.tobytes() for a, b in zip(one, two, strict=True))


def small(small_jobs: Jobs, method: str = "er memory_size=10", **options: Any) -> Job:
    (job,) = small_jobs([method], **{"n_train": 30, "n_test": 20, "increment": 4, **options})
    return job


# -- exactness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("naive", {"augment": "true"}),
        pytest.param("er memory_size=10", {"augment": "strong", "schedule": "one_cycle"}, marks=pytest.mark.slow),
        ("er memory_size=10 store=pixels loss=role", {}),
        ("prs memory_size=10", {"online_chunk": 7}),
        pytest.param("derpp memory_size=10", {"online_chunk": 7, "annotation": "all"}, marks=pytest.mark.slow),
        pytest.param(
            "er memory_size=10 relabel=pseudo", {"annotation": "all", "optimizer": "sgd"}, marks=pytest.mark.slow
        ),
        ("cumulative", {"online_chunk": 7}),
        pytest.param("avalanche.training.supervised:Replay mem_size=10", {}, marks=pytest.mark.slow),
        ("avalanche.training.plugins:EWCPlugin ewc_lambda=0.1", {}),
    ],
)
def test_a_job_that_is_stopped_again_and_again_gives_the_same(
    small_jobs: Jobs, tmp_path: Path, method: str, options: dict[str, Any]
) -> None:
    job = small(small_jobs, method, **options)
    uninterrupted = run_job(job).predictions.logits
    stop(job, tmp_path, 1)
    stop(job, tmp_path, 2)
    logits, notes = go_on(job, tmp_path)
    assert notes == ["goes on after experience 2"]
    assert same(logits, uninterrupted)


def test_only_what_is_left_is_trained(small_jobs: Jobs, tmp_path: Path) -> None:
    job = small(small_jobs, epochs=2)
    stop(job, tmp_path, 2)
    events: list[Event] = []
    run_job(job, checkpoints=tmp_path, report=events.append)
    epochs = [(event.experience, event.epoch, event.step) for event in events if event.kind == "epoch"]
    assert epochs == [(2, 1, 5), (2, 2, 6)]


def test_a_finished_job_leaves_its_result_alone(small_jobs: Jobs, tmp_path: Path) -> None:
    job = small(small_jobs)
    path = result_path(tmp_path / "stopped", job)
    with pytest.raises(Stopped):
        run_and_store(job, tmp_path / "stopped", report=stopping(2))
    spent = json.loads(load(newest(checkpoint_folder(path)).read_bytes())["tree"].tobytes())["cost"]["seconds"]
    result = run_and_store(job, tmp_path / "stopped")
    run_and_store(job, tmp_path / "whole", checkpoint_every="never")
    assert [file.suffix for file in sorted(path.parent.iterdir())] == [".json", ".npz"]
    whole = result_path(tmp_path / "whole", job).with_suffix(".npz")
    assert path.with_suffix(".npz").read_bytes() == whole.read_bytes()
    # Costs add up: the second run learnt one experience of three.
    assert {"data", "training", "evaluation", "checkpoint"} <= spent.keys()
    assert all(result["cost"]["seconds"][phase] > seconds > 0 for phase, seconds in spent.items())


def test_never_writes_nothing(small_jobs: Jobs, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run_and_store(small(small_jobs), tmp_path, report=stopping(2), checkpoint_every="never")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_failed_job_goes_on_once_its_cause_is_gone(small_jobs: Jobs, tmp_path: Path, monkeypatch: Any) -> None:
    job = small(small_jobs)

    def fail(*_: Any) -> Any:
        raise CmlBenchError("the disk went away")

    keep = checkpoint.Checkpoints.keep
    monkeypatch.setattr(checkpoint.Checkpoints, "keep", lambda *a, **k: fail() if len(a[2]) == 1 else keep(*a, **k))
    assert run_and_store(job, tmp_path)["error"] == "the disk went away"
    monkeypatch.undo()
    notes: list[Event] = []
    assert run_and_store(job, tmp_path, report=notes.append)["status"] == "ok"
    assert [event.message for event in notes if event.kind == "note"] == ["goes on after experience 1"]


# -- files -----------------------------------------------------------------------------------------------------------


def newest(folder: Path) -> Path:
    return max(folder.glob("*.safetensors"))


def test_two_generations_are_kept(small_jobs: Jobs, tmp_path: Path) -> None:
    stop(small(small_jobs, increment=2), tmp_path, 4)
    files = sorted(tmp_path.iterdir())
    assert [file.name[:5] for file in files] == ["0003-", "0004-"]
    for file in files:
        assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(file.stem[5:])


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [cut, flip, lambda content: b"", lambda content: save({"tree": np.zeros(3)})])
@pytest.mark.parametrize("damaged", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_damaged_file_gives_way_to_the_one_before(
    small_jobs: Jobs, tmp_path: Path, damage: Callable[[bytes], bytes], damaged: int
) -> None:
    job = small(small_jobs)
    stop(job, tmp_path, 2)
    files = sorted(tmp_path.iterdir(), reverse=True)
    assert len(files) == 2
    for file in files[:damaged]:
        file.write_bytes(damage(file.read_bytes()))
    logits, notes = go_on(job, tmp_path)
    told = [f"checkpoint {file} is damaged (its checksum is wrong): the one before is taken" for file in files]
    assert [note.split(",")[0] for note in notes] == told[:damaged] + ["goes on after experience 1"] * (damaged == 1)
    assert same(logits, run_job(job).predictions.logits)
    # What was written instead is whole.
    assert go_on(job, tmp_path)[1] == ["goes on after experience 3"]


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite the newest checkpoint, checksum and all."""
    file = newest(folder)
    tensors = load(file.read_bytes())
    tree = json.loads(tensors["tree"].tobytes())
    edit(tree)
    tensors["tree"] = np.frombuffer(json.dumps(tree).encode(), dtype=np.uint8)
    data = save(tensors)
    file.unlink()
    (folder / f"{file.name[:5]}{hashlib.sha256(data).hexdigest()[:32]}.safetensors").write_bytes(data)


@pytest.mark.parametrize("part", ["job", "code", "packages", "data"])
def test_a_checkpoint_of_something_else_is_not_used(small_jobs: Jobs, tmp_path: Path, part: str) -> None:
    job = small(small_jobs)
    stop(job, tmp_path, 1)
    change(tmp_path, lambda tree: tree["identity"].update({part: "other"}))
    logits, notes = go_on(job, tmp_path)
    assert len(notes) == 1
    assert f"is of another state of {part}" in notes[0]
    assert same(logits, run_job(job).predictions.logits)
    # The new ones are not taken for older than it.
    assert go_on(job, tmp_path)[1] == ["goes on after experience 3"]


def test_another_job_is_told_from_this_one(small_jobs: Jobs, tmp_path: Path) -> None:
    job = small(small_jobs)
    stop(job, tmp_path, 1)
    other = dataclasses.replace(job, seed=1)
    assert "another state of job" in go_on(other, tmp_path)[1][0]


def test_a_file_that_is_no_state_of_this_learner_ends_in_a_sentence(small_jobs: Jobs, tmp_path: Path) -> None:
    job = small(small_jobs)
    for edit in (
        lambda tree: tree["state"]["nodes"][0].update({"class": "subprocess:Popen"}),
        lambda tree: tree["state"]["nodes"].clear(),
        lambda tree: tree["state"]["nodes"][0].pop("kind"),
        lambda tree: tree["state"]["places"].clear(),
    ):
        stop(job, tmp_path, 1)
        change(tmp_path, edit)
        with pytest.raises(CmlBenchError, match=r"cannot be used: .*; delete it to start anew") as caught:
            run_job(job, checkpoints=tmp_path)
        assert "\n" not in str(caught.value)
        for file in tmp_path.iterdir():
            file.unlink()


def test_a_job_that_cannot_write_checkpoints_says_so_once_and_goes_on(small_jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    job = small(small_jobs)
    logits, notes = go_on(job, tmp_path / "file")
    assert len(notes) == 1
    assert "cannot be written" in notes[0]
    assert same(logits, run_job(job).predictions.logits)


def test_a_learner_that_cannot_be_stored_says_so_once_and_goes_on(small_jobs: Jobs, tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "import itertools\n"
        "from avalanche.core import SupervisedPlugin\n"
        "class Counts(SupervisedPlugin):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.steps = itertools.count()\n"
    )
    _, notes = go_on(small(small_jobs, f"{plugin}:Counts"), tmp_path / "checkpoints")
    assert len(notes) == 1
    assert notes[0].startswith("cannot go on after an interruption: learner.plugins[0].steps is of the kind itertools")
    assert not (tmp_path / "checkpoints").exists()
