"""The feature cache on disk."""

import errno
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch

from cml_bench.data import cache
from cml_bench.data.cache import cached_rows, default_cache_dir, lookup
from cml_bench.errors import CmlBenchError

KEY = {"backbone": "tiny", "size": 8}


def blocks(n=10, block=4, shape=(3, 2)):
    rows = torch.arange(n * int(np.prod(shape)), dtype=torch.float32).reshape(n, *shape)
    return rows, lambda start: iter(rows[start:].split(block))


def forbidden(start):
    raise AssertionError("computed although stored")


def only_file(folder, suffix):
    (path,) = folder.rglob(f"*{suffix}")
    return path


def test_computes_once_and_reads_back(tmp_path):
    rows, compute = blocks()
    first = cached_rows(tmp_path, KEY, 10, compute)
    again = cached_rows(tmp_path, dict(reversed(KEY.items())), 10, forbidden)
    for stored in (first, again):
        assert stored.dtype == torch.float16
        assert torch.equal(stored, rows.half())
    assert '"backbone": "tiny"' in only_file(tmp_path, ".json").read_text()
    assert not list(tmp_path.rglob("*.part"))


def test_other_keys_are_other_files(tmp_path):
    rows, compute = blocks()
    cached_rows(tmp_path, KEY, 10, compute)
    other = cached_rows(tmp_path, {**KEY, "size": 9}, 10, lambda start: iter([rows + 1]))
    assert torch.equal(other, (rows + 1).half())
    assert torch.equal(cached_rows(tmp_path, KEY, 10, forbidden), rows.half())
    assert lookup(tmp_path, {**KEY, "size": 10}, 10) is None


def test_writing_to_the_result_changes_no_file(tmp_path):
    rows, compute = blocks()
    cached_rows(tmp_path, KEY, 10, compute).zero_()
    assert torch.equal(cached_rows(tmp_path, KEY, 10, forbidden), rows.half())


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "rows", "type", "pickle", "strings"])
def test_a_damaged_file_is_computed_again(tmp_path, damage):
    rows, compute = blocks()
    cached_rows(tmp_path, KEY, 10, compute)
    path = only_file(tmp_path, ".npy")
    content = path.read_bytes()
    if damage in ("truncated", "empty", "text"):
        path.write_bytes({"truncated": content[:-5], "empty": b"", "text": b"no array"}[damage])
    else:
        arrays = {
            "rows": np.zeros((9, 3), np.float16),
            "type": np.zeros((10, 3)),
            "pickle": np.array([{}] * 10),
            "strings": np.full((10, 3), "x"),
        }
        np.save(path, arrays[damage])
    with pytest.warns(UserWarning, match="computed again"):
        mended = cached_rows(tmp_path, KEY, 10, compute)
    assert torch.equal(mended, rows.half())
    assert torch.equal(cached_rows(tmp_path, KEY, 10, forbidden), rows.half())


@pytest.mark.parametrize("yielded", [9, 11])
def test_a_wrong_number_of_rows_is_not_stored(tmp_path, yielded):
    _, compute = blocks(yielded)
    with pytest.raises(ValueError, match=str(yielded)):
        cached_rows(tmp_path, KEY, 10, compute)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_values_beyond_float16_are_refused(tmp_path, value):
    rows, _ = blocks()
    rows[6, 0, 0] = value
    with pytest.raises(CmlBenchError, match="float16"):
        cached_rows(tmp_path, KEY, 10, lambda start: iter(rows.split(4)))
    assert not list(tmp_path.rglob("*.npy"))


def test_a_failing_computation_leaves_nothing(tmp_path):
    def compute(start):
        yield torch.zeros(4, 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_rows(tmp_path, KEY, 10, compute)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "_write_rows", full)
    with pytest.raises(CmlBenchError, match=r"No space left.*free some space") as caught:
        cached_rows(tmp_path, KEY, 10, blocks()[1])
    assert "\n" not in str(caught.value)


def test_a_file_in_the_way_is_one_sentence(tmp_path):
    (tmp_path / "blocked").write_text("")
    with pytest.raises(CmlBenchError, match="blocked"):
        cached_rows(tmp_path / "blocked", KEY, 10, blocks()[1])


def write_and_sum(folder):
    rows, compute = blocks(200, 7)
    return all(torch.equal(cached_rows(folder, {**KEY, "round": i}, 200, compute), rows.half()) for i in range(5))


def test_concurrent_writers(tmp_path):
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("fork")) as pool:
        assert all(pool.map(write_and_sum, [tmp_path] * 3))
    assert len(list(tmp_path.rglob("*.npy"))) == 5
    assert not list(tmp_path.rglob("*.part"))


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path
    monkeypatch.delenv("CML_BENCH_CACHE")
    assert default_cache_dir().name == "cml_bench"
