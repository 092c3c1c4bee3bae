"""The architecture: what may import what, and what importing costs."""

from __future__ import annotations

import ast
import gc
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import cml_bench

PACKAGE = Path(cml_bench.__file__).resolve().parent
REPOSITORY = PACKAGE.parent

RANKS = {
    **dict.fromkeys(("errors", "files", "labels", "npz"), 0),
    **dict.fromkeys(("options", "registry"), 1),
    "data": 2,
    "regimes": 3,
    "streams": 4,
    **dict.fromkeys(("models", "losses"), 5),
    **dict.fromkeys(("training", "memory"), 6),
    "runs": 7,
    "report": 8,
    **dict.fromkeys(("testing", "progress"), 9),
    "api": 10,
    "commands": 11,
    **dict.fromkeys(("cli", "__main__"), 12),
}
"""Data flows one way: a module imports from its own rank or to the left of it."""

ROOMS = {
    **dict.fromkeys(("stored", "published", "statistics", "picture_file", "listing"), 0),
    "tables": 1,
    "formats": 2,
    **dict.fromkeys(("figures", "stream", "drift", "explanation", "forecast"), 3),
    "page": 4,
}
"""So it does within ``report/``: a room imports from itself and from rooms of a lower rank."""

BACKWARDS = {("tables/table.py", "cml_bench.report.formats.markdown")}
"""A table prints itself."""

METRICS_MAY_IMPORT = {"errors", "files", "labels", "metrics", "npz"}
PLUGINS_MAY_IMPORT = {
    "strategies": {
        "labels",
        "errors",
        "options",
        "registry",
        "data",
        "streams",
        "models",
        "losses",
        "training",
        "memory",
    },
    "benchmarks": {"labels", "errors", "options", "benchmarks", "data", "streams", "training", "runs"},
}


def imported(path: Path) -> set[str]:
    """Names of everything below cml_bench that a file imports, types and late imports included.

    ``from cml_bench.x import y`` gives both ``cml_bench.x`` and ``cml_bench.x.y``: y may be a module.
    """
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in found if name.split(".")[0] == "cml_bench"}


def part_of(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


def home_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


CORE = sorted(PACKAGE.rglob("*.py"))


def is_behind_main(path: Path, module: str) -> bool:
    """Whether a file imports a module only under ``if __name__ == "__main__"``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and "__main__" in ast.dump(node.test))]
    named = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return module not in named


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_to_its_right(path: Path) -> None:
    home = home_of(path)
    parts = {part_of(name) for name in imported(path)} - {"__init__", "__version__"}
    if home == "__init__":
        return
    if home == "metrics":
        assert parts <= METRICS_MAY_IMPORT
        return
    assert home in RANKS, f"{path.name} has no place in the line: give it one"
    allowed = {name for name, rank in RANKS.items() if rank <= RANKS[home]}
    if RANKS[home] >= RANKS["runs"]:
        allowed.add("metrics")
    assert parts <= allowed, f"{home} imports {sorted(parts - allowed)}"


REPORT = sorted((PACKAGE / "report").glob("*/*.py")) + sorted((PACKAGE / "report").glob("[a-z]*.py"))


@pytest.mark.parametrize("path", REPORT, ids=lambda path: str(path.relative_to(PACKAGE / "report")))
def test_rooms_of_the_report_lead_one_way(path: Path) -> None:
    where = path.relative_to(PACKAGE / "report")
    home = where.parts[0].removesuffix(".py")
    assert home in ROOMS, f"{home} has no place in the line: give it one"
    allowed = {home, *(room for room, rank in ROOMS.items() if rank < ROOMS[home])}
    for name in imported(path):
        if name.startswith("cml_bench.report.") and name.split(".")[2] not in allowed:
            assert any(str(where) == file and name.startswith(module) for file, module in BACKWARDS), name


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_core_knows_no_plug_in(path: Path) -> None:
    names = imported(path)
    assert not {name for name in names if part_of(name) in ("strategies", "benchmarks")}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    relative = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    assert not relative, "relative imports hide where things come from"


PLUGINS = sorted((*(REPOSITORY / "strategies").glob("*.py"), *(REPOSITORY / "benchmarks").glob("*.py")))


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_plug_ins_stand_on_what_is_left_of_them(path: Path) -> None:
    kind = path.parent.name
    names = imported(path)
    parts = {part_of(name) for name in names}
    if kind == "benchmarks" and "cli" in parts:
        assert is_behind_main(path, "cml_bench.cli")
        parts -= {"cli"}
    assert parts <= PLUGINS_MAY_IMPORT[kind], f"{path.name} imports {sorted(parts - PLUGINS_MAY_IMPORT[kind])}"
    relative = [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom) and node.level
    ]
    if kind == "benchmarks":
        assert not relative, "a benchmark is a script too, and a script knows no relative import"
    else:
        assert "strategies" not in parts, "strategies import each other relatively"


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_plug_in_shadows_the_standard_library(path: Path) -> None:
    assert path.stem == "__init__" or path.stem not in sys.stdlib_module_names


HEAVY = ("torch", "avalanche", "pandas", "timm", "sklearn", "matplotlib")


def loaded_by(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_importing_the_package_is_light() -> None:
    assert loaded_by("import cml_bench; cml_bench.__version__; dir(cml_bench); import cml_bench.cli") == set()
    assert "torch" in loaded_by("import torch"), "the probe sees nothing"


def test_every_public_name_is_there() -> None:
    assert sorted(set(cml_bench.__all__)) == sorted(cml_bench.__all__)
    assert [name for name in dir(cml_bench) if not name.startswith("__")] == sorted(cml_bench.__all__)
    for name in cml_bench.__all__:
        assert getattr(cml_bench, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cml_bench.nothing


def test_what_workers_are_forked_with_is_frozen_and_the_collector_runs_again() -> None:
    gc.unfreeze()
    importlib.reload(importlib.import_module("cml_bench.runs.preload"))
    assert gc.isenabled()
    # Every object of torch and Avalanche: a worker that looked at them would copy their pages.
    assert gc.get_freeze_count() > 100_000
