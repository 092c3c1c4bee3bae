"""Names to plug-ins: built-ins by file stem, third parties by entry point, ad hoc by path or import name.

Listing parses files without importing them, so it needs neither torch nor Avalanche; loading imports one plug-in.
"""

from __future__ import annotations

import ast
import contextlib
import contextvars
import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar

import cml_bench
from cml_bench.errors import CmlBenchError, in_one_line, suggest

Contract = TypeVar("Contract")

KINDS = {
    "strategies": "cml_bench.strategies",
    "benchmarks": "cml_bench.benchmarks",
    "heads": "cml_bench.models.heads",
    "wrappers": "cml_bench.models.wrappers",
    "criteria": "cml_bench.losses",
    "regimes": "cml_bench.regimes",
    "datasets": "cml_bench.data.sets",
}
"""Kind of plug-in to the package that holds the built-in ones; the entry-point group is ``cml_bench.<kind>``."""
_TUTORIALS = {"criteria": "docs/tutorial/own_loss.md"}
"""Where it is said how one is written, of kinds that have a page for it."""


_OURS = "built-in"


@dataclass(frozen=True)
class Entry:
    """A plug-in that can be named.

    Attributes:
        name: What users type.
        target: ``module:Class``.
        summary: First sentence of its docstring; empty for entry points, which are not opened.
        origin: ``built-in`` or the distribution that brings it.
        facts: What its ``meta`` declares in literals; empty for entry points.
    """

    name: str
    target: str
    summary: str
    origin: str
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)


class UnknownCodeError(CmlBenchError):
    """A name stands for code that only its file vouches for."""


_only_known = contextvars.ContextVar("only names that are known", default=False)


@contextlib.contextmanager
def only_known() -> Iterator[None]:
    """Find nothing but what is installed under a name: for names that a file says, whose code nobody has looked at."""
    before = _only_known.set(True)
    try:
        yield
    finally:
        _only_known.reset(before)


@functools.cache
def entries(kind: str) -> dict[str, Entry]:
    """Return all plug-ins of a kind by name.

    Raises:
        CmlBenchError: If the kind is unknown or two plug-ins bear the same name.
    """
    if kind not in KINDS:
        raise CmlBenchError(f"there is no kind of plug-in {kind!r}: {suggest(kind, KINDS)}")
    found: dict[str, Entry] = {}
    for entry in (*_built_in(KINDS[kind]), *_third_party(kind)):
        if entry.name in found:
            raise CmlBenchError(
                f"two {kind} are named {entry.name!r} ({found[entry.name].target} and {entry.target}): rename one"
            )
        found[entry.name] = entry
    return found


def _built_in(package: str) -> list[Entry]:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    files = sorted(file for folder in spec.submodule_search_locations or () for file in Path(folder).glob("*.py"))
    return [entry for file in files if (entry := _parse(file, package)) is not None]


