"""``compare --published`` and ``list published``, as typed."""

from __future__ import annotations

import copy
import io
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cml_bench.api import compare
from cml_bench.cli import main
from cml_bench.errors import CmlBenchError
from cml_bench.report.published.numbers import literature

RESULT: dict[str, Any] = {
    "schema_version": 2,
    "key": "k0",
    "status": "ok",
    "job": {
        "benchmark": "voc_b0_c4",
        "method": "er",
        "class_order": "default",
        "seed": 0,
        "resolved": {
            "benchmark": {
                "class_order": "alphabetical",
                "assignment": "overlap",
                "annotation": "current",
                "test": "seen_images",
                "online_chunk": None,
                "difficult": "drop",
            },
            "training": {},
        },
    },
    "benchmark": {
        "name": "voc_b0_c4",
        "title": "PASCAL VOC 2007",
        "version": 1,
        "protocol": "B0-C4",
        "label_names": [f"label {i}" for i in range(20)],
    },
    "method": {"title": "ER", "head": "linear", "loss": "BCE"},
    "metrics": {"summary": {"last_map": 0.5, "avg_map": 0.75}},
    "cost": {},
    "data": {
        "train": {"name": "voc", "fingerprint": "a", "counts": {"images": 5011}},
        "test": {"name": "voc", "fingerprint": "b", "counts": {"images": 4952}},
    },
    "backbone": {"name": "tresnet_m", "pretraining": "ImageNet-1k", "image_size": 224},
}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    for number, data in enumerate(["voc", "digits"]):
        document = copy.deepcopy(RESULT)
        document["job"]["benchmark"] += "" if data == "voc" else "_other"
        document["data"]["train"]["name"] = data
        (tmp_path / "runs" / f"{number}.json").write_text(json.dumps(document))
    return tmp_path / "runs"


def typed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    return captured.out if stop.value.code == 0 else captured.err


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex", "html"])
def test_every_format_shows_every_number_and_its_source(
    runs: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    text = unescape(typed(capsys, "compare", runs, "--published", "--format", form, *METRICS))
    numbers = literature().numbers
    there = numbers[(numbers["file"] == "voc") & numbers["protocol"].isin(["B0-C4", "joint (upper bound)"])]
    assert len(there) == 31
    for value in there["value"]:
        assert re.search(rf"(?<![\d.]){re.escape(value)}(?![\d.])", text)
    assert text.count("Source 1: Zhang et al., Knowing Beyond the Known (KBK), Table 2") == 2
    assert "31 numbers, none ranked with ours" in text
    assert text.count("pretraining: ours ImageNet-1k, theirs not stated") == 2
    assert "No published numbers on digits; there are some on coco, emotic, nuswide, voc." in text


def test_a_sheet_tells_published_rows_from_ours_by_their_source(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = pd.read_csv(io.StringIO(typed(capsys, "compare", runs, "--published", "--format", "csv", *METRICS)))
    ours, published = sheet[sheet["source"].isna()], sheet[sheet["source"].notna()]
    assert list(ours["last_map_mean"]) == [0.5, 0.5]
    assert len(published) == 31
    assert set(published["benchmark"]) == {"voc_b0_c4"}
    assert published["percent"].between(40, 100).all()
    assert published["last_map_mean"].isna().all()
    assert published["differs"].str.contains("unknown-label rule|joint", regex=True).any()


def test_published_rows_stand_beside_methods_only(runs: Path) -> None:
    with pytest.raises(CmlBenchError, match="leave rows and columns as they are"):
        compare(runs, ["last_map"], rows="head", published=True)
    (plain, _) = compare(runs, ["last_map"]).benchmarks
    assert plain.published is None


def test_published_numbers_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(r"emotic +EMOTIC +8 ", typed(capsys, "list", "published"))
    text = typed(capsys, "list", "published", "emotic")
    assert text.startswith("8 published numbers in the order of their sources; this is no ranking.\n")
    assert "20.32 ± 1.46" in text
    assert "Source 1: EMOTIC-MLCIL benchmark documentation" in text
    assert "did you mean 'emotic'" in typed(capsys, "list", "published", "emotik")


METRICS = ("--metric", "last_map", "--metric", "avg_map")
