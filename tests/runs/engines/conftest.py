"""Jobs that take long enough to lose the machine under them, and what is left when they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cml_bench.runs.job import Job

SLOW = """
import time
from dataclasses import dataclass
from avalanche.core import SupervisedPlugin
from cml_bench.training.strategy import Strategy, StrategyMeta

class Wait(SupervisedPlugin):
    def after_training_exp(self, strategy, **kwargs):
        experience = strategy.clock.train_exp_counter
        with open({log!r}, "a") as file:
            file.write(f"{{experience}} ")
        if experience == 1:
            time.sleep({seconds})

@dataclass(frozen=True)
class Slow(Strategy):
    '''Naive, with a rest after the second experience.'''

    meta = StrategyMeta(name="slow", title="Slow", family="test")

    def plugins(self, run):
        return [Wait()]
"""


@pytest.fixture
def slow_job(small_jobs: Any, tmp_path: Path) -> tuple[Job, Path]:
    """A job of five experiences that rests in its second one, and the file that it writes their numbers to."""
    log = tmp_path / "log.txt"
    path = tmp_path / "slow.py"
    path.write_text(SLOW.format(log=str(log), seconds=6))
    (job,) = small_jobs([f"{path}:Slow"], increment=2)
    return job, log
