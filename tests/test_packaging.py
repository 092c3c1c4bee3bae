"""What is released: wheel and sdist, built from a copy of the tree, installed where no checkout stands beside them."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "site")


def left_out(folder: str, names: list[str]) -> set[str]:
    """Return what a clone would not have."""
    return LEFT_OUT(folder, names) | ({"runs"} if Path(folder) == ROOT / "results" else set())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both as ``python -m build`` does, the wheel out of the sdist, with the setuptools that is here."""
    pytest.importorskip("setuptools", minversion="77", reason="pyproject.toml asks for setuptools 77")
    folder = tmp_path_factory.mktemp("built")
    tree = folder / "tree"
    shutil.copytree(ROOT, tree, ignore=left_out, symlinks=True)
    backend = "import setuptools.build_meta as backend, sys; print(backend.{0}(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", backend.format("build_sdist"), str(folder)], cwd=tree, check=True)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    subprocess.run([sys.executable, "-c", backend.format("build_wheel"), str(folder)], cwd=unpacked, check=True)
    return folder


def test_every_folder_with_code_is_a_package_of_the_release() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    folders = {str(file.parent.relative_to(ROOT)).replace(os.sep, ".") for file in ROOT.glob("cml_bench/**/*.py")}
    plug_ins = {"cml_bench.strategies", "cml_bench.benchmarks", "cml_bench.results.published"}
    assert set(setup["options"]["packages"].split()) == folders | plug_ins


@pytest.mark.slow
def test_a_wheel_holds_all_that_is_imported_and_read(built: Path) -> None:
    """Of the checkout it leaves out nothing but what is run beside it."""
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    folders = {"cml_bench": "cml_bench", "strategies": "cml_bench/strategies", "benchmarks": "cml_bench/benchmarks"}
    for source, target in folders.items():
        for file in (ROOT / source).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert f"{target}/{file.relative_to(ROOT / source)}" in names
    for file in (ROOT / "results/published").glob("*.csv"):
        assert f"cml_bench/results/published/{file.name}" in names
    assert not any(name.startswith(("tests/", "strategies/", "benchmarks/", "docs/")) for name in names)
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as sdist:
        shipped = {Path(*Path(name).parts[1:]).as_posix() for name in sdist.getnames()}
    assert {"setup.cfg", "pyproject.toml", "LICENSE", "README.md", "cml_bench/cli.py"} <= shipped


@pytest.mark.slow
def test_a_wheel_runs_where_no_checkout_is(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "cml_bench.cli", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout

    where = "import cml_bench, cml_bench.strategies.er as er; print(cml_bench.__file__, er.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert found.count(str(site)) == 2
    assert " er " in run("list", "strategies")
    assert "digits" in run("list", "benchmarks")
    small = [word for option in ("n_train=40", "n_test=40", "epochs=1") for word in ("--set", option)]
    table = run("run", "--method", "naive", "--method", "er memory_size=10", "--seeds", "1", "--workers", "1", *small)
    assert "er memory_size=10" in table
    assert len(list((tmp_path / "results/runs").rglob("*.npz"))) == 2
    run("report", "--output", "page.html")
    assert "memory_size=10" in (tmp_path / "page.html").read_text(encoding="utf-8")
