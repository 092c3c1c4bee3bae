"""Images of one's own: both spellings of the CSV file, told apart by the head line alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from cml_bench.data.sets.image_folder import ImageFolder
from cml_bench.errors import CmlBenchError
from cml_bench.registry import load

COLUMNS = "file,cat,dog,owl\nb/2.jpg,1,0,1\na/1.jpg,0,0,0\n"
LISTS = "file,labels\nb/2.jpg,owl;cat\na/1.jpg,\n"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    return folder


def write(root: Path, **files: str) -> ImageFolder:
    for name, text in files.items():
        (root / f"{name}.csv").write_text(text, encoding="utf-8")
    return ImageFolder(root=str(root))


def test_both_spellings_say_the_same(root: Path) -> None:
    (root / "label_names.txt").write_text("cat\ndog\nowl\n")
    data = write(root, train=COLUMNS, test=LISTS)
    train, test = data.table("train"), data.table("test")
    assert train.label_names == ("cat", "dog", "owl")
    assert train.labels.tolist() == [[1, 0, 1], [0, 0, 0]]
    assert train.ids.tolist() == ["b/2.jpg", "a/1.jpg"]
    assert train.fingerprint == test.fingerprint
    assert data.splits == ("test", "train")


def test_names_of_lists_are_those_of_all_files(root: Path) -> None:
    """A label that only test images show has a column in training too."""
    data = write(root, train=LISTS, test="file,labels\nc.jpg, yak ;cat;cat\n", extra="file,cat\nd.jpg,1\n")
    assert data.table("train").label_names == data.table("test").label_names == ("cat", "owl", "yak")
    assert data.table("train").labels.tolist() == [[1, 1, 0], [0, 0, 0]]
    assert data.table("test").labels.tolist() == [[1, 0, 1]]
    assert data.table("extra").label_names == ("cat",)


@pytest.mark.parametrize("names", [("labels", "x"), ("0", "1")])
def test_a_label_may_be_called_so(root: Path, names: tuple[str, str]) -> None:
    assert write(root, train=f"file,{','.join(names)}\na.jpg,1,0\n").table("train").label_names == names


def test_what_spreadsheets_add_does_no_harm(root: Path) -> None:
    """A byte-order mark, line ends of Windows, quotes around a comma, blank lines."""
    data = write(root)
    (root / "train.csv").write_bytes(b'\xef\xbb\xbffile, cat,"dog, big"\r\n\r\n"a, b.jpg",1,0\r\n\r\n')
    table = data.table("train")
    assert (table.label_names, table.ids.tolist(), table.labels.tolist()) == (
        ("cat", "dog, big"),
        ["a, b.jpg"],
        [[1, 0]],
    )


def test_images_are_relative_to_the_root(root: Path) -> None:
    data = write(root, train=COLUMNS)
    (root / "b").mkdir()
    Image.new("RGB", (5, 4)).save(root / "b" / "2.jpg")
    source = data.source("train", "train", missing="allow")
    assert source.load(0).shape == (3, 4, 5)
    assert source.missing == ("a/1.jpg",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,cat\na.jpg,1\nb.jpg,2\n", r"line 3 of .*train\.csv says '2' for label 'cat': write 0 or 1"),
        ("file,cat\na.jpg,1\n\nb.jpg,\n", r"line 4 of .*train\.csv says '' for label 'cat'"),
        ("file,cat,dog\na.jpg,1,0\nb.jpg,1\n", r"line 3 of .*train\.csv has 2 values under 3 heads"),
        ("file,cat\na.jpg,1\n,1\n", r"line 3 of .*train\.csv names no image: write its file, or delete the line"),
        ("file,cat\n  ,1\n", r"line 2 of .*train\.csv names no image"),
        ("file,cat\na.jpg,1,0\n", r"line 2 of .*train\.csv has 3 values under 2 heads"),
        (
            "file;cat\na.jpg;1\n",
            r"train\.csv has one column or none: separate the file name and its labels with commas",
        ),
        ("", r"train\.csv is empty: write a head line, file,cat,dog say, and a line an image"),
        ("a.jpg,1,0\nb.jpg,0,1\n", r"the first line of .*train\.csv is 'a\.jpg,1,0': write a head line"),
        ('file,cat\n"a.jpg,1\n', r"train\.csv is no CSV file in UTF-8 \(unexpected end of data\)"),
        ("file,labels\na.jpg,cat\nb.jpg\n", r"line 3 of .*train\.csv has 1 values under 2 heads"),
        ("file,cat\na.jpg,1\na.jpg,0\n", r"train\.csv cannot be used \(image id a\.jpg is listed twice"),
        ("file,cat,cat\na.jpg,1,0\n", r"train\.csv cannot be used \(label name 'cat' occurs twice\)"),
        ("file,cat,\na.jpg,1,0\n", r"train\.csv cannot be used \(a label name is empty\)"),
        (
            "file,labels\na.jpg,cat\nb.jpg,cat;dgo\n",
            r"line 3 of .*train\.csv lists 'dgo', which .*label_names\.txt does no",
        ),
    ],
)
def test_what_is_wrong_is_named(root: Path, text: str, sentence: str) -> None:
    (root / "label_names.txt").write_text("cat\ndog\n")
    with pytest.raises(CmlBenchError, match=sentence):
        write(root, train=text).table("train")


def test_a_single_label_is_not_taken_for_a_list_of_names(root: Path) -> None:
    """It would be two labels, called 0 and 1."""
    data = write(root, train="file,labels\na.jpg,1\nb.jpg,0\n", test="file,labels\nc.jpg,1\n")
    with pytest.raises(CmlBenchError) as caught:
        data.table("train")
    assert str(caught.value) == (
        f"{root / 'test.csv'} lists 0 and 1 under 'labels', a column for names of labels: call the column what 1 "
        "means, or name labels in label_names.txt"
    )
    (root / "label_names.txt").write_text("0\n1\n")
    assert data.table("train").labels.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,caf\u00e9,cafe\u0301\na.jpg,1,0\n", r"label names 'caf\\xe9' and 'cafe\\u0301' look alike"),
        ("file,labels\na.jpg,caf\u00e9\nb.jpg,cafe\u0301\n", r"label names 'cafe\\u0301' and 'caf\\xe9' look alike"),
        ("file,cat\n\u00e9.jpg,1\ne\u0301.jpg,0\n", r"image file '\\xe9\.jpg' and 'e\\u0301\.jpg' look alike"),
    ],
)
def test_names_that_look_alike_are_refused(root: Path, text: str, sentence: str) -> None:
    with pytest.raises(CmlBenchError, match=sentence):
        write(root, train=text).table("train")


def test_what_is_not_there_is_named(root: Path) -> None:
    data = write(root, train=COLUMNS)
    with pytest.raises(CmlBenchError, match=r"mine holds no test\.csv; 'cml-bench data info image_folder' says"):
        data.table("test")
    with pytest.raises(CmlBenchError, match="Image folder has no split 'val': known names: train"):
        data.table("val")
    with pytest.raises(CmlBenchError, match="nowhere is not a folder"):
        ImageFolder(root=str(root / "nowhere")).table("train")


def test_the_benchmark_deals_the_labels_in_the_order_of_the_head_line(root: Path) -> None:
    head = "file,dog,cat,owl\n"
    write(root, train=head + "1.jpg,1,0,0\n2.jpg,0,1,1\n3.jpg,0,0,1\n", test=head + "4.jpg,1,0,1\n5.jpg,0,0,1\n")
    benchmark = load("benchmarks", "image_folder")(root=str(root), missing="ignore")
    scenario = benchmark.build()
    assert (scenario.label_names, scenario.n_seen) == (("dog", "cat", "owl"), (2, 3))
    assert [rows.tolist() for rows in scenario.splits["train"].experiences] == [[0, 1], [1, 2]]
    assert [rows.tolist() for rows in scenario.splits["test"].experiences] == [[0], [0, 1]]


def test_rows_that_a_spreadsheet_left_empty_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("file,cat,dog\na.jpg,1,0\n,,\n\n,,\n")
    assert ImageFolder(root=str(tmp_path)).source("train", "train", missing="ignore").files.tolist() == ["a.jpg"]