def _parse(file: Path, package: str) -> Entry | None:
    """Return the plug-in of a file: its class with a ``meta``, or None for a file that is no plug-in."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for statement in node.body:
            if isinstance(statement, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == "meta" for target in statement.targets
            ):
                summary = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
                facts = _literals(statement.value)
                return Entry(file.stem, f"{package}.{file.stem}:{node.name}", summary, _OURS, facts)
    return None


def _literals(call: ast.expr) -> dict[str, Any]:
    """Return the keyword arguments of a call that are literals."""
    found: dict[str, Any] = {}
    for keyword in call.keywords if isinstance(call, ast.Call) else ():
        with contextlib.suppress(ValueError):
            found[str(keyword.arg)] = ast.literal_eval(keyword.value)
    return found


def _third_party(kind: str) -> list[Entry]:
    return [
        Entry(point.name, point.value, "", point.dist.name if point.dist else "entry point")
        for point in entry_points(group=f"cml_bench.{kind}")
    ]


def load(kind: str, name: str) -> Any:
    """Return the class (or factory) behind a name, ``pkg.module:Class`` or ``./file.py:Class``.

    Raises:
        CmlBenchError: If nothing bears the name (the nearest is suggested) or the file or class is missing.
    """
    return _load_target(find(kind, name))


def load_class(kind: str, name: str, contract: type[Contract]) -> type[Contract]:
    """Return the class behind a name; see ``load``.

    Raises:
        CmlBenchError: If nothing bears the name, or it is not what plug-ins of this kind must be.
    """
    found = load(kind, name)
    if not (inspect.isclass(found) and issubclass(found, contract)):
        noun, public = contract.__name__.lower(), contract.__name__ in cml_bench.__all__
        base = f"{'cml_bench' if public else contract.__module__}.{contract.__name__}"
        shown = f", as {_TUTORIALS[kind]} shows" if kind in _TUTORIALS else ""
        raise CmlBenchError(f"{name!r} is no {noun}: give a subclass of {base}{shown}")
    return found


def find(kind: str, name: str) -> str:
    """Return the ``module:Class`` or ``file.py:Class`` behind a name, without importing it.

    Raises:
        CmlBenchError: If nothing bears the name (the nearest is suggested), the file is missing, or ``only_known``
            applies and it is a file or a module.
    """
    where, _, attribute = name.rpartition(":")
    if where and _only_known.get():
        raise UnknownCodeError(f"{name!r:.80}, which is code outside the suite")
    if name.endswith(".py"):
        raise CmlBenchError(f"{name!r} names no class in the file: write {name}:ClassName")
    if attribute and where.endswith(".py") and not _is_file(where):
        raise CmlBenchError(f"{where} does not exist: give the path of a Python file, as ./file.py:Class")
    if where:
        return name
    known = entries(kind)
    entry = known.get(name.replace("-", "_"))
    if entry is None:
        file = f"{name}.py"
        namesake = next((_singular(other) for other in KINDS if name in entries(other)), None)
        if _is_file(file):
            mend = f"for the file here write ./{file}:ClassName"
        elif "," in name and {part.strip().replace("-", "_") for part in name.split(",")} <= {*known, ""}:
            parts = [part.strip() for part in name.split(",") if part.strip()]
            mend = f"name each by itself ({' '.join(f'--method {part}' for part in parts)})"
        elif namesake:
            mend = f"that is a {namesake}; cml-bench list {kind} shows what there is"
        else:
            mend = suggest(name, known)
        raise CmlBenchError(f"there is no {_singular(kind)} {name!r}: {mend}")
    return entry.target


def _singular(kind: str) -> str:
    return {"strategies": "strategy", "criteria": "criterion", "datasets": "data set"}.get(kind, kind.removesuffix("s"))


def _is_file(name: str) -> bool:
    """Return whether a file bears the name; unlike ``Path.is_file``, False for a name that none can bear."""
    return os.path.isfile(name)  # noqa: PTH113


def _load_target(target: str) -> Any:
    where, _, attribute = target.rpartition(":")
    module = _load_file(Path(where)) if where.endswith(".py") else _load_module(where)
    if not hasattr(module, attribute):
        raise CmlBenchError(f"{where} has no {attribute!r}: {suggest(attribute, _defined(module))}")
    return getattr(module, attribute)


def _defined(module: ModuleType) -> list[str]:
    """Return the names in a module that can be meant: plug-ins with a ``meta``, else its own classes and functions.

    A package has these from its modules.
    """
    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    kinds = {name: value for name, value in public.items() if inspect.isclass(value) or inspect.isfunction(value)}
    own = [name for name, value in kinds.items() if value.__module__.startswith(module.__name__)]
    return [name for name in own if hasattr(kinds[name], "meta")] or own


def _load_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise CmlBenchError(
                f"module {name!r} cannot be found: give an installed module or ./file.py:Class"
            ) from None
        raise


class _CompilesAnew(SourceFileLoader):
    """Reads no stored bytecode: a file that was edited within a second, to the same length, would be the one before."""

    def get_code(self, fullname: str) -> CodeType:
        """Compile the file as it is."""
        return self.source_to_code(self.get_data(self.path), self.path)


def _load_file(path: Path) -> ModuleType:
    # Named after path and content: an edited file is a new module, and dataclasses find theirs in sys.modules.
    digest = hashlib.sha256(str(path.resolve()).encode() + path.read_bytes()).hexdigest()[:12]
    name = f"cml_bench_plugin_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path, loader=_CompilesAnew(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception):
            raise
        raise CmlBenchError(f"{path} cannot be imported: {in_one_line(error)}") from error
    return module


def code_digest(kind: str, name: str) -> str | None:
    """Return the sha256 of the file that brings a plug-in, None for the suite's own and what cannot be found.

    It is part of a job's identity. Nothing is imported, and no error raised: whoever loads the plug-in says what is
    wrong.
    """
    if ":" not in name:
        entry = entries(kind).get(name.replace("-", "_"))
        name = "" if entry is None or entry.origin == _OURS else entry.target
    where, _, attribute = name.rpartition(":")
    if not attribute.isidentifier():
        return None
    if where.endswith(".py"):
        return hashlib.sha256(Path(where).read_bytes()).hexdigest() if _is_file(where) else None
    is_module = all(part.isidentifier() for part in where.split("."))
    return _module_digest(where) if is_module and where.partition(".")[0] != "cml_bench" else None


@functools.cache
def _module_digest(name: str) -> str | None:
    """Return the sha256 of a module's file; looked at once, since a process runs what it has imported."""
    parts = name.split(".")
    try:
        spec = importlib.util.find_spec(parts[0])
    except ValueError:
        return None
    for depth in range(2, len(parts) + 1):
        # Not importlib.util, which imports the packages above.
        within = spec.submodule_search_locations if spec else None
        spec = PathFinder.find_spec(".".join(parts[:depth]), within) if within else None
    is_file = spec is not None and spec.has_location and spec.origin is not None and _is_file(spec.origin)
    return hashlib.sha256(Path(str(spec.origin)).read_bytes()).hexdigest() if spec and is_file else None
