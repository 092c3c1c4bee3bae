"""A built stream: experiences for strategies, and beside them what only the benchmark may know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks import CLScenario, DatasetExperience
from avalanche.benchmarks.scenarios.generic_scenario import CLStream

from cml_bench.data.inputs import Inputs
from cml_bench.data.source import Source
from cml_bench.labels import LabelArray
from cml_bench.streams.dataset import LabelMatrix, MultiLabelDataset
from cml_bench.streams.dealing import Rows, TestRule
from cml_bench.streams.timeline import set_label_attributes


@dataclass(frozen=True, eq=False)
class Split:
    """One split: its truth, what was annotated of it, its inputs and the rows of every experience.

    Label tables stay in the source's own column order, and are never copied whole: a million images with 500 labels
    are half a gigabyte.

    Attributes:
        source: Images and truth.
        columns: (C,) column of the source of each label in arrival order.
        inputs: What the model reads.
        experiences: Ascending rows of each experience.
        annotated: (N, C) int8 four-state labels in the source's column order, before anything is out of scope; the
            truth itself where everything is marked.
    """

    source: Source
    columns: Rows
    inputs: Inputs
    experiences: tuple[Rows, ...]
    annotated: LabelArray

    @property
    def rows(self) -> Rows:
        """Rows that occur in some experience, ascending."""
        occurs = np.zeros(len(self.source), dtype=np.bool_)  # linear, where np.unique is not
        for rows in self.experiences:
            occurs[rows] = True
        return np.flatnonzero(occurs)

    @property
    def truth(self) -> LabelArray:
        """(N, C) int8 true labels in arrival order, made anew each time."""
        return self.source.labels[:, self.columns]

    def true_labels(self, rows: Rows, width: int) -> LabelArray:
        """Return the true labels of some rows for the first ``width`` labels in arrival order."""
        return self.source.labels[np.ix_(rows, self.columns[:width])]

    def annotated_labels(self, rows: Rows, width: int) -> LabelArray:
        """Return what was annotated of some rows for the first ``width`` labels in arrival order."""
        return self.annotated[np.ix_(rows, self.columns[:width])]


class MultiLabelScenario(CLScenario):
    """An Avalanche benchmark whose labels arrive over time.

    Strategies see experiences, never this object: it knows the future.

    Attributes:
        label_names: All names in arrival order.
        n_seen: Labels seen after each experience.
        protocol: The field's name of the division, e.g. ``"B0-C10"``.
        test_rule: Which images are tested (``metrics.predictions.TEST_RULES``).
        record: What the annotator wrote of every training image, where later labels count as annotated from the start;
            else None. See ``LabelMatrix``.
        splits: ``"train"``, ``"test"`` and, with a validation split, ``"valid"``.
        unassigned: Per split, how many images are in no experience (they show no label, are not listed, do not reach
            the annotator, or are held out).
    """

    def __init__(
        self,
        streams: Sequence[CLStream[Any]],
        *,
        label_names: tuple[str, ...],
        n_seen: tuple[int, ...],
        protocol: str,
        test_rule: TestRule,
        splits: dict[str, Split],
        record: torch.Tensor | None,
    ) -> None:
        super().__init__(streams)
        for stream in streams:
            stream.benchmark = self
        self.label_names = label_names
        self.n_seen = n_seen
        self.protocol = protocol
        self.test_rule = test_rule
        self.splits = splits
        self.record = record
        self.unassigned = {name: len(split.source) - len(split.rows) for name, split in splits.items()}

    def evaluation_experience(self, experience: int, split: str = "test") -> DatasetExperience:
        """Return every image that some experience of the split tests, labelled for the labels seen by ``experience``.

        Predictions are recorded on all of them each time, so that what was tested can be looked at in another way
        without a new run. Images that no experience tests are left out (without a label, save under ``all_images``).
        """
        part, width = self.splits[split], self.n_seen[experience]
        labels = torch.from_numpy(part.true_labels(part.rows, width))
        matrix = LabelMatrix(labels, self.label_names[:width], n_seen_before(self.n_seen)[experience])
        dataset = MultiLabelDataset.from_rows(part.inputs, torch.from_numpy(part.rows), matrix)
        result = DatasetExperience(dataset=dataset, current_experience=experience)
        result.origin_stream = self.streams[split]
        return set_label_attributes(result)

    def oracle(self, dataset: MultiLabelDataset, names: tuple[str, ...]) -> MultiLabelDataset:
        """Return a training dataset with the full truth for ``names`` in place of what was annotated.

        Only for upper bounds and for ``relabel="oracle"``; results made with it say so.
        """
        rows = dataset.sample_ids.data
        truth = torch.from_numpy(self.splits["train"].true_labels(rows.numpy(), len(names)))
        matrix = LabelMatrix(truth, names, dataset.labels.first_new, self.record)
        return MultiLabelDataset.from_rows(dataset.inputs, rows, matrix)


def n_seen_before(n_seen: Sequence[int]) -> tuple[int, ...]:
    """Return the number of labels seen before each experience."""
    return (0, *n_seen[:-1])
