"""Feature and attribute files, damaged: ARFF with its label list, .npz, .safetensors and MATLAB."""

from __future__ import annotations

import io
import json
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from scipy.io import savemat

from cml_bench.data.feature_rows import FeatureRows
from cml_bench.data.sets.emotic import EMOTIC
from cml_bench.data.sets.feature_table import FeatureTable
from cml_bench.data.sets.pa100k import PA100K
from cml_bench.data.sets.peta import PETA
from cml_bench.data.table import LabelTable

Fuzz = Callable[..., Counter[str]]
Sound = Callable[[Any], None]

ARFF = b"""@RELATION 'two words: -C 2'
@attribute 'label one' {0, 1}
@attribute turned {1,0}
@attribute length REAL
@attribute "it's" { red, 'dark blue', "a,b" }
@attribute coded {5,7,9}
@data
"""
DENSE = ARFF + b"0,1,1.5,red,7\n% said\n1 , 0, -2e-1 , 'dark blue' , 5\n?,?,?,?,?\n"
SPARSE = ARFF + b"{2 1.5, 4 7}\n{ 0 1,2 -2e-1 , 3 'dark blue'}\n{}\n{1 ?, 3 'a,b'}\n"
PLAIN = b"@relation x\n@attribute a {0,1}\n@attribute b numeric\n@data\n0,1.5\n1,2\n"
MULAN = b"""<?xml version="1.0" encoding="utf-8"?>
<labels xmlns="http://mulan.sourceforge.net/labels">
<label name="turned"><label name="label one"></label></label>
</labels>
"""


def sound_rows(rows: FeatureRows) -> None:
    assert rows.features.ndim == 2
    assert len(rows.features) == len(rows.labels) == len(set(rows.ids.tolist()))
    assert rows.features.isfinite().all()
    assert set(np.unique(rows.labels).tolist()) <= {-2, 0, 1}
    assert rows.labels.shape[1] == len(set(rows.label_names))


@pytest.fixture
def read(tmp_path: Path) -> Callable[[], FeatureRows]:
    return lambda: FeatureTable(root=str(tmp_path)).source("train", "train")


def test_arff_of_meka(tmp_path: Path, read: Any, fuzz: Fuzz, count: int) -> None:
    fuzz(tmp_path / "x-train.arff", [DENSE, SPARSE], read, sound_rows, count)


def test_arff_of_mulan(tmp_path: Path, read: Any, fuzz: Fuzz, count: int) -> None:
    (tmp_path / "x.xml").write_bytes(b'<labels><label name="a"/></labels>')
    fuzz(tmp_path / "x-train.arff", [PLAIN], read, sound_rows, count)


def test_label_list_of_mulan(tmp_path: Path, read: Any, fuzz: Fuzz, count: int) -> None:
    (tmp_path / "x-train.arff").write_bytes(DENSE)
    fuzz(tmp_path / "x.xml", [MULAN], read, sound_rows, count)


