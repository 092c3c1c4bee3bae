"""The commands around data: list, info, verify, prepare, describe; with a data set of a third party."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision.io import write_jpeg

from cml_bench import cli
from cml_bench.commands.console import check_output
from cml_bench.data.table import LabelTable
from cml_bench.registry import entries
from cml_bench.runs.engines.processes import warm_up

HEAVY = ("torch", "avalanche", "pandas", "timm", "sklearn", "numpy", "matplotlib")

THIRD_PARTY = '''
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cml_bench.data.data_set import DataCard, DataSet
from cml_bench.data.table import LabelTable
from cml_bench.runs.benchmark import BenchmarkMeta, DataSetBenchmark
from cml_bench.training.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Birds(DataSet):
    """Birds, one line an image.

    Attributes:
        separator: Between the labels.
    """

    separator: str = " "

    meta = DataCard(
        name="birds",
        title="Birds",
        version=3,
        splits={"train": {"images": 4, "labels": 5}, "test": {"images": 2}, "extra": {}},
        n_labels=2,
        licence="CC BY 4.0",
        homepage="https://example.org/birds",
        download="""
            wget https://example.org/birds.txt
            mv birds.txt ROOT/train.txt
        """,
        citation="Finch 2020",
        checksums={"test.txt": "md5:62c2d0bfa16b1d2cd6f0a3c39ab5a5f0"},
    )

    def label_files(self, split: str) -> Sequence[Path]:
        if split not in self.splits:
            raise self.unknown_split(split)
        return [self.find_file(f"{split}.txt")]

    def read(self, split: str) -> LabelTable:
        rows = [line.split(self.separator) for line in self.label_files(split)[0].read_text().splitlines()]
        return LabelTable(
            label_names=("owl", "wren"),
            ids=np.array([row[0] for row in rows], dtype=np.str_),
            labels=np.array([[name in row[1:] for name in ("owl", "wren")] for row in rows], dtype=np.int8),
            files=np.array([f"{row[0]}.jpg" for row in rows], dtype=np.str_),
        )


@dataclass(frozen=True, kw_only=True)
class BirdsOneByOne(DataSetBenchmark):
    """Owls, then wrens."""

    train_split = "train"
    test_split = "test"

    meta = BenchmarkMeta(
        name="birds_one_by_one", title="Birds one by one", version=1, source="birds", licence="", methods=("naive",),
        protocol="B0-C1", n_labels=2, images=(2, 3), test_images=(1, 2),
    )
    training = TrainingConfig()

    def data_set(self) -> Birds:
        return Birds(root=self.root)
'''


@pytest.fixture
def birds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """The name of the data set and its folder; the current folder holds ``birds.py``."""
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    # A plug-in file is loaded once a content: a path of its own keeps tests apart.
    Path("birds.py").write_text(THIRD_PARTY.replace("62c2d0bfa16b1d2cd6f0a3c39ab5a5f0", _md5("d owl\ne wren\n")))
    root = tmp_path / "data"
    root.mkdir()
    (root / "train.txt").write_text("a owl\nb wren\nc owl wren\nf wren\n")
    (root / "test.txt").write_text("d owl\ne wren\n")
    for name in "abcdef":
        write_jpeg(torch.zeros((3, 8, 8), dtype=torch.uint8), str(root / f"{name}.jpg"))
    return "./birds.py:Birds", root


def _md5(text: str) -> str:
    import hashlib

    return hashlib.md5(text.encode()).hexdigest()


def call(capsys: Any, *arguments: object) -> tuple[int, str, str]:
    """Run a command in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return int(caught.value.code or 0), output.out, output.err


@pytest.mark.parametrize("command", [["list"], ["list", "benchmarks"], ["list", "datasets"], ["data", "list"]])
def test_listing_loads_nothing_heavy(command: list[str]) -> None:
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('LOADED', *[n for n in {HEAVY!r} if n in sys.modules], file=sys.stderr))\n"
        f"from cml_bench.cli import main\nmain({command!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "LOADED\n"
    assert done.stdout


