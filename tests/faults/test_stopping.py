"""Signals: who stops a sweep, or kills it, has no worker left and starts again where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cml_bench.cli import main
from cml_bench.runs.job import make_jobs
from cml_bench.runs.results import checkpoint_folder, result_path
from cml_bench.runs.run import run_and_store, run_job

SETTINGS = {"n_train": 60, "n_test": 40, "epochs": 1}
COMMAND = ["run", "digits", "--method", "er memory_size=20", "--seeds", "0,"]
COMMAND += [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]


def job_of(method: str = "er memory_size=20") -> Any:
    return make_jobs(["digits"], [method], ["default"], [0], [f"{key}={value}" for key, value in SETTINGS.items()])[0]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_command_says_so_and_goes_on(
    tmp_path: Path, until: Callable[..., None], capsys: Any, number: int, status: int
) -> None:
    # Should the command not listen, the signal must not end the tests.
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("the command does not listen to SIGTERM"))
    checkpoints = checkpoint_folder(result_path(tmp_path, job_of()))
    sent: list[float] = []

    def send() -> None:
        until(lambda: list(checkpoints.glob("*.safetensors")))
        sent.append(time.monotonic())
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(SystemExit) as left:
            main([*COMMAND, "--workers", "1", "--results", str(tmp_path)])
        assert time.monotonic() - sent[0] < 10
        assert left.value.code == status
        said = "interrupted: finished results are kept; the same command goes on from there\n"
        assert capsys.readouterr().err == said
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        sender.join()
        signal.signal(signal.SIGTERM, before)
    with pytest.raises(SystemExit) as left:
        main([*COMMAND, "--workers", "1", "--results", str(tmp_path)])
    assert left.value.code == 0
    assert "goes on after experience" in " ".join(capsys.readouterr().out.split())
    run_job(job_of()).predictions.save(tmp_path / "whole.npz")
    stored = result_path(tmp_path, job_of()).with_suffix(".npz")
    assert stored.read_bytes() == (tmp_path / "whole.npz").read_bytes()


SIGNAL = """
from pathlib import Path
import time
(Path({folder!r}) / f"{{strategy.clock.train_exp_counter}}-{{id(strategy)}}").touch()
if not Path({folder!r}, "quick").exists():
    time.sleep(0.1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_what_was_learnt_within_an_experience_is_kept(
    tmp_path: Path, until: Callable[..., None], plugin: Callable[..., str], number: int, status: int, workers: int
) -> None:
    """The signal goes to the command alone, which passes it on to its workers; steps take a tenth of a second."""
    steps, results = tmp_path / "steps", tmp_path / "results"
    steps.mkdir()
    method = plugin("slow", SIGNAL.format(folder=str(steps)), "after_training_iteration")
    settings = ["n_train=60", "n_test=40", "epochs=4", "batch_size=8"]
    command = [sys.executable, "-m", "cml_bench.cli", "run", "digits", "--method", method, "--seeds", "2"]
    command += [word for setting in settings for word in ("--set", setting)]
    command += ["--workers", str(workers), "--results", str(results)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: len(list(steps.glob("0-*"))) == workers)
        process.send_signal(number)
        said = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == status
    assert said == "interrupted: finished results are kept; the same command goes on from there\n"
    assert not list(steps.glob("1-*")), "they were to be stopped in their first experience"
    (steps / "quick").touch()
    notes: list[str] = []
    for job in make_jobs(["digits"], [method], ["default"], [0, 1][:workers], settings):
        stored = run_and_store(job, results, report=lambda event: notes.append(event.message))
        assert stored is not None
        run_job(job).predictions.save(tmp_path / "whole.npz")
        assert result_path(results, job).with_suffix(".npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    places = [note for note in notes if note.startswith("goes on after experience 1, epoch ")]
    assert len(places) == workers


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_sweep_on_ray_says_so(
    tmp_path: Path, until: Callable[..., None], plugin: Callable[..., str], number: int, status: int
) -> None:
    """Ray has a handler of its own for SIGTERM, and makes other exceptions of ours."""
    pytest.importorskip("ray")
    steps = tmp_path / "steps"
    steps.mkdir()
    method = plugin("slow", SIGNAL.format(folder=str(steps)), "after_training_iteration")
    command = [sys.executable, "-m", "cml_bench.cli", "run", "digits", "--method", method, "--seeds", "1"]
    command += ["--set", "epochs=1000", "--engine", "ray", "--results", str(tmp_path / "results")]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: list(steps.iterdir()), 120)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == status
    assert said.endswith("interrupted: finished results are kept; the same command goes on from there\n")


POOL = """
import os, sys, time
from cml_bench.runs.engines.processes import _Pool
from cml_bench.runs.stopping import Terminated, terminable

def work(folder):
    open(f"{folder}/{os.getpid()}", "w").close()
    time.sleep(600)

if __name__ == "__main__":
    try:
        with terminable(), _Pool(2, print) as pool:
            list(pool.map(work, sys.argv[1:] * 4))
    except KeyboardInterrupt as stop:
        sys.exit(143 if isinstance(stop, Terminated) else 130)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_no_worker_outlives_its_parent(tmp_path: Path, until: Callable[..., None], number: int, status: int) -> None:
    """The signal goes to the parent alone, as from a batch system; the jobs would take ten minutes."""
    script, folder = tmp_path / "pool.py", tmp_path / "workers"
    script.write_text(POOL)
    folder.mkdir()
    parent = subprocess.Popen([sys.executable, str(script), str(folder)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    workers: list[int] = []
    try:
        until(lambda: len(list(folder.iterdir())) == 2)
        workers = [int(path.name) for path in folder.iterdir()]
        assert all(map(runs, workers))
        parent.send_signal(number)
        assert parent.wait(timeout=10) == status
        until(lambda: not any(map(runs, workers)), 10)
    finally:
        parent.kill()
        parent.wait()
        for worker in filter(runs, workers):
            os.kill(worker, signal.SIGKILL)


def runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
