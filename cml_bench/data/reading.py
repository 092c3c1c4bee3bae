"""Images are read by threads, a batch ahead of whoever uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(
    load: Callable[[int], T], count: int, batch_size: int, workers: int, *, start: int = 0
) -> Iterator[list[T]]:
    """Yield what ``load`` returns for each row, batch by batch; the next batch is loaded while this one is used.

    Args:
        load: Row to anything; called by several threads at once.
        count: Number of rows.
        batch_size: Rows a batch; the last one may be smaller.
        workers: Number of threads.
        start: First row.
    """
    threads = ThreadPoolExecutor(workers)

    def submit(first: int) -> list[Future[T]]:
        return [threads.submit(load, row) for row in range(first, min(first + batch_size, count))]

    try:
        done, following = start, submit(start)
        while following:
            current, following = following, submit(done + len(following))
            yield [future.result() for future in current]
            done += len(current)
    finally:
        threads.shutdown(cancel_futures=True)
