"""HAPI: a small archive in the published layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cml_bench.data.sets.hapi import HAPI
from cml_bench.data.verify import verify_labels
from cml_bench.errors import CmlBenchError
from cml_bench.labels import OUT_OF_SCOPE

PRINTED = {"confidence": 0.9798267782, "example_id": "2011_000494", "predicted_label": ["bird", "bird"]}
"""The example of the authors' page."""
GOOGLE = [PRINTED, {"confidence": 0.5, "example_id": "2008_000002", "predicted_label": ["tvmonitor", "bird"]},
          {"confidence": 0.0, "example_id": "2008_000003", "predicted_label": []}]  # fmt: skip
TRUTH = [
    {"example_id": "2008_000002", "true_label": ["tvmonitor"]},
    {"example_id": "2011_000494", "true_label": ["bird"]},
]
META = """task,dataset,api,date,path,cost_per_10k
mic,pascal,google_mic,20-10-28,mic/pascal/google_mic/20-10-28.json,15.0
mic,pascal,google_mic,22-05-23,mic/pascal/google_mic/22-05-23.json,15.0
fer,rafdb,google_fer,20-03-29,fer/rafdb/google_fer/20-03-29.json,15.0
"""


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    folder = tmp_path / "tasks"
    (folder / "mic/pascal/google_mic").mkdir(parents=True)
    (folder / "meta.csv").write_text(META)
    write(folder / "mic/pascal/labels.json", TRUTH)
    write(folder / "mic/pascal/google_mic/20-10-28.json", GOOGLE)
    return folder


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def test_splits_are_data_sets_and_snapshots(tasks: Path) -> None:
    expected = ("pascal", "pascal/google_mic/20-10-28", "pascal/google_mic/22-05-23")
    assert HAPI(root=str(tasks.parent)).splits == HAPI(root=str(tasks)).splits == expected


def test_a_snapshot_says_what_is_there_and_never_what_is_not(tasks: Path) -> None:
    table = HAPI(root=str(tasks)).read("pascal/google_mic/20-10-28")
    assert table.label_names == ("bird", "tvmonitor")
    assert table.ids.tolist() == ["2011_000494", "2008_000002", "2008_000003"]
    assert table.labels.tolist() == [[1, OUT_OF_SCOPE], [1, 1], [OUT_OF_SCOPE] * 2]
    assert table.counts == {"repeated_names": 1}


def test_truth_is_complete(tasks: Path) -> None:
    table = HAPI(root=str(tasks)).read("pascal")
    assert (table.label_names, table.labels.tolist()) == (("bird", "tvmonitor"), [[0, 1], [1, 0]])


def test_tables_are_stored_and_verified(tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CML_BENCH_CACHE", str(tasks / "cache"))
    data = HAPI(root=str(tasks))
    split = "pascal/google_mic/20-10-28"
    assert data.table(split).fingerprint == data.table(split).fingerprint == data.read(split).fingerprint
    assert data.table_path(split).is_file()
    (report,) = verify_labels(data, [split])
    assert (report.faults, report.files) == ([], None)
    assert report.counts["images_with_labels"] == 2


def test_a_large_snapshot_reads_in_a_blink(tasks: Path) -> None:
    """As many images as COCO has."""
    rng = np.random.default_rng(0)
    lists = [[f"label{c:02}" for c in rng.integers(0, 80, 4)] for _ in range(20_000)]
    write(
        tasks / "mic/pascal/google_mic/22-05-23.json",
        [{"example_id": f"COCO_val2014_{i:012}", "predicted_label": names} for i, names in enumerate(lists)],
    )
    table = HAPI(root=str(tasks)).read("pascal/google_mic/22-05-23")
    for row in range(0, 20_000, 997):
        said = {name for name, state in zip(table.label_names, table.labels[row], strict=True) if state == 1}
        assert said == set(lists[row])
    assert table.counts["repeated_names"] == sum(len(names) - len(set(names)) for names in lists)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"a": 1}, r"20-10-28\.json holds no JSON list"),
        ([PRINTED, {"example_id": "a"}], r"example 1 of .*20-10-28\.json lacks example_id or a list predicted_label"),
        ([{**PRINTED, "predicted_label": "bird"}], r"example 0 of .* lacks"),
        ([PRINTED, PRINTED], r"20-10-28\.json cannot be used \(image id 2011_000494 is listed twice"),
    ],
)
def test_damaged_snapshots_are_named(tasks: Path, content: Any, sentence: str) -> None:
    write(tasks / "mic/pascal/google_mic/20-10-28.json", content)
    with pytest.raises(CmlBenchError, match=sentence):
        HAPI(root=str(tasks)).read("pascal/google_mic/20-10-28")


def test_what_is_not_there_is_named(tasks: Path) -> None:
    data = HAPI(root=str(tasks))
    with pytest.raises(
        CmlBenchError, match=r"has no split 'pascal/google_mic/20-03-28': did you mean 'pascal/google_mic/2"
    ):
        data.read("pascal/google_mic/20-03-28")
    with pytest.raises(
        CmlBenchError, match=r"holds no tasks/mic/pascal/google_mic/22-05-23\.json or mic/pascal/google"
    ):
        data.read("pascal/google_mic/22-05-23")
    with pytest.raises(CmlBenchError, match="HAPI holds labels and no images"):
        data.source("pascal", "train")
    (tasks / "meta.csv").write_text("task,dataset\nmic,coco\n")
    with pytest.raises(CmlBenchError, match=r"meta\.csv is no table with the columns task, dataset, api, date"):
        data.read("pascal")
    (tasks / "meta.csv").unlink()
    with pytest.raises(CmlBenchError, match=r"holds no tasks/meta\.csv or meta\.csv"):
        data.read("pascal")
