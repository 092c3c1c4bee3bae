"""The stream builder: a source and a protocol become a label-incremental Avalanche benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from avalanche.benchmarks import DatasetExperience
from avalanche.benchmarks.scenarios.generic_scenario import CLStream, EagerCLStream
from avalanche.benchmarks.scenarios.online import split_online_stream

from cml_bench.data.inputs import ImageInputs, Inputs, TensorInputs
from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError, suggest
from cml_bench.labels import OUT_OF_SCOPE, unicode_twins
from cml_bench.regimes.chain import parse_regimes
from cml_bench.regimes.regime import Regime
from cml_bench.streams.annotating import annotate, images_reached
from cml_bench.streams.dataset import LabelMatrix, MultiLabelDataset
from cml_bench.streams.dealing import (
    Assignment,
    Curated,
    Rows,
    TestRule,
    deal,
    hold_out,
    rows_of,
    shown,
    tested,
)
from cml_bench.streams.orders import class_order as resolve_class_order
from cml_bench.streams.orders import divide, protocol_name, refuse_beside_lists
from cml_bench.streams.scenario import MultiLabelScenario, Split, n_seen_before
from cml_bench.streams.timeline import set_label_attributes, with_label_timeline

Annotation = Literal["current", "seen", "all"]
_DIVISION = {"class_order": "published", "base": 0, "increment": 1}
"""What says nothing beside explicit lists: the defaults below."""


def label_incremental_benchmark(
    train_source: Source,
    test_source: Source,
    *,
    class_order: str | Sequence[str] = "published",
    base: int = 0,
    increment: int = 1,
    experiences: Sequence[Sequence[str]] | None = None,
    assignment: Assignment = "overlap",
    curated: Curated | None = None,
    annotation: Annotation = "current",
    regime: str | Sequence[Regime] = "full",
    test: TestRule = "seen_images",
    validation: float = 0.0,
    online_chunk: int | None = None,
    first_experiences: int | None = None,
    seed: int = 0,
    train_inputs: Inputs | None = None,
    test_inputs: Inputs | None = None,
) -> MultiLabelScenario:
    """Build a label-incremental benchmark.

    Each label arrives exactly once, and the union of the experiences' labels is the whole vocabulary unless
    ``first_experiences`` ends the stream early. The labels of experience t have width ``n_seen[t]``: nothing tells how
    many are still to come.

    Args:
        train_source: Training images and true labels.
        test_source: Test images and true labels, same label names.
        class_order: ``"published"``, ``"alphabetical"``, ``"frequency"``, ``"random:SEED"`` or the names.
        base: Labels of the first experience; 0 for as many as later ones.
        increment: Labels of each later experience; the last one keeps the remainder.
        experiences: Explicit lists of label names, in place of ``class_order``, ``base`` and ``increment``.
        assignment: ``"overlap"``: an image is in every experience one of whose labels it shows. ``"disjoint"``: in
            exactly one of those, drawn uniformly. ``"curated"``: in those that list it.
        curated: Published label and image lists, in place of ``experiences`` and of drawing images.
        annotation: What the annotator marks. ``"current"``: the experience's labels. ``"seen"``: also the earlier ones.
            ``"all"``: as ``"seen"``, and labels that arrive later count as annotated from the start, so a stored image
            gains them.
        regime: What the annotator marks of the labels that are asked for: ``"full"`` for everything, names with options
            as in ``"long_tail + missing_positives rate=0.4"``, or the regimes themselves, applied in order.
        test: Images tested after t: ``"seen_images"`` (showing a seen label), ``"all_images"``, ``"per_experience"``
            (showing a label of that experience). Curated test lists say so themselves.
        validation: Fraction of training images held out, by image, as ``valid_stream`` (fully labelled).
        online_chunk: Split training experiences into chunks of this many images (single pass).
        first_experiences: End the stream after this many experiences, which are those of the whole stream; for choosing
            hyper-parameters before later labels are known.
        seed: Draws the disjoint assignment, the held-out images, the regimes' answers and the online order.
        train_inputs: What the model reads of training images; by default float images in [0, 1], or the source's
            features.
        test_inputs: The same for test images.

    Returns:
        A scenario with ``train_stream``, ``test_stream`` and, if asked for, ``valid_stream``.

    Raises:
        CmlBenchError: If a source is none, names differ between the splits, labels are no partition, an option is
            unknown or contradicts another, or an experience has no image.
    """
    for name, source in (("train_source", train_source), ("test_source", test_source)):
        if not isinstance(source, Source):
            raise CmlBenchError(
                f"{name} is a {type(source).__name__}, which has no label names and image ids: give a "
                "cml_bench.Source, such as the .source(split, role) of a data set, or one that holds your tensors, as "
                "docs/tutorial/own_data_set.md shows"
            )
    _check_option("assignment", assignment, Assignment)
    _check_option("annotation", annotation, Annotation)
    _check_option("test", test, TestRule)
    if not 0.0 <= validation < 1.0:
        raise CmlBenchError(f"validation={validation} is no fraction: give a number in [0, 1)")
    if online_chunk is not None and online_chunk < 1:
        raise CmlBenchError(f"online_chunk={online_chunk} is no number of images: give at least 1")
    if train_source.label_names != test_source.label_names:
        raise CmlBenchError(_different_labels(train_source.label_names, test_source.label_names))
    if not train_source.label_names:
        raise CmlBenchError(f"{train_source.name} names no label: there is nothing to divide into experiences")
    if (curated is not None) != (assignment == "curated"):
        raise CmlBenchError(f"assignment={assignment} does not go with curated lists: give both or neither")
    if curated is not None:
        experiences = curated.labels
    if experiences is not None:
        division = {"class_order": class_order, "base": base, "increment": increment}
        refuse_beside_lists({name: value for name, value in division.items() if value != _DIVISION[name]})
        names = resolve_class_order([name for group in experiences for name in group], train_source)
        sizes, step = tuple(len(group) for group in experiences), None
    else:
        names = resolve_class_order(class_order, train_source)
        sizes, step = divide(len(names), base, increment), increment
    n_seen = tuple(int(n) for n in np.cumsum(sizes))
    if first_experiences is not None and not 1 <= first_experiences <= len(n_seen):
        raise CmlBenchError(
            f"first_experiences={first_experiences} of {len(n_seen)} experiences: give 1 to {len(n_seen)}"
        )
    position = {name: i for i, name in enumerate(train_source.label_names)}
    columns = np.array([position[name] for name in names], dtype=np.intp)

    regimes = parse_regimes(regime) if isinstance(regime, str) else tuple(regime)
    held_out, learnt = hold_out(len(train_source), validation, np.random.default_rng([seed, 1]))
    learnt = images_reached(regimes, train_source, learnt, seed)
    shows = shown(train_source, columns, n_seen)
    if curated is not None:
        dealt = rows_of(train_source, curated.train)
        valid_rows = _held_out_lists(dealt, held_out, test)
        dealt = tuple(np.intersect1d(rows, learnt, assume_unique=True) for rows in dealt)
        test_rows = rows_of(test_source, curated.test)
    else:
        dealt = deal(shows, learnt, assignment, np.random.default_rng([seed, 2]))
        valid_rows = tested(shows, held_out, test)
        test_rows = tested(shown(test_source, columns, n_seen), np.arange(len(test_source)), test)
    _check_filled(dealt, names, n_seen)

    asked = [columns] if annotation == "all" else np.split(columns, n_seen[:-1])
    annotated = annotate(regimes, train_source, asked, seed)
    # Only now: how images are dealt and what is marked of them depends on the whole stream.
    n_seen = n_seen[:first_experiences]
    names, columns = names[: n_seen[-1]], columns[: n_seen[-1]]
    dealt, valid_rows, test_rows = (rows[: len(n_seen)] for rows in (dealt, valid_rows, test_rows))
    train_inputs = train_inputs or _default_inputs(train_source)
    test_inputs = test_inputs or _default_inputs(test_source)
    splits = {
        "train": Split(train_source, columns, train_inputs, dealt, annotated),
        "test": Split(test_source, columns, test_inputs, test_rows, test_source.labels),
    }
    if validation:
        splits["valid"] = Split(train_source, columns, train_inputs, valid_rows, train_source.labels)

    record = torch.from_numpy(annotated[:, columns]) if annotation == "all" else None
    streams: list[CLStream[Any]] = []
    for name, split in splits.items():
        hide_old = name == "train" and annotation == "current"
        # What was marked of training images says nothing of others.
        marked = record if name == "train" else None
        parts = [_experience(split, names, n_seen, t, hide_old=hide_old, record=marked) for t in range(len(n_seen))]
        stream: CLStream[Any] = EagerCLStream(name, parts)
        if name == "train" and online_chunk:
            chunks = split_online_stream(stream, online_chunk, seed=seed, access_task_boundaries=True)
            chunks.name = "train"
            stream = with_label_timeline(chunks)
        streams.append(stream)
    return MultiLabelScenario(
        streams,
        label_names=names,
        n_seen=n_seen,
        protocol=protocol_name(sizes[: len(n_seen)], step),
        test_rule=test,
        splits=splits,
        record=record,
    )


def _different_labels(train: Sequence[str], test: Sequence[str]) -> str:
    for here, there, one, other in ((train, test, "training", "test"), (test, train, "test", "training")):
        alone = [name for name in here if name not in there]
        if alone and (twins := unicode_twins([alone[0], *there])):
            return f"label names {twins} of the two splits look alike and differ in their code points: spell them alike"
        if alone:
            return (
                f"label {alone[0]!r:.60} of the {one} data is none of the {other} data, whose labels are "
                f"{', '.join(there):.200}: spell labels alike in both"
            )
    return f"the test data has the training data's labels in another order ({', '.join(test):.200}): take one for both"


def _check_option(name: str, value: str, options: Any) -> None:
    if value not in get_args(options):
        raise CmlBenchError(f"{name}={value!r} is unknown: {suggest(value, get_args(options))}")


def _default_inputs(source: Source) -> Inputs:
    return ImageInputs(source, _to_float) if source.features is None else TensorInputs(source.features)


def _to_float(image: torch.Tensor) -> torch.Tensor:
    return image.to(torch.float32) / 255


def _held_out_lists(lists: Sequence[Rows], held_out: Rows, rule: TestRule) -> tuple[Rows, ...]:
    """Return the held-out images of curated lists as the test rule groups them."""
    if rule == "all_images":
        return tuple(held_out for _ in lists)
    own = [np.intersect1d(rows, held_out, assume_unique=True) for rows in lists]
    if rule == "per_experience":
        return tuple(own)
    return tuple(np.unique(np.concatenate(own[: t + 1])) for t in range(len(own)))


def _check_filled(dealt: Sequence[Rows], names: Sequence[str], n_seen: Sequence[int]) -> None:
    for t, (rows, low, high) in enumerate(zip(dealt, n_seen_before(n_seen), n_seen, strict=True)):
        if not len(rows):
            labels = ", ".join(names[low:high])
            raise CmlBenchError(
                f"experience {t + 1} has no image: no training image is left for its labels ({labels}); "
                "put them together with labels that have images"
            )


def _experience(
    split: Split,
    names: tuple[str, ...],
    n_seen: Sequence[int],
    t: int,
    *,
    hide_old: bool,
    record: torch.Tensor | None,
) -> DatasetExperience:
    """Return experience ``t``; with ``hide_old``, nobody asks for the earlier labels."""
    rows, first_new, width = split.experiences[t], n_seen_before(n_seen)[t], n_seen[t]

    def labels() -> torch.Tensor:
        made = torch.from_numpy(split.annotated_labels(rows, width))
        if hide_old:
            made[:, :first_new] = OUT_OF_SCOPE
        return made

    matrix = LabelMatrix.deferred(labels, len(rows), names[:width], first_new, record)
    dataset = MultiLabelDataset.from_rows(split.inputs, torch.from_numpy(rows), matrix)
    return set_label_attributes(DatasetExperience(dataset=dataset))
