"""Inputs that no mutation comes to: what a careless annotator writes, and what an attacker would."""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.io import encode_jpeg

from cml_bench.data import vetting
from cml_bench.data.arff import read_arff
from cml_bench.data.data_set import DataSet
from cml_bench.data.images import read_image
from cml_bench.data.sets.celeba import CelebA
from cml_bench.data.sets.coco import COCO
from cml_bench.data.sets.feature_table import FeatureTable
from cml_bench.data.sets.hapi import HAPI
from cml_bench.data.sets.image_folder import ImageFolder
from cml_bench.data.sets.label_lists import LabelLists
from cml_bench.data.sets.visual_genome import VisualGenome
from cml_bench.errors import CmlBenchError
from cml_bench.models.word_vectors import load_word_vectors
from cml_bench.npz import read_npz
from cml_bench.regimes.label_bias import _read_shares
from cml_bench.runs.checkpoint import Checkpoints
from cml_bench.runs.results import is_done, predictions_digest, read_result


def refused(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(CmlBenchError) as caught:
        call()
    assert says in str(caught.value)
    assert str(caught.value).isprintable()


# -- COCO ------------------------------------------------------------------------------------------------------------


def coco(root: Path, *, image: Any = None, annotation: Any = None, categories: Any = None) -> COCO:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 4, **(image or {})}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "area": 1, **(annotation or {})}],
        "categories": categories or [{"id": 1, "name": "cat"}],
    }
    (root / "annotations").mkdir()
    (root / "annotations/instances_train.json").write_text(json.dumps(content))
    return COCO(root=str(root))


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"annotation": {"area": [5.5]}}, "an area is no number"),
        ({"annotation": {"bbox": [[1], [2], [3], [4]]}}, "a bbox is not four numbers"),
        ({"annotation": {"bbox": "1234"}}, "a bbox is not four numbers"),
        ({"image": {"height": "480", "width": "640"}}, "a height or width is no number"),
        ({"image": {"height": [480], "width": [640]}}, "a height or width is no number"),
        ({"image": {"file_name": "a" * 2000}}, "has 2000 letters, more than 1000"),
        ({"image": {"file_name": "gpj.\u202eevil"}}, "holds a control character"),
        ({"categories": [{"id": 1, "name": "a\x9b2J"}]}, "holds a control character"),
    ],
)
def test_an_instances_file(tmp_path: Path, entry: dict[str, Any], says: str) -> None:
    """One value in a list is a list to numpy as well, and a text of digits is a number."""
    data = coco(tmp_path, **entry)
    refused(lambda: data.read("train"), says)


def test_a_matrix_out_of_proportion_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of some megabytes names a million images and a million labels; here with lower limits."""
    monkeypatch.setattr(vetting, "ALWAYS_MATRIX", 10_000)
    monkeypatch.setattr(vetting, "RATIO", 1)
    names = [f"label {number}" for number in range(300)]
    data = coco(tmp_path, categories=[{"id": number, "name": name} for number, name in enumerate(names)])
    content = json.loads((tmp_path / "annotations/instances_train.json").read_text())
    content["images"] = [{"id": number, "file_name": f"{number}.jpg"} for number in range(300)]
    (tmp_path / "annotations/instances_train.json").write_text(json.dumps(content))
    refused(lambda: data.read("train"), "300 rows of 300 columns are 0 MiB, out of proportion to the file")
    (tmp_path / "a.arff").write_text(
        "".join(f"@attribute a{n} numeric\n" for n in range(300)) + "@data\n" + "{}\n" * 300
    )
    refused(lambda: read_arff(tmp_path / "a.arff"), "300 rows of 300 columns")
    lists = [{"example_id": str(n), "true_label": [f"l{n}"]} for n in range(400)]
    (tmp_path / "mic/x").mkdir(parents=True)
    (tmp_path / "meta.csv").write_text("task,dataset,api,date\nmic,x,a,20-10-28\n")
    (tmp_path / "mic/x/labels.json").write_text(json.dumps(lists))
    refused(lambda: HAPI(root=str(tmp_path)).read("x"), "400 rows of 400 columns")
    (tmp_path / "train.csv").write_text("file,labels\n" + "".join(f"{n}.jpg,l{n}\n" for n in range(400)))
    refused(lambda: ImageFolder(root=str(tmp_path)).read("train"), "400 rows of 400 columns")


# -- lists -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["./a.jpg", "././/a.jpg", ".//a.jpg"])
def test_an_image_under_two_names(tmp_path: Path, other: str) -> None:
    """As ``find`` and a table of one's own would write it; the two rows may contradict each other."""
    (tmp_path / "train.csv").write_text(f"file,cat\na.jpg,1\n{other},0\n")
    refused(lambda: ImageFolder(root=str(tmp_path)).read("train"), "image id a.jpg is listed twice")
    (tmp_path / "list.txt").write_text(f"a.jpg 0\n{other} 1\n")
    refused(lambda: LabelLists(root=str(tmp_path), n_labels=2).read("list"), "image id a.jpg is listed twice")


