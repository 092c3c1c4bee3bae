"""A job that is stopped in the middle of an experience, between two steps, goes on from there: the same predictions."""

from __future__ import annotations

import itertools
import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from cml_bench.errors import CmlBenchError
from cml_bench.runs import stopping
from cml_bench.runs.checkpoint import Checkpoints
from cml_bench.runs.events import Event
from cml_bench.runs.job import Job
from cml_bench.runs.rhythm import Rhythm, parse_rhythm
from cml_bench.runs.run import run_job
from cml_bench.training.template import MultiLabelTemplate

Jobs = Callable[..., list[Job]]


class Steps:
    """Counts the steps of all jobs, and lets something happen in the middle of one."""

    def __init__(self) -> None:
        self.taken = 0
        self._number, self._happen = 0, lambda: None

    def after(self, number: int, happen: Callable[[], Any]) -> None:
        self._number, self._happen = self.taken + number, happen

    def take(self) -> None:
        self.taken += 1
        if self.taken == self._number:
            self._happen()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Steps]:
    counter, step = Steps(), MultiLabelTemplate.optimizer_step

    def counted(self: MultiLabelTemplate) -> None:
        counter.take()
        step(self)

    monkeypatch.setattr(MultiLabelTemplate, "optimizer_step", counted)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield counter
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def start(job: Job, folder: Path, **options: Any) -> tuple[list[np.ndarray[Any, Any]] | None, list[str]]:
    """Return the logits of a job, None if it was interrupted, and what the user is told."""
    notes: list[str] = []

    def report(event: Event) -> None:
        if event.kind == "note":
            notes.append(event.message)

    try:
        return list(run_job(job, checkpoints=folder, report=report, **options).predictions.logits), notes
    except KeyboardInterrupt:
        return None, notes


def same(one: Any, two: Any) -> bool:
    return len(one) == len(two) and all(a.tobytes() == b.tobytes() for a, b in zip(one, two, strict=True))


SMALL = {"n_train": 30, "n_test": 20, "increment": 4, "epochs": 3, "batch_size": 4}
"""Three experiences of a few steps an epoch."""
ONLINE = {"online_chunk": 7, "epochs": 1, "batch_size": 3}


