"""The strategy of the walk-through, beyond what the page itself runs: its loss, its test, its entry points."""

from __future__ import annotations

import configparser
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cml_bench import registry
from cml_bench.registry import load

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial" / "own_strategy.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def files() -> dict[str, str]:
    """The Python blocks by the file name in their first line."""
    return {block.splitlines()[0].removeprefix("# "): block for block in blocks("python")}


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


def test_the_page_is_found_whole() -> None:
    assert set(files()) == {"my_strategy.py", "crowded.py", "unsure.py", "my_plugin.py", "test_my_strategy.py"}


def test_the_test_of_the_page_passes(desk: Path) -> None:
    names: dict[str, object] = {}
    exec(compile(files()["test_my_strategy.py"], "test_my_strategy.py", "exec"), names)
    (test,) = (value for name, value in names.items() if name.startswith("test_"))
    assert callable(test)
    test()


def test_the_memory_of_the_page_keeps_the_crowded(desk: Path, tiny_dataset: Any) -> None:
    labels = (torch.rand(40, 6, generator=torch.Generator().manual_seed(0)) < 0.4).to(torch.int8)
    memory = load("strategies", "./crowded.py:Crowded")(memory_size=7).memory(
        SimpleNamespace(generator=lambda purpose: torch.Generator())
    )
    memory.update_from_dataset(tiny_dataset(range(40), labels))
    shown = labels.sum(dim=1)
    assert sorted(memory.sizes.tolist()) == shown.sort().values[-7:].tolist()
    assert shown[torch.from_numpy(memory.ids)].tolist() == memory.sizes.tolist()


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
