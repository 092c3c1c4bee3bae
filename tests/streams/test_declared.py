"""What benchmarks declare: settings of training, rules for labels and tests, and options that reach their data sets."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cml_bench.registry import entries, load

KRT = ("overlap", "current", "seen_images")
FIELDS = ("backbone", "image_size", "augment", "epochs", "batch_size", "optimizer", "lr", "weight_decay", "schedule")
TRESNET = ("tresnet_m", 224, True, 20, 64, "adam", 1e-4, 1e-4, "one_cycle")
TRESNET_VOC = ("tresnet_m", 224, True, 20, 64, "adam", 4e-5, 1e-4, "one_cycle")
ATTRIBUTES = ("resnet50", 224, True, 20, 64, "adamw", 1e-4, 5e-4, "one_cycle")
PRS = ("resnet101", 256, False, 1, 10, "adam", 1e-4, 1e-5, "constant")
AGCN = ("resnet101", 448, False, 1, 8, "adam", 1e-4, 0.0, "constant")
DECLARED: dict[str, tuple[tuple[Any, ...], tuple[str, str, str], int | None]] = {
    **dict.fromkeys(("coco_b0_c10", "coco_b0_c5", "coco_b20_c4", "coco_b40_c10"), (TRESNET, KRT, None)),
    **dict.fromkeys(("nuswide_b11_c10", "nuswide21_b0_c3"), (TRESNET, KRT, None)),
    **dict.fromkeys(("voc_b0_c4", "voc_b10_c2", "voc_b4_c2", "voc_b5_c3"), (TRESNET_VOC, KRT, None)),
    "disjoint_coco": (("tresnet_m", 448, *TRESNET[2:]), ("disjoint", "current", "seen_images"), None),
    "disjoint_voc": (("tresnet_m", 448, *TRESNET_VOC[2:]), ("disjoint", "current", "seen_images"), None),
    **dict.fromkeys(("pa100k", "peta", "rapv1", "rapv2"), (ATTRIBUTES, ("disjoint", "current", "seen_images"), None)),
    **dict.fromkeys(("cocoseq", "nuswideseq"), (PRS, ("curated", "all", "per_experience"), 10)),
    **dict.fromkeys(("agcn_split_coco", "agcn_split_wide"), (AGCN, ("curated", "current", "seen_images"), 8)),
    "celeba": (
        ("resnet18", 224, True, 25, 64, "sgd", 0.01, 0.0, "cosine"),
        ("curated", "current", "seen_images"),
        None,
    ),
    "emotic": (("vit_base_patch16_clip_224.openai", 224, True, 10, 32, "adamw", 1e-5, 1e-4, "one_cycle"), KRT, None),
    "flair": (("resnet18", 224, True, 5, 16, "adam", 1e-4, 0.01, "one_cycle"), KRT, None),
    "mocl_coco": (("vit_small_patch16_224", 224, True, 1, 20, "adamw", 1e-4, 1e-4, "constant"), KRT, 20),
    "mocl_nuswide": (("vit_small_patch16_224", 224, False, 1, 20, "adamw", 1e-4, 1e-4, "constant"), KRT, 20),
    "mocl_voc": (("vit_small_patch16_224", 224, False, 1, 12, "adamw", 1e-4, 1e-4, "constant"), KRT, 12),
    "digits": (("test_resnet", 32, False, 3, 32, "adamw", 0.006, 0.05, "constant"), KRT, None),
    "split_coco": (("resnet50", 224, True, 20, 64, "adamw", 1e-4, 1e-4, "one_cycle"), KRT, None),
    "image_folder": (("resnet18", 224, True, 10, 64, "adamw", 1e-4, 0.01, "one_cycle"), KRT, None),
    "feature_table": (("resnet18", None, False, 10, 32, "adamw", 0.01, 1e-4, "constant"), KRT, None),
}
"""Training; assignment, annotation and test rule; images in a chunk. A number that moves here moves every table."""

OPTIONS: dict[str, dict[str, Any]] = {
    "coco_b0_c10": {"crowd": "label"},
    "feature_table": {"prefix": "p-"},
    "flair": {"grain": "fine"},
    "nuswide_b11_c10": {"layout": "flickr_id", "images": "photos"},
    "nuswideseq": {"lists": "lists", "layout": "flickr_id", "images": "photos"},
    "peta": {"partition": 3},
    "rapv1": {"partition": 3},
    "rapv2": {"partition": 3},
    "voc_b0_c4": {"difficult": "label"},
}
"""Benchmarks with options that are their data set's, and values that are no defaults."""


@pytest.mark.parametrize("name", entries("benchmarks"))
def test_what_a_benchmark_declares(name: str) -> None:
    assert name in DECLARED, "write down in this file what it declares"
    training, rules, chunk = DECLARED[name]
    kind = load("benchmarks", name)
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    assert tuple(getattr(kind.training, field) for field in FIELDS) == training
    assert tuple(defaults[field] for field in ("assignment", "annotation", "test")) == rules
    assert defaults["online_chunk"] == chunk


@pytest.mark.parametrize("name", OPTIONS)
def test_options_reach_the_data_set(name: str) -> None:
    benchmark = load("benchmarks", name)(root="x", **OPTIONS[name])
    data = benchmark.data_set()
    shared = [field.name for field in dataclasses.fields(data) if hasattr(benchmark, field.name)]
    assert OPTIONS[name].keys() - {"lists"} <= set(shared)
    assert all(getattr(data, field) == getattr(benchmark, field) for field in shared if field != "root")


@pytest.mark.parametrize(
    ("name", "options", "rule", "value"),
    [
        ("coco_b0_c10", {}, "crowd", "ignore"),
        ("cocoseq", {"lists": "lists"}, "crowd", "label"),
        ("voc_b0_c4", {}, "difficult", "drop"),
    ],
)
def test_what_is_made_of_crowds_and_difficult_objects(name: str, options: Any, rule: str, value: str) -> None:
    assert getattr(load("benchmarks", name)(root="x", **options).data_set(), rule) == value


def test_celeba_is_mammoths() -> None:
    benchmark = load("benchmarks", "celeba")(root="x")
    assert (benchmark.images, benchmark.biased, benchmark.test_group) == (4480, 0.95, 100)
