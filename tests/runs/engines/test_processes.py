"""Workers of this machine, and the server that they are forked from, when the command is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cml_bench.runs.job import make_jobs
from cml_bench.runs.results import checkpoint_folder, result_path

SLOW_STEPS = """
import os
import time
from dataclasses import dataclass
from pathlib import Path
from avalanche.core import SupervisedPlugin
from cml_bench.training.strategy import Strategy, StrategyMeta

class Wait(SupervisedPlugin):
    def after_training_iteration(self, strategy, **kwargs):
        (Path({folder!r}) / str(os.getpid())).touch()
        time.sleep(0.1)

@dataclass(frozen=True)
class Slow(Strategy):
    meta = StrategyMeta(name="slow", title="Slow", family="test")

    def plugins(self, run):
        return [Wait()]
"""


def test_a_signal_to_the_whole_group_lets_workers_store_their_jobs(tmp_path: Path) -> None:
    """As timeout, systemd and SLURM send it: to the server, too."""
    steps, path, results = tmp_path / "steps", tmp_path / "slow.py", tmp_path / "results"
    steps.mkdir()
    path.write_text(SLOW_STEPS.format(folder=str(steps)))
    settings = ["n_train=60", "n_test=40", "epochs=100"]
    command = [sys.executable, "-m", "cml_bench.cli", "run", "digits", "--method", f"{path}:Slow", "--seeds", "2"]
    command += [word for setting in settings for word in ("--set", setting)]
    command += ["--workers", "2", "--results", str(results)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        end = time.monotonic() + 120
        while len(list(steps.iterdir())) < 2:
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 143
    assert said == "interrupted: finished results are kept; the same command goes on from there\n"
    for job in make_jobs(["digits"], [f"{path}:Slow"], ["default"], [0, 1], settings):
        assert list(checkpoint_folder(result_path(results, job)).glob("*.safetensors"))


INTERRUPTED = """
import signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.modules.update({"cml_bench.runs.check": sys, "cml_bench.runs.run": sys})  # They take seconds.
import cml_bench.runs.preload

signal.raise_signal(signal.SIGINT)
"""


def test_a_server_that_is_interrupted_while_it_imports_prints_no_traceback() -> None:
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED], check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")
