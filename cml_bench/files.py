"""Writing files so that a reader never sees half of one, nor finds half of one after a power cut; reading files."""

from __future__ import annotations

import errno
import glob
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import FileLock


def refuse_special(path: Path) -> None:
    """Refuse pipes and devices, also at the end of a link: who reads one may wait for ever, or never come to an end.

    Raises:
        OSError: If it is one.
    """
    if not path.is_file() and path.exists():
        raise OSError(errno.EINVAL, "it is no plain file", str(path))


def read_plain(path: Path) -> bytes:
    """Return what a file holds, which is none of those.

    Raises:
        OSError: If it cannot be read.
    """
    refuse_special(path)
    return path.read_bytes()


def replace_file(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Write a file aside, flush it to the disk and put it in place; leave nothing behind on failure.

    Args:
        path: The file to make or to replace; its folder exists.
        fill: Writes the content into the open file that it is given.
    """
    # Not tempfile: it makes files that only their owner may read, and results are shared.
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        put_in_place(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def put_in_place(aside: Path, path: Path) -> None:
    """Give a file that has been written beside its place, and flushed, its name."""
    os.replace(aside, path)
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Make sure that the new name is on the disk, where folders can be flushed."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Be the only process that writes a file, having removed what writers left that were killed half way.

    The lock beside the file is the operating system's: it ends with its process. On a file system that knows no locks
    everybody may write, and what is left there stays.

    Args:
        path: The file; its folder exists.
    """
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire()
    except NotImplementedError:
        yield
        return
    try:
        for aside in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
            aside.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def plain_name(text: str) -> str:
    """Return what a file may be called after a text, on any system."""
    return re.sub(r"[^A-Za-z0-9._=-]+", "_", text).strip("_.") or "_"
