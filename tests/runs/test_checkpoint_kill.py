"""kill -9 in the middle of a job, start it again: the bytes of the predictions are those of an uninterrupted run."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cml_bench.registry import entries
from cml_bench.runs.events import Event
from cml_bench.runs.job import Job, make_jobs
from cml_bench.runs.results import checkpoint_folder, result_path
from cml_bench.runs.run import run_and_store

SETTINGS = {"n_train": 60, "n_test": 150, "epochs": 1}
VIT = {
    "backbone": "vit_tiny_patch16_224",
    "backbone_options": '[["depth", 5], ["embed_dim", 32], ["num_heads", 2], ["patch_size", 8]]',
}
TRIES = 5


def job_of(method: str) -> Job:
    settings = {**SETTINGS, **(VIT if entries("strategies")[method.split()[0]].facts.get("backbone") == "vit" else {})}
    (job,) = make_jobs(["digits"], [method], ["default"], [0], [f"{key}={value}" for key, value in settings.items()])
    return job


def kill_in_the_middle(start: Callable[[], Any], alive: Callable[[Any], bool], folder: Path, kill: Any) -> None:
    """Kill a job at a random moment after its first checkpoint; should it be quicker than that, try again."""
    for attempt in range(TRIES):
        process, began = start(), time.monotonic()
        while alive(process) and not list(folder.glob("*.safetensors")):
            assert time.monotonic() < began + 300
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.3) / 4**attempt)
        killed = alive(process)
        kill(process)
        if killed and list(folder.glob("*.safetensors")):
            return
        shutil.rmtree(folder.parent, ignore_errors=True)
    pytest.fail("the job leaves no checkpoint, or is always quicker than the signal")


def killed_and_gone_on(method: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cml_bench.runs.run"])
    job, results = job_of(method), tmp_path / "killed"

    def start() -> Any:
        process = context.Process(target=run_and_store, args=(job, results))
        process.start()
        return process

    def kill(process: Any) -> None:
        process.kill()
        process.join()

    path = result_path(results, job)
    kill_in_the_middle(start, lambda process: process.is_alive(), checkpoint_folder(path), kill)
    assert not path.exists()
    events: list[Event] = []
    assert run_and_store(job, results, report=events.append)["error"] is None
    (note,) = [event.message for event in events if event.kind == "note"]
    assert note.startswith("goes on after")
    run_and_store(job, tmp_path / "whole")
    assert path.with_suffix(".npz").read_bytes() == predictions(tmp_path / "whole", job)
    assert not checkpoint_folder(path).exists()


def predictions(results: Path, job: Job) -> bytes:
    return result_path(results, job).with_suffix(".npz").read_bytes()


@pytest.mark.parametrize("method", ["er memory_size=20", "krt", "l3a", "from_scratch"])
def test_killed_jobs_go_on(method: str, tmp_path: Path) -> None:
    killed_and_gone_on(method, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", entries("strategies"))
def test_every_strategy_goes_on_after_a_kill(method: str, tmp_path: Path) -> None:
    killed_and_gone_on(method, tmp_path)


def test_the_command_goes_on_after_a_kill(tmp_path: Path) -> None:
    job, results = job_of("derpp memory_size=20"), tmp_path / "killed"
    command = [sys.executable, "-m", "cml_bench.cli", "run", "digits", "--method", job.method, "--seeds", "0,"]
    command += [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    command += ["--workers", "1", "--results", str(results)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start() -> Any:
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)

    def kill(process: Any) -> None:
        process.send_signal(signal.SIGKILL)
        process.communicate()

    folder = checkpoint_folder(result_path(results, job))
    kill_in_the_middle(start, lambda process: process.poll() is None, folder, kill)
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "goes on after experience" in " ".join(printed.split())
    run_and_store(job, tmp_path / "whole")
    assert predictions(results, job) == predictions(tmp_path / "whole", job)
    assert not folder.exists()
