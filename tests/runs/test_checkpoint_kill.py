"""kill -9 in the middle of a job, start it again: the bytes of the predictions are those of an uninterrupted run."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cml_bench.registry import entries
from cml_bench.runs.events import Event
from cml_bench.runs.job import Job, make_jobs
from cml_bench.runs.results import checkpoint_folder, result_path
from cml_bench.runs.run import run_and_store

SETTINGS = {"n_train": 60, "n_test": 150, "epochs": 2, "batch_size": 8}
OFTEN = "0.01s"
VIT = {
    "backbone": "vit_tiny_patch16_224",
    "backbone_options": '[["depth", 5], ["embed_dim", 32], ["num_heads", 2], ["patch_size", 8]]',
}
FAMILIES = Counter(str(entry.facts["family"]) for entry in entries("strategies").values())
KILLS = 20
"""Of each family of strategies."""


def job_of(method: str) -> Job:
    settings = {**SETTINGS, **(VIT if entries("strategies")[method.split()[0]].facts.get("backbone") == "vit" else {})}
    (job,) = make_jobs(["digits"], [method], ["default"], [0], [f"{key}={value}" for key, value in settings.items()])
    return job


def newest(folder: Path) -> int:
    """Return the number of the newest checkpoint, 0 if there is none."""
    return max((int(file.name.partition("-")[0]) for file in folder.glob("*.safetensors")), default=0)


def kill_after_a_checkpoint(start: Callable[[], Any], alive: Callable[[Any], bool], folder: Path, kill: Any) -> bool:
    """Kill a job at a random moment after it has been stored once more; return whether it was still running."""
    known, process, began = newest(folder), start(), time.monotonic()
    while alive(process) and newest(folder) <= known:
        assert time.monotonic() < began + 300
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.5))
    killed = alive(process)
    kill(process)
    return killed


def killed_and_gone_on(method: str, tmp_path: Path, kills: int) -> None:
    """Kill a job so many times, as often from its start as it takes, and let it go on each time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cml_bench.runs.run"])
    job = job_of(method)
    run_and_store(job, tmp_path / "whole")
    killed, places = 0, set[str]()
    for attempt in itertools.count():
        results = tmp_path / f"killed{attempt}"
        path = result_path(results, job)

        def start(results: Path = results) -> Any:
            process = context.Process(target=run_and_store, args=(job, results), kwargs={"checkpoint_every": OFTEN})
            process.start()
            return process

        def kill(process: Any) -> None:
            process.kill()
            process.join()

        while killed < kills and not path.exists():
            killed += kill_after_a_checkpoint(start, lambda process: process.is_alive(), checkpoint_folder(path), kill)
        if not path.exists():
            events: list[Event] = []
            assert run_and_store(job, results, report=events.append)["error"] is None
            (note,) = [event.message for event in events if event.kind == "note"]
            assert note.startswith("goes on after experience ")
            places.add(note)
        assert path.with_suffix(".npz").read_bytes() == predictions(tmp_path / "whole", job)
        assert not checkpoint_folder(path).exists()
        if killed >= kills:
            print(f"{method}: {killed} kills, {attempt + 1} jobs, {places}")  # noqa: T201
            return
        assert attempt < kills + 5, "the job is always quicker than the signal"


def predictions(results: Path, job: Job) -> bytes:
    return result_path(results, job).with_suffix(".npz").read_bytes()


FEDERATED = "er memory_size=20 federated='clients=3 rounds=3'"


@pytest.mark.parametrize(
    "method", ["l3a", *(pytest.param(each, marks=pytest.mark.slow) for each in ("er memory_size=20", FEDERATED))]
)
def test_killed_jobs_go_on(method: str, tmp_path: Path) -> None:
    killed_and_gone_on(method, tmp_path, 2)


@pytest.mark.slow
@pytest.mark.parametrize("method", entries("strategies"))
def test_every_strategy_goes_on_after_a_kill(method: str, tmp_path: Path) -> None:
    family = str(entries("strategies")[method].facts["family"])
    killed_and_gone_on(method, tmp_path, math.ceil(KILLS / FAMILIES[family]) + 1)


@pytest.mark.slow
def test_the_command_goes_on_after_a_kill(tmp_path: Path) -> None:
    job, results = job_of("derpp memory_size=20"), tmp_path / "killed"
    command = [sys.executable, "-m", "cml_bench.cli", "run", "digits", "--method", job.method, "--seeds", "0,"]
    command += [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    command += ["--workers", "1", "--results", str(results), "--checkpoint-every", OFTEN]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start() -> Any:
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)

    def kill(process: Any) -> None:
        process.send_signal(signal.SIGKILL)
        process.communicate()

    folder = checkpoint_folder(result_path(results, job))
    assert kill_after_a_checkpoint(start, lambda process: process.poll() is None, folder, kill)
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "goes on after experience" in " ".join(printed.split())
    run_and_store(job, tmp_path / "whole")
    assert predictions(results, job) == predictions(tmp_path / "whole", job)
    assert not folder.exists()
