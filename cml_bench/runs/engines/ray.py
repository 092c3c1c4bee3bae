"""Jobs on a Ray cluster, from one machine to many."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat

from cml_bench.errors import CmlBenchError, in_one_line
from cml_bench.files import replace_file
from cml_bench.runs.engines.engine import (
    PATIENCE,
    Engine,
    lacking,
    report_lost,
    report_outcome,
    resources,
    warn,
    without_outcome,
)
from cml_bench.runs.events import CheckpointEvery, Report
from cml_bench.runs.job import Job
from cml_bench.runs.results import result_path

if TYPE_CHECKING:
    from ray.util.queue import Queue

Files = dict[str, bytes]
"""Contents by path below the results folder."""


@dataclass(frozen=True)
class Ray(Engine):
    """Jobs on a Ray cluster.

    Where the machines share the results folder, jobs write there and go on from their checkpoints when a machine is
    lost; elsewhere their files come back through Ray, and a job whose machine was lost starts anew.

    Attributes:
        address: A running cluster: ``auto`` for that of this machine, or ``host:port``; None starts one of this machine
            alone.
        cpus: Cores of a job.
        gpus: GPUs of a job; with 0.25 four jobs share one.
        memory_gb: Memory that is set apart for a job; None to set none apart.
        retries: How often a job starts again whose machine or process was lost.
    """

    address: str | None = None
    cpus: PositiveFloat = 1.0
    gpus: NonNegativeFloat = 0.0
    memory_gb: PositiveFloat | None = None
    retries: NonNegativeInt = 3

    def check(self, jobs: Sequence[Job]) -> list[str]:
        """Check the jobs; their devices are asked for where they run."""
        from cml_bench.runs.check import check_jobs

        return check_jobs(jobs, here=False, gpus=self.gpus)

    def place(self, workers: int | None) -> str:
        """Name the cluster, and what a job has of it."""
        where = "on a Ray cluster of this machine" if self.address is None else f"on the Ray cluster {self.address}"
        at_once = "" if workers is None else f", {workers} at once"
        each = resources(self.cpus, self.gpus, self.memory_gb)
        return f"The jobs run {where}{at_once}, each with {each}.{lacking('ray', 'ray')}"

    def execute(
        self, jobs: Sequence[Job], results: Path, report: Report, workers: int | None, checkpoint_every: CheckpointEvery
    ) -> None:
        """Run the jobs as Ray tasks."""
        warn(report, self.check(jobs))
        with self._cluster() as ray, _token(results) as token:
            queue = _queue(ray)
            task = ray.remote(_work).options(
                num_cpus=self.cpus,
                num_gpus=self.gpus,
                memory=None if self.memory_gb is None else int(self.memory_gb * 1e9),
                max_retries=self.retries,
                scheduling_strategy="SPREAD",
            )
            waiting, running = list(range(len(jobs))), dict[Any, int]()
            while waiting or running:
                while waiting and (workers is None or len(running) < workers):
                    index = waiting.pop(0)
                    where = (str(results.resolve()), token, str(Path.cwd()))
                    running[task.remote(jobs[index], index, *where, checkpoint_every, queue)] = index
                ended, _ = ray.wait(list(running), timeout=0.2)
                _pass_on(queue, report)
                for reference in ended:
                    index = running.pop(reference)
                    try:
                        ran, files = ray.get(reference)
                    except ray.exceptions.RayError as error:
                        sentence = f"the job was lost on the cluster ({in_one_line(error)}): run the same command again"
                        report_lost(index, jobs[index], results, report, sentence)
                    else:
                        _store(files, results)
                        report_outcome(index, jobs[index], results, report, ran)

    @contextmanager
    def _cluster(self) -> Iterator[Any]:
        """Connect to the cluster, or start one, and leave it as it was found."""
        # Ray looks for its cluster's usage statistics on the network otherwise.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise CmlBenchError("engine ray needs the package ray: pip install 'cml-bench[ray]'") from None
        own = not ray.is_initialized()
        if own:
            handler = signal.getsignal(signal.SIGTERM)
            try:
                ray.init(address=self.address or "local", log_to_driver=False, logging_level=logging.ERROR)
            except Exception as error:
                raise CmlBenchError(
                    f"no Ray cluster at {self.address or 'this machine'} ({in_one_line(error)})"
                ) from error
            # Ray puts one of its own in the place of whoever listens. Only the main thread may listen.
            with suppress(ValueError):
                signal.signal(signal.SIGTERM, handler)
        try:
            asked = {"CPU": self.cpus, "GPU": self.gpus, "memory": (self.memory_gb or 0) * 1e9}
            for name, amount in asked.items():
                largest = max(node["Resources"].get(name, 0) for node in ray.nodes() if node["Alive"])
                if amount > largest:
                    raise CmlBenchError(
                        f"a job asks for {amount:g} {name} and no machine of the cluster has more than {largest:g}"
                    )
            yield ray
        finally:
            if own:
                ray.shutdown()


@contextmanager
def _token(results: Path) -> Iterator[str]:
    """Lay a file into the results folder that workers look for, to know whether they see the same folder."""
    path = results / f".shared-{uuid.uuid4().hex}"
    path.touch()
    try:
        yield path.name
    finally:
        path.unlink()


def _queue(ray: Any) -> Queue:
    """Return a queue that lives on the machine of this process: it must survive the loss of any other."""
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})


def _pass_on(queue: Queue, report: Report) -> None:
    from ray.util.queue import Empty

    with suppress(Empty):
        while True:
            report(queue.get_nowait())


def _store(files: Files, results: Path) -> None:
    """Write the files of a job, its result last: what is reported as done is whole."""
    for name in sorted(files, key=lambda name: name.endswith(".json")):
        path = results / name
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, partial(_write, files[name]))


def _write(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def _work(
    job: Job, index: int, results: str, token: str, cwd: str, checkpoint_every: CheckpointEvery, queue: Queue
) -> tuple[bool, Files]:
    """Run a job on some machine; return whether it ran, and its files unless they are in the shared folder."""
    from cml_bench.runs.run import run_and_store

    # Options hold paths as the user typed them.
    if Path(cwd).is_dir():
        os.chdir(cwd)
    report = without_outcome(queue.put)
    if (Path(results) / token).is_file():
        made = run_and_store(
            job, Path(results), index=index, report=report, checkpoint_every=checkpoint_every, patience=PATIENCE
        )
        return made is not None, {}
    with tempfile.TemporaryDirectory() as folder:
        run_and_store(job, Path(folder), index=index, report=report, checkpoint_every="never")
        beside = result_path(Path(folder), job).parent
        files = [path for path in beside.rglob("*") if path.is_file()]
        return True, {str(path.relative_to(folder)): path.read_bytes() for path in files}
