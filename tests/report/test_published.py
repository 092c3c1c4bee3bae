"""The tracked files of published numbers, checked against the table that they were made from where that is at hand."""

from __future__ import annotations

import csv
import os
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest

from cml_bench.errors import CmlBenchError
from cml_bench.registry import entries
from cml_bench.report.published.numbers import (
    NOT_APPLICABLE,
    NOT_STATED,
    NUMBER_COLUMNS,
    literature,
    numbers_of,
    our_name,
)
from cml_bench.report.published.rows import catalogue

REFERENCE = (
    Path(os.environ.get("CML_BENCH_TEST_DATA", Path(__file__).parents[3] / "shared/data")).parent
    / "reference/published_results.csv"
)
NAMES = {
    "adp": "ADP",
    "chestx_ray14": "ChestX-ray14",
    "coco": "MS-COCO 2014",
    "coco_lt": "COCO-LT",
    "emotic": "EMOTIC",
    "nuswide": "NUS-WIDE",
    "visual_genome": "Visual Genome 500",
    "voc": "PASCAL VOC 2007",
    "voc_lt": "VOC-LT",
}
SPLIT = {
    "": (NOT_STATED, NOT_STATED),
    "CLIP ViT-B/16": ("ViT-B/16", "CLIP"),
    "ViT-B/16 + CLIP": ("ViT-B/16 + CLIP", "ImageNet-1k and CLIP"),
    "ViT-S/16 (DINO v1)": ("ViT-S/16", "DINO v1"),
    "TResNet-L (22k)": ("TResNet-L", "ImageNet-22k"),
    "ResNet-101 (in1k)": ("ResNet-101", "ImageNet-1k"),
    "TResNet-L (in1k)": ("TResNet-L", "ImageNet-1k"),
    "TResNet-L (in21k)": ("TResNet-L", "ImageNet-21k"),
    "Q2L TResNet-L (in21k)": ("Q2L TResNet-L", "ImageNet-21k"),
    "Q2L TResNet-L (OI)": ("Q2L TResNet-L", "Open Images"),
}
"""The reference writes some pretraining behind the backbone; here it has a column."""


@pytest.fixture(scope="module")
def numbers() -> pd.DataFrame:
    return literature().numbers


def test_every_number_is_that_of_the_reference(numbers: pd.DataFrame) -> None:
    if not REFERENCE.is_file():
        pytest.skip("the table that the files were made from is not at hand: set CML_BENCH_TEST_DATA")
    with REFERENCE.open(encoding="utf-8", newline="") as file:
        theirs = list(csv.DictReader(file))
    same = ["dataset", "protocol", "setting", "buffer", "method", "metric", "value", "std"]
    expected = Counter(
        (
            *(row[name] for name in same),
            *SPLIT.get(row["backbone"], (row["backbone"], NOT_STATED)),
            row["image_size"] or NOT_STATED,
            bool(row["note"]),
            1 + row["source"].count(" and '"),
        )
        for row in theirs
    )
    found = Counter(
        (
            *(row[name] for name in same),
            row["backbone"],
            row["pretraining"],
            row["image_size"],
            bool(row["caveat"]),
            1 + row["source"].count("; "),
        )
        for row in numbers.to_dict("records")
    )
    assert found == expected
    # Notes and sources are in other words, yet as many different ones.
    assert numbers["caveat"].nunique() == len({row["note"] for row in theirs})
    assert numbers["source"].nunique() == len({row["source"] for row in theirs})


def test_every_row_says_all_that_decides_comparability(numbers: pd.DataFrame) -> None:
    assert list(numbers.columns) == [*NUMBER_COLUMNS, "file"]
    assert len(numbers) == 616
    assert dict(zip(numbers["file"], numbers["dataset"], strict=True)) == NAMES
    filled = numbers.drop(columns=["std", "caveat"])
    assert filled.map(lambda text: bool(text) and text == text.strip()).all(axis=None)
    assert set(numbers["setting"]) == {"offline", "online"}
    sizes = set(numbers["image_size"]) - {NOT_STATED}
    assert all(32 <= int(size) <= 1024 for size in sizes)


