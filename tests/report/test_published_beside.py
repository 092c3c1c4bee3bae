"""Published rows are ranked with ours where nothing differs, and one difference of any kind keeps them apart."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cml_bench.report.published.comparability import metric_differences
from cml_bench.report.published.numbers import NUMBER_COLUMNS, Literature, literature
from cml_bench.report.published.rows import PublishedPart
from cml_bench.report.stored.collect import collect
from cml_bench.report.tables.beside import beside
from cml_bench.report.tables.compare import compare
from cml_bench.report.tables.table import BenchmarkTable

METRICS = ("last_map", "last_cf1_macro@0.8", "last_cf1_harmonic@0.5")

RESULT: dict[str, Any] = {
    "schema_version": 2,
    "status": "ok",
    "job": {
        "benchmark": "coco_b0_c10",
        "class_order": "default",
        "resolved": {
            "benchmark": {
                "class_order": "alphabetical",
                "experiences": None,
                "assignment": "overlap",
                "annotation": "current",
                "test": "seen_images",
                "online_chunk": None,
                "regime": "full",
                "validation": 0.0,
                "evaluate_on": "test",
                "crowd": "ignore",
            },
            "training": {"frozen": False, "federated": None},
        },
    },
    "benchmark": {
        "name": "coco_b0_c10",
        "title": "MS-COCO 2014",
        "version": 1,
        "protocol": "B0-C10",
        "label_names": [f"label {i}" for i in range(80)],
    },
    "method": {"title": "ER", "head": "linear", "loss": "BCE", "replay_labels": "as_stored"},
    "cost": {"seconds": {"training": 1.0}, "peak_memory_mb": {"training": 1.0}},
    "data": {
        "train": {"name": "coco", "fingerprint": "a", "counts": {"images": 82783}},
        "test": {"name": "coco", "fingerprint": "b", "counts": {"images": 40504}},
    },
    "missing": [],
    "backbone": {"name": "tresnet_m", "pretraining": "ImageNet-1k", "image_size": 224},
}

NUMBER = {
    "dataset": "MS-COCO 2014",
    "protocol": "B0-C10",
    "setting": "offline",
    "buffer": "1000",
    "method": "Theirs",
    "backbone": "TResNet-M",
    "image_size": "224",
    "pretraining": "ImageNet 1k",
    "unknown_label_rule": "left out of the loss",
    "metric": "last_mAP",
    "threshold": "n/a",
    "cf1": "n/a",
    "value": "55.0",
    "std": "",
    "source": "A paper, Table 1",
    "caveat": "",
}

PROTOCOL = {
    "dataset": "MS-COCO 2014",
    "protocol": "B0-C10",
    "data": "coco",
    "divisions": "B0-C5 B0-C10",
    "labels": "80",
    "setting": "offline",
    "assignment": "overlap",
    "annotation": "current",
    "test": "seen_images",
    "class_order": "alphabetical",
    "options": "crowd=ignore",
    "train_images": "82783",
    "test_images": "40504",
    "remark": "",
}


def result(method: str, seed: int, value: float, **changes: Any) -> dict[str, Any]:
    """Return a result with the same value for all metrics; ``changes`` are of its parts, ``job__class_order=...``."""
    document = copy.deepcopy(RESULT)
    document["key"] = f"{method}-{seed}-{changes.get('job__class_order', '')}"
    document["job"] |= {"method": method, "seed": seed}
    document["metrics"] = {"summary": dict.fromkeys(METRICS, value)}
    for path, changed in changes.items():
        *parents, last = path.split("__")
        place = document
        for parent in parents:
            place = place[parent]
        place[last] = changed
    return document


def table_of(
    folder: Path, *documents: dict[str, Any], metrics: tuple[str, ...] = METRICS
) -> tuple[BenchmarkTable, Any]:
    """Write results; return their one table and the frame."""
    for number, document in enumerate(documents):
        (folder / f"{number}.json").write_text(json.dumps(document))
    frame = collect(folder)
    (table,) = compare(frame, metrics).benchmarks
    return table, frame


def literature_of(*numbers: dict[str, str], **protocol: str) -> Literature:
    """Return what is published: ``NUMBER`` with changes, one each, under ``PROTOCOL`` with changes."""
    rows = pd.DataFrame([{**NUMBER, **number} for number in numbers], columns=NUMBER_COLUMNS)
    return Literature(rows.assign(file="coco"), pd.DataFrame([{**PROTOCOL, **protocol}]))


def part_of(folder: Path, known: Literature, *documents: dict[str, Any]) -> PublishedPart:
    """Return what is published beside results; by default beside two seeds of ER."""
    documents = documents or (result("er", 0, 0.5), result("er", 1, 0.6))
    return beside(*table_of(folder, *documents), known)


CF1 = {"metric": "last_CF1", "threshold": "0.8", "cf1": "macro", "value": "30.0"}


def test_where_nothing_differs_rows_are_ranked_with_ours(tmp_path: Path) -> None:
    known = literature_of({"value": "54.0"}, {"method": "Better", "std": "0.4", "value": "56.1"}, CF1)
    part = part_of(tmp_path, known)
    (block,) = part.ranked
    assert part.apart == ()
    assert block.heading == (
        "B0-C10, offline: backbone TResNet-M, image size 224, pretraining ImageNet 1k, "
        "unknown-label rule left out of the loss"
    )
    assert block.rows.to_dict("list") == {
        "method": ["Better", "er", "Theirs"],
        "buffer": ["1000", "", "1000"],
        "last mAP": ["56.1 ± 0.4", "55.0 ± 7.1", "54.0"],
        "last CF1 macro @0.8": ["", "55.0 ± 7.1", "30.0"],
        "source": ["1", "ours", "1"],
        "caveats": ["", "", ""],
    }
    assert block.sources == {"1": "A paper, Table 1"}
    assert part.numbers["ranked"].all()
    assert part.summary == (
        "Published on this data set and protocol: 3 numbers, 3 ranked with ours, 0 apart because they were made or "
        "counted differently.",
        "Ours: er: backbone tresnet_m, image size 224, pretraining ImageNet-1k, unknown-label rule left out of the "
        "loss, class order alphabetical",
    )


OURS = [
    ({"backbone__name": "tresnet_l"}, "backbone: ours tresnet_l, theirs TResNet-M"),
    ({"backbone__options": {"output_stride": 8}}, "backbone: ours tresnet_m output_stride=8, theirs TResNet-M"),
    ({"job__resolved__training__frozen": True}, "backbone: ours tresnet_m frozen, theirs TResNet-M"),
    ({"backbone__image_size": 448}, "image size: ours 448, theirs 224"),
    ({"backbone__pretraining": "none"}, "pretraining: ours none, theirs ImageNet 1k"),
    ({"method__loss": "AN seen (ASL)"}, "unknown-label rule: ours absent, theirs left out of the loss"),
    ({"method__loss": "CLML (AN seen (BCE))"}, "unknown-label rule: ours absent, theirs left out of the loss"),
    (
        {"method__replay_labels": "oracle"},
        "unknown-label rule: ours left out of the loss, oracle labels in memory, theirs left out of the loss",
    ),
    (
        {"job__method": "er loss=./own.py:Own", "method__loss": "Own"},
        "unknown-label rule: ours that of Own, theirs left",
    ),
    ({"data__train__counts": {"images": 152}}, "protocol: train images ours 152, theirs 82783"),
    ({"data__test__counts": {"images": 75}}, "protocol: test images ours 75, theirs 40504"),
    ({"benchmark__label_names": ["cat", "dog"]}, "protocol: labels ours 2, theirs 80"),
    ({"missing": ["17"]}, "protocol: ours without 1 missing images"),
    ({"job__class_order": "random:1"}, "protocol: class order ours random:1, theirs alphabetical"),
    ({"job__resolved__benchmark__experiences": [["cat"]]}, "protocol: class order ours listed, theirs alphabetical"),
    ({"job__resolved__benchmark__annotation": "seen"}, "protocol: annotation ours seen, theirs current"),
    ({"job__resolved__benchmark__test": "all_images"}, "protocol: test ours all_images, theirs seen_images"),
    ({"job__resolved__benchmark__crowd": "label"}, "protocol: crowd ours label, theirs ignore"),
    ({"job__resolved__benchmark__regime": "single_positive"}, "protocol: ours under the regime single_positive"),
    ({"job__resolved__benchmark__validation": 0.2}, "protocol: ours without 0.2 of the training images"),
    ({"job__resolved__benchmark__evaluate_on": "valid"}, "protocol: ours on valid images"),
    ({"job__resolved__training__federated": "clients=5"}, "protocol: ours federated"),
    ({"backbone": None}, "backbone: ours not stated, theirs TResNet-M"),
]


@pytest.mark.parametrize(("change", "difference"), OURS)
def test_one_difference_of_ours_keeps_a_row_apart(tmp_path: Path, change: dict[str, Any], difference: str) -> None:
    part = part_of(tmp_path, literature_of({}), result("er", 0, 0.5, **change))
    (block,) = part.apart
    assert part.ranked == ()
    assert block.differences[0].startswith(difference)
    assert "1 numbers, none ranked with ours" in part.summary[0]
    # A backbone that is not known takes all that is said of it along; all else differs in one thing.
    assert len(block.differences) == (3 if change == {"backbone": None} else 1)


@pytest.mark.parametrize("column", ["backbone", "image_size", "pretraining", "unknown_label_rule"])
@pytest.mark.parametrize("value", ["another", "not stated"])
def test_one_difference_of_theirs_keeps_a_row_apart(tmp_path: Path, column: str, value: str) -> None:
    part = part_of(tmp_path, literature_of({column: value}, {"method": "Same"}))
    assert [list(block.rows["method"]) for block in part.ranked] == [["er", "Same"]]
    (block,) = part.apart
    assert list(block.rows["method"]) == ["Theirs"]
    (line,) = block.differences
    assert line.startswith(f"{column.replace('_', ' ').replace('unknown label', 'unknown-label')}: ours ")
    assert line.endswith(f", theirs {value}")


@pytest.mark.parametrize(
    "column", ["labels", "annotation", "test", "class_order", "options", "train_images", "test_images", "assignment"]
)
def test_a_protocol_of_which_something_is_not_stated_is_not_ours(tmp_path: Path, column: str) -> None:
    part = part_of(tmp_path, literature_of({}, **{column: "not stated"}))
    (block,) = part.apart
    (line,) = block.differences
    assert line.startswith("protocol: ")
    assert line.endswith("theirs not stated")


def test_what_does_not_arise_does_not_differ(tmp_path: Path) -> None:
    known = literature_of({"unknown_label_rule": "n/a"}, class_order="n/a", options="n/a")
    assert part_of(tmp_path, known, result("er", 0, 0.5, job__class_order="random:3")).apart == ()


@pytest.mark.parametrize(
    ("theirs", "differences"),
    [
        ({"metric": "last_mAP"}, {}),
        ({"metric": "avg_mAP"}, {"metric": "add --metric avg_map"}),
        (CF1, {}),
        ({**CF1, "cf1": "harmonic", "threshold": "0.5"}, {}),
        # Each is a column of ours, but not both in one.
        ({**CF1, "cf1": "harmonic"}, {"metric": "add --metric last_cf1_harmonic@0.8"}),
        ({**CF1, "threshold": "0.6"}, {"threshold": "ours 0.8 / 0.5, theirs 0.6"}),
        ({**CF1, "cf1": "not stated"}, {"CF1 definition": "ours macro / harmonic, theirs not stated"}),
        (
            {**CF1, "cf1": "not stated", "threshold": "not stated"},
            {
                "threshold": "ours 0.8 / 0.5, theirs not stated",
                "CF1 definition": "ours macro / harmonic, theirs not stated",
            },
        ),
        ({"metric": "last_OF1", "threshold": "0.5"}, {"threshold": "ours no such column, theirs 0.5"}),
        ({"metric": "forgetting_AP"}, {"metric": "no metric of ours is defined like it"}),
    ],
)
def test_a_number_is_ranked_in_a_column_of_its_own_definition_only(
    theirs: dict[str, str], differences: dict[str, str]
) -> None:
    assert metric_differences(METRICS, {**NUMBER, **theirs}) == differences


def test_numbers_of_one_row_part_where_only_some_are_defined_like_ours(tmp_path: Path) -> None:
    part = part_of(tmp_path, literature_of({}, {**CF1, "threshold": "not stated"}))
    (ranked,), (apart,) = part.ranked, part.apart
    assert list(ranked.rows["last mAP"]) == ["55.0 ± 7.1", "55.0"]
    assert "last CF1 macro @0.8" not in ranked.rows
    assert list(apart.rows.columns) == ["method", "buffer", "last CF1", "source", "caveats"]
    assert apart.differences == ("threshold (last CF1): ours 0.8 / 0.5, theirs not stated",)


def test_rows_are_ranked_with_those_of_ours_that_were_run_like_them(tmp_path: Path) -> None:
    absent = {"method__loss": "AN seen (BCE)"}
    documents = [result("er", 0, 0.5), result("naive loss=assume_negative loss.scope=seen", 0, 0.4, **absent)]
    known = literature_of({}, {"method": "KRT", "unknown_label_rule": "absent"}, {"method": "ViT", "backbone": "ViT"})
    part = part_of(tmp_path, known, *documents)
    assert [list(block.rows["method"]) for block in part.ranked] == [
        ["Theirs", "er"],
        ["KRT", "naive loss=assume_negative loss.scope=seen"],
    ]
    # It is as far from both; the words say how all of ours were run.
    (apart,) = part.apart
    assert apart.differences == ("backbone: ours tresnet_m, theirs ViT",)
    assert sum(line.startswith("Ours: ") for line in part.summary) == 2


def test_several_class_orders_are_another_protocol_than_one(tmp_path: Path) -> None:
    documents = [result("er", 0, 0.5), result("er", 0, 0.5, job__class_order="random:1")]
    (block,) = part_of(tmp_path, literature_of({}), *documents).apart
    assert block.differences == ("protocol: class order ours alphabetical / random:1, theirs alphabetical",)


def test_papers_name_vision_transformers_in_another_way(tmp_path: Path) -> None:
    known = literature_of({"backbone": "ViT-S/16"})
    assert part_of(tmp_path, known, result("er", 0, 0.5, backbone__name="vit_small_patch16_224.dino")).apart == ()
    other = result("er", 0, 0.5, backbone__name="vit_small_patch14_dinov2")
    assert part_of(tmp_path, known, other).apart[0].differences == ("backbone: ours ViT-S/14, theirs ViT-S/16",)


def test_other_data_or_another_stream_says_what_there_is(tmp_path: Path) -> None:
    known = literature_of({})
    digits = result("er", 0, 0.5, data__train__name="digits")
    assert part_of(tmp_path, known, digits).summary == ("No published numbers on digits; there are some on coco.",)
    for change, stream in (
        ({"benchmark__protocol": "B0-C3"}, "B0-C3, offline, assignment overlap"),
        ({"job__resolved__benchmark__online_chunk": 20}, "B0-C10, online, assignment overlap"),
        ({"job__resolved__benchmark__assignment": "disjoint"}, "B0-C10, offline, assignment disjoint"),
    ):
        part = part_of(tmp_path, known, result("er", 0, 0.5, **change))
        assert part.summary == (f"No published numbers on coco for {stream}; there are some for B0-C10.",)
        assert part.numbers.empty
    failed = {**result("er", 0, 0.5), "status": "failed", "error": "NaN loss", "metrics": None}
    assert part_of(tmp_path, known, failed).summary[0].startswith("No job has finished")


def test_none_of_the_tracked_numbers_is_ranked_even_with_the_very_run(tmp_path: Path) -> None:
    everything = ("last_map", "avg_map", "last_cf1_macro@0.8", "last_of1@0.8")
    document = result("er", 0, 0.5)
    document["metrics"]["summary"] = dict.fromkeys(everything, 0.5)
    part = beside(*table_of(tmp_path, document, metrics=everything))
    numbers = literature().numbers
    there = numbers[
        (numbers["dataset"] == "MS-COCO 2014") & numbers["protocol"].isin(["B0-C10", "joint (upper bound)"])
    ]
    assert len(part.numbers) == len(there) == 190
    assert part.ranked == ()
    assert part.numbers["differs"].str.contains("pretraining: ours ImageNet-1k, theirs not stated").all()
    assert not part.numbers["differs"].str.contains("train images|class order").any()
    assert part.numbers["source"].all()
