"""Names to plug-ins: built in, third party, ad hoc."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from cml_bench import registry
from cml_bench.errors import CmlBenchError, suggest
from cml_bench.registry import KINDS, code_digest, entries, find, load

REPOSITORY = Path(registry.__file__).resolve().parents[1]
FOLDERS = {
    "strategies": REPOSITORY / "strategies",
    "benchmarks": REPOSITORY / "benchmarks",
    "heads": REPOSITORY / "cml_bench" / "models" / "heads",
    "wrappers": REPOSITORY / "cml_bench" / "models" / "wrappers",
    "criteria": REPOSITORY / "cml_bench" / "losses",
    "regimes": REPOSITORY / "cml_bench" / "regimes",
    "datasets": REPOSITORY / "cml_bench" / "data" / "sets",
}


@pytest.fixture
def fresh() -> Iterator[None]:
    """The list of plug-ins is kept; a test that changes it starts and leaves with a clean one."""
    entries.cache_clear()
    yield
    entries.cache_clear()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_file_of_the_folder_is_found_under_its_stem(kind: str) -> None:
    # What declares something in a meta of its own is a plug-in; other files are what plug-ins share.
    declares = re.compile(r"^    meta\b[^=\n]*= ", re.MULTILINE)
    stems = {path.stem for path in FOLDERS[kind].glob("*.py") if declares.search(path.read_text(encoding="utf-8"))}
    assert set(entries(kind)) == stems
    for name, entry in entries(kind).items():
        loaded = load(kind, name)
        assert entry.target == f"{loaded.__module__}:{loaded.__name__}"
        assert loaded.__module__ == f"{KINDS[kind]}.{name}"
        assert loaded.meta.name == name, "a plug-in is named otherwise than its file"
        assert entry.summary
        assert " ".join(loaded.__doc__.split()).startswith(" ".join(entry.summary.split()))
        assert entry.origin == "built-in"


def test_hyphens_are_underscores() -> None:
    assert load("benchmarks", "split-coco") is load("benchmarks", "split_coco")


@pytest.mark.parametrize(
    ("kind", "name", "sentence"),
    [
        ("strategies", "dlf", "there is no strategy 'dlf': did you mean 'dlfl'?"),
        ("criteria", "bec", "there is no criterion 'bec': did you mean 'bce'?"),
        ("heads", "linaer", "there is no head 'linaer': did you mean 'linear'?"),
        ("benchmarks", "naive", "there is no benchmark 'naive': that is a strategy; cml-bench list benchmarks shows"),
        ("datasets", "split_coco", "there is no data set 'split_coco': that is a benchmark; cml-bench list datasets"),
        ("benchmarks", "zzz", "there is no benchmark 'zzz': known names: agcn_split_coco, "),
        ("strategies", "no_such_module:Mine", "module 'no_such_module' cannot be found"),
        ("strategies", "json:Mine", "json has no 'Mine'"),
        ("strategies", "cml_bench.strategies.derpp:DERp", "did you mean 'DERpp'?"),
        ("strategies", "./nowhere.py:Mine", "nowhere.py does not exist"),
    ],
)
def test_wrong_names_suggest_the_nearest(kind: str, name: str, sentence: str) -> None:
    with pytest.raises(CmlBenchError) as caught:
        load(kind, name)
    assert sentence in str(caught.value)


def test_a_file_offers_what_it_defines(tmp_path: Path) -> None:
    """Not what it imports; and of its own, what says that it is a plug-in."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from dataclasses import dataclass\nfrom json import JSONDecoder\n"
        "class Helper: pass\nclass Mine:\n    meta = 1\n"
    )
    with pytest.raises(CmlBenchError, match=r"mine\.py has no 'Thing': known names: Mine$"):
        load("strategies", f"{path}:Thing")
    path.write_text("from dataclasses import dataclass\nclass Helper: pass\ndef make(): pass\n")
    with pytest.raises(CmlBenchError, match=r"mine\.py has no 'Thing': known names: Helper, make$"):
        load("strategies", f"{path}:Thing")
    with pytest.raises(CmlBenchError, match=r"avalanche\.training has no 'Niave': did you mean 'Naive'"):
        load("strategies", "avalanche.training:Niave")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(CmlBenchError, match="no kind of plug-in 'strategy': did you mean 'strategies'"):
        entries("strategy")