@pytest.mark.parametrize(
    ("method", "options"),
    [
        pytest.param("naive", {"augment": "true"}, marks=pytest.mark.slow),
        pytest.param("er memory_size=10", {"augment": "strong", "schedule": "one_cycle"}, marks=pytest.mark.slow),
        ("er memory_size=10 store=pixels loss=role", {"schedule": "cosine", "precision": "bf16"}),
        ("prs memory_size=10", ONLINE),
        pytest.param("derpp memory_size=10", {**ONLINE, "annotation": "all"}, marks=pytest.mark.slow),
        pytest.param(
            "er memory_size=10 relabel=pseudo", {"annotation": "all", "optimizer": "sgd"}, marks=pytest.mark.slow
        ),
        pytest.param("mile teacher_steps=3 student_steps=2", {}, marks=pytest.mark.slow),
        pytest.param("feature_distillation", {}, marks=pytest.mark.slow),
        pytest.param("cumulative", ONLINE, marks=pytest.mark.slow),
        pytest.param("avalanche.training.plugins:EWCPlugin ewc_lambda=0.1", {}, marks=pytest.mark.slow),
    ],
)
def test_a_job_that_is_interrupted_again_and_again_gives_the_same(
    small_jobs: Jobs, tmp_path: Path, steps: Steps, method: str, options: dict[str, Any]
) -> None:
    (job,) = small_jobs([method], **{**SMALL, **options})
    uninterrupted = run_job(job).predictions.logits
    whole, steps.taken = steps.taken, 0
    places: list[str] = []
    # One that began anew each time would never come to an end.
    for number in [whole * 3 // 10, whole // 5, whole // 4] * 3:
        steps.after(number, interrupt)
        logits, notes = start(job, tmp_path)
        places += notes
        if logits is not None:
            break
    assert logits is not None, places
    assert len(places) >= 3
    assert all(place.startswith("goes on after experience ") for place in places)
    assert any(", epoch " in place and ", step " in place for place in places)
    assert same(logits, uninterrupted)
    assert steps.taken == whole, "a step was taken twice, or left out"


def test_the_place_is_told(small_jobs: Jobs, tmp_path: Path, steps: Steps) -> None:
    """Steps are counted within their epoch, epochs within their experience."""
    (job,) = small_jobs(**{**SMALL, "batch_size": 10})
    ends: list[int] = []

    def report(event: Event) -> None:
        if event.kind == "epoch" and event.experience == 0:
            ends.append(steps.taken)

    run_job(job, report=report)
    epoch = ends[0]
    assert epoch > 1
    steps.after(1, interrupt)
    assert start(job, tmp_path) == (None, [])
    steps.after(epoch, interrupt)
    assert start(job, tmp_path) == (None, ["goes on after experience 1, epoch 1, step 1"])
    assert start(job, tmp_path)[1] == ["goes on after experience 1, epoch 2, step 1"]


def test_chunks_are_told(small_jobs: Jobs, tmp_path: Path, steps: Steps) -> None:
    (job,) = small_jobs(**{**SMALL, **ONLINE})
    steps.after(4, interrupt)
    start(job, tmp_path)
    assert start(job, tmp_path)[1] == ["goes on after experience 1, chunk 2, epoch 1, step 1"]


def stored_shapes(job: Job, folder: Path, steps: Steps) -> list[list[int]]:
    """Return the shapes of the tensors that are stored when two thirds of a job have been done."""
    run_job(job)
    steps.taken, whole = 0, steps.taken
    steps.after(whole * 2 // 3, interrupt)
    assert start(job, folder)[0] is None
    stored = load_file(max(folder.iterdir()))
    nodes = json.loads(stored["tree"].numpy().tobytes())["state"]["nodes"]
    return [node["shape"] for node in nodes if node["kind"] in ("tensor", "parameter")]


@pytest.mark.parametrize("options", [{}, pytest.param(ONLINE, marks=pytest.mark.slow)])
def test_no_image_of_a_step_is_stored(small_jobs: Jobs, tmp_path: Path, steps: Steps, options: dict[str, Any]) -> None:
    """A batch may be larger than all else that there is to store."""
    (job,) = small_jobs(["er memory_size=10"], **{**SMALL, **options})
    assert [3, 32, 32] not in [shape[1:] for shape in stored_shapes(job, tmp_path, steps)]


@pytest.mark.parametrize("method", ["si", pytest.param("rwalk", marks=pytest.mark.slow)])
def test_what_a_method_notes_for_one_step_is_not_stored(
    small_jobs: Jobs, tmp_path: Path, steps: Steps, method: str
) -> None:
    """Of the first layer: the weights, two moments of Adam, and what the method keeps from step to step."""
    (job,) = small_jobs([method], **SMALL)
    kept = {"si": ("start", "path", "curvature", "centre")}
    kept["rwalk"] = (*kept["si"], "fisher", "scores", "past scores", "start of the window")
    assert stored_shapes(job, tmp_path, steps).count([16, 3, 3, 3]) == 3 + len(kept[method])


def test_what_a_killed_writer_left_is_removed(small_jobs: Jobs, tmp_path: Path, steps: Steps) -> None:
    """A job that is killed again and again would fill the disk with it."""
    (job,) = small_jobs(**SMALL)
    steps.after(2, interrupt)
    start(job, tmp_path)
    (tmp_path / "0002-0.safetensors.1.part").write_bytes(b"half of it")
    steps.after(1, interrupt)
    assert start(job, tmp_path) == (None, ["goes on after experience 1, epoch 1, step 2"])
    assert [file.suffix for file in tmp_path.iterdir()] == [".safetensors"] * 2


# -- when ------------------------------------------------------------------------------------------------------------


def numbers(folder: Path) -> list[int]:
    return sorted(int(file.name[:4]) for file in folder.iterdir())


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        ("10min", 3),
        ("epoch", 3 + 9),
        ("never", 0),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("experience", 3), ("0.001s", None))),
    ],
)
def test_how_often(small_jobs: Jobs, tmp_path: Path, steps: Steps, every: str, expected: int | None) -> None:
    """After each experience; beside that after each of its three epochs, or after every step of at least a ms."""
    (job,) = small_jobs(**SMALL)
    logits, _ = start(job, tmp_path / "checkpoints", checkpoint_every=every)
    if every == "never":
        assert not (tmp_path / "checkpoints").exists()
        return
    first, last = numbers(tmp_path / "checkpoints")
    assert last == first + 1
    assert last == expected if expected else last > 12
    assert same(logits, run_job(job).predictions.logits)


@pytest.mark.parametrize(
    ("text", "rhythm"),
    [
        ("experience", Rhythm()),
        ("epoch", Rhythm(epochs=True)),
        ("30s", Rhythm(seconds=30)),
        ("10min", Rhythm(seconds=600)),
        ("1.5h", Rhythm(seconds=5400)),
        ("never", None),
    ],
)
def test_rhythms(text: str, rhythm: Rhythm | None) -> None:
    assert parse_rhythm(text) == rhythm


