"""The stream builder: a source and a protocol become a label-incremental Avalanche benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from avalanche.benchmarks import CLScenario, DatasetExperience
from avalanche.benchmarks.scenarios.generic_scenario import CLStream, EagerCLStream
from avalanche.benchmarks.scenarios.online import split_online_stream

from cml_bench.data.inputs import ImageInputs, Inputs
from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError, suggest
from cml_bench.labels import OUT_OF_SCOPE, PRESENT, LabelArray
from cml_bench.streams.dataset import LabelMatrix, MultiLabelDataset
from cml_bench.streams.orders import class_order as resolve_class_order
from cml_bench.streams.orders import divide, protocol_name
from cml_bench.streams.timeline import set_label_attributes, with_label_timeline

Assignment = Literal["overlap", "disjoint"]
Annotation = Literal["current", "seen", "all"]
TestRule = Literal["seen_images", "all_images", "per_experience"]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Split:
    """One split in arrival order: its truth, its inputs and the rows of every experience."""

    source: Source
    truth: LabelArray
    inputs: Inputs
    experiences: tuple[Rows, ...]

    @property
    def rows(self) -> Rows:
        """Rows that occur in some experience, ascending."""
        return np.unique(np.concatenate(self.experiences))


class MultiLabelScenario(CLScenario):
    """An Avalanche benchmark whose labels arrive over time.

    Strategies see experiences, never this object: it knows the future.

    Attributes:
        label_names: All names in arrival order.
        n_seen: Labels seen after each experience.
        protocol: The field's name of the division, e.g. ``"B0-C10"``.
        test_rule: Which images are tested (``metrics.predictions.TEST_RULES``).
        splits: ``"train"``, ``"test"`` and, with a validation split, ``"valid"``.
        unassigned: Per split, how many images are in no experience (they show no label, or are held out).
    """

    def __init__(
        self,
        streams: Sequence[CLStream[Any]],
        *,
        label_names: tuple[str, ...],
        n_seen: tuple[int, ...],
        test_rule: TestRule,
        splits: dict[str, Split],
        record: torch.Tensor | None,
    ) -> None:
        super().__init__(streams)
        for stream in streams:
            stream.benchmark = self
        self.label_names = label_names
        self.n_seen = n_seen
        self.protocol = protocol_name(np.diff(n_seen, prepend=0).tolist())
        self.test_rule = test_rule
        self.splits = splits
        self._record = record
        self.unassigned = {name: len(split.source) - len(split.rows) for name, split in splits.items()}

    def evaluation_experience(self, experience: int, split: str = "test") -> DatasetExperience:
        """Return every image that some experience of the split tests, labelled for the labels seen by ``experience``.

        Predictions are recorded on all of them each time, so that what was tested can be looked at in another way
        without a new run. Images that no experience tests are left out (without a label, save under ``all_images``).
        """
        part = self.splits[split]
        dataset = _dataset(part, part.rows, self.label_names, self.n_seen, experience)
        result = DatasetExperience(dataset=dataset, current_experience=experience)
        result.origin_stream = self.streams[split]
        return set_label_attributes(result)

    def oracle(self, dataset: MultiLabelDataset, names: tuple[str, ...]) -> MultiLabelDataset:
        """Return a training dataset with the full truth for ``names`` in place of what was annotated.

        Only for upper bounds and for ``relabel="oracle"``; results made with it say so.
        """
        truth = torch.from_numpy(self.splits["train"].truth)
        rows = dataset.sample_ids.data
        matrix = LabelMatrix(truth[rows, : len(names)], names, dataset.labels.first_new, self._record)
        return MultiLabelDataset.from_rows(dataset.inputs, rows, matrix)


def label_incremental_benchmark(
    train_source: Source,
    test_source: Source,
    *,
    class_order: str | Sequence[str] = "published",
    base: int = 0,
    increment: int = 1,
    experiences: Sequence[Sequence[str]] | None = None,
    assignment: Assignment = "overlap",
    annotation: Annotation = "current",
    test: TestRule = "seen_images",
    validation: float = 0.0,
    online_chunk: int | None = None,
    seed: int = 0,
    train_inputs: Inputs | None = None,
    test_inputs: Inputs | None = None,
) -> MultiLabelScenario:
    """Build a label-incremental benchmark.

    The union of the experiences' labels is always the whole vocabulary, each label arriving exactly once. The labels of
    experience t have width ``n_seen[t]``: nothing tells how many are still to come.

    Args:
        train_source: Training images and true labels.
        test_source: Test images and true labels, same label names.
        class_order: ``"published"``, ``"alphabetical"``, ``"frequency"``, ``"random:SEED"`` or the names.
        base: Labels of the first experience; 0 for as many as later ones.
        increment: Labels of each later experience; the last one keeps the remainder.
        experiences: Explicit lists of label names, in place of ``class_order``, ``base`` and ``increment``.
        assignment: ``"overlap"``: an image is in every experience one of whose labels it shows. ``"disjoint"``: in
            exactly one of those, drawn uniformly.
        annotation: What the annotator marks. ``"current"``: the experience's labels. ``"seen"``: also the earlier ones.
            ``"all"``: as ``"seen"``, and labels that arrive later count as annotated from the start, so a stored image
            gains them.
        test: Images tested after t: ``"seen_images"`` (showing a seen label), ``"all_images"``, ``"per_experience"``
            (showing a label of that experience).
        validation: Fraction of training images held out, by image, as ``valid_stream`` (fully labelled).
        online_chunk: Split training experiences into chunks of this many images (single pass).
        seed: Draws the disjoint assignment, the held-out images and the online order.
        train_inputs: What the model reads of training images; by default float images in [0, 1].
        test_inputs: The same for test images.

    Returns:
        A scenario with ``train_stream``, ``test_stream`` and, if asked for, ``valid_stream``.

    Raises:
        CmlBenchError: If names differ between the splits, labels are no partition, an option is unknown, or an
            experience has no image.
    """
    _check_option("assignment", assignment, Assignment)
    _check_option("annotation", annotation, Annotation)
    _check_option("test", test, TestRule)
    if not 0.0 <= validation < 1.0:
        raise CmlBenchError(f"validation={validation} is no fraction: give a number in [0, 1)")
    if online_chunk is not None and online_chunk < 1:
        raise CmlBenchError(f"online_chunk={online_chunk} is no number of images: give at least 1")
    if train_source.label_names != test_source.label_names:
        raise CmlBenchError("the training and test sources have different label names: use two splits of one data set")
    if experiences is not None:
        names = resolve_class_order([name for group in experiences for name in group], train_source)
        sizes = tuple(len(group) for group in experiences)
    else:
        names = resolve_class_order(class_order, train_source)
        sizes = divide(len(names), base, increment)
    n_seen = tuple(int(n) for n in np.cumsum(sizes))

    truth = _in_order(train_source, names)
    held_out, learnt = _hold_out(len(train_source), validation, np.random.default_rng([seed, 1]))
    dealt = _deal(truth, n_seen, learnt, assignment, np.random.default_rng([seed, 2]))
    _check_filled(dealt, names, n_seen)
    train_inputs = train_inputs or ImageInputs(train_source, _to_float)
    splits = {"train": Split(train_source, truth, train_inputs, dealt)}
    test_truth = _in_order(test_source, names)
    test_rows = _tested(test_truth, n_seen, np.arange(len(test_source)), test)
    splits["test"] = Split(test_source, test_truth, test_inputs or ImageInputs(test_source, _to_float), test_rows)
    if validation:
        splits["valid"] = Split(train_source, truth, train_inputs, _tested(truth, n_seen, held_out, test))

    record = torch.from_numpy(truth) if annotation == "all" else None
    streams: list[CLStream[Any]] = []
    for name, split in splits.items():
        current = name == "train" and annotation == "current"
        hidden = n_seen_before(n_seen) if current else (0,) * len(n_seen)
        parts = [
            _dataset(split, rows, names, n_seen, t, hidden=hidden[t], record=record)
            for t, rows in enumerate(split.experiences)
        ]
        made = [set_label_attributes(DatasetExperience(dataset=part)) for part in parts]
        stream: CLStream[Any] = EagerCLStream(name, made)
        if name == "train" and online_chunk:
            chunks = split_online_stream(stream, online_chunk, seed=seed, access_task_boundaries=True)
            chunks.name = "train"
            stream = with_label_timeline(chunks)
        streams.append(stream)
    return MultiLabelScenario(streams, label_names=names, n_seen=n_seen, test_rule=test, splits=splits, record=record)


def n_seen_before(n_seen: Sequence[int]) -> tuple[int, ...]:
    """Return the number of labels seen before each experience."""
    return (0, *n_seen[:-1])


def _check_option(name: str, value: str, options: Any) -> None:
    if value not in get_args(options):
        raise CmlBenchError(f"{name}={value!r} is unknown: {suggest(value, get_args(options))}")


def _to_float(image: torch.Tensor) -> torch.Tensor:
    return image.to(torch.float32) / 255


def _in_order(source: Source, names: tuple[str, ...]) -> LabelArray:
    """Return the truth with columns in arrival order."""
    column = {name: i for i, name in enumerate(source.label_names)}
    return np.ascontiguousarray(source.labels[:, [column[name] for name in names]])


def _hold_out(count: int, fraction: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Return the rows held out for validation and the rows left, both ascending."""
    shuffled = rng.permutation(count)
    cut = round(fraction * count)
    return np.sort(shuffled[:cut]), np.sort(shuffled[cut:])


