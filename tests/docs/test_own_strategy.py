"""The walk-through is true: its files are written, its commands run, its entry point installed."""

from __future__ import annotations

import configparser
import json
import math
import re
import shlex
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cml_bench import registry
from cml_bench.cli import main
from cml_bench.registry import load

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial" / "own_strategy.md"
SMALL = "--workers 1 --seeds 1 --set epochs=1 --set n_train=60 --set n_test=40"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def files() -> dict[str, str]:
    """The Python blocks by the file name in their first line."""
    return {block.splitlines()[0].removeprefix("# "): block for block in blocks("python")}


def commands() -> list[str]:
    return [line for block in blocks("bash") for line in block.splitlines()]


def methods(command: str) -> list[str]:
    words = shlex.split(command)
    return [word for option, word in pairwise(words) if option == "--method"]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files of the page, and its entry point installed as pip would."""
    for name, text in files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    folder = tmp_path / "mine-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (ini,) = blocks("ini")
    declared = configparser.ConfigParser()
    declared.read_string(ini)
    ((group, points),) = declared["options.entry_points"].items()
    (folder / "entry_points.txt").write_text(f"[{group}]{points}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    registry.entries.cache_clear()
    yield tmp_path
    registry.entries.cache_clear()
    sys.modules.pop("my_strategy", None)


def run(command: str) -> None:
    words = shlex.split(command)
    assert words[0] == "cml-bench"
    small = shlex.split(SMALL) if words[1] == "run" else []
    with pytest.raises(SystemExit) as done:
        main([*words[1:], *small])
    assert done.value.code in (0, None)


def test_the_page_is_found_whole() -> None:
    assert set(files()) == {"my_strategy.py", "my_plugin.py", "test_my_strategy.py"}
    assert [shlex.split(command)[1] for command in commands()] == ["run", "run", "check", "run", "run", "list", "run"]


@pytest.mark.parametrize("command", commands())
def test_command_does_what_the_page_says(command: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(command)
    printed = capsys.readouterr().out
    results = [json.loads(path.read_text()) for path in (desk / "results").rglob("*.json")]
    assert sorted(result["job"]["method"].split()[0] for result in results) == sorted(
        method.split()[0] for method in methods(command)
    )
    for result in results:
        assert result["status"] == "ok"
        assert 0 < result["metrics"]["summary"]["last_map"] <= 1
        assert result["job"]["method"].split()[0] in printed
    if " check " in command:
        assert {line.split()[0] for line in printed.splitlines()} == {"passed", "skipped"}
    if " list " in command:
        assert "my_strategy" in printed


def test_the_test_of_the_page_passes(desk: Path) -> None:
    names: dict[str, object] = {}
    exec(compile(files()["test_my_strategy.py"], "test_my_strategy.py", "exec"), names)
    (test,) = (value for name, value in names.items() if name.startswith("test_"))
    assert callable(test)
    test()


def test_both_forms_of_the_entry_point_say_the_same(desk: Path) -> None:
    tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")
    (toml,) = blocks("toml")
    declared = tomllib.loads(toml)["project"]["entry-points"]["cml_bench.strategies"]
    entry = registry.entries("strategies")["my_strategy"]
    assert declared == {entry.name: entry.target}
    assert load("strategies", "my_strategy").meta.name == entry.name


def test_the_example_is_a_loss_of_its_own(desk: Path) -> None:
    """Sure entries count, unsure and annotated ones do not: against the loss written out entry by entry."""
    module = load("strategies", "./my_strategy.py:SureDistillation")
    plugin = module(weight=3.0)
    teacher = torch.tensor([[2.0, 0.0], [-1.0, 0.5]])
    student = torch.tensor([[1.0, 1.0, 9.0], [0.3, -0.2, 9.0]])
    labels = torch.tensor([[-2, -2, 1], [-2, 1, 0]], dtype=torch.int8)
    plugin.teacher = SimpleNamespace(
        head=SimpleNamespace(n_labels=2), head_output=lambda x: SimpleNamespace(logits=teacher)
    )
    loop = SimpleNamespace(mb_x=None, mb_y=labels, mb_output=student, loss=torch.zeros(1))
    plugin.before_backward(loop)

    total = weights = 0.0
    for row, column in ((0, 0), (0, 1), (1, 0)):
        p = 1 / (1 + math.exp(-teacher[row, column]))
        q = 1 / (1 + math.exp(-student[row, column]))
        total += abs(2 * p - 1) * -(p * math.log(q) + (1 - p) * math.log(1 - q))
        weights += abs(2 * p - 1)
    assert loop.loss.item() == pytest.approx(3 * total / weights, rel=1e-5)
