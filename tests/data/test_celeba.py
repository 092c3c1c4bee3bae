"""CelebA's text files: torchvision as the oracle, and what is said of files that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torchvision

from cml_bench.data.sets.celeba import CelebA
from cml_bench.errors import CmlBenchError

NAMES = [
    *("5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald"),
    *("Bangs", "Big_Lips", "Big_Nose", "Black_Hair", "Blond_Hair"),
    *("Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin"),
    *("Eyeglasses", "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones"),
    *("Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard"),
    *("Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks"),
    *("Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings"),
    *("Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young"),
]
N = 9
PARTS = (0, 0, 1, 0, 2, 1, 2, 0, 2)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nine images in torchvision's layout; values are padded with two blanks, as in the original."""
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    values = np.where(np.random.default_rng(0).random((N, 40)) < 0.3, 1, -1)
    files = [f"{i + 1:06}.jpg" for i in range(N)]
    lines = [file + " " + " ".join(f"{v:>2}" for v in row) for file, row in zip(files, values, strict=True)]
    (folder / "list_attr_celeba.txt").write_text("\n".join([str(N), " ".join(NAMES) + " ", *lines]) + "\n")
    parts = [f"{file} {part}" for file, part in zip(files, PARTS, strict=True)]
    (folder / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    # What torchvision reads besides.
    (folder / "identity_CelebA.txt").write_text("\n".join(f"{file} 7" for file in files) + "\n")
    for name, width in (("list_bbox_celeba.txt", 4), ("list_landmarks_align_celeba.txt", 10)):
        rows = [file + " 1" * width for file in files]
        (folder / name).write_text("\n".join([str(N), " ".join(["x"] * width), *rows]) + "\n")
    return folder


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_torchvision_reads_the_same(root: Path, split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.CelebA, "_check_integrity", lambda self: True)
    oracle = torchvision.datasets.CelebA(str(root.parent), split=split)
    table = CelebA(root=str(root)).table(split)
    assert table.ids.tolist() == oracle.filename
    assert table.files is not None
    assert table.files.tolist() == oracle.filename
    assert list(table.label_names) == [name for name in oracle.attr_names if name] == NAMES
    assert table.labels.tolist() == oracle.attr.tolist()


def test_splits_and_folder(root: Path) -> None:
    data = CelebA(root=str(root))
    assert [len(data.table(split)) for split in data.splits] == [4, 2, 3]
    assert data.image_folder("train") == root / "img_align_celeba"
    with pytest.raises(CmlBenchError, match="CelebA has no split 'val': did you mean 'valid'"):
        data.table("val")
    published = {file: md5 for _, md5, file in torchvision.datasets.CelebA.file_list}
    for file, checksum in CelebA.meta.checksums.items():
        assert checksum == f"md5:{published[file]}"
    assert sum(split["images"] for split in CelebA.meta.splits.values()) == 202599


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("list_attr_celeba.txt", "9\n", "10\n", "announces '10' images but lists 9"),
        (
            "list_attr_celeba.txt",
            "000009.jpg ",
            "",
            "line 11 of .* is no image file followed by 40 values of -1 or 1",
        ),
        ("list_attr_celeba.txt", "000002.jpg -1", "000002.jpg  0", "line 4 of .* is no image file followed by 40"),
        ("list_attr_celeba.txt", "000002.jpg -1", "000002.jpg 11", "line 4 of .* is no image file followed by 40"),
        ("list_attr_celeba.txt", "000002.jpg -1", "000002.jpg", "line 4 of .* is no image file followed by 40"),
        (
            "list_eval_partition.txt",
            "000003.jpg 1",
            "000003.jpg 3",
            "line 3 of .* says '000003.jpg 3', not '000003.jpg'",
        ),
        (
            "list_eval_partition.txt",
            "000003.jpg 1",
            "000004.jpg 1",
            "line 3 of .* says '000004.jpg 1', not '000003.jpg'",
        ),
        ("list_eval_partition.txt", "000009.jpg 2\n", "", r"lists 8 images, .*list_attr_celeba.txt 9"),
        ("list_eval_partition.txt", "000005.jpg 2\n", "\n", "line 5 of .* is empty"),
    ],
)
def test_what_does_not_fit_is_one_sentence(root: Path, file: str, old: str, new: str, message: str) -> None:
    path = root / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(CmlBenchError, match=message) as caught:
        CelebA(root=str(root)).table("test")
    assert "\n" not in str(caught.value)


def test_two_hundred_thousand_faces_read_in_seconds(root: Path) -> None:
    count = 202599
    row = " -1  1" * 20
    lines = [f"{i + 1:06}.jpg{row}" for i in range(count)]
    (root / "list_attr_celeba.txt").write_text("\n".join([str(count), " ".join(NAMES), *lines]) + "\n")
    (root / "list_eval_partition.txt").write_text("\n".join(f"{i + 1:06}.jpg 0" for i in range(count)) + "\n")
    table = CelebA(root=str(root)).read("train")
    assert (table.labels.sum(axis=0) == np.tile([0, count], 20)).all()
