"""What is computed once and kept: killed half way it is made again, damaged it is never used."""

from __future__ import annotations

import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cml_bench.data import cache
from cml_bench.data.cache import cached_rows, lookup
from cml_bench.data.sets.feature_table import FeatureTable
from cml_bench.data.table import LabelTable
from cml_bench.errors import CmlBenchError
from cml_bench.files import replace_file
from cml_bench.runs.events import Event
from cml_bench.runs.run import run_job

ROWS = torch.arange(6000, dtype=torch.float32).reshape(60, 100)
KEY = {"backbone": "tiny"}


def store(folder: Path, pause: float = 0.0, begun: list[int] | None = None) -> Tensor:
    def blocks(start: int) -> Iterator[Tensor]:
        if begun is not None:
            begun.append(start)
        for block in ROWS[start:].split(20):
            yield block
            time.sleep(pause if start + 20 < len(ROWS) else 0)
            start += 20

    return cached_rows(folder, KEY, len(ROWS), blocks)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_features_killed_half_way_are_computed_again(tmp_path: Path, until: Callable[..., None]) -> None:
    process = multiprocessing.get_context("fork").Process(target=store, args=(tmp_path, 60))
    process.start()
    until(lambda: files(tmp_path))
    process.kill()
    process.join()
    (left,) = files(tmp_path)
    assert left.suffix == ".part"
    assert lookup(tmp_path, KEY, len(ROWS)) is None
    assert torch.equal(store(tmp_path), ROWS.half())
    assert [path.suffix for path in files(tmp_path)] == [".json", ".npy"]


def stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave a file of which 40 of 60 rows are known to be on the disk."""
    monkeypatch.setattr(cache, "_ROWS_A_MARK", 20)

    def blocks(start: int) -> Iterator[Tensor]:
        assert start == 0
        yield from ROWS[:40].split(20)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_rows(folder, KEY, len(ROWS), blocks)
    left = files(folder)
    assert [path.suffix for path in left] == [".mark", ".part"]
    assert lookup(folder, KEY, len(ROWS)) is None
    return left[1]


def test_features_go_on_where_their_writer_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, begun = stopped(tmp_path, monkeypatch), list[int]()
    # What came after the last mark may be anything.
    part.write_bytes(part.read_bytes() + b"half a row")
    assert torch.equal(store(tmp_path, begun=begun), ROWS.half())
    assert begun == [40]
    assert [path.suffix for path in files(tmp_path)] == [".json", ".npy"]
    assert torch.equal(cached_rows(tmp_path, KEY, len(ROWS), lambda start: pytest.fail("computed")), ROWS.half())


def test_features_go_on_after_kill_9(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> None:
    monkeypatch.setattr(cache, "_ROWS_A_MARK", 20)
    process = multiprocessing.get_context("fork").Process(target=store, args=(tmp_path, 60))
    process.start()
    until(lambda: [path for path in files(tmp_path) if path.suffix == ".mark"])
    process.kill()
    process.join()
    begun = list[int]()
    assert torch.equal(store(tmp_path, begun=begun), ROWS.half())
    assert begun == [20]


@pytest.mark.parametrize("damage", ["bit", "short", "mark", "no mark"])
def test_what_is_left_of_features_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    part, begun = stopped(tmp_path, monkeypatch), list[int]()
    if damage == "bit":
        flip(part, 0.5)
    elif damage == "short":
        part.write_bytes(part.read_bytes()[:5000])
    elif damage == "mark":
        part.with_suffix(".mark").write_text('{"rows": 40, "size": 10, "checksum": "no"}')
    else:
        part.with_suffix(".mark").unlink()
    assert torch.equal(store(tmp_path, begun=begun), ROWS.half())
    assert begun == [0]
    assert [path.suffix for path in files(tmp_path)] == [".json", ".npy"]


def flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("place", [0.0, 0.005, 0.1, 0.5, 0.9, 1.0])
def test_one_flipped_bit_of_stored_features_is_noticed(tmp_path: Path, place: float) -> None:
    store(tmp_path)
    (path,) = tmp_path.rglob("*.npy")
    flip(path, place)
    with pytest.warns(UserWarning, match=r"cached features .*will be computed again"):
        assert lookup(tmp_path, KEY, len(ROWS)) is None
    with pytest.warns(UserWarning, match="computed again"):
        assert torch.equal(store(tmp_path), ROWS.half())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(lookup(tmp_path, KEY, len(ROWS)), ROWS.half())


def test_a_job_says_that_its_features_were_damaged(
    small_jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path))
    (job,) = small_jobs(frozen="true", image_size=32)
    before = run_job(job).predictions
    (path, *_) = sorted(tmp_path.rglob("*.npy"))
    flip(path, 0.5)
    told: list[Event] = []
    with warnings.catch_warnings(record=True) as others:
        warnings.simplefilter("always")
        again = run_job(job, report=told.append).predictions
    assert not others, "what Avalanche and torch warn of is not heard"
    assert all(np.array_equal(one, other) for one, other in zip(before.logits, again.logits, strict=True))
    (warning,) = {event.message for event in told if event.kind == "warning"}
    assert warning.startswith("cached features")
    assert warning.endswith("will be computed again")


def test_features_of_a_version_without_checksums_are_computed_again(tmp_path: Path) -> None:
    store(tmp_path)
    (path,) = tmp_path.rglob("*.npy")
    np.save(path, ROWS.half().numpy())
    with pytest.warns(UserWarning, match="checksum"):
        assert torch.equal(store(tmp_path), ROWS.half())


def test_a_file_is_read_for_its_checksum_once_a_process(tmp_path: Path, monkeypatch: Any) -> None:
    store(tmp_path)
    assert lookup(tmp_path, KEY, len(ROWS)) is not None
    monkeypatch.setattr("zlib.crc32", lambda *_: pytest.fail("read again"))
    assert lookup(tmp_path, KEY, len(ROWS)) is not None


def test_a_file_is_on_the_disk_before_it_takes_its_place(tmp_path: Path, monkeypatch: Any) -> None:
    """What a power cut leaves cannot be tried; that the content is flushed before the name, and the name after, can."""
    path, said = tmp_path / "file", []
    flush, replace = os.fsync, os.replace

    def note_flush(handle: int) -> None:
        said.append(("flushed", os.fstat(handle).st_ino, os.fstat(handle).st_size))
        flush(handle)

    def note_replace(source: Path, target: Path) -> None:
        said.append(("placed", source.stat().st_ino, source.stat().st_size))
        replace(source, target)

    monkeypatch.setattr("os.fsync", note_flush)
    monkeypatch.setattr("os.replace", note_replace)
    replace_file(path, lambda file: file.write(b"0" * 100))
    file, folder = path.stat().st_ino, tmp_path.stat()
    assert said == [("flushed", file, 100), ("placed", file, 100), ("flushed", folder.st_ino, folder.st_size)]


# -- label tables ----------------------------------------------------------------------------------------------------


class Slow(LabelTable):
    """A table that is being written for ever."""

    def save(self, path: Path) -> None:
        def half(file: Any) -> None:
            file.write(b"PK\x03\x04" * 1000)
            file.flush()
            time.sleep(600)

        replace_file(path, half)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: Any) -> FeatureTable:
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    labels = (rng.random((400, 30)) < 0.3).astype(np.int8)
    root = tmp_path / "features"
    root.mkdir()
    names = np.array([f"label{i}" for i in range(30)])
    np.savez(root / "train.npz", features=rng.random((400, 4)), labels=labels, label_names=names)
    return FeatureTable(root=str(root))


def prepare_for_ever(data: FeatureTable) -> None:
    LabelTable.save = Slow.save  # type: ignore[method-assign]
    data.table("train")


def test_prepare_killed_half_way_starts_again(data: FeatureTable, until: Callable[..., None]) -> None:
    path = data.table_path("train")
    process = multiprocessing.get_context("fork").Process(target=prepare_for_ever, args=(data,))
    process.start()
    until(lambda: list(path.parent.glob("*.part")))
    process.kill()
    process.join()
    assert not path.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = data.table("train")
    assert files(path.parent) == [path], "what the killed writer left was to be removed"
    assert LabelTable.load(path).fingerprint == made.fingerprint == data.read("train").fingerprint


@pytest.mark.parametrize("place", np.linspace(0, 1, 12))
def test_one_flipped_bit_of_a_label_table_changes_nothing_that_is_used(data: FeatureTable, place: float) -> None:
    """The checksums of the zip format cover the arrays; what they leave out is never read."""
    whole = data.table("train")
    path = data.table_path("train")
    flip(path, place)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        table = data.table("train")
    assert table.fingerprint == whole.fingerprint
    assert all("read from the original files" in str(note.message) for note in said)
    try:
        assert LabelTable.load(path).fingerprint == whole.fingerprint
    except CmlBenchError as error:
        pytest.fail(f"the damaged table was left there: {error}")
