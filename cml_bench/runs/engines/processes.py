"""Several jobs at once, each in a process of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.queues import Queue
from pathlib import Path

from cml_bench.errors import CmlBenchError
from cml_bench.runs.engines.engine import Engine, report_lost, warn
from cml_bench.runs.events import CheckpointEvery, Event, Report
from cml_bench.runs.job import Job
from cml_bench.runs.stopping import STORING, end_with_parent

_events: Queue[Event | None]


def warm_up() -> None:
    """Start the slow imports (torch, Avalanche) in the server that workers are forked from, without waiting."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["cml_bench.runs.preload"])
    forkserver.ensure_running()


@dataclass(frozen=True)
class Processes(Engine):
    """Jobs in a pool of processes of this machine; as many as there are cores unless said otherwise.

    The same job gives the same result as in the serial engine: a job shares nothing with its neighbours. When a worker
    dies (out of memory, say), the jobs that had begun run again, one at a time; one that kills its process once more
    has failed.
    """

    def execute(
        self, jobs: Sequence[Job], results: Path, report: Report, workers: int | None, checkpoint_every: CheckpointEvery
    ) -> None:
        """Run the jobs in a pool, and in another one if a worker dies."""
        from joblib import cpu_count

        warm_up()
        with _Pool(1, report) as pool:
            try:
                warn(report, pool.submit(_check, jobs).result())
            except BrokenProcessPool:
                raise CmlBenchError(
                    "the worker processes did not start: a script that runs several at once must do so under "
                    "if __name__ == '__main__', or with workers=1"
                ) from None

        def run(indices: Sequence[int], at_once: int) -> set[int]:
            """Run jobs until all are done or a worker dies; return those that had begun and are not done."""
            with _Pool(min(at_once, len(indices)), report) as pool:
                futures = {pool.submit(_work, jobs[i], results, i, checkpoint_every): i for i in indices}
                try:
                    for future in as_completed(futures):
                        future.result()
                        waiting.discard(futures[future])
                except BrokenProcessPool:
                    # What a worker said last may be lost with it.
                    return waiting & (pool.begun() or set(indices))
            return set()

        waiting, suspects = set(range(len(jobs))), set[int]()
        while ready := sorted(waiting - suspects):
            suspects |= run(ready, workers or cpu_count())
        for index in sorted(suspects):
            report(Event(index, "note", "a worker process died while this job ran; running it again on its own"))
            if run([index], 1):
                report_lost(index, jobs[index], results, report, _KILLED)


_KILLED = "the process was killed (out of memory?): free memory, or run fewer jobs at once with --workers"


class _Pool(ProcessPoolExecutor):
    """A pool whose workers report to this process, each pool by a way of its own: a killed worker may block it."""

    def __init__(self, workers: int, report: Report) -> None:
        context = multiprocessing.get_context("forkserver")
        self._events: Queue[Event | None] = context.Queue()
        self._report = report
        self._begun: set[int] = set()
        super().__init__(workers, mp_context=context, initializer=_connect, initargs=(self._events, dict(os.environ)))
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def begun(self) -> set[int]:
        """Return the jobs that have begun, as far as is known once all workers have gone."""
        self._hang_up()
        return self._begun

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """End the workers, then wait for what they have said; whoever interrupts waits until their jobs are stored."""
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            workers = list(self._processes.values())
            try:
                for worker in workers:
                    worker.terminate()
                end, running = time.monotonic() + STORING, {worker.sentinel for worker in workers}
                while running and (left := end - time.monotonic()) > 0:
                    running -= set(wait(running, left))
            finally:
                for worker in workers:
                    worker.kill()
        self.shutdown(cancel_futures=True)
        self._hang_up()

    def _listen(self) -> None:
        while (event := self._events.get()) is not None:
            if event.kind == "start":
                self._begun.add(event.job)
            self._report(event)

    def _hang_up(self) -> None:
        self._events.put(None)
        # A worker killed while it was sending leaves the queue locked; its last words are not worth waiting for.
        self._listener.join(timeout=5)


def _connect(events: Queue[Event | None], environment: dict[str, str]) -> None:
    global _events
    _events = events
    # The server that workers are forked from has the environment of its own start; in a notebook that is long ago.
    os.environ.clear()
    os.environ.update(environment)
    # Ctrl-C reaches every process of a terminal: a worker drops its job at once and in silence, the parent speaks.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    end_with_parent()


def _check(jobs: Sequence[Job]) -> list[str]:
    from cml_bench.runs.check import check_jobs

    return check_jobs(jobs)


def _work(job: Job, results: Path, index: int, checkpoint_every: CheckpointEvery) -> None:
    from cml_bench.runs.run import run_and_store

    run_and_store(job, results, index=index, report=_events.put, checkpoint_every=checkpoint_every)
