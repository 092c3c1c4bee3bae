"""Several jobs at once, each in a process of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from multiprocessing.queues import Queue
from pathlib import Path

from cml_bench.errors import CmlBenchError
from cml_bench.runs.events import CheckpointEvery, Event, Report
from cml_bench.runs.job import Job

_events: Queue[Event | None]


def warm_up() -> None:
    """Start the slow imports (torch, Avalanche) in the server that workers are forked from, without waiting."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["cml_bench.runs.run", "cml_bench.runs.check"])
    forkserver.ensure_running()


def execute(
    jobs: Sequence[Job],
    results: Path,
    report: Report,
    workers: int,
    checkpoint_every: CheckpointEvery = "experience",
) -> None:
    """Run jobs in a pool of processes; each result is written as soon as it is there.

    The same job gives the same result as in the serial engine: a job shares nothing with its neighbours.

    Args:
        jobs: What to run.
        results: Results folder.
        report: Called in this process with the events of all jobs.
        workers: Number of processes.
        checkpoint_every: When running jobs store their state.

    Raises:
        CmlBenchError: If a worker was killed; finished results are kept.
    """
    warm_up()
    context = multiprocessing.get_context("forkserver")
    events: Queue[Event | None] = context.Queue()
    listener = threading.Thread(target=_listen, args=(events, report), daemon=True)
    listener.start()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_connect, initargs=(events,))
    try:
        try:
            pool.submit(_check, jobs).result()
        except BrokenProcessPool:
            raise CmlBenchError(
                "the worker processes did not start: a script that runs several at once must do so under "
                "if __name__ == '__main__', or with workers=1"
            ) from None
        futures = [pool.submit(_work, job, results, index, checkpoint_every) for index, job in enumerate(jobs)]
        for future in as_completed(futures):
            future.result()
    except BrokenProcessPool:
        raise CmlBenchError(
            "a worker process was killed (out of memory?): finished results are kept; run the same command again to go "
            "on, with fewer --workers if memory ran out"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
        events.put(None)
        # A worker killed while it was sending leaves the queue locked; its last words are not worth waiting for.
        listener.join(timeout=5)


def _listen(events: Queue[Event | None], report: Report) -> None:
    while (event := events.get()) is not None:
        report(event)


def _connect(events: Queue[Event | None]) -> None:
    global _events
    _events = events
    # Ctrl-C reaches every process of a terminal: a worker drops its job at once and in silence, the parent speaks.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))


def _check(jobs: Sequence[Job]) -> None:
    from cml_bench.runs.check import check_jobs

    check_jobs(jobs)


def _work(job: Job, results: Path, index: int, checkpoint_every: CheckpointEvery) -> None:
    from cml_bench.runs.run import run_and_store

    run_and_store(job, results, index=index, report=_events.put, checkpoint_every=checkpoint_every)
