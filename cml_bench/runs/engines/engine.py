"""The engine contract: where jobs run, as one line of text."""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from cml_bench.errors import CmlBenchError, suggest
from cml_bench.options import convert, parse_pairs, split_words
from cml_bench.runs.events import CheckpointEvery, Event, Report
from cml_bench.runs.job import Job
from cml_bench.runs.results import is_done, result_path

ENGINES: Final = {"serial": "Serial", "processes": "Processes", "ray": "Ray", "slurm": "Slurm"}
"""Engines by name: the module of this package, and the class in it."""


@dataclass(frozen=True)
class Engine(ABC):
    """Runs jobs somewhere. Fields are options, as in ``--engine "ray gpus=0.5"``; none of them changes a number."""

    def check(self, jobs: Sequence[Job]) -> list[str]:
        """Return what ``check_jobs`` says of jobs that are to run here, before they do.

        Raises:
            CmlBenchError: The first sentence that a job would have failed with.
        """
        from cml_bench.runs.check import check_jobs

        return check_jobs(jobs)

    def place(self, workers: int | None) -> str:
        """Return in one sentence where jobs would run, and what is missing for that.

        Args:
            workers: Jobs at once; None for what the engine thinks right.
        """
        return "The jobs run on this machine."

    @abstractmethod
    def execute(
        self, jobs: Sequence[Job], results: Path, report: Report, workers: int | None, checkpoint_every: CheckpointEvery
    ) -> None:
        """Run every job; each result is in the results folder before it is reported as done.

        A job that fails, or whose process dies, has a failed result and stops nobody.

        Args:
            jobs: What to run.
            results: Results folder.
            report: Called in this process with the events of all jobs.
            workers: Jobs at once; None for what the engine thinks right.
            checkpoint_every: When running jobs store their state.

        Raises:
            CmlBenchError: If bad input is found before anything runs, or the engine cannot run at all.
        """


def parse_engine(text: str) -> Engine:
    """Parse ``"ray address=auto gpus=0.5"``.

    Raises:
        CmlBenchError: If there is no such engine or option.
    """
    name, *words = split_words(text) or [""]
    if name not in ENGINES:
        raise CmlBenchError(f"engine {name!r} is unknown: {suggest(name, ENGINES)}")
    kind = getattr(importlib.import_module(f"{__package__}.{name}"), ENGINES[name])
    engine: Engine = kind(**convert(kind, dict(parse_pairs(words)), owner=f"engine {name!r}"))
    return engine


SKIPPED: Final = "another process has taken this job: its result is here, or will be"


PATIENCE: Final = 60.0
"""Seconds that a job started anew waits for its former self: a machine may be given up before it is dead."""


def resources(cpus: float, gpus: float, memory_gb: float | None) -> str:
    """Return what is set apart for a job, in words."""
    said = [f"{cpus:g} {'core' if cpus == 1 else 'cores'}", f"{gpus:g} {'GPU' if gpus == 1 else 'GPUs'}"]
    return ", ".join([*said, *([] if memory_gb is None else [f"{memory_gb:g} GB"])])


def lacking(package: str, extra: str) -> str:
    """Return a sentence on a package that an engine needs, if it is not installed here; else nothing."""
    if find_spec(package):
        return ""
    return f" The package {package} is not installed here: pip install 'cml-bench[{extra}]'."


def warn(report: Report, sentences: Sequence[str]) -> None:
    """Report what ``check_jobs`` says of jobs that have not begun."""
    for sentence in sentences:
        report(Event(0, "warning", sentence))


def report_outcome(index: int, job: Job, results: Path, report: Report, ran: bool) -> None:
    """Report a job that has ended elsewhere as its result file here has it; one that did not run is skipped."""
    if not ran:
        report(Event(index, "skipped", SKIPPED))
    elif is_done(results, job):
        report(Event(index, "done", fraction=1.0))
    else:
        report(Event(index, "failed", json.loads(result_path(results, job).read_text(encoding="utf-8"))["error"]))


def report_lost(index: int, job: Job, results: Path, report: Report, sentence: str) -> None:
    """Write and report the failed result of a job whose process left none."""
    from cml_bench.runs.run import store_failure

    store_failure(job, results, sentence)
    report(Event(index, "failed", sentence))


def without_outcome(report: Report) -> Report:
    """Return a report for a job elsewhere: whether it is done is said here, when its result is here."""

    def forward(event: Event) -> None:
        if event.kind not in ("done", "failed", "skipped"):
            report(event)

    return forward
