"""A disk cache of frozen features and of decoded images: computed once, streamed to disk, read back memory-mapped."""

from __future__ import annotations

import errno
import functools
import hashlib
import io
import json
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import platformdirs
import torch
from torch import Tensor

from cml_bench.errors import CmlBenchError, CmlBenchWarning
from cml_bench.files import put_in_place, replace_file, writing

CacheKey = Mapping[str, str | int | None]

_CHECKSUM = struct.Struct("<I")
_PIECE = 1 << 22
_ROWS_A_MARK = 1024


@dataclass(frozen=True)
class Shelf:
    """A part of the cache.

    Attributes:
        name: What lies in it; its folder.
        dtype: Type of its numbers.
    """

    name: str
    dtype: torch.dtype


FEATURES = Shelf("features", torch.float16)
PIXELS = Shelf("pixels", torch.uint8)


def default_cache_dir() -> Path:
    """Return the folder named by ``CML_BENCH_CACHE``, else the user's cache folder."""
    named = os.environ.get("CML_BENCH_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("cml_bench"))


def cached_rows(
    cache_dir: Path, key: CacheKey, n: int, compute: Callable[[int], Iterable[Tensor]], shelf: Shelf = FEATURES
) -> Tensor:
    """Return the n rows stored under a key, computing and storing them the first time.

    Rows are stored in a ``.npy`` file named by the sha256 of the key; a small JSON file beside it holds the key for
    human eyes. The file is written aside and then put in place, so a reader never sees half of one; of two processes
    that ask for the same key one computes and the other waits. The last four bytes of the file, which readers of arrays
    pass over, are the CRC-32 of all before them: a process compares them when it first opens the file. One that was
    stopped half way goes on after the last rows known to be on the disk, 1,024 at a time, if their checksum is right.

    Args:
        cache_dir: Folder, made if need be.
        key: Everything the rows depend on. A part that is None is not known; it is taken from the only stored key that
            says the same of the others.
        n: Number of rows that must come.
        compute: Yields blocks of rows, (b, ...), in order, from the row that it is given on; called only if nothing
            usable is stored.
        shelf: What the rows are.

    Returns:
        (n, ...) of the shelf's type, memory-mapped: a row is read when it is used, and writing to it changes no file.

    Raises:
        CmlBenchError: If there are no rows, the folder cannot be written, a feature does not fit float16, or several
            stored keys differ in what is not known.
    """
    if not n:
        raise CmlBenchError("there are no images to read: give a data set that has some")
    stored = lookup(cache_dir, key, n, shelf)
    if stored is not None:
        return stored
    path = _path(cache_dir, key, shelf)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path):
            stored = lookup(cache_dir, key, n, shelf)
            if stored is not None:
                return stored
            _write(path, n, compute, shelf)
            text = json.dumps(dict(key), indent=1, sort_keys=True)
            replace_file(path.with_suffix(".json"), lambda file: file.write(text.encode()))
    except OSError as error:
        mend = "free some space" if error.errno == errno.ENOSPC else "make it writable"
        raise CmlBenchError(
            f"{shelf.name} cannot be stored in {path.parent} ({error.strerror}); {mend} or set CML_BENCH_CACHE "
            "elsewhere"
        ) from None
    return _map(path)


def lookup(cache_dir: Path, key: CacheKey, n: int, shelf: Shelf = FEATURES) -> Tensor | None:
    """Return the (n, ...) rows stored under a key, or None if there are none; warns of a damaged file."""
    path = _path(cache_dir, key, shelf)
    try:
        state = path.stat()
        whole = _is_whole(path, state.st_size, state.st_mtime_ns)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        warnings.warn(
            f"cached {shelf.name} {path} cannot be read ({error}) and will be computed again",
            CmlBenchWarning,
            stacklevel=2,
        )
        return None
    if not whole:
        warnings.warn(
            f"cached {shelf.name} {path} are damaged (their checksum is wrong) and will be computed again",
            CmlBenchWarning,
            stacklevel=2,
        )
        return None
    rows = _map(path)
    if rows.dtype != shelf.dtype or rows.dim() < 2 or len(rows) != n:
        warnings.warn(
            f"cached {shelf.name} {path} hold {rows.dtype} {tuple(rows.shape)} for {n} images and will be computed "
            "again",
            CmlBenchWarning,
            stacklevel=2,
        )
        return None
    return rows


def _path(cache_dir: Path, key: CacheKey, shelf: Shelf) -> Path:
    folder = cache_dir / shelf.name
    if None in key.values():
        key = _only_like(key, folder, shelf)
    canonical = json.dumps(dict(key), sort_keys=True, separators=(",", ":"))
    return folder / f"{hashlib.sha256(canonical.encode()).hexdigest()}.npy"


