"""Live progress of a sweep."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cml_bench.runs.events import Event
from cml_bench.runs.job import Job


class SweepProgress:
    """Shows what each running job does and how long the sweep will take.

    On a terminal: one bar for the sweep and one line a running job (experience, epoch, loss). Elsewhere: one line a
    finished job.
    """

    def __init__(self, jobs: Sequence[Job], console: Console) -> None:
        self.jobs = jobs
        self.console = console
        self._fractions = [0.0] * len(jobs)
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
        name = f"{job.method}  {job.class_order} order, seed {job.seed}"
        if event.kind == "start":
            self._lines[event.job] = self._bars.add_task(f"  {name}", total=1.0, state="loading")
        elif event.kind == "phase":
            self._bars.update(self._lines[event.job], state=event.message)
        elif event.kind == "note":
            self.console.print(f"{name}: {event.message}", markup=False, style="yellow")
        elif event.kind == "epoch":
            loss = "" if event.loss is None else f", loss {event.loss:.3f}"
            state = f"experience {event.experience + 1}, epoch {event.epoch}{loss}"
            self._bars.update(self._lines[event.job], completed=event.fraction, state=state)
            self._fractions[event.job] = event.fraction
        else:
            self._finish(event, name)
        self._bars.update(self._total, completed=sum(self._fractions), state=f"{self._done} done")

    def _finish(self, event: Event, name: str) -> None:
        self._done += 1
        self._fractions[event.job] = 1.0
        line = self._lines.pop(event.job, None)
        if line is not None:
            self._bars.remove_task(line)
        if event.kind == "failed":
            self.console.print(f"failed: {name}: {event.message}", markup=False, style="red")
        elif not self.console.is_terminal:
            self.console.print(f"done {self._done}/{len(self.jobs)}: {name}", markup=False)
