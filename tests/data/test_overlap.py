"""Images that are both trained on and tested are named, and row numbers are not taken for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.io import write_png

from cml_bench.data.digits import digits_sources
from cml_bench.data.overlap import both_in
from cml_bench.data.sets.feature_table import FeatureTable
from cml_bench.data.sets.image_folder import ImageFolder
from cml_bench.errors import CmlBenchWarning
from cml_bench.report.stream.describe import describe
from cml_bench.runs.benchmark import load_sources

SENTENCE = (
    "2 images (a.png, sub/b.png) are both in the training data and in the test data: keep each in one alone, or what "
    "is known by heart counts as recognised"
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Make a folder with a second way to one of its own folders, and lists that share two images."""
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    (root / "linked").symlink_to("sub")
    for name in ("a", "c", "d", "sub/b", "sub/e"):
        write_png(torch.zeros((3, 8, 8), dtype=torch.uint8), str(root / f"{name}.png"))
    lists = {"train": ("a", "sub/b", "c"), "test": ("d", "linked/b", "a", "sub/e")}
    for split, names in lists.items():
        (root / f"{split}.csv").write_text("file,cat,dog\n" + "".join(f"{name}.png,1,1\n" for name in names))
    return root


def sources(data: Any) -> Any:
    return data.source("train", "train"), data.source("test", "test")


def test_an_image_is_its_file_whatever_way_leads_there(photos: Path) -> None:
    assert both_in(*sources(ImageFolder(root=str(photos)))) == SENTENCE


def test_a_benchmark_warns_once(photos: Path) -> None:
    load_sources.cache_clear()
    with pytest.warns(CmlBenchWarning) as told:
        describe("image_folder", root=str(photos))
    assert [str(each.message) for each in told] == [f"image_folder: {SENTENCE}"]


@pytest.mark.parametrize(
    ("train", "test", "shared"),
    [
        (["x", "y", "z"], ["q", "z"], "1 image (z) is both"),
        ([4, 9, 2], [9, 2, 77], "2 images (9, 2) are both"),
        ([0, 1, 2], [0, 1], ""),
        ([1, 2, 3], [1, 2], ""),
        (None, None, ""),
    ],
)
def test_a_row_of_features_is_its_id_unless_ids_count_rows(tmp_path: Path, train: Any, test: Any, shared: str) -> None:
    for split, ids in (("train", train), ("test", test)):
        rows = 3 if ids is None else len(ids)
        named = {} if ids is None else {"ids": np.array(ids)}
        labels = np.ones((rows, 2), dtype=np.int8)
        (tmp_path / "label_names.txt").write_text("cat\ndog\n")
        np.savez(tmp_path / f"{split}.npz", features=np.zeros((rows, 4), dtype=np.float32), labels=labels, **named)
    told = both_in(*sources(FeatureTable(root=str(tmp_path))))
    assert told.startswith(shared)
    assert bool(told) == bool(shared)


def test_digits_share_none() -> None:
    assert both_in(*digits_sources(40, 40)) == ""