def _only_like(key: CacheKey, folder: Path, shelf: Shelf) -> CacheKey:
    """Return the stored key that says what a key knows; the key itself if there is none.

    A key of before something became a part of it is taken where no other is there.
    """
    known = {name: value for name, value in key.items() if value is not None}
    found: list[CacheKey] = []
    before: list[CacheKey] = []
    for path in folder.glob("*.json"):
        try:
            stored = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if known.items() <= stored.items() and stored.keys() <= key.keys():
            (found if stored.keys() == key.keys() else before).append(stored)
    found = found or before
    if len(found) > 1:
        unknown = ", ".join(sorted(key.keys() - known.keys()))
        raise CmlBenchError(
            f"{folder} holds {shelf.name} of {len(found)} kinds of {unknown}, and nothing says which are meant: "
            "put the images there, or delete the others"
        )
    return found[0] if found else key


def _map(path: Path) -> Tensor:
    # Copy-on-write: torch has no read-only tensors, and nobody may change the file by accident.
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


@functools.cache
def _is_whole(path: Path, size: int, modified: int) -> bool:
    """Return whether a file ends in the checksum of its content; it is read once, while size and time are the same."""
    left, found = size - _CHECKSUM.size, 0
    with path.open("rb") as file:
        while piece := file.read(min(_PIECE, max(left, 0))):
            found = zlib.crc32(piece, found)
            left -= len(piece)
        return file.read() == _CHECKSUM.pack(found)


@dataclass(frozen=True)
class _Mark:
    """How much of a file being written is on the disk.

    Attributes:
        rows: Rows.
        size: Bytes, from the beginning of the file.
        checksum: CRC-32 of these bytes.
    """

    rows: int = 0
    size: int = 0
    checksum: int = 0


def _write(path: Path, n: int, compute: Callable[[int], Iterable[Tensor]], shelf: Shelf) -> None:
    """Write blocks of rows as one ``.npy`` array, block by block, and their checksum; nobody else may be doing so."""
    aside, marks = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.mark")
    mark = _read_mark(aside, marks)
    try:
        with aside.open("r+b" if mark.rows else "wb") as file:
            file.truncate(mark.size)
            file.seek(mark.size)
            mark = _write_rows(file, mark, n, compute(mark.rows), shelf, marks)
            if mark.rows != n:
                raise ValueError(f"compute() yielded {mark.rows} rows where {n} were announced")
            file.write(_CHECKSUM.pack(mark.checksum))
            file.flush()
            os.fsync(file.fileno())
        put_in_place(aside, path)
    except BaseException as error:
        # What takes the place of others is no use; nor are rows that nothing says are whole.
        if not marks.is_file() or isinstance(error, (OSError, ValueError)):
            aside.unlink(missing_ok=True)
            marks.unlink(missing_ok=True)
        raise
    marks.unlink(missing_ok=True)


def _write_rows(file: IO[bytes], mark: _Mark, n: int, blocks: Iterable[Tensor], shelf: Shelf, marks: Path) -> _Mark:
    last = mark.rows
    for block in blocks:
        rows = block.detach().to("cpu", shelf.dtype).contiguous()
        if rows.is_floating_point() and not bool(torch.isfinite(rows).all()):
            raise CmlBenchError(
                f"features of rows {mark.rows} to {mark.rows + len(rows)} do not fit float16 or are NaN; "
                "check the weights"
            )
        parts: list[bytes | memoryview] = [rows.numpy().data.cast("B")]
        if not mark.rows:
            header = io.BytesIO()
            about = {"descr": rows.numpy().dtype.str, "fortran_order": False, "shape": (n, *rows.shape[1:])}
            np.lib.format.write_array_header_1_0(header, about)
            parts.insert(0, header.getvalue())
        for part in parts:
            file.write(part)
            mark = replace(mark, size=mark.size + len(part), checksum=zlib.crc32(part, mark.checksum))
        mark = replace(mark, rows=mark.rows + len(rows))
        if mark.rows - last >= _ROWS_A_MARK:
            file.flush()
            os.fsync(file.fileno())
            text = json.dumps(asdict(mark)).encode()
            replace_file(marks, lambda target: target.write(text))  # noqa: B023 - called at once
            last = mark.rows
    return mark


def _read_mark(aside: Path, marks: Path) -> _Mark:
    """Return from where a file that was left half written can be gone on with: from its beginning if it is damaged."""
    try:
        mark = _Mark(**json.loads(marks.read_bytes()))
        with aside.open("rb") as file:
            left, found = mark.size, 0
            while left and (piece := file.read(min(_PIECE, left))):
                found = zlib.crc32(piece, found)
                left -= len(piece)
        return mark if (left, found) == (0, mark.checksum) and mark.rows > 0 else _Mark()
    except (OSError, ValueError, TypeError):
        return _Mark()