def test_values_are_percent_points(numbers: pd.DataFrame) -> None:
    values = pd.to_numeric(numbers["value"])
    assert values.between(0, 100, inclusive="neither").all()
    gains = numbers["metric"].isin(["delta_mAP", "forgetting_AP"])
    # A fraction among percent points would be the one below 1.
    assert values[~gains].min() > 5
    deviations = pd.to_numeric(numbers.loc[numbers["std"] != "", "std"])
    assert len(deviations) == 28
    assert deviations.between(0, 5).all()


def test_a_number_has_one_source_and_stands_once(numbers: pd.DataFrame) -> None:
    identity = [name for name in NUMBER_COLUMNS if name not in ("value", "std", "caveat")]
    assert not numbers.duplicated(identity).any()
    told = numbers.assign(source=numbers["source"].str.split("; ")).explode("source")
    assert not told.duplicated(identity).any()
    # Where two sources print different numbers, both rows say that they do.
    one = [name for name in identity if name != "source"]
    disputed = numbers[numbers.duplicated(one, keep=False)]
    assert len(disputed) == 8
    assert disputed["caveat"].str.contains("KBK and KAR (?:print|differ)").all()


def test_thresholds_and_definitions_belong_to_decisions_alone(numbers: pd.DataFrame) -> None:
    decisions = numbers["metric"].str.contains("F1")
    assert set(numbers.loc[~decisions, "threshold"]) == {NOT_APPLICABLE}
    assert set(numbers.loc[decisions, "threshold"]) == {NOT_STATED, "0.5"}
    cf1 = numbers["metric"].str.contains("CF1")
    assert set(numbers.loc[~cf1, "cf1"]) == {NOT_APPLICABLE}
    assert set(numbers.loc[cf1, "cf1"]) <= {NOT_STATED, "macro", "harmonic"}


def test_protocols_are_those_of_streams_that_can_be_built(numbers: pd.DataFrame) -> None:
    protocols = literature().protocols
    assert protocols.map(lambda text: text == text.strip()).all(axis=None)
    assert protocols.drop(columns="remark").map(bool).all(axis=None)
    assert set(protocols["data"]) <= set(entries("datasets"))
    keys = ["dataset", "protocol", "setting"]
    assert not protocols.duplicated(keys).any()
    known = set(numbers[keys].itertuples(index=False, name=None))
    assert set(protocols[keys].itertuples(index=False, name=None)) <= known
    # What has no stream is joint training on other terms.
    left = {protocol for _, protocol, _ in known} - set(protocols["protocol"])
    assert all(protocol.startswith(("static", "few-shot")) for protocol in left)


def test_the_files_lie_beside_the_package() -> None:
    names = {entry.name for entry in files("cml_bench.results.published").iterdir()}
    assert {"coco.csv", "protocols.csv"} <= names


@pytest.mark.parametrize(
    ("metric", "threshold", "cf1", "name"),
    [
        ("avg_mAP", "n/a", "n/a", "avg_map"),
        ("last_mAP", "n/a", "n/a", "last_map"),
        ("last_OF1", "0.5", "n/a", "last_of1@0.5"),
        ("last_CF1", "0.8", "macro", "last_cf1_macro@0.8"),
        ("last_CF1", "0.8", "harmonic", "last_cf1_harmonic@0.8"),
        ("last_CF1", "0.8", "not stated", None),
        ("last_OF1", "not stated", "n/a", None),
        ("forgetting_AP", "n/a", "n/a", None),
        ("mAP", "n/a", "n/a", None),
    ],
)
def test_a_metric_has_our_name_only_if_its_definition_is_known(
    metric: str, threshold: str, cf1: str, name: str | None
) -> None:
    assert our_name(metric, threshold, cf1) == name


def test_the_catalogue_shows_every_number_once() -> None:
    for name in NAMES:
        part = catalogue(name)
        cells = [cell for block in part.apart for cell in block.rows.drop(columns=_texts()).to_numpy().ravel() if cell]
        own = numbers_of(NAMES[name])
        printed = [f"{row.value} ± {row.std}" if row.std else row.value for row in own.itertuples()]
        assert Counter(cells) == Counter(printed)
        assert all(block.rows["source"].all() for block in part.apart)
        assert not any(block.differences for block in part.apart)


def test_an_unknown_data_set_is_told_the_known_ones() -> None:
    with pytest.raises(CmlBenchError, match=r"'cocoo' has no published numbers here; did you mean 'coco'\?"):
        numbers_of("cocoo")


def _texts() -> list[str]:
    return ["method", "buffer", "source", "caveats"]
