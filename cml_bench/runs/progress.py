"""Tells how far a job has come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from avalanche.core import SupervisedPlugin

from cml_bench.runs.cost import CostMeter
from cml_bench.runs.events import Event, Report


def counting(say: Callable[[str], object], what: str, total: int) -> Callable[[int], None]:
    """Return what says how many of some images are done, and how many a second it has been since it said so last."""
    then, before = time.perf_counter(), 0

    def tell(done: int) -> None:
        nonlocal then, before
        now = time.perf_counter()
        say(f"{what} {done}/{total}, {(done - before) / max(now - then, 1e-9):.0f} images/s")
        then, before = now, done

    return tell


class EpochReporter(SupervisedPlugin):
    """Counts and reports the end of every epoch, of any Avalanche strategy."""

    def __init__(self, report: Report, job: int, n_experiences: int, meter: CostMeter) -> None:
        super().__init__()
        self.report = report
        self.job = job
        self.n_experiences = n_experiences
        self.meter = meter
        self.experience = 0
        self._fraction = 0.0

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Report one epoch."""
        self.meter.epochs += 1
        epoch = strategy.clock.train_exp_epochs + 1
        chunks = getattr(strategy.experience, "sub_stream_length", 1)
        position = getattr(strategy.experience, "sub_stream_position", 1)
        learnt = (position - 1 + epoch / strategy.train_epochs) / chunks
        fraction = (self.experience + learnt) / self.n_experiences
        # Clients of a federation come to the same epoch one after the other.
        self._fraction = min(1.0, max(self._fraction, fraction))
        loss = getattr(strategy, "epoch_loss", None)
        self.report(
            Event(
                self.job,
                "epoch",
                experience=self.experience,
                epoch=epoch,
                step=self.meter.epochs,
                loss=loss,
                fraction=self._fraction,
            )
        )