def _shows(truth: LabelArray, n_seen: Sequence[int], rows: Rows) -> npt.NDArray[np.bool_]:
    """Return the (rows, T) mask of images that show a label of each experience."""
    pairs = zip(n_seen_before(n_seen), n_seen, strict=True)
    return np.stack([(truth[rows, low:high] == PRESENT).any(axis=1) for low, high in pairs], axis=1)


def _deal(
    truth: LabelArray, n_seen: Sequence[int], rows: Rows, assignment: Assignment, rng: np.random.Generator
) -> tuple[Rows, ...]:
    """Return the training rows of each experience."""
    eligible = _shows(truth, n_seen, rows)
    if assignment == "disjoint":
        # The largest of one uniform draw per eligible experience: each is equally likely to be chosen.
        chosen = np.where(eligible, rng.random(eligible.shape), -1.0).argmax(axis=1)
        eligible &= chosen[:, None] == np.arange(len(n_seen))
    return tuple(rows[column] for column in eligible.T)


def _tested(truth: LabelArray, n_seen: Sequence[int], rows: Rows, rule: TestRule) -> tuple[Rows, ...]:
    """Return the rows tested with each experience."""
    if rule == "all_images":
        return tuple(rows for _ in n_seen)
    shows = _shows(truth, n_seen, rows)
    if rule == "seen_images":
        shows = np.logical_or.accumulate(shows, axis=1)
    return tuple(rows[column] for column in shows.T)


def _check_filled(dealt: Sequence[Rows], names: Sequence[str], n_seen: Sequence[int]) -> None:
    for t, (rows, low, high) in enumerate(zip(dealt, n_seen_before(n_seen), n_seen, strict=True)):
        if not len(rows):
            labels = ", ".join(names[low:high])
            raise CmlBenchError(
                f"experience {t} has no image: no training image is left for its labels ({labels}); "
                "put them together with labels that have images"
            )


def _dataset(
    split: Split,
    rows: Rows,
    names: tuple[str, ...],
    n_seen: Sequence[int],
    experience: int,
    *,
    hidden: int = 0,
    record: torch.Tensor | None = None,
) -> MultiLabelDataset:
    """Return the rows as experience ``experience`` labels them; the first ``hidden`` columns are not annotated."""
    width = n_seen[experience]
    labels = torch.from_numpy(split.truth[rows, :width])
    labels[:, :hidden] = OUT_OF_SCOPE
    matrix = LabelMatrix(labels, names[:width], n_seen_before(n_seen)[experience], record)
    return MultiLabelDataset.from_rows(split.inputs, torch.from_numpy(rows), matrix)