def test_the_lists_name_every_plug_in_and_what_it_declares(capsys: Any) -> None:
    for command, kind in ((["list", "benchmarks"], "benchmarks"), (["data", "list"], "datasets")):
        code, out, _ = call(capsys, *command)
        assert code == 0
        assert [line.split()[0] for line in out.splitlines()[2:] if line[0] != " "] == list(entries(kind))
    assert call(capsys, "list", "datasets") == call(capsys, "data", "list")
    code, out, _ = call(capsys, "list", "benchmarks")
    row = next(line for line in out.splitlines() if line.startswith("digits "))
    assert "Scenes composed from scikit-learn's handwritten digits" in row


def test_a_list_shows_published_figures(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from cml_bench import registry

    (tmp_path / "birds.py").write_text(THIRD_PARTY)
    (entry,) = [registry._parse(tmp_path / "birds.py", "anywhere")]
    (tmp_path / "one_by_one.py").write_text(THIRD_PARTY[THIRD_PARTY.rindex("@dataclass") :])
    other = registry._parse(tmp_path / "one_by_one.py", "anywhere")
    shown = {"datasets": {"birds": entry}, "benchmarks": {"one_by_one": other}}
    monkeypatch.setattr("cml_bench.report.listing.entries", shown.__getitem__)
    _, out, _ = call(capsys, "data", "list")
    assert out.splitlines()[2].split("  ")[0] == "birds"
    for part in (" 2  ", "train 4, test 2, extra", "CC BY 4.0", "https://example.org/birds"):
        assert part in out.splitlines()[2]
    _, out, _ = call(capsys, "list", "benchmarks")
    for part in ("one_by_one", "birds", "B0-C1", " 2  ", "2 + 3", "2 x 1 to 2", "Owls, then wrens."):
        assert part in out.splitlines()[2]


def test_info_tells_all_that_is_declared(capsys: Any, birds: tuple[str, Path]) -> None:
    code, out, err = call(capsys, "data", "info", birds[0])
    assert (code, err) == (0, "")
    for part in (
        "Birds (birds), version 3",
        "separator: Between the labels.",
        "labels: 2",
        "licence: CC BY 4.0",
        "home page: https://example.org/birds",
        "cite: Finch 2020",
        "  train: 4 images, 5 labels\n",
        "  extra: no published figures\n",
        "  wget https://example.org/birds.txt\n  mv birds.txt ROOT/train.txt\n",
        "  test.txt  md5:",
        "  root  (needed)\n",
        "  separator= \n",
    ):
        assert part in out


@pytest.mark.parametrize("name", list(entries("datasets")))
def test_info_works_for_every_data_set(capsys: Any, name: str) -> None:
    code, out, _ = call(capsys, "data", "info", name)
    assert code == 0
    assert f"({name}), version" in out
    assert not [
        line for line in out.splitlines() if line.startswith("home page:") and not line.split(":", 1)[1].strip()
    ]
    assert "splits:\n\n" not in out, "a heading over nothing"


def test_verify_finds_a_whole_data_set_whole(capsys: Any, birds: tuple[str, Path]) -> None:
    name, root = birds
    code, out, err = call(capsys, "data", "verify", name, "--root", root)
    assert (code, err) == (0, "")
    assert "extra: not there (" in out
    assert "train:\n  images: 4 / 4\n  labels: 5 / 5\n  images with labels: 4\n  label names: 2 / 2\n" in out
    assert "test:\n  test.txt: checksum right\n  images: 2 / 2\n" in out
    assert "images: 6 listed, 6 decoded, 0 missing, 0 broken in " in out
    assert out.endswith("all is well\n")


def test_verify_names_what_is_wrong_in_one_sentence(capsys: Any, birds: tuple[str, Path], tmp_path: Path) -> None:
    name, root = birds
    (root / "test.txt").write_text("d owl\n")
    (root / "a.jpg").unlink()
    (root / "b.jpg").write_bytes((root / "b.jpg").read_bytes()[:100])
    listed = tmp_path / "faults.tsv"
    code, out, err = call(capsys, "data", "verify", name, "--root", root, "--output", listed)
    assert code == 1
    assert err == (
        f"cml-bench: Birds in {root} is not as it should be: test.txt has another checksum than published; "
        "1 of 2 figures of test not as published (marked WRONG above); "
        "1 image missing (a.jpg); 1 image broken (b.jpg)\n"
    )
    assert "  images: 1 / 2  WRONG\n" in out
    # A label that one split spells in its own way is there, and no image of that split shows it.
    assert out.count("labels that no image shows") == 1
    assert "  label names: 2 / 2\n  labels that no image shows: 1 (wren)\n" in out.partition("test:")[2]
    assert "images: 5 listed, 3 decoded, 1 missing, 1 broken in " in out
    assert listed.read_text() == f"missing\t{root}/a.jpg\nbroken\t{root}/b.jpg\n"
    code, out, err = call(capsys, "data", "verify", name, "--root", root, "--split", "train", "--labels-only")
    assert (code, err) == (0, "")
    assert "decoded" not in out


def test_verify_warns_of_what_is_no_fault(capsys: Any, tmp_path: Path) -> None:
    """Images that are trained on and tested, and images that are stored sideways."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("file,cat,dog\na.jpg,1,1\n")
    code, out, err = call(capsys, "data", "verify", "image_folder", "--root", tmp_path)
    assert (code, err) == (0, "")
    assert (
        "images that ask to be turned (EXIF orientation): 1 (a.jpg); they are read as they are stored: turn the files "
        "where that is sideways\n"
        "warning: 1 image (a.jpg) is both in train and in test: keep each in one alone, or what is known by heart "
        "counts as recognised\nall else is well\n"
    ) in out


def test_verify_looks_where_its_list_goes_before_it_looks_at_images(
    capsys: Any, birds: tuple[str, Path], tmp_path: Path
) -> None:
    name, root = birds
    listed = tmp_path / "no" / "faults.tsv"
    code, out, err = call(capsys, "data", "verify", name, "--root", root, "--output", listed)
    assert (code, "images: 6 listed" in out) == (1, False)
    assert err == (
        f"cml-bench: {listed} cannot be written (No such file or directory): name a file in a folder that exists\n"
    )
    check_output(tmp_path / "faults.tsv")
    assert not (tmp_path / "faults.tsv").exists(), "an empty list would say that all is well"


def test_a_list_of_images_is_not_made_of_labels(capsys: Any, birds: tuple[str, Path]) -> None:
    command = ["data", "verify", birds[0], "--root", birds[1], "--labels-only", "--output", "list.tsv"]
    assert call(capsys, *command)[2] == (
        "cml-bench: --output list.tsv lists images, and --labels-only looks at none: leave one of them out\n"
    )


def test_verify_names_the_first_of_many_images(capsys: Any, birds: tuple[str, Path]) -> None:
    name, root = birds
    for image in "abcf":
        (root / f"{image}.jpg").unlink()
    _, _, err = call(capsys, "data", "verify", name, "--root", root)
    assert err.endswith("is not as it should be: 4 images missing (first: a.jpg, b.jpg, c.jpg)\n")


def test_verify_says_that_the_figures_are_those_of_default_options(capsys: Any, birds: tuple[str, Path]) -> None:
    name, root = birds
    command = ["data", "verify", name, "--root", root, "--set", "separator=,", "--split", "train", "--labels-only"]
    code, _, err = call(capsys, *command)
    assert code == 1
    assert "1 of 3 figures of train not as published (marked WRONG above) (the published figures are those of " in err


def test_prepare_stores_tables_and_says_so_again(capsys: Any, birds: tuple[str, Path], tmp_path: Path) -> None:
    name, root = birds
    code, out, _ = call(capsys, "data", "prepare", name, "--root", root)
    assert code == 0
    assert "train: stored, 4 images, 5 labels, 4 images with labels\n" in out
    stored = sorted((tmp_path / "cache" / "tables").glob("*.npz"))
    assert [path.name.rsplit("-", 1)[0] for path in stored] == ["birds-test", "birds-train"]
    assert all(str(path) in out for path in stored)
    table = LabelTable.load(stored[1])
    assert np.array_equal(table.labels, [[1, 0], [0, 1], [1, 1], [0, 1]])
    assert f"fingerprint {table.fingerprint[:16]}" in out
    code, again, _ = call(capsys, "data", "prepare", name, "--root", root)
    assert code == 0
    assert "train: there already, 4 images" in again


def test_a_cache_that_cannot_be_written_is_one_sentence(
    capsys: Any, birds: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, root = birds
    monkeypatch.setenv("CML_BENCH_CACHE", str(root / "train.txt"))
    code, _, err = call(capsys, "data", "prepare", name, "--root", root)
    assert code == 1
    assert err.startswith("cml-bench: the label table cannot be stored in ")
    assert err.endswith("make the folder writable or set CML_BENCH_CACHE to another\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["info", "birdz"], "there is no data set 'birdz'"),
        (["verify", "./birds.py:BirdsOneByOne", "--root", "."], "'./birds.py:BirdsOneByOne' is no data set"),
        (["verify", "./birds.py:Birds", "--root", "nowhere"], "nowhere is not a folder; give the folder that holds"),
        (["verify", "./birds.py:Birds", "--root", "data", "--split", "trian"], "has no split 'trian': did you mean"),
        (["prepare", "./birds.py:Birds", "--root", "data", "--split", "extra"], "holds no extra.txt"),
        (["prepare", "./birds.py:Birds", "--root", "data", "--set", "seperator=,"], "did you mean 'separator'?"),
    ],
)
def test_bad_input_ends_in_one_sentence(
    capsys: Any, birds: tuple[str, Path], arguments: list[str], sentence: str
) -> None:
    code, _, err = call(capsys, "data", *arguments)
    assert code == 1
    assert sentence in err
    assert err.count("\n") == 1


def test_describe_needs_label_files_only(capsys: Any, birds: tuple[str, Path], tmp_path: Path) -> None:
    root = birds[1]
    for image in root.glob("*.jpg"):
        image.unlink()
    command = ["describe", "./birds.py:BirdsOneByOne", "--root", root]
    code, out, err = call(capsys, *command, "--format", "csv", "--plot", tmp_path / "birds.png")
    assert (code, err) == (0, "")
    Path("birds.csv").write_text(out)
    rows = pd.read_csv("birds.csv")
    assert rows["new_labels"].tolist() == ["owl", "wren"]
    assert rows["images"].tolist() == rows["published_images"].tolist() == [2, 3]
    assert rows["hidden_old"].tolist() == [0, 1]
    assert (tmp_path / "birds.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = call(capsys, *command)
    assert "images and test images as published" in out
    assert "not looked for (missing=ignore)" in out
    code, out, _ = call(
        capsys, *command, "--format", "markdown", "--class-order", "random:1", "--set", "test=all_images"
    )
    assert "- class order: random:1\n" in out
    assert "- published: no figures are published of this protocol\n" in out
    code, _, err = call(capsys, *command, "--set", "missing=error")
    assert code == 1
    assert "4 of 4 train images of birds are not in" in err


def test_describe_marks_what_is_not_as_published(capsys: Any, birds: tuple[str, Path]) -> None:
    with (birds[1] / "train.txt").open("a") as file:
        file.write("g wren\n")
    code, out, _ = call(capsys, "describe", "./birds.py:BirdsOneByOne", "--root", birds[1])
    assert code == 0
    assert "NOT AS PUBLISHED: images of experience 2 differ" in out
    assert " 3 ! " in out


def test_describe_refuses_in_one_sentence(capsys: Any, birds: tuple[str, Path]) -> None:
    for arguments, sentence in (
        (["./birds.py:Birds"], "'./birds.py:Birds' is no benchmark"),
        (["./birds.py:BirdsOneByOne"], "needs option 'root': add root=VALUE"),
        (["digits", "--plot", "picture.xyz"], "give a file that ends in .png, .pdf or .svg"),
        (["digits", "--class-order", "rnadom"], "class_order 'rnadom' is unknown"),
    ):
        code, _, err = call(capsys, "describe", *arguments)
        assert code == 1
        assert sentence in err


def test_a_picture_of_an_unknown_kind_is_refused_before_anything_is_printed(capsys: Any, tmp_path: Path) -> None:
    code, out, err = call(capsys, "describe", "digits", "--plot", tmp_path / "stream.bmp")
    assert (code, out) == (1, "")
    assert "stream.bmp" in err
    assert ".png" in err


def test_what_is_warned_of_before_a_sweep_and_by_its_jobs_is_told_once(
    birds: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    warm_up()  # Workers see what is set after their server has started.
    monkeypatch.setenv("CML_BENCH_CACHE", "birds.py")  # No folder: no process can store the table.
    quick = ["--method", "naive", "--seeds", 2, "--workers", 2, "--set", "epochs=1", "--set", "image_size=8"]
    code, out, err = call(capfd, "run", "./birds.py:BirdsOneByOne", "--root", birds[1], *quick)
    assert code == 0
    assert (out + err).count("the label table cannot be stored in") == 1
    assert "CmlBenchWarning" not in out + err, "a sentence, not a line of Python's"
