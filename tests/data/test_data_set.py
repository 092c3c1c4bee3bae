"""The data-set contract: what is read once, what is read again, and which images are there."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torchvision.io import write_jpeg

from cml_bench.data.data_set import DataCard, DataSet
from cml_bench.data.source import stable_keys
from cml_bench.data.table import LabelTable
from cml_bench.errors import CmlBenchError


@dataclass(frozen=True, kw_only=True)
class Lines(DataSet):
    """One ``file label label`` line an image."""

    upper: bool = False

    meta = DataCard(
        name="lines",
        title="Lines",
        version=1,
        splits={"train": {"images": 3}, "extra/test": {}},
        n_labels=2,
        licence="none",
        homepage="none",
        download="write it yourself",
        citation="none",
        pretraining_names=("lines",),
    )
    reads: ClassVar[list[str]] = []

    def label_files(self, split: str) -> Sequence[Path]:
        if split not in self.splits:
            raise self.unknown_split(split)
        return [self.find_file(f"{split}.txt", f"lists/{split}.txt")]

    def read(self, split: str) -> LabelTable:
        self.reads.append(split)
        rows = [line.split() for line in self.label_files(split)[0].read_text().splitlines()]
        names = ("a", "b")
        labels = np.array([[name in row[1:] for name in names] for row in rows], dtype=np.int8)
        return LabelTable(
            label_names=tuple(map(str.upper, names)) if self.upper else names,
            ids=np.array([row[0] for row in rows], dtype=np.str_),
            labels=labels,
            files=np.array([row[0] for row in rows], dtype=np.str_),
            counts={"lines": len(rows)},
        )


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))
    Lines.reads.clear()
    folder = tmp_path / "data"
    (folder / "lists").mkdir(parents=True)
    (folder / "train.txt").write_text("one.jpg a\ntwo.jpg a b\nthree.jpg\n")
    for number, name in enumerate(("one", "two", "three")):
        write_jpeg(torch.full((3, 8, 8), 20 * number, dtype=torch.uint8), str(folder / f"{name}.jpg"))
    return folder


def test_label_files_are_read_once_until_they_change(root: Path) -> None:
    data = Lines(root=str(root))
    first, second = data.table("train"), data.table("train")
    assert Lines.reads == ["train"]
    assert first.fingerprint == second.fingerprint
    assert second.counts == {"lines": 3}
    assert Lines(root=str(root), upper=True).table("train").label_names == ("A", "B")
    assert Lines.reads == ["train"] * 2
    (root / "train.txt").write_text("one.jpg b\ntwo.jpg a b\nthree.jpg\n")
    os.utime(root / "train.txt", ns=(1, 1))
    assert data.table("train").labels.tolist() == [[0, 1], [1, 1], [0, 0]]
    assert Lines.reads == ["train"] * 3


def test_a_damaged_stored_table_is_read_from_the_originals(root: Path) -> None:
    data = Lines(root=str(root))
    whole = data.table("train")
    data.table_path("train").write_bytes(b"rubbish")
    with pytest.warns(UserWarning, match="is read from the original files"):
        again = data.table("train")
    assert again.fingerprint == whole.fingerprint
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.table("train")


def test_a_cache_that_cannot_be_written_is_no_obstacle(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "file").write_text("no folder")
    monkeypatch.setenv("CML_BENCH_CACHE", str(root / "file"))
    with pytest.warns(UserWarning, match="the label table cannot be stored in .*Not a directory"):
        assert len(Lines(root=str(root)).table("train")) == 3


def test_what_is_not_there_is_named(root: Path) -> None:
    with pytest.raises(CmlBenchError, match=r"nowhere is not a folder; give the folder that holds Lines as root"):
        Lines(root=str(root / "nowhere")).table("train")
    with pytest.raises(CmlBenchError, match=r"holds no extra/test.txt or lists/extra/test.txt; .*data info lines"):
        Lines(root=str(root)).table("extra/test")
    with pytest.raises(CmlBenchError, match="Lines has no split 'trian': did you mean 'train'"):
        Lines(root=str(root)).table("trian")


def test_images_load_by_row(root: Path) -> None:
    source = Lines(root=str(root)).source("train", "train")
    assert (source.name, source.split, source.pretraining_names) == ("lines", "train", ("lines",))
    assert source.counts == {"images": 3, "labels": 3, "images_with_labels": 2, "lines": 3}
    assert [round(source.load(row).float().mean().item()) for row in range(3)] == [0, 20, 40]


def test_missing_images_are_an_error_an_exception_or_nobodys_business(root: Path) -> None:
    data = Lines(root=str(root))
    (root / "one.jpg").unlink()
    (root / "two.jpg").write_bytes((root / "two.jpg").read_bytes()[:-40])
    with pytest.raises(CmlBenchError, match=r"1 of 3 train images of lines are not in .*\(one.jpg\); fetch them"):
        data.source("train", "train")
    allowed = data.source("train", "train", missing="allow")
    assert allowed.ids.tolist() == ["three.jpg"]
    assert allowed.missing == ("one.jpg", "two.jpg"), "an image that is cut short counts as missing"
    ignored = data.source("train", "test", missing="ignore")
    assert (len(ignored), ignored.missing, ignored.split) == (3, (), "test")
    with pytest.raises(
        CmlBenchError, match=r"one.jpg does not exist; put the file there, or leave it out with missing="
    ):
        ignored.load(0)
    with pytest.raises(
        CmlBenchError, match=r"two.jpg cannot be decoded .*; fetch .*, or delete it and leave it out with"
    ):
        ignored.load(1)
    for name in ("two", "three"):
        (root / f"{name}.jpg").unlink()
    with pytest.raises(CmlBenchError, match=r"3 of 3 train images .* check the folder"):
        data.source("train", "train", missing="allow")
    with pytest.raises(CmlBenchError, match="missing='alow' is not an option: did you mean 'allow'"):
        data.source("train", "train", missing="alow")  # type: ignore[arg-type]


def test_keys_of_ids_are_the_same_for_good() -> None:
    """What regimes draw for an image goes by its key: with others, results of one name would be of other labels."""
    assert stable_keys(np.array([1, 42])).tolist() == [15289156711003816966, 12441728511894777052]
    assert stable_keys(np.array(["a", "42"])).tolist() == [13950350942979735504, 12441728511894777052]
