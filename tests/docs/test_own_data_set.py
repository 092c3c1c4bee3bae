"""The walk-through is true: its file is written, its commands run on photos made for it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.io import write_jpeg

from cml_bench.cli import main
from cml_bench.data.data_set import DataSet
from cml_bench.registry import load

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tutorial" / "own_data_set.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "birds.py").write_text(block("python"))
    photos = tmp_path / "photos"
    photos.mkdir()
    generator = torch.Generator().manual_seed(0)
    birds = ("crow", "finch", "owl", "wren")
    for split in ("train", "test"):
        lines = []
        for i in range(12):
            write_jpeg(
                torch.randint(256, (3, 32, 32), generator=generator, dtype=torch.uint8),
                str(photos / f"{split}{i}.jpg"),
            )
            lines.append(f"{split}{i}.jpg {birds[i % 4]} {birds[(i + 1) % 4]}")
        (photos / f"{split}.txt").write_text("\n".join(lines))
    return tmp_path


def test_the_commands_do_what_the_page_says(desk: Path, capsys: Any) -> None:
    verify, describe, run = (shlex.split(line)[1:] for line in block("bash").splitlines())
    for words, found in ((verify, "all is well"), (describe, "crow, finch"), ([*run, "--workers", "1"], "naive")):
        with pytest.raises(SystemExit) as done:
            main(words)
        out, err = capsys.readouterr()
        assert done.value.code == 0, err
        assert found in out


def test_an_edited_reader_reads_again(desk: Path) -> None:
    def data() -> DataSet:
        made: DataSet = load("datasets", "./birds.py:Birds")(root="photos")
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
        main(["run", "./birds.py:Birds", "--root", "photos"])
    assert done.value.code == 1
    assert "'./birds.py:Birds' is no benchmark" in capsys.readouterr().err
