"""Jobs as a SLURM job array."""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from cml_bench.errors import CmlBenchError, in_one_line
from cml_bench.options import split_words
from cml_bench.runs.engines.engine import PATIENCE, Engine, lacking, report_lost, report_outcome, resources, warn
from cml_bench.runs.events import CheckpointEvery, Event, Report
from cml_bench.runs.job import Job

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

_POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Slurm(Engine):
    """Jobs as the tasks of one SLURM job array, submitted from a login node and waited for.

    All nodes must see the results folder. A task that is preempted, requeued or out of time goes on from its last
    checkpoint. Scripts and logs of SLURM lie in ``slurm/`` of the results folder.

    Attributes:
        partition: Partition; None for the cluster's default.
        minutes: Time limit of a task; when it is over the task is queued again, up to ``timeouts`` times.
        timeouts: How often.
        cpus: Cores of a task.
        gpus: GPUs of a task.
        memory_gb: Memory of a task in GB.
        sbatch: Further options of sbatch, as in ``sbatch="--account=vision --qos=low"``.
    """

    partition: str | None = None
    minutes: PositiveInt = 1440
    timeouts: NonNegativeInt = 10
    cpus: PositiveInt = 1
    gpus: NonNegativeInt = 0
    memory_gb: PositiveFloat = 8.0
    sbatch: str = ""

    def check(self, jobs: Sequence[Job]) -> list[str]:
        """Check the jobs; their devices are asked for where they run."""
        from cml_bench.runs.check import check_jobs

        return check_jobs(jobs, here=False, gpus=self.gpus)

    def place(self, workers: int | None) -> str:
        """Name the partition, and what a task has of it."""
        where = "the cluster's default partition" if self.partition is None else f"partition {self.partition}"
        at_once = "all at once" if workers is None else f"{workers} at once"
        each = resources(self.cpus, self.gpus, self.memory_gb)
        return (
            f"The jobs run as tasks of one SLURM array in {where}, {at_once}, each with {each} for {self.minutes} "
            f"minutes.{lacking('submitit', 'slurm')}"
        )

    def execute(
        self, jobs: Sequence[Job], results: Path, report: Report, workers: int | None, checkpoint_every: CheckpointEvery
    ) -> None:
        """Submit the jobs, then wait for them; interrupted, cancel them."""
        warn(report, self.check(jobs))
        tasks = self._submit(jobs, results.resolve(), workers, checkpoint_every)
        waiting, started, missed = dict(enumerate(tasks)), set[int](), dict.fromkeys(range(len(tasks)), 0)
        try:
            while waiting:
                time.sleep(_POLL_SECONDS)
                states = _states(tasks[0].job_id.partition("_")[0])
                for index, task in list(waiting.items()):
                    state = "UNKNOWN" if states is None else states.get(task.job_id)
                    if state == "RUNNING" and index not in started:
                        started.add(index)
                        report(Event(index, "start"))
                    # A task leaves the queue a moment before its answer is seen on a shared file system.
                    missed[index] = 0 if state is not None else missed[index] + 1
                    if task.paths.result_pickle.exists():
                        self._report(index, jobs[index], task, results, report)
                    elif missed[index] > 10:
                        sentence = f"SLURM ended the task without an answer: see {task.paths.stderr}"
                        report_lost(index, jobs[index], results, report, sentence)
                    else:
                        continue
                    del waiting[index]
        finally:
            for task in waiting.values():
                task.cancel(check=False)

    def _submit(
        self, jobs: Sequence[Job], results: Path, workers: int | None, checkpoint_every: CheckpointEvery
    ) -> list[Any]:
        try:
            import submitit
        except ImportError:
            raise CmlBenchError("engine slurm needs the package submitit: pip install 'cml-bench[slurm]'") from None
        # Without accounting, submitit warns at every look that it will look elsewhere; we do not ask it.
        logging.getLogger("submitit").setLevel(logging.ERROR)
        try:
            executor = submitit.SlurmExecutor(results / "slurm", max_num_timeout=self.timeouts)
            executor.update_parameters(
                job_name="cml-bench",
                partition=self.partition,
                time=self.minutes,
                cpus_per_task=self.cpus,
                gpus_per_node=self.gpus or None,
                mem=f"{int(self.memory_gb * 1024)}MB",
                array_parallelism=workers or len(jobs),
                additional_parameters={"requeue": True, **_flags(self.sbatch)},
            )
            works = [_Work(job, str(results), str(Path.cwd()), checkpoint_every) for job in jobs]
            tasks: list[Any] = executor.submit_array(works)
        except Exception as error:
            raise CmlBenchError(f"SLURM takes no jobs here ({in_one_line(error)}): run this on a login node") from error
        return tasks

    @staticmethod
    def _report(index: int, job: Job, task: Any, results: Path, report: Report) -> None:
        try:
            ran = task.result()
        except Exception as error:
            report_lost(index, job, results, report, f"the task failed ({in_one_line(error)}): see {task.paths.stderr}")
        else:
            report_outcome(index, job, results, report, ran)


def _flags(text: str) -> dict[str, str | bool]:
    """Return ``"--account=vision --exclusive"`` as option names and values."""
    words = [word.removeprefix("--").partition("=") for word in split_words(text)]
    return {name: value if equals else True for name, equals, value in words}


def _states(array: str) -> dict[str, str] | None:
    """Return the states of those tasks of a job array that are still in the queue; None if nobody answers."""
    command = ["squeue", "--noheader", "--array", "--format=%i %T", f"--jobs={array}"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if listed.returncode and "Invalid job id" not in listed.stderr:
        return None
    return dict(line.split() for line in listed.stdout.splitlines())


@dataclass(frozen=True)
class _Work:
    """A job as SLURM runs it, and once more after it was preempted."""

    job: Job
    results: str
    cwd: str
    checkpoint_every: CheckpointEvery

    def __call__(self) -> bool:
        """Run the job; return whether it ran."""
        from cml_bench.runs.run import run_and_store

        os.chdir(self.cwd)
        made = run_and_store(self.job, Path(self.results), checkpoint_every=self.checkpoint_every, patience=PATIENCE)
        return made is not None

    def checkpoint(self) -> DelayedSubmission:
        """Tell submitit what to run next time: the same, which goes on from the checkpoint beside the result."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