def test_suggestions() -> None:
    assert suggest("abcd", ["abce", "xyz"]) == "did you mean 'abce'?"
    # Other things may have names a little like it.
    assert suggest("memory_size", ["image_size"]) == "known names: image_size"
    assert suggest("q", ["b", "a"]) == "known names: a, b"
    assert suggest("q", []) == "known names: none"
    assert suggest("ER", ["er", "mer"]) == "did you mean 'er'?"
    assert suggest("learning_rate", ["lr", "epochs"]) == "did you mean 'lr'?"


def test_third_parties_come_by_entry_point(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def points(group: str) -> list[EntryPoint]:
        return [EntryPoint("theirs", "json:JSONDecoder", group)] if group == "cml_bench.strategies" else []

    monkeypatch.setattr(registry, "entry_points", points)
    import json

    assert load("strategies", "theirs") is json.JSONDecoder
    assert entries("strategies")["theirs"].origin == "entry point"
    assert "theirs" not in entries("heads")


def test_a_duplicate_name_raises(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint("naive", "json:JSONDecoder", group)])
    with pytest.raises(CmlBenchError, match=r"two strategies are named 'naive' .*json:JSONDecoder.* rename one"):
        entries("strategies")


def test_an_edited_file_is_another_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also within a second, by which Python tells whether bytecode that it has written is of the file."""
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    path = tmp_path / "mine.py"
    path.write_text("from dataclasses import dataclass\n@dataclass\nclass Mine:\n    x: int = 1\n")
    first = load("strategies", f"{path}:Mine")
    assert load("strategies", f"{path}:Mine") is first
    digest = code_digest("strategies", f"{path}:Mine")
    path.write_text(path.read_text().replace("1", "2"))
    second = load("strategies", f"{path}:Mine")
    assert (first().x, second().x) == (1, 2)
    assert code_digest("strategies", f"{path}:Mine") not in (digest, None)


def test_code_is_known_by_its_file_unless_it_is_the_suites_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    """Without importing anything: a package above would run."""
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "a_package_of_mine"
    (package / "inner").mkdir(parents=True)
    for folder in (package, package / "inner"):
        (folder / "__init__.py").write_text("raise AssertionError('imported')\n")
    (package / "inner" / "mine.py").write_text("class Mine: ...\n")
    found = hashlib.sha256(b"class Mine: ...\n").hexdigest()
    assert code_digest("strategies", "a_package_of_mine.inner.mine:Mine") == found
    assert "a_package_of_mine" not in sys.modules
    points = [EntryPoint("mine_too", "a_package_of_mine.inner.mine:Mine", "cml_bench.strategies")]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == points[0].group else [])
    entries.cache_clear()
    assert code_digest("strategies", "mine-too") == found
    own = ["naive", "cml_bench.strategies.naive:Naive", "mine_too_much", "no.such.module:Mine", "a.b:c d", "random:5"]
    other = ["sys:Mine", "", ":", "./no_file.py:Mine", "a_package_of_mine.none:Mine", "C:\\data"]
    assert {code_digest("strategies", name) for name in own + other} == {None}


def test_a_file_that_breaks_leaves_no_half_module(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("class Mine: pass\nraise RuntimeError('broken on purpose')\n")
    for _ in range(2):
        with pytest.raises(CmlBenchError, match=r"cannot be imported: .* broken on purpose \(broken.py, line 2\)"):
            load("strategies", f"{path}:Mine")
    assert not [name for name in sys.modules if "broken" in name and name.startswith("cml_bench_plugin")]


def test_a_missing_dependency_of_a_module_is_not_taken_for_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needy_plugin.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        load("strategies", "needy_plugin:Mine")


@pytest.mark.parametrize("package", ["strategies", "benchmarks"])
def test_there_is_no_second_copy_of_the_plug_ins(package: str) -> None:
    code = f"import {package}"
    done: Any = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode != 0
    assert f"import cml_bench.{package}, not {package}" in done.stderr


def test_a_file_that_is_called_by_its_stem_is_pointed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_strategy.py").write_text("")
    monkeypatch.chdir(tmp_path)
    told = "there is no strategy 'my_strategy': for the file here write ./my_strategy.py:ClassName"
    with pytest.raises(CmlBenchError, match=f"^{re.escape(told)}$"):
        find("strategies", "my_strategy")


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b"])
def test_a_name_that_no_file_can_bear_is_an_unknown_name(name: str) -> None:
    for named in (name, f"./{name}.py:Class"):
        with pytest.raises(CmlBenchError):
            find("strategies", named)