def test_detours_in_names_are_no_part_of_them(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("file,cat\n./b//c/././a.jpg,1\n.hidden/a..b.jpg,0\n")
    assert ImageFolder(root=str(tmp_path)).read("train").ids.tolist() == ["b/c/a.jpg", ".hidden/a..b.jpg"]
    for outside in ("./../a.jpg", "/./a.jpg", ".//../a.jpg", "b/../../a.jpg"):
        (tmp_path / "train.csv").write_text(f"file,cat\n{outside},1\n")
        refused(lambda: ImageFolder(root=str(tmp_path)).read("train"), "is no file inside the image folder")


@pytest.mark.parametrize("values", ["- 1 11", "1 1- 1", "11 -1", "-1-1 1", "1 -1 --1", "1 0 1"])
def test_values_of_celeba_that_only_look_right_together(tmp_path: Path, values: str) -> None:
    (tmp_path / "list_attr_celeba.txt").write_text(f"1\nMale Smiling Young\na.jpg {values}\n")
    (tmp_path / "list_eval_partition.txt").write_text("a.jpg 0\n")
    refused(lambda: CelebA(root=str(tmp_path)).read("train"), "is no image file followed by 3 values of -1 or 1")


@pytest.mark.parametrize("name", ["train.csv", "label_names.txt"])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses to read this one, as it does on a broken sector; root may read all others."""
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "train.csv").write_text("file,labels\na.jpg,cat\n")
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).symlink_to("/proc/self/mem")
    data: DataSet = ImageFolder(root=str(tmp_path))
    refused(lambda: data.table("train"), "cannot be read (Input/output error)")


def test_a_folder_that_is_named_like_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "train.csv").write_text("file,labels\na.jpg,cat\n")
    (tmp_path / "old.csv").mkdir()
    assert ImageFolder(root=str(tmp_path)).table("train").label_names == ("cat",)


# -- JSON ------------------------------------------------------------------------------------------------------------


def test_a_key_twice(tmp_path: Path) -> None:
    """Some programs take the first, others the last: two readers would see two data sets, or two results."""
    (tmp_path / "train_list_500.txt").write_text("7.jpg\n")
    (tmp_path / "vg_category_500_labels_index.json").write_text('{"7.jpg": [0], "7.jpg": [3]}')
    refused(lambda: VisualGenome(root=str(tmp_path), merged=True).read("train"), "it holds the key '7.jpg' twice")
    (tmp_path / "er.json").write_text('{"schema_version": 2, "status": "failed", "status": "ok"}')
    refused(lambda: read_result(tmp_path / "er.json"), "it holds the key 'status' twice")


@pytest.mark.parametrize("text", ['{"cat": 1e999}', '{"cat": NaN}', '{"cat": 1, "cat": 2}', "[" * 100_000, "9" * 5000])
def test_shares_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "shares.json").write_text(text)
    refused(lambda: _read_shares(tmp_path / "shares.json"), ': write {"name": share, ...} in JSON')


def test_a_share_that_no_float_holds(tmp_path: Path) -> None:
    (tmp_path / "shares.json").write_text('{"cat": 1' + "0" * 400 + "}")
    refused(lambda: _read_shares(tmp_path / "shares.json"), "give a number of at least 0")


# -- arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ids": np.array([1, 2**63], dtype=np.uint64)}, "ids of"),
        ({"labels": np.array([["1", "0"], ["0", "1"]])}, "are no numbers but <U1"),
        ({"labels": np.array([[1, 0], [0, 1]], dtype=complex)}, "are no numbers but complex128"),
        ({"features": np.array([[1e300], [0]])}, "say inf in row 0"),
        ({"label_names": np.array(["cat", "d" * 5000])}, "has 5000 letters, more than 1000"),
    ],
)
def test_features_that_would_be_changed_on_the_way(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    arrays = {"features": np.ones((2, 1)), "labels": np.eye(2), "label_names": np.array(["cat", "dog"])}
    np.savez(tmp_path / "train.npz", **{**arrays, **changes})
    refused(lambda: FeatureTable(root=str(tmp_path)).read("train"), says)


def test_an_archive_of_very_many_members(tmp_path: Path) -> None:
    """To compare each name with each other one took minutes."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for number in range(60_000):
            archive.writestr(f"{number}.npy", b"")
    with pytest.raises(ValueError, match="magic"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("line", ["cat nan 1", "cat inf 1", "cat 1e99 1", "cat"])
def test_word_vectors_that_are_no_numbers(tmp_path: Path, line: str) -> None:
    (tmp_path / "glove.txt").write_text(f"the 1 2\n{line}\n")
    refused(lambda: load_word_vectors(tmp_path / "glove.txt", ["cat"]), "for 'cat'")


# -- images ----------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_a_picture_that_says_it_is_huge(tmp_path: Path) -> None:
    """The decoder would ask for 30 GB before it looks at what follows."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(content)
    refused(lambda: read_image(tmp_path / "a.png"), "says it has 10000000000 pixels, more than 268435456")


@pytest.mark.parametrize("between", [b"", b"\0junk\0", b"\xff\xff", b"\xff\x01"])
def test_a_photo_that_says_it_is_huge(tmp_path: Path, between: bytes) -> None:
    """Also where what decoders pass over lies before it says so."""
    photo = encode_jpeg(torch.randint(0, 255, (3, 24, 16), dtype=torch.uint8)).numpy().tobytes()
    at = photo.index(b"\xff\xc0")
    whole = photo[:at] + between + photo[at:]
    (tmp_path / "a.jpg").write_bytes(whole)
    assert read_image(tmp_path / "a.jpg").shape == (3, 24, 16)
    size = whole.index(struct.pack(">HH", 24, 16))
    (tmp_path / "a.jpg").write_bytes(whole[:size] + struct.pack(">HH", 65500, 65500) + whole[size + 4 :])
    refused(lambda: read_image(tmp_path / "a.jpg"), "says it has 4290250000 pixels")


def test_a_gif(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    refused(lambda: read_image(tmp_path / "a.gif"), "is a GIF; convert it to JPEG or PNG")


# -- pipes and devices -----------------------------------------------------------------------------------------------


@pytest.fixture(params=["pipe", "device"])
def special(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    """Puts something there that is read for ever: an archive may hold both."""

    def make(path: Path) -> Path:
        os.mkfifo(path) if request.param == "pipe" else path.symlink_to("/dev/zero")
        return path

    return make


def test_what_is_read_for_ever_is_not_read(tmp_path: Path, special: Callable[[Path], Path]) -> None:
    refused(lambda: read_result(special(tmp_path / "er.json")), "it is no plain file")
    refused(lambda: predictions_digest(special(tmp_path / "er.npz")), "it is no plain file")
    refused(lambda: read_image(special(tmp_path / "a.jpg")), "it is no plain file")
    with pytest.raises(ValueError, match="it is no plain file"):
        read_npz(special(tmp_path / "b.npz"))
    job = type("Job", (), {"slug": "er", "save_models": False})
    assert not is_done(tmp_path, job())  # type: ignore[arg-type]


def test_checkpoints_that_are_none_are_passed_over(tmp_path: Path, special: Callable[[Path], Path]) -> None:
    said: list[str] = []
    special(tmp_path / "0001-00.safetensors")
    found: Any = Checkpoints(tmp_path, {}, said.append)
    assert found.resume(None, None) == []
    assert len(said) == 1
    assert "it is no plain file" in said[0]
