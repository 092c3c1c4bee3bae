"""Live progress of a sweep."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cml_bench.runs.events import Event
from cml_bench.runs.job import Job

_SECONDS_BETWEEN_LINES = 30


class SweepProgress:
    """Shows what each running job does and how long the sweep will take.

    On a terminal: one bar for the sweep and one line a running job (experience, epoch, loss, mAP). Elsewhere: one line
    a finished job, and now and then one for an experience that a long job has learnt or what else it is busy with.
    """

    def __init__(self, jobs: Sequence[Job], console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.jobs = jobs
        self.console = console
        self._clock = clock
        self._started = self._printed = clock()
        self._fractions = [0.0] * len(jobs)
        # Of several benchmarks, or under several settings, jobs of a method would read the same.
        self._benchmarks = {job.benchmark for job in jobs}
        self._shared = set[tuple[str, str]].intersection(*(set(job.options) for job in jobs)) if jobs else set()
        # What had been done of each job before the time that is measured.
        self._before = [0.0] * len(jobs)
        self._map: dict[int, str] = {}
        self._warned: set[str] = set()
        self._done = 0
        self._lines: dict[int, TaskID] = {}
        self._lock = threading.Lock()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._total = self._bars.add_task(f"{len(jobs)} jobs", total=len(jobs), state="")

    def __enter__(self) -> SweepProgress:
        """Start drawing."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        """Take in one event; may be called from another thread."""
        with self._lock:
            self._handle(event)

    def _handle(self, event: Event) -> None:
        job = self.jobs[event.job]
        name = self._name(job)
        if event.kind == "start":
            # A job whose process died starts once more.
            self._remove(event.job)
            self._lines[event.job] = self._bars.add_task(f"  {name}", total=1.0, state="loading")
        elif event.kind == "resumed":
            self._before[event.job] = self._fractions[event.job] = event.fraction
        elif event.kind == "phase":
            self._bars.update(self._lines[event.job], state=event.message)
            self._print_rarely(f"{name}: {event.message}")
            if self._fractions == self._before:
                # Features that all jobs share are computed once: they tell nothing of the time that jobs take.
                self._started = self._clock()
        elif event.kind == "note":
            self.console.print(f"{name}: {event.message}", markup=False, style="yellow")
        elif event.kind == "warning":
            # Many jobs may say the same.
            if event.message not in self._warned:
                self.console.print(f"warning: {event.message}", markup=False, style="yellow")
            self._warned.add(event.message)
        elif event.kind == "epoch":
            loss = "" if event.loss is None else f", loss {event.loss:.3f}"
            state = f"experience {event.experience + 1}, epoch {event.epoch}{loss}{self._map.get(event.job, '')}"
            self._advance(event, state)
        elif event.kind == "experience":
            self._map[event.job] = f", mAP {100 * event.metrics['map']:.1f}" if "map" in event.metrics else ""
            state = f"experience {event.experience + 1} learnt{self._map[event.job]}"
            self._advance(event, state)
            self._print_rarely(f"{name}: {state}")
        else:
            self._finish(event, name)
        self._bars.update(self._total, completed=sum(self._fractions), state=f"{self._done} done")

    def _name(self, job: Job) -> str:
        benchmark = [job.benchmark] if len(self._benchmarks) > 1 else []
        settings = [f"{key}={value}" for key, value in job.options if (key, value) not in self._shared]
        return f"{job.method}  " + ", ".join([*benchmark, f"{job.class_order} order", f"seed {job.seed}", *settings])

    def _advance(self, event: Event, state: str) -> None:
        self._bars.update(self._lines[event.job], completed=event.fraction, state=state)
        self._fractions[event.job] = event.fraction

    def _print_rarely(self, line: str) -> None:
        if not self.console.is_terminal and self._clock() - self._printed > _SECONDS_BETWEEN_LINES:
            self._print(line)

    def _print(self, line: str) -> None:
        """Print a plain line with the time left, as far as that can be told."""
        self._printed = self._clock()
        done, left = sum(self._fractions) - sum(self._before), len(self.jobs) - sum(self._fractions)
        seconds = (self._printed - self._started) * left / done if done > 0 else 0
        rest = f" ({timedelta(seconds=round(seconds))} left)" if seconds >= 1 else ""
        self.console.print(f"{line}{rest}", markup=False)

    def _remove(self, job: int) -> None:
        line = self._lines.pop(job, None)
        if line is not None:
            self._bars.remove_task(line)

    def _finish(self, event: Event, name: str) -> None:
        self._done += 1
        self._fractions[event.job] = 1.0
        self._remove(event.job)
        if event.kind == "skipped":
            self.console.print(f"skipped: {name}: {event.message}", markup=False, style="yellow")
        elif event.kind == "failed":
            self.console.print(f"failed: {name}: {event.message}", markup=False, style="red")
        elif not self.console.is_terminal:
            self._print(f"done {self._done}/{len(self.jobs)}: {name}")
