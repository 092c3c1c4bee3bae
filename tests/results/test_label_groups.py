"""The cuts between major, moderate and minor labels give PRS's own lists on PRS's own images."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cml_bench.report.stored.label_groups import CUTS, GROUPS, label_groups
from cml_bench.runs.results import read_result

TEST_DATA = Path(os.environ.get("CML_BENCH_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
PRS, TRAIN_2014 = TEST_DATA / "splits" / "prs", TEST_DATA / "labels" / "coco_train_full.txt"
CATEGORIES = TEST_DATA / "coco80mini" / "annotations" / "instances_val2017.json"
ABSENT = [str(path) for path in (PRS / "COCOseq", PRS / "resources", TRAIN_2014, CATEGORIES) if not path.exists()]


@pytest.mark.skipif(bool(ABSENT), reason=f"real data not there: {', '.join(ABSENT)} (set CML_BENCH_TEST_DATA)")
def test_cuts_give_the_published_groups_of_cocoseq(store: Any, change: Any, tmp_path: Path) -> None:
    names = [each["name"] for each in sorted(json.loads(CATEGORIES.read_text())["categories"], key=lambda c: c["id"])]
    lines = (line.split(",", 1) for line in TRAIN_2014.read_text().splitlines())
    shown = {int(file[-16:-4]): {names[int(i)] for i in labels.split()} for file, labels in lines}
    files = sorted((PRS / "COCOseq" / "ids").glob("train_task*_id_coco.json"))
    images = [image for file in files for image in json.loads(file.read_text())]
    assert len(set(images)) == 35_072
    counts = Counter(name for image in images for name in shown[image])
    lists = {name: json.loads((PRS / "resources" / f"{name}_cats.json").read_text()) for name in GROUPS}
    vocabulary = [name for listed in lists.values() for name in listed]
    path = store(tmp_path)
    change(path, "benchmark", "label_names", to=vocabulary)
    change(path, "data", "train", "label_counts", to={name: counts[name] for name in vocabulary})
    found = label_groups(read_result(path))
    assert {name: set(listed) for name, listed in found.items()} == {name: set(lists[name]) for name in found}
    assert [len(listed) for listed in found.values()] == [18, 38, 14]


def test_at_the_cuts(store: Any, tmp_path: Path) -> None:
    # Training images: 1000, 900, 899, 200, 199, 5, 300.
    groups = label_groups(read_result(store(tmp_path)))
    expected = {"major": [0, 1], "moderate": [2, 3, 6], "minor": [4, 5]}
    assert groups == {name: [f"label {i}" for i in columns] for name, columns in expected.items()}
    assert CUTS == (200, 900)
