"""Small files that would take much memory or time, each with its figure: what is announced is not believed."""

from __future__ import annotations

import io
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from cml_bench import npz
from cml_bench.data import mat_check
from cml_bench.data.arff import read_arff
from cml_bench.data.mat_files import load_mat
from cml_bench.errors import CmlBenchError
from cml_bench.metrics.predictions import Predictions
from cml_bench.npz import read_npz
from cml_bench.runs.job import parse_class_orders, parse_seeds
from cml_bench.runs.sweep import read_suite

MOST = 64 * 2**20
SECONDS = 20


def cheap(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or the error it raises; it may take little memory and time."""
    tracemalloc.start()
    start = time.perf_counter()
    try:
        return call()
    except (CmlBenchError, ValueError) as error:
        return error
    finally:
        peak, seconds = tracemalloc.get_traced_memory()[1], time.perf_counter() - start
        tracemalloc.stop()
        assert peak < MOST, f"{peak / 2**20:.0f} MiB"
        assert seconds < SECONDS


def member(shape: tuple[int, ...], kind: str, body: bytes = b"") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue() + body


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("shape", [(10**12,), (2**40, 2**40), (2**62, 4)])
def test_an_npz_that_announces_more_than_it_holds(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = archive(tmp_path / "a.npz", label_names=member(shape, "<f8", b"12345678"))
    assert "announces" in str(cheap(lambda: read_npz(path)))
    assert "a.npz cannot be read ('label_names.npy' announces" in str(cheap(lambda: Predictions.load(path)))


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a lower limit, so that the test need not write a gigabyte."""
    monkeypatch.setattr(npz, "ALWAYS", 2**20)
    size = 128 * 2**20
    path = archive(tmp_path / "a.npz", labels=member((size,), "|i1", bytes(size)))
    assert path.stat().st_size < size / 500
    assert str(cheap(lambda: read_npz(path))).startswith(f"it unpacks to {size + 128} bytes, more than ")


def test_what_compresses_well_and_is_small_is_read(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", labels=member((10**6,), "|i1", bytes(10**6)))
    assert cheap(lambda: read_npz(path))["labels"].sum() == 0


def test_a_bomb_in_a_mat_file_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mat_check, "ALWAYS", 2**20)
    file = io.BytesIO()
    savemat(file, {"peta": np.zeros(128 * 2**20, dtype=np.uint8)}, do_compression=True)
    (tmp_path / "PETA.mat").write_bytes(file.getvalue())
    error = cheap(lambda: load_mat(tmp_path / "PETA.mat", "peta"))
    assert "PETA.mat is no MATLAB file, or damaged (what is packed at byte 136 unpacks to more than" in str(error)


def test_a_mat_file_that_announces_more_cells_than_it_holds(tmp_path: Path) -> None:
    cells = np.empty((3, 1), dtype=object)
    cells[:, 0] = ["a", "b", "c"]
    file = io.BytesIO()
    savemat(file, {"names": cells})
    content = file.getvalue()
    dims = content.index(np.array([3, 1], dtype="<i4").tobytes())
    (tmp_path / "a.mat").write_bytes(
        content[:dims] + np.array([2**31 - 1, 2], dtype="<i4").tobytes() + content[dims + 8 :]
    )
    assert "announces 4294967294 items" in str(cheap(lambda: load_mat(tmp_path / "a.mat", "names")))


@pytest.mark.parametrize("kind", [0, 8, 10, 19, 255, 2**16 - 1])
def test_a_mat_file_of_unknown_types_does_not_take_the_process_down(tmp_path: Path, kind: int) -> None:
    file = io.BytesIO()
    savemat(file, {"values": np.arange(40, dtype=np.float64)})
    content = file.getvalue()
    place = content.index(np.array([9, 320], dtype="<u4").tobytes())
    (tmp_path / "a.mat").write_bytes(content[:place] + np.array([kind], dtype="<u4").tobytes() + content[place + 4 :])
    assert "numbers do not fill their dimensions" in str(cheap(lambda: load_mat(tmp_path / "a.mat", "values")))


def test_references_in_a_suite_do_not_double(tmp_path: Path) -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 12)]
    (tmp_path / "suite.yaml").write_text("\n".join([*lines, "title: *a11", "benchmarks: [digits]", "methods: [er]"]))
    assert "suite.yaml is no YAML: write out *a0" in str(cheap(lambda: read_suite(tmp_path / "suite.yaml")))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "vary: {" + ", ".join(f"o{n}: [{', '.join(map(str, range(10)))}]" for n in range(30)) + "}",
            "jobs are more than",
        ),
        ("seeds: 2147483647", "2147483647 seeds are too many"),
        ("class_orders: 1000000000", "1000000000 class orders are too many"),
        ("seeds: 1000\nclass_orders: 1000", "1000000 jobs are more than the 100000 of a sweep"),
        ("title: [" + "[" * 50_000, "nested too deeply"),
        ("seeds: 1\nseeds: 2", "'seeds' comes twice"),
        ("vary: {lr: [0.2, 0.2]}", "lists a value of 'lr' twice under 'vary'"),
        ("title: " + "a" * 1001, "needs a text of up to 1000 letters as title"),
        ("title: 2020-13-45", "month must be in 1..12"),
    ],
)
def test_a_suite_asks_for_no_more_than_a_sweep(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "suite.yaml").write_text(f"benchmarks: [digits]\nmethods: [er]\n{line}\n")
    assert says in str(cheap(lambda: read_suite(tmp_path / "suite.yaml")))


def test_counts_on_the_command_line_are_bounded() -> None:
    assert "too many" in str(cheap(lambda: parse_seeds("2147483647")))
    assert parse_seeds("2147483647,") == [2147483647]
    for text in ("9" * 5000, "99999"):
        assert "too many" in str(cheap(lambda text=text: parse_class_orders(text)))
    # Digits to Unicode, no number to int: a name of an order, which the benchmark then refuses.
    assert parse_class_orders("²") == ["²"]


@pytest.mark.parametrize(
    "text",
    [
        "@attribute " + "a" * 200_000 + "!\n@data\n",
        "@attribute a {'x'" + " " * 200_000 + "y}\n@data\n",
        "@attribute a {x,y}\n@attribute b numeric\n@data\n'x'" + " " * 200_000 + "y,1\n",
        "@attribute a numeric\n@data\n{" + "0 1, " * 40_000 + "!\n",
        "@attribute a numeric\n@data\n{" + "0 1" + " " * 200_000 + "!}\n",
    ],
)
def test_no_expression_runs_away_on_a_long_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.arff").write_text(text)
    cheap(lambda: read_arff(tmp_path / "a.arff"))


def test_what_deflate_can_do_at_most() -> None:
    """The limit of ratio lets through what data look like, not what bombs look like."""
    packed = len(zlib.compress(bytes(10**7), 9))
    assert 10**7 / packed > 9 * npz.RATIO
    labels = (np.random.default_rng(0).random((20_000, 80)) < 0.04).astype(np.int8)
    assert labels.nbytes / len(zlib.compress(labels.tobytes())) < npz.RATIO / 2
