"""One process a job: who runs a job says so beside its result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cml_bench.errors import CmlBenchError


@contextmanager
def claim(result: Path, patience: float = 0.0) -> Iterator[bool]:
    """Try to be the process that writes a result file; yield whether it is this one.

    The claim is a lock of the operating system: it ends with the process, however that ends. On a file system that
    knows no locks everybody may write, which costs time and nothing else: results are put in place in one step.

    Args:
        result: The result file.
        patience: Seconds to wait for another process to let go.

    Raises:
        CmlBenchError: If the folder cannot be written.
    """
    path = result.with_suffix(".lock")
    lock = FileLock(path, timeout=patience)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        yield False
        return
    except NotImplementedError:
        pass
    except OSError as error:
        raise CmlBenchError(
            f"results folder {path.parent} cannot be written ({error.strerror}): name a folder with --results"
        ) from None
    try:
        yield True
    finally:
        # While it is still held: whoever comes now finds the result.
        with suppress(OSError):
            path.unlink()
        lock.release()
