"""What decides whether two numbers may be ranked: how ours were made, and where published ones were not made so."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cml_bench.report.published.numbers import NOT_APPLICABLE, NOT_STATED, our_name
from cml_bench.runs.method import parse_method
from cml_bench.runs.results import read_result
from cml_bench.runs.schema import BackboneRecord, DataRecord, Result

CONDITIONS: Final = {
    "backbone": "backbone",
    "image_size": "image size",
    "pretraining": "pretraining",
    "unknown_label_rule": "unknown-label rule",
}
"""Columns of a published number that say how it was made, and what they are called."""

_STREAM: Final = ("labels", "setting", "assignment", "annotation", "test", "train_images", "test_images")
_SEEN: Final = "AN seen"
"""How criteria are titled that take every unknown label for absent (``assume_negative scope=seen``)."""
_VIT: Final = re.compile(r"vit_(tiny|small|base|large)_patch(\d+)(?![a-z])")
_F1: Final = re.compile(r"(?P<span>last|avg)_(?:of1|cf1_(?P<cf1>macro|harmonic))@(?P<threshold>[\d.]+)")


@dataclass(frozen=True)
class Circumstances:
    """How a method was run on a stream.

    Attributes:
        data: Name of the data set.
        division: How labels arrive: ``B0-C10``.
        stream: ``labels`` (how many), ``setting`` (``online`` or ``offline``), ``assignment``, ``annotation``,
            ``test``, ``train_images`` and ``test_images`` (images of the two splits).
        options: All options of the benchmark.
        class_orders: Orders in which labels arrived.
        oddities: What no published protocol does: a regime that leaves labels open, images that are missing ...
        conditions: ``CONDITIONS`` of the method.
    """

    data: str
    division: str
    stream: Mapping[str, str]
    options: Mapping[str, Any]
    class_orders: tuple[str, ...]
    oddities: tuple[str, ...]
    conditions: Mapping[str, str]


def circumstances(paths: Sequence[Path]) -> Circumstances:
    """Read how the jobs of one method on one configuration were run; what a result does not hold is "not stated".

    Args:
        paths: Result files of finished jobs: one a class order at least, as jobs differ in nothing else read here.

    Raises:
        ResultError: If one of them cannot be read.
    """
    results = [read_result(path) for path in paths]
    result = results[0]
    data, benchmark = result.data or {}, result.benchmark
    options, training = _resolved(result, "benchmark"), _resolved(result, "training")
    names = benchmark.label_names if benchmark else []
    chunk = options.get("online_chunk", NOT_STATED)
    return Circumstances(
        data=(data["train"].name if "train" in data else None) or NOT_STATED,
        division=(benchmark.protocol if benchmark else None) or NOT_STATED,
        stream={
            "labels": str(len(names)) if names else NOT_STATED,
            "setting": NOT_STATED if chunk == NOT_STATED else "online" if chunk else "offline",
            **{name: str(options.get(name, NOT_STATED)) for name in ("assignment", "annotation", "test")},
            **{f"{split}_images": _images(data.get(split)) for split in ("train", "test")},
        },
        options=options,
        class_orders=tuple(dict.fromkeys(_class_order(each) for each in results)),
        oddities=tuple(_oddities(options, training, len(result.missing))),
        conditions={
            "backbone": _architecture(result.backbone, frozen=bool(training.get("frozen"))),
            "image_size": str((result.backbone and result.backbone.image_size) or NOT_STATED),
            "pretraining": (result.backbone and result.backbone.pretraining) or NOT_STATED,
            "unknown_label_rule": _unknown_label_rule(result),
        },
    )


def protocol_difference(ours: Sequence[Circumstances], theirs: Mapping[str, str]) -> str:
    """Return in words what is different about the stream; empty if nothing is.

    Args:
        ours: Of methods on one benchmark configuration.
        theirs: A row of the published protocols.
    """
    pairs = [(name.replace("_", " "), [one.stream[name] for one in ours], theirs[name]) for name in _STREAM]
    pairs.append(("class order", [order for one in ours for order in one.class_orders], theirs["class_order"]))
    name, _, value = theirs["options"].partition("=")
    if value:
        pairs.append((name, [str(one.options.get(name, NOT_STATED)) for one in ours], value))
    different = [f"{title} {words}" for title, own, other in pairs if (words := _differs(own, other))]
    different += ["label rules of the data set: theirs not stated"] if theirs["options"] == NOT_STATED else []
    return "; ".join([*different, *dict.fromkeys(oddity for one in ours for oddity in one.oddities)])


def condition_differences(ours: Sequence[Circumstances], theirs: Mapping[str, str]) -> dict[str, str]:
    """Return each of ``CONDITIONS`` that is different, by what it is called, in words."""
    different = {
        title: _differs([one.conditions[name] for one in ours], theirs[name]) for name, title in CONDITIONS.items()
    }
    return {title: words for title, words in different.items() if words}


def metric_differences(metrics: Sequence[str], theirs: Mapping[str, str]) -> dict[str, str]:
    """Return what keeps a published number out of every column of ours, in words.

    Args:
        metrics: Columns of our table.
        theirs: A published number.
    """
    name = our_name(theirs["metric"], theirs["threshold"], theirs["cf1"])
    if name in metrics:
        return {}
    kind = {"last_OF1": "of1", "last_CF1": "cf1"}.get(theirs["metric"])
    matches = [match for metric in metrics if (match := _F1.fullmatch(metric)) and match["span"] == "last"]
    matches = [match for match in matches if kind == ("cf1" if match["cf1"] else "of1")]
    found = {}
    for column, title in (("threshold", "threshold"), ("cf1", "CF1 definition")):
        own = [match[column] for match in matches] or ["no such column"]
        # One column of ours suffices; what is not stated is in none.
        if kind and theirs[column] not in (NOT_APPLICABLE, *own):
            found[title] = f"ours {' / '.join(dict.fromkeys(own))}, theirs {theirs[column]}"
    if found:
        return found
    return {"metric": f"add --metric {name}" if name else "no metric of ours is defined like it"}


def _differs(ours: Sequence[str], theirs: str) -> str:
    """Return a difference in words; nothing if all of ours are as theirs, and stated."""
    stated = NOT_STATED not in (theirs, *ours)
    if theirs == NOT_APPLICABLE or (stated and all(_letters(own) == _letters(theirs) for own in ours)):
        return ""
    return f"ours {' / '.join(dict.fromkeys(ours))}, theirs {theirs}"


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", text.lower())


def _resolved(result: Result, part: str) -> dict[str, Any]:
    """Return the options of benchmark or training, defaults included."""
    options = result.job.resolved.get(part)
    return options if isinstance(options, dict) else {}


def _images(split: DataRecord | None) -> str:
    return str(split.counts.get("images", NOT_STATED)) if split else NOT_STATED


def _class_order(result: Result) -> str:
    """Return the order in which labels arrived."""
    options = _resolved(result, "benchmark")
    if options.get("experiences"):
        return "listed"
    asked = result.job.class_order
    return str(options.get("class_order", NOT_STATED)) if asked == "default" else asked


def _oddities(options: Mapping[str, Any], training: Mapping[str, Any], n_missing: int) -> Iterator[str]:
    """Yield what no published protocol does."""
    if options.get("regime", "full") != "full":
        yield f"ours under the regime {options['regime']}"
    if options.get("validation"):
        yield f"ours without {options['validation']:g} of the training images"
    if options.get("evaluate_on", "test") != "test":
        yield f"ours on {options['evaluate_on']} images"
    if training.get("federated"):
        yield "ours federated"
    if n_missing:
        yield f"ours without {n_missing} missing images"


def _architecture(backbone: BackboneRecord | None, frozen: bool) -> str:
    """Return a backbone, a ViT as papers write it (``vit_small_patch16_224`` as ``ViT-S/16``), and what is unusual."""
    if backbone is None:
        return NOT_STATED
    name = backbone.name.partition(".")[0]
    match = _VIT.match(name)
    written = f"ViT-{match[1][0].upper()}/{match[2]}" if match else name
    return " ".join([written, *(f"{key}={value}" for key, value in backbone.options.items()), *["frozen"] * frozen])


def _unknown_label_rule(result: Result) -> str:
    """Return what the criterion takes entries for that nobody annotated, and what a memory makes of them."""
    method, named = result.method, parse_method(result.job.method).loss or ""
    if method is None or method.loss is None:
        return NOT_STATED
    if ":" in named:
        return f"that of {method.loss}"
    rule = "absent" if _SEEN in method.loss else "left out of the loss"
    relabel = method.replay_labels or "as_stored"
    return rule if relabel == "as_stored" else f"{rule}, {relabel} labels in memory"
