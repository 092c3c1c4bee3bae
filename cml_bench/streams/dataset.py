"""An Avalanche dataset of images with four-state labels.

The label matrix, the sample ids and the names travel with the dataset through ``subset``, ``concat``, online splits and
validation splits, because they are Avalanche data attributes: whatever an upstream decorator does to the data, the
labels follow.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
from avalanche.benchmarks.utils.data_attribute import TaskLabels
from avalanche.benchmarks.utils.flat_data import ConstantSequence
from torch import Tensor
from torch.utils.data._utils.collate import default_collate_fn_map

from cml_bench.data.inputs import Inputs
from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, samples_by_label, widen


class Batch(list[Tensor]):
    """A mini-batch ``[x, y, task_label]`` whose ids ride along as an attribute.

    Exactly three fields, because upstream plugins (MAS, DER, MIR, iCaRL) unpack three.

    Attributes:
        sample_id: (B,) int64 stable ids.
        again: Fetches x once more from where it came from, augmented anew if it was; None if that is not known.
    """

    sample_id: Tensor
    again: Callable[[], Tensor] | None = None

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        task_label: Tensor,
        sample_id: Tensor,
        again: Callable[[], Tensor] | None = None,
    ) -> None:
        super().__init__((x, y, task_label))
        self.sample_id = sample_id
        self.again = again

    def __getstate__(self) -> dict[str, Any]:
        """Return what a worker process of a loader sends beside the fields: not the table that it reads."""
        return {"sample_id": self.sample_id}

    def select(self, rows: Tensor) -> Batch:
        """Return the items at (K,) indices; ids stay on the CPU, wherever the rest is."""
        x, y, task_label = self
        return Batch(x[rows], y[rows], task_label[rows], self.sample_id[rows.cpu()])


class Sample(list[Any]):
    """One item ``[x, y, task_label]`` with its ``sample_id``."""

    sample_id: int


def collate(samples: Sequence[Sample] | Sequence[Batch], *, collate_fn_map: object = None) -> Batch:
    """Stack samples into a batch; label rows narrower than the widest are padded with ``OUT_OF_SCOPE``.

    A batch that was fetched whole (``MultiLabelDataset.__getitems__``) comes back as it is.
    """
    if isinstance(samples[0], Batch):
        return samples[0]
    rows = [sample[1] for sample in samples]
    width = max(len(row) for row in rows)
    return Batch(
        torch.stack([sample[0] for sample in samples]),
        torch.cat([widen(row[None], width) for row in rows]),
        torch.tensor([sample[2] for sample in samples], dtype=torch.int64),
        torch.tensor([sample.sample_id for sample in samples], dtype=torch.int64),
    )


# torch's documented way to teach its default collate a new type: plain Avalanche loops, which never look at
# ``dataset.collate_fn``, then build the same batches as ours.
default_collate_fn_map.update({Sample: collate, Batch: collate})


class LabelMatrix(DataAttribute[Tensor]):
    """The four-state labels of a dataset as an Avalanche data attribute.

    Attributes:
        data: (N, n) int8 tensor.
        names: n label names in arrival order.
        first_new: Number of labels that had been seen before the experience.
        record: What the annotator wrote of every label for every row of the source, (rows, C); only where labels that
            arrive later count as annotated from the start (``annotation="all"``), else None. Read by ``widened`` alone.
    """

    _make: Callable[[], Tensor]

    def __init__(self, data: Tensor, names: tuple[str, ...], first_new: int, record: Tensor | None = None) -> None:
        if data.shape[1] != len(names):
            raise ValueError(f"{data.shape[1]} label columns for {len(names)} names")
        self.name = "labels"
        self.use_in_getitem = True
        self.data = data
        self.names = names
        self.first_new = first_new
        self.record = record
        self._n_rows = len(data)

    @classmethod
    def deferred(
        cls,
        make: Callable[[], Tensor],
        n_rows: int,
        names: tuple[str, ...],
        first_new: int,
        record: Tensor | None = None,
    ) -> LabelMatrix:
        """Return a matrix that is made when it is first read: labels not yet used take no memory."""
        matrix = cls(torch.empty((0, len(names)), dtype=torch.int8), names, first_new, record)
        del matrix.data
        matrix._n_rows = n_rows
        matrix._make = make
        return matrix

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._n_rows

    def __getstate__(self) -> dict[str, Any]:
        """Return the matrix as plain data, made by now: what it is made from knows the future."""
        state = {**vars(self), "data": self.data}
        state.pop("_make", None)
        return state

    @functools.cached_property
    def data(self) -> Tensor:
        """The (N, n) int8 tensor."""
        return self._make()

    @property
    def uniques(self) -> set[str]:
        """The label names."""
        return set(self.names)

    @property
    def val_to_idx(self) -> dict[str, npt.NDArray[np.intp]]:
        """Label name to the ascending positions at which it is ``PRESENT``."""
        return dict(zip(self.names, samples_by_label(self.data.numpy()), strict=True))

    @property
    def count(self) -> dict[str, int]:
        """Label name to its number of positives."""
        return {name: len(rows) for name, rows in self.val_to_idx.items()}

    def subset(self, indices: Iterable[int]) -> LabelMatrix:
        """Return the given rows."""
        rows = torch.as_tensor(list(indices) if not isinstance(indices, Tensor) else indices, dtype=torch.int64)
        return LabelMatrix(self.data[rows], self.names, self.first_new, self.record)

    def concat(self, other: DataAttribute[Tensor]) -> LabelMatrix:
        """Stack two matrices; the narrower one is padded, its names must be a prefix of the wider one's.

        A matrix does not know whose labels it holds: ``MultiLabelDataset.concat`` fills in what a record says.

        Raises:
            ValueError: If neither list of names is a prefix of the other.
        """
        assert isinstance(other, LabelMatrix)
        wide, narrow = (self, other) if len(self.names) >= len(other.names) else (other, self)
        if wide.names[: len(narrow.names)] != narrow.names:
            raise ValueError("datasets of different label orders cannot be joined")
        width = len(wide.names)
        data = torch.cat([widen(self.data, width), widen(other.data, width)])
        return LabelMatrix(data, wide.names, wide.first_new, wide.record)


class SampleIds(DataAttribute[int]):
    """Stable sample ids (rows of the source) as an Avalanche data attribute.

    Attributes:
        data: (N,) int64 tensor.
    """

    def __init__(self, data: Tensor) -> None:
        self.name = "sample_ids"
        self.use_in_getitem = False
        self._tensor = data

    @property
    def data(self) -> Tensor:
        """The (N,) int64 tensor."""
        return self._tensor

    def subset(self, indices: Iterable[int]) -> SampleIds:
        """Return the given rows."""
        rows = torch.as_tensor(list(indices) if not isinstance(indices, Tensor) else indices, dtype=torch.int64)
        return SampleIds(self.data[rows])

    def concat(self, other: DataAttribute[int]) -> SampleIds:
        """Stack two id columns."""
        return SampleIds(torch.cat([self.data, other.data]))


class _Rows:
    """The leaf under a ``MultiLabelDataset``: some rows of an input table."""

    def __init__(self, inputs: Inputs, rows: Tensor) -> None:
        self.inputs = inputs
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[index : index + 1]
        sample = Sample([self.inputs.fetch(row, training=False)[0]])
        sample.sample_id = int(row)
        return sample


class MultiLabelDataset(AvalancheDataset[Any]):
    """Images with four-state labels, stable ids and label names.

    Build one with ``from_rows``; Avalanche's own operations (``subset``, ``concat``, ``train``, ``eval``) return more
    of them. ``batch`` fetches many items at once, which is what makes training on cached features fast.

    Attributes:
        labels: ``LabelMatrix``: labels, names, and how many of them are old.
        sample_ids: ``SampleIds``.
        inputs: The table that images or features come from.
    """

    labels: LabelMatrix
    sample_ids: SampleIds
    inputs: Inputs

    def __init__(
        self,
        datasets: Sequence[Any],
        *,
        indices: list[int] | None = None,
        data_attributes: list[DataAttribute[Any]] | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        # The signature is upstream's: ``subset`` and ``concat`` call it through ``self.__class__``.
        tables = {id(d.inputs): d.inputs for d in datasets if len(d) > 0 or len(datasets) == 1}
        if len(tables) != 1:
            raise ValueError("datasets that read different images cannot be joined")
        self.inputs = next(iter(tables.values()))
        self.group: str = getattr(datasets[0], "group", "train")
        super().__init__(datasets, indices=indices, data_attributes=data_attributes, collate_fn=collate_fn or collate)

    @classmethod
    def from_rows(cls, inputs: Inputs, rows: Tensor, labels: LabelMatrix) -> MultiLabelDataset:
        """Make a dataset of (N,) source rows with an (N, n) label matrix."""
        rows = rows.to(torch.int64)
        return cls(
            [_Rows(inputs, rows)],
            data_attributes=[labels, TaskLabels(ConstantSequence(0, len(rows))), SampleIds(rows)],
        )

    def with_transforms(self, group_name: str) -> MultiLabelDataset:
        """Return the dataset in another transform group; inputs are augmented in ``"train"`` only."""
        other: MultiLabelDataset = super().with_transforms(group_name)
        other.group = group_name
        return other

    def concat(self, other: MultiLabelDataset) -> MultiLabelDataset:
        """Return both, one behind the other: the narrower one reads as ``widened`` to the labels of the other.

        Raises:
            ValueError: If their labels came in different orders, or they read different images.
        """
        joined: MultiLabelDataset = super().concat(other)
        labels, end = joined.labels, 0
        if labels.record is not None:
            for part in (each for each in (self, other) if len(each)):
                start, end, seen = end, end + len(part), part.labels.data.shape[1]
                later = slice(seen, len(labels.names))
                labels.data[start:end, later] = labels.record[part.sample_ids.data, later]
        return joined

    def __getitem__(self, index: int | slice) -> Any:
        """Return the ``Sample`` at an index, or the sub-dataset of a slice."""
        if isinstance(index, slice):
            return self.subset(range(*index.indices(len(self))))
        # A range resolves negative indices and refuses those past the end, which is what ends a plain iteration.
        batch = self.batch(torch.tensor([range(len(self))[index]]))
        sample = Sample([batch[0][0], batch[1][0], 0])
        sample.sample_id = int(batch.sample_id)
        return sample

    def __getitems__(self, indices: list[int]) -> list[Batch]:
        """Fetch a whole batch for a torch ``DataLoader``, which asks for this before it asks item by item."""
        return [self.batch(torch.tensor(indices))]

    def batch(self, indices: Tensor) -> Batch:
        """Fetch the items at (B,) indices at once."""
        # index_select, as indexing by a tensor costs twice as much for rows as short as these.
        rows = self.sample_ids.data.index_select(0, indices)
        fetch = functools.partial(self.inputs.fetch, rows, training=self.group == "train")
        labels = self.labels.data.index_select(0, indices)
        return Batch(fetch(), labels, torch.zeros(len(indices), dtype=torch.int64), rows, fetch)

    def widened(self, names: tuple[str, ...]) -> MultiLabelDataset:
        """Return the dataset as it reads once ``names`` have been seen.

        Labels that arrived later are ``OUT_OF_SCOPE``, unless the protocol annotates every label from the start.
        """
        labels = widen(self.labels.data, len(names))
        if self.labels.record is not None:
            later = slice(self.labels.data.shape[1], len(names))
            labels = labels.clone()
            labels[:, later] = self.labels.record[self.sample_ids.data, later]
        matrix = LabelMatrix(labels, names, self.labels.first_new, self.labels.record)
        return self.from_rows(self.inputs, self.sample_ids.data, matrix)


def merge(datasets: Sequence[MultiLabelDataset]) -> MultiLabelDataset:
    """Join datasets; an image that occurs in several becomes one row in which known entries win.

    Rows come out in ascending order of sample id; the result is as wide as the widest dataset.

    Raises:
        ValueError: If two annotations of an image contradict each other.
    """
    widest = max((d.labels for d in datasets), key=lambda labels: len(labels.names))
    wide = [d.widened(widest.names) for d in datasets]
    labels = torch.cat([d.labels.data for d in wide])
    ids, position = torch.unique(torch.cat([d.sample_ids.data for d in wide]), return_inverse=True)
    slots = position[:, None].expand_as(labels)
    # The states are ordered so that the larger of two says more: PRESENT, ABSENT, UNMARKED, OUT_OF_SCOPE.
    merged = labels.new_full((len(ids), labels.shape[1]), OUT_OF_SCOPE).scatter_reduce_(0, slots, labels, "amax")
    denied = torch.zeros_like(merged).scatter_reduce_(0, slots, (labels == ABSENT).to(labels.dtype), "amax")
    if bool(((merged == PRESENT) & (denied > 0)).any()):
        raise ValueError("two annotations of the same image contradict each other")
    matrix = LabelMatrix(merged, widest.names, widest.first_new, widest.record)
    return MultiLabelDataset.from_rows(wide[0].inputs, ids, matrix)
