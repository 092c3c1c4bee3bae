"""The data set of the walk-through, beyond what the page itself runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cml_bench.cli import main
from cml_bench.data.data_set import DataSet
from cml_bench.registry import load

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tutorial" / "own_data_set.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_data: Callable[[Path, str], None]) -> Path:
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "birds.py").write_text(block("python"))
    make_data(tmp_path, PAGE)
    return tmp_path


def test_an_edited_reader_reads_again(desk: Path) -> None:
    def data() -> DataSet:
        made: DataSet = load("datasets", "./birds.py:Birds")(root="birds")
        return made

    before = data().table("train")
    text = (desk / "birds.py").read_text()
    (desk / "birds.py").write_text(
        text.replace('BIRDS = ("crow", "finch", "owl", "wren")', 'BIRDS = ("crow", "finch")')
    )
    assert len(before.label_names) == 4
    assert data().table("train").label_names == ("crow", "finch")


def test_a_data_set_is_no_benchmark(desk: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit) as done:
        main(["run", "./birds.py:Birds", "--root", "birds"])
    assert done.value.code == 1
    assert "'./birds.py:Birds' is no benchmark" in capsys.readouterr().err
