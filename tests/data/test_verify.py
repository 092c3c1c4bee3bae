"""Verifying a data set on disk: every fault is found and named, and no file is read twice."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import write_jpeg, write_png

from cml_bench.data import verify
from cml_bench.data.data_set import DataCard, DataSet
from cml_bench.data.images import read_image
from cml_bench.data.table import LabelTable
from cml_bench.data.verify import ImagesReport, SplitReport, image_paths, twice_used, verify_images, verify_labels
from cml_bench.errors import CmlBenchError

TRAIN = "one.jpg a\ntwo.png a b\nthree.jpg\n"


@dataclass(frozen=True, kw_only=True)
class Lines(DataSet):
    """One ``file label label`` line an image; images lie in ``images/``."""

    meta = DataCard(
        name="lines",
        title="Lines",
        version=1,
        splits={"train": {"images": 3, "labels": 3, "lines": 3}, "all": {"images": 4}, "test": {}},
        n_labels=2,
        licence="none",
        homepage="none",
        download="write it yourself",
        citation="none",
        checksums={
            "train.txt": "sha256:" + hashlib.sha256(TRAIN.encode()).hexdigest(),
            "absent.txt": "md5:00",
        },
    )

    def label_files(self, split: str) -> Sequence[Path]:
        if split not in self.splits:
            raise self.unknown_split(split)
        return [self.find_file(f"{split}.txt")]

    def read(self, split: str) -> LabelTable:
        rows = [line.split() for line in self.label_files(split)[0].read_text().splitlines()]
        if any("?" in row for row in rows):
            raise CmlBenchError(f"{split}.txt has a question mark; take it out")
        files = np.array([row[0] for row in rows], dtype=np.str_)
        return LabelTable(
            label_names=("a", "b"),
            ids=files,
            labels=np.array([[name in row[1:] for name in "ab"] for row in rows], dtype=np.int8),
            files=None if split == "test" else files,
            counts={"lines": len(rows)},
        )

    def image_folder(self, split: str) -> Path:
        return Path(self.root) / "images"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for split, text in (("train", TRAIN), ("all", TRAIN + "four.jpg b\n"), ("test", "five a\n")):
        (tmp_path / f"{split}.txt").write_text(text)
    for number, name in enumerate(("one.jpg", "two.png", "three.jpg", "four.jpg")):
        write = write_png if name.endswith("png") else write_jpeg
        write(torch.full((3, 16, 16), 20 * number, dtype=torch.uint8), str(tmp_path / "images" / name))
    return tmp_path


def test_a_whole_data_set_has_no_faults(root: Path) -> None:
    data = Lines(root=str(root))
    reports = verify_labels(data, ["train", "all", "test"])
    assert [report.faults for report in reports] == [[], [], []]
    assert reports[0].checksums == {"train.txt": True}
    assert reports[1].checksums == {}, "a file without a published checksum is not checked"
    assert reports[0].counts == {"images": 3, "labels": 3, "images_with_labels": 2, "label_names": 2, "lines": 3}
    assert reports[0].expected == {"images": 3, "labels": 3, "lines": 3, "label_names": 2}
    assert reports[0].fingerprint == data.read("train").fingerprint
    assert reports[2].files is None
    assert verify_images(image_paths(reports)) == ImagesReport([], [])


def test_every_image_is_decoded_once_though_splits_share_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[str] = Counter()
    threads = set()

    def counting(path: Path) -> torch.Tensor:
        read[path.name] += 1
        threads.add(threading.current_thread().name)
        return read_image(path)

    monkeypatch.setattr(verify, "read_image", counting)
    monkeypatch.setattr(verify, "IMAGES_AT_ONCE", 1)
    done: list[int] = []
    paths = image_paths(verify_labels(Lines(root=str(root)), ["train", "all", "test"]))
    assert verify_images(paths, workers=2, done=done.append) == ImagesReport([], [])
    assert read == dict.fromkeys(("one.jpg", "two.png", "three.jpg", "four.jpg"), 1)
    assert threading.current_thread().name not in threads
    assert done == [1, 1, 1, 1]


def test_missing_and_broken_images_are_told_apart(root: Path) -> None:
    images = root / "images"
    (images / "one.jpg").unlink()
    (images / "two.png").write_bytes(b"")
    whole = (images / "three.jpg").read_bytes()
    (images / "three.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "four.jpg").write_text("<html>no such file</html>")
    faults = verify_images(image_paths(verify_labels(Lines(root=str(root)), ["all"]))).faults
    assert [(fault.path.name, fault.reason is None) for fault in faults] == [
        ("four.jpg", False),
        ("one.jpg", True),
        ("three.jpg", False),
        ("two.png", False),
    ]
    reasons = {fault.path.name: str(fault.reason) for fault in faults if fault.reason}
    assert all(f"{name} cannot be decoded (" in reason for name, reason in reasons.items())
    assert "(Image is incomplete or truncated); " in reasons["three.jpg"], "only the decoder's own words"
    assert "(the file is empty); " in reasons["two.png"]
    assert "(Unsupported image file); " in reasons["four.jpg"]


def test_wrong_checksums_and_counts_are_named(root: Path) -> None:
    (root / "train.txt").write_text("one.jpg a\ntwo.png a b\n")
    (report,) = verify_labels(Lines(root=str(root)), ["train"])
    assert report.wrong_counts == ["images", "lines"]
    assert report.faults == [
        "train.txt has another checksum than published",
        "2 of 4 figures of train not as published (marked WRONG above)",
    ]


def test_a_damaged_label_file_is_a_fault_and_the_other_splits_are_still_checked(root: Path) -> None:
    (root / "train.txt").write_text("one.jpg ?\n")
    train, every = verify_labels(Lines(root=str(root)), ["train", "all"])
    assert train.faults == [
        "train.txt has another checksum than published",
        "train.txt has a question mark; take it out",
    ]
    assert every.faults == []
    assert len(image_paths([train, every])) == 4


def test_a_label_file_of_several_splits_is_hashed_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    original = verify._is_right

    def counting(path: Path, published: str) -> bool:
        hashed.append(path)
        return original(path, published)

    monkeypatch.setattr(verify, "_is_right", counting)
    verify_labels(Lines(root=str(root)), ["train", "train"])
    assert hashed == [(root / "train.txt").resolve()]


def test_a_split_that_is_not_there_is_an_error(root: Path) -> None:
    (root / "all.txt").unlink()
    with pytest.raises(CmlBenchError, match=r"holds no all.txt"):
        verify_labels(Lines(root=str(root)), ["train", "all"])


def test_splits_for_training_and_for_testing_that_share_images_are_named() -> None:
    """By their files; validation is part of ``trainval``, and other splits may well share images."""
    lists = {
        "train2014": ["a", "b"],
        "val2014": ["c", "b"],
        "test2014": ["d"],
        "trainval": ["a", "b", "c"],
        "all": ["a", "b", "c", "d"],
    }
    reports = [SplitReport(split=name, checksums={}, files=np.array(files)) for name, files in lists.items()]
    mend = "keep each in one alone, or what is known by heart counts as recognised"
    assert twice_used(reports) == [f"1 image (b) is both in train2014 and in val2014: {mend}"]


@pytest.mark.parametrize(("orientation", "order"), [(6, "big"), (3, "little"), (1, "big"), (None, "big")])
def test_images_that_ask_to_be_turned_are_listed(tmp_path: Path, orientation: int | None, order: str) -> None:
    exif = Image.Exif()
    exif.endian = ">" if order == "big" else "<"
    exif[0x010F] = "a camera"
    if orientation is not None:
        exif[0x0112] = orientation
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (8, 4)).save(path, exif=exif)
    assert verify_images([path]).turned == ([path] if orientation in (3, 6) else [])
    assert read_image(path).shape == (3, 4, 8), "it is read as it is stored"
