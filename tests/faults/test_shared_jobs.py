"""A job that several processes share: none of them outlives the others, or the one that started them."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cml_bench.runs.events import Event
from cml_bench.runs.job import Job, make_jobs
from cml_bench.runs.results import result_path
from cml_bench.runs.run import run_and_store

pytest.importorskip("lightning_fabric", reason="devices need the extra 'distributed'")

VIT = {
    "backbone": "vit_tiny_patch16_224",
    "backbone_options": json.dumps([["depth", 2], ["embed_dim", 24], ["num_heads", 2], ["patch_size", 8]]),
    "epochs": "2000",
    "devices": "2",
}


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_the_job_in_a_sentence(small_jobs: Any, tmp_path: Path, rank: int) -> None:
    (job,) = small_jobs(["naive"], **VIT)
    begun = threading.Event()

    def kill() -> None:
        assert begun.wait(120)
        os.kill(children()[rank], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    failed: Any = run_and_store(job, tmp_path, report=lambda event: begun.set() if event.kind == "epoch" else None)
    killer.join()
    assert failed["status"] == "failed"
    assert failed["error"].startswith(f"process {rank + 1} of the 2 that share the job was killed (SIGKILL; out of")
    assert not children()


BREAKS = '''
from dataclasses import dataclass
import torch
from avalanche.core import SupervisedPlugin
from cml_bench import Strategy, StrategyMeta

class Break(SupervisedPlugin):
    def before_forward(self, strategy, **kwargs):
        if torch.distributed.get_rank() == 1 and strategy.clock.train_iterations == 3:
            raise RuntimeError("broken in one of them")

@dataclass(frozen=True)
class Breaks(Strategy):
    """Breaks in the second of two processes."""

    meta = StrategyMeta(name="breaks", title="Breaks", family="replay")

    def plugins(self, run):
        return [Break()]
'''


@pytest.mark.slow
def test_the_error_of_one_process_is_the_one_that_is_told(small_jobs: Any, tmp_path: Path) -> None:
    file = tmp_path / "breaks.py"
    file.write_text(BREAKS)
    (job,) = small_jobs([f"{file}:Breaks"], **VIT)
    failed: Any = run_and_store(job, tmp_path / "results")
    assert failed["status"] == "failed"
    assert "process 2 of the 2 that share the job failed: RuntimeError: broken in one of them" in failed["error"]
    assert "Traceback" not in failed["error"]
    assert "in before_forward" in failed["traceback"]
    assert not children()


SLOW = """
from pathlib import Path
import time
(Path({folder!r}) / f"{{strategy.clock.train_exp_counter}}-{{strategy.clock.train_iterations}}").touch()
if not Path({folder!r}, "quick").exists():
    time.sleep(0.1)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "group"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_a_shared_job_is_stored_when_it_is_asked_to_stop(
    tmp_path: Path, until: Any, plugin: Callable[..., str], number: int, group: bool
) -> None:
    """Whether the signal reaches the command alone, or all processes, as Ctrl-C and batch systems do."""
    steps, results = tmp_path / "steps", tmp_path / "results"
    steps.mkdir()
    method = plugin("slow", SLOW.format(folder=str(steps)), "after_training_iteration")
    settings = [f"{key}={value}" for key, value in {**VIT, "epochs": 4, "n_train": 60, "n_test": 40}.items()]
    command = [sys.executable, "-m", "cml_bench.cli", "run", "digits", "--method", method, "--seeds", "0,"]
    command += [word for setting in [*settings, "batch_size=8"] for word in ("--set", setting)]
    process = subprocess.Popen(
        [*command, "--workers", "1", "--results", str(results)],
        **{"env": {**os.environ, "OMP_NUM_THREADS": "1"}, "stderr": subprocess.PIPE, "text": True},
        start_new_session=True,
    )
    try:
        until(lambda: list(steps.glob("0-3")))
        (os.killpg if group else os.kill)(process.pid, number)
        said = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    assert process.returncode == (143 if number == signal.SIGTERM else 130)
    assert said == "interrupted: finished results are kept; the same command goes on from there\n"
    assert not list(steps.glob("1-*")), "it was to be stopped in its first experience"
    (steps / "quick").touch()
    (job,) = make_jobs(["digits"], [method], ["default"], [0], [*settings, "batch_size=8"])
    notes: list[str] = []
    for folder in (results, tmp_path / "whole"):
        assert run_and_store(job, folder, report=lambda event: notes.append(event.message))["status"] == "ok"
    (place,) = [note for note in notes if note.startswith("goes on after ")]
    assert ", step " in place
    one, other = (result_path(folder, job).with_suffix(".npz") for folder in (results, tmp_path / "whole"))
    assert one.read_bytes() == other.read_bytes()


def children() -> list[int]:
    """Return the processes that share a job, in order."""
    started = [process for process in multiprocessing.active_children() if "Spawn" in type(process).__name__]
    return sorted(process.pid for process in started if process.pid)


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(small_jobs: Any, tmp_path: Path, until: Any) -> None:
    (job,) = small_jobs(["naive"], **VIT)
    context = multiprocessing.get_context("fork")
    pids = context.SimpleQueue()
    parent = context.Process(target=_start, args=(job, tmp_path, pids))
    parent.start()
    started = pids.get()
    assert len(started) == 2
    parent.kill()
    parent.join()
    until(lambda: not [pid for pid in started if _lives(pid)])


def _start(job: Job, folder: Path, pids: Any) -> None:
    def report(event: Event) -> None:
        if event.kind == "epoch" and event.epoch == 1:
            pids.put(children())

    run_and_store(job, folder, report=report)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
