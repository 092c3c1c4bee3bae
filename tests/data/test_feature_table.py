"""Feature tables: which file is which split, arrays in two formats, and what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cml_bench.data.data_set import DataSet
from cml_bench.data.sets.feature_table import FeatureTable
from cml_bench.errors import CmlBenchError
from cml_bench.registry import load

FEATURES = np.array([[0.5, -1.0, 2.0], [3.0, 0.0, 1.0]], dtype=np.float64)
LABELS = np.array([[1, 0], [0, 1]])
NAMES = ["sky", "sea"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))


def npz(path: Path, **changes: Any) -> None:
    arrays = {"features": FEATURES, "labels": LABELS, "label_names": np.array(NAMES), **changes}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


def safetensors(path: Path, **changes: Any) -> None:
    arrays = {"features": torch.tensor(FEATURES).half(), "labels": torch.tensor(LABELS), **changes}
    names = arrays.pop("label_names", NAMES)
    tensors = {name: torch.as_tensor(value) for name, value in arrays.items() if value is not None}
    save_file(tensors, path, metadata=None if names is None else {"label_names": json.dumps(names)})


@pytest.mark.parametrize(("write", "end"), [(npz, "npz"), (safetensors, "safetensors")])
def test_arrays_are_read_as_they_are(tmp_path: Path, write: Callable[..., None], end: str) -> None:
    write(tmp_path / f"my-train.{end}")
    source = FeatureTable(root=str(tmp_path)).source("train", "train")
    assert source.features.dtype == torch.float32
    assert source.features.tolist() == FEATURES.tolist()
    assert (source.labels.tolist(), source.label_names) == (LABELS.tolist(), tuple(NAMES))
    assert source.ids.tolist() == ["train-0", "train-1"]
    assert source.counts == {"images": 2, "labels": 2, "images_with_labels": 2, "features": 3}
    assert (source.name, source.split, source.image_size) == ("feature_table", "train", None)
    with pytest.raises(CmlBenchError, match="row 1 of feature_table is a feature vector, not an image"):
        source.load(1)


@pytest.mark.parametrize(("write", "end"), [(npz, "npz"), (safetensors, "safetensors")])
def test_ids_and_a_list_of_names(tmp_path: Path, write: Callable[..., None], end: str) -> None:
    write(tmp_path / f"test.{end}", ids=np.array([7, 3]), label_names=None)
    data = FeatureTable(root=str(tmp_path))
    with pytest.raises(
        CmlBenchError, match=r"has 2 columns of labels: name as many under label_names in .*test\.\w+ or in label_n"
    ):
        data.table("test")
    (tmp_path / "label_names.txt").write_text("dog\ncat\n")
    table = data.table("test")
    assert (table.ids.tolist(), table.label_names, table.files) == ([7, 3], ("dog", "cat"), None)
    assert data.label_files("test") == [tmp_path / f"test.{end}", tmp_path / "label_names.txt"]


def test_it_is_a_data_set_like_any_other(tmp_path: Path) -> None:
    npz(tmp_path / "train.npz")
    assert load("datasets", "feature_table") is FeatureTable
    data: DataSet = FeatureTable(root=str(tmp_path))
    assert data.table("train").fingerprint == data.source("train", "train").fingerprint
    assert data.table_path("train").is_file()


def test_one_folder_may_hold_several_data_sets(tmp_path: Path) -> None:
    for name, labels in (("yeast", LABELS), ("Yeast2", 1 - LABELS)):
        npz(tmp_path / f"{name}-train-1.npz", labels=labels)
    (tmp_path / "strained-training.npz").touch()
    with pytest.raises(CmlBenchError, match=r"several files for train \(Yeast2-train-1.npz, yeast-train-1.npz\): give"):
        FeatureTable(root=str(tmp_path)).table("train")
    assert FeatureTable(root=str(tmp_path), prefix="yeast-").table("train").labels.tolist() == LABELS.tolist()


def test_the_xml_belongs_to_the_arff_that_begins_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "Corel5k-TRAIN-sparse.arff").write_text("@attribute a {0,1}\n@attribute b {0,1}\n@data\n{0 1}\n{1 1}\n")
    for name, label in (("Corel", "b"), ("corel5k", "a"), ("yeast", "a")):
        (tmp_path / f"{name}.xml").write_text(f'<labels><label name="{label}"/></labels>')
    data = FeatureTable(root=str(tmp_path))
    assert [file.name for file in data.label_files("train")] == ["Corel5k-TRAIN-sparse.arff", "corel5k.xml"]
    source = data.source("train", "train")
    assert (source.label_names, source.labels.tolist(), source.features.tolist()) == (("a",), [[1], [0]], [[0], [1]])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"features": None}, r"train\.npz has no array 'features' \(known names: labels\): add it"),
        ({"labels": None}, r"train\.npz has no array 'labels'"),
        ({"features": FEATURES[:1]}, r"the arrays of .*train\.npz do not fit together .*'features': \(1, 3\)"),
        ({"labels": LABELS[:, 0]}, r"the arrays of .* do not fit together .*'labels': \(2,\)"),
        ({"labels": np.array([[1, 0], [0, 2]])}, r"labels of .* say 2 in row 1, column 1 \(from 0\): write 0 or 1"),
        ({"labels": np.array([[1, np.nan], [0, 1]])}, r"labels of .* say nan in row 0, column 1"),
        ({"features": FEATURES + np.inf}, r"features of .* say inf in row 0, column 0 \(from 0\): write numbers"),
        ({"features": np.array([["a"], ["b"]])}, r"features of .* are no numbers but <U1"),
        ({"features": FEATURES.astype(object)}, "holds no plain numbers or texts"),
        ({"ids": np.array([1.5, 2.5])}, r"ids of .* are float64: write whole numbers or strings"),
        ({"ids": np.array(["a", "a"])}, r"train\.npz cannot be used \(image id a is listed twice"),
        ({"label_names": np.array(["a", "a"])}, r"train\.npz cannot be used \(label name 'a' occurs twice\)"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    npz(tmp_path / "train.npz", **changes)
    with pytest.raises(CmlBenchError, match=sentence):
        FeatureTable(root=str(tmp_path)).table("train")


@pytest.mark.parametrize("name", ["train.npz", "train.safetensors"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nonsense" * 9)
    with pytest.raises(CmlBenchError, match=f"{name} cannot be read as"):
        FeatureTable(root=str(tmp_path)).table("train")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CmlBenchError, match=r"holds no file named \*test\* that ends in .arff, .npz, .safetensors"):
        FeatureTable(root=str(tmp_path)).table("test")
    with pytest.raises(CmlBenchError, match="nowhere is not a folder"):
        FeatureTable(root=str(tmp_path / "nowhere")).table("test")
    with pytest.raises(CmlBenchError, match="Feature table has no split 'tst': did you mean 'test'"):
        FeatureTable(root=str(tmp_path)).table("tst")