@pytest.mark.parametrize("text", ["", "0s", "10", "10 min", "-1s", "1e3s", "nans", "epochs", "9" * 5000 + "h", "٣s"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(CmlBenchError, match="give experience, epoch, never or a time as in 30s, 10min, 2h"):
        parse_rhythm(text)


# -- what cannot be stored -------------------------------------------------------------------------------------------


def test_a_learner_that_can_be_stored_between_experiences_alone_says_so_once(small_jobs: Jobs, tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "import itertools\n"
        "from avalanche.core import SupervisedPlugin\n"
        "class Counts(SupervisedPlugin):\n"
        "    def before_training_exp(self, strategy, **kwargs):\n"
        "        self.steps = itertools.count()\n"
        "    def after_training_exp(self, strategy, **kwargs):\n"
        "        del self.steps\n"
    )
    (job,) = small_jobs([f"{plugin}:Counts"], **SMALL)
    logits, notes = start(job, tmp_path / "checkpoints", checkpoint_every="epoch")
    assert len(notes) == 1
    assert notes[0].startswith("goes on after whole experiences only, should it be interrupted: learner.plugins[0].st")
    assert numbers(tmp_path / "checkpoints") == [2, 3]
    assert same(logits, run_job(job).predictions.logits)


def test_a_loop_of_its_own_is_stored_between_experiences(small_jobs: Jobs, tmp_path: Path) -> None:
    (job,) = small_jobs(["avalanche.training.supervised:Replay mem_size=10"], **SMALL)
    start(job, tmp_path, checkpoint_every="epoch")
    assert numbers(tmp_path) == [2, 3]


def test_nothing_is_stored_once_the_loss_is_no_number(
    small_jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = small_jobs(**SMALL)
    backward, calls = MultiLabelTemplate.backward, itertools.count(1)

    def poisoned(self: MultiLabelTemplate) -> None:
        if next(calls) == 5:
            self.loss = self.loss * float("nan")
        backward(self)

    monkeypatch.setattr(MultiLabelTemplate, "backward", poisoned)
    with pytest.raises(CmlBenchError, match=r"the loss became nan in experience 1, epoch 1, step 5 of \d"):
        run_job(job, checkpoints=tmp_path, checkpoint_every="0.001s")
    monkeypatch.undo()
    notes = start(job, tmp_path)[1]
    assert notes
    assert notes[0] in [f"goes on after experience 1, epoch 1, step {step}" for step in (2, 3, 4)]


# -- signals ---------------------------------------------------------------------------------------------------------


def test_a_signal_does_not_wait_for_ever(small_jobs: Jobs, tmp_path: Path, steps: Steps, monkeypatch: Any) -> None:
    """A step that does not end is left in its middle."""
    monkeypatch.setattr(stopping, "SECONDS", 0.05)

    def never_end() -> None:
        interrupt()
        threading.Event().wait(600)

    (job,) = small_jobs(**SMALL)
    steps.after(3, never_end)
    assert start(job, tmp_path)[0] is None
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_written_to_its_end(small_jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that takes, and however often the signal comes."""
    monkeypatch.setattr(stopping, "SECONDS", 0.05)
    write, calls = Checkpoints._write, itertools.count(1)

    def slow(self: Checkpoints, *arguments: Any) -> None:
        if next(calls) == 3:
            interrupt()
            threading.Event().wait(0.3)
            interrupt()
        write(self, *arguments)

    monkeypatch.setattr(Checkpoints, "_write", slow)
    (job,) = small_jobs(**SMALL)
    assert start(job, tmp_path, checkpoint_every="epoch")[0] is None
    monkeypatch.undo()
    assert start(job, tmp_path)[1] == ["goes on after experience 1, epoch 3"]


def test_a_second_signal_changes_nothing(small_jobs: Jobs, tmp_path: Path, steps: Steps) -> None:
    """Ctrl-C reaches every process of a terminal, and a parent passes it on."""

    def both() -> None:
        interrupt()
        signal.raise_signal(signal.SIGTERM)

    (job,) = small_jobs(**SMALL)
    steps.after(3, both)
    assert start(job, tmp_path)[0] is None
    assert start(job, tmp_path)[1] == ["goes on after experience 1, epoch 1, step 3"]


def test_who_listens_is_told_when_the_job_is_stored(small_jobs: Jobs, tmp_path: Path, steps: Steps) -> None:
    """A handler that does not end the process, as submitit's, is called then, and the job goes on."""
    found: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda *_: found.append(len(list(tmp_path.iterdir()))))
    try:
        (job,) = small_jobs(**SMALL)
        steps.after(2, lambda: signal.raise_signal(signal.SIGUSR2))
        assert start(job, tmp_path)[0] is not None
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert found == [1]


def test_no_signal_is_lost(small_jobs: Jobs, tmp_path: Path, steps: Steps) -> None:
    """SLURM sends SIGTERM as well, which submitit lets pass; later signals wait for the job to be stored as well."""
    told: list[tuple[int, int]] = []

    def note(number: int, frame: object) -> None:
        told.append((number, int(max(tmp_path.iterdir()).name[:4])))

    def both() -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGUSR2)
        steps.after(2, interrupt)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        (job,) = small_jobs(**SMALL)
        steps.after(2, both)
        assert start(job, tmp_path)[0] is None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert told == [(signal.SIGTERM, 1), (signal.SIGUSR2, 1)]
    assert start(job, tmp_path)[1] == ["goes on after experience 1, epoch 1, step 4"]


def test_signals_in_another_thread_are_left_alone(small_jobs: Jobs, tmp_path: Path) -> None:
    made: list[Any] = []
    (job,) = small_jobs(**SMALL)
    thread = threading.Thread(target=lambda: made.append(start(job, tmp_path)))
    thread.start()
    thread.join()
    assert same(made[0][0], run_job(job).predictions.logits)