def packed(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def test_npz(tmp_path: Path, read: Any, fuzz: Fuzz, zip_members: Sequence[Any], count: int) -> None:
    features, labels, names = (
        np.float32([[0.5, -1], [3, 0], [1, 2]]),
        np.uint8([[1, 0], [0, 1], [0, 0]]),
        ["sky", "sea"],
    )
    seeds = [
        packed(features=features, labels=labels, label_names=names, ids=[7, 3, 5]),
        packed(
            features=features.astype(np.float64), labels=labels.astype(bool), label_names=names, ids=["a", "b", "c"]
        ),
    ]
    fuzz(tmp_path / "train.npz", seeds, read, sound_rows, min(count, 5000), zip_members)


def header(content: bytes, rng: Any) -> bytes:
    """Damage the JSON of a .safetensors file and tell its length right."""
    if len(content) < 8:
        return content  # damaged before
    (size,) = struct.unpack("<Q", content[:8])
    told, data = content[8 : 8 + size], content[8 + size :]
    for _ in range(rng.choice((1, 2)) if told else 0):
        place = rng.randrange(len(told))
        told = told[:place] + bytes([rng.choice(b'0123456789[]{}",:-eINF')]) + told[place + rng.randrange(2) :]
    return struct.pack("<Q", len(told)) + told + data


def test_safetensors(tmp_path: Path, read: Any, fuzz: Fuzz, binary: Sequence[Any], count: int) -> None:
    tensors = {
        "features": np.float16([[0.5, -1], [3, 0]]),
        "labels": np.uint8([[1, 0], [0, 1]]),
        "ids": np.int64([7, 3]),
    }
    seed = save(tensors, {"label_names": json.dumps(["sky", "sea"])})
    fuzz(tmp_path / "train.safetensors", [seed], read, sound_rows, min(count, 5000), (header, header, *binary))


@pytest.mark.parametrize("deep", [50_000])
def test_names_of_safetensors_that_are_nested_too_deeply(tmp_path: Path, read: Any, deep: int) -> None:
    tensors = {"features": np.float32([[0.5]]), "labels": np.uint8([[1]])}
    (tmp_path / "train.safetensors").write_bytes(save(tensors, {"label_names": "[" * deep}))
    with pytest.raises(Exception, match=r"train.safetensors") as caught:
        read()
    assert type(caught.value).__name__ == "CmlBenchError"


def cells(*items: Any) -> Any:
    made = np.empty((len(items), 1), dtype=object)
    made[:, 0] = items
    return made


def mat(compressed: bool = False, **variables: Any) -> bytes:
    file = io.BytesIO()
    savemat(file, variables, do_compression=compressed)
    return file.getvalue()


def read_all(data: Any, *splits: str) -> list[LabelTable]:
    return [data.read(split) for split in splits]


def test_mat_of_peta(tmp_path: Path, fuzz: Fuzz, sound_table: Sound, binary: Sequence[Any], count: int) -> None:
    values = (np.arange(6 * 40).reshape(6, 40) % 7 == 0).astype(np.uint8)
    parts = {"train": np.array([[6], [1]]), "val": np.array([[2]]), "test": np.array([[5], [3], [4]])}
    names = cells(*(f"attribute{i}" for i in range(36)))
    peta = {"data": values, "names": names, "other": np.zeros((0, 0)), "partitions": cells(parts, parts)}
    check = lambda tables: [sound_table(table) for table in tables]  # noqa: E731
    read = lambda: read_all(PETA(root=str(tmp_path)), "train", "trainval")  # noqa: E731
    fuzz(tmp_path / "PETA.mat", [mat(peta=peta)], read, check, min(count, 5000), binary)


def test_mat_of_pa100k(tmp_path: Path, fuzz: Fuzz, sound_table: Sound, binary: Sequence[Any], count: int) -> None:
    variables: dict[str, Any] = {"attributes": cells("old", "young", "bag")}
    for number, part in enumerate(("train", "val", "test")):
        variables[f"{part}_images_name"] = cells(f"{number}1.jpg", f"{number}2.jpg")
        variables[f"{part}_label"] = np.uint8([[1, 0, 1], [0, 1, 1]])
    seeds = [mat(**variables), mat(True, **variables)]
    fuzz(tmp_path / "annotation.mat", seeds, lambda: PA100K(root=str(tmp_path)).read("train"), sound_table,
         min(count, 5000), binary)  # fmt: skip


def test_mat_of_emotic(tmp_path: Path, fuzz: Fuzz, sound_table: Sound, binary: Sequence[Any], count: int) -> None:
    def person(*emotions: str) -> dict[str, Any]:
        return {"body_bbox": np.float64([1, 2, 30, 40]), "annotations_categories": {"categories": cells(*emotions)}}

    images = np.empty(2, dtype=object)
    images[0] = {"filename": "a.jpg", "folder": "mscoco/images", "person": person("Peace", "Fear")}
    images[1] = {"filename": "b.jpg", "folder": "ade20k/images", "person": person("Yearning")}
    read = lambda: EMOTIC(root=str(tmp_path)).read("train")  # noqa: E731
    fuzz(tmp_path / "Annotations.mat", [mat(train=images)], read, sound_table, min(count, 5000), binary)
