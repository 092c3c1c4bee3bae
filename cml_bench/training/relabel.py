"""What stored images are replayed as: as annotated, with what the model finds in them since, or as they truly are."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import AfterValidator
from torch import Tensor
from torch.nn.functional import pad

from cml_bench.labels import OUT_OF_SCOPE, PRESENT, is_known
from cml_bench.memory.pixels import PixelStore, Store
from cml_bench.models.reading import read_logits
from cml_bench.streams.dataset import LabelMatrix, MultiLabelDataset
from cml_bench.streams.timeline import ends_experience
from cml_bench.training.context import Oracle, RunContext
from cml_bench.training.pseudo_labels import fill

Reader = Callable[[MultiLabelDataset, tuple[str, ...]], MultiLabelDataset]
"""Gives a memory as it reads once some labels have been seen."""

_THRESHOLD = 0.9


def _threshold(relabel: str) -> float:
    """Return the threshold of ``pseudo`` or ``pseudo>0.8``.

    Raises:
        ValueError: If it is neither, or no probability.
    """
    read = re.fullmatch(r"pseudo(?:>(0?\.\d+))?", relabel)
    if read is None:
        raise ValueError("stored images are read as_stored, pseudo, pseudo>0.8 (or another probability) or oracle")
    return float(read[1] or _THRESHOLD)


def _checked(relabel: str) -> str:
    if relabel not in ("as_stored", "oracle"):
        _threshold(relabel)
    return relabel


Relabel = Annotated[str, AfterValidator(_checked)]
"""An option: which labels a stored image is replayed with, ``as_stored``, ``pseudo`` (``pseudo>0.8``) or ``oracle``."""


def make_reader(relabel: str, run: RunContext, store: Store = "ids") -> Reader:
    """Return what reads the memory of one run."""
    if relabel == "as_stored":
        reader: Reader = MultiLabelDataset.widened
    else:
        reader = TrueLabels(run.oracle) if relabel == "oracle" else PseudoLabels(_threshold(relabel))
    return FromPixels(reader) if store == "pixels" else reader


def look(reader: Reader | None, strategy: Any, memory: MultiLabelDataset) -> None:
    """Let a reader that wants to look at a memory, if an experience has just been learnt to its end."""
    if isinstance(reader, (PseudoLabels, FromPixels)) and ends_experience(strategy.experience) and len(memory):
        reader.look(strategy, memory)


class TrueLabels:
    """Reads a memory with the truth for every label from the first that each image was annotated for.

    Labels that came before stay as stored, as in KRT's released code, which widens what is read of a stored image to
    the newest label, and not to earlier ones.

    Args:
        oracle: Gives a dataset its true labels.
    """

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle

    def __call__(self, memory: MultiLabelDataset, names: tuple[str, ...]) -> MultiLabelDataset:
        """Return the memory as it reads once ``names`` have been seen."""
        stored = memory.widened(names)
        ids, labels = stored.sample_ids.data, stored.labels
        since = (labels.data > OUT_OF_SCOPE).cumsum(dim=1) > 0
        states = torch.where(since, self.oracle(memory, names).labels.data, labels.data)
        matrix = LabelMatrix(states, names, labels.first_new, labels.record)
        return MultiLabelDataset.from_rows(stored.inputs, ids, matrix)


class FromPixels:
    """Reads a memory from copies of its images, made as soon as they are stored.

    Attributes:
        store: The copies; None until there is one.

    Args:
        reader: Says which labels stored images are shown with.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.store: PixelStore | None = None

    def __call__(self, memory: MultiLabelDataset, names: tuple[str, ...]) -> MultiLabelDataset:
        """Return the memory as it reads once ``names`` have been seen."""
        return self.reader(self._kept(memory), names)

    def look(self, strategy: Any, memory: MultiLabelDataset) -> None:
        """Copy what has come in, and let the reader look at the copies."""
        look(self.reader, strategy, self._kept(memory))

    def _kept(self, memory: MultiLabelDataset) -> MultiLabelDataset:
        if self.store is None:
            self.store = PixelStore(memory.inputs)
        return self.store.keep(memory)


class PseudoLabels:
    """Reads a memory with the positives that the model has found where nobody annotated.

    Whenever an experience has been learnt, the model looks at all stored images, in evaluation mode and without
    augmentation. An entry of a label seen so far that nobody annotated is from then on read as ``PRESENT`` if its
    probability is over the threshold; what is not stays unknown, and nothing becomes absent. The memory itself keeps
    what was annotated: an annotation that comes later is read in place of what was found, whatever the two say.

    Source: the relabelling of RebLL (arXiv 2408.12161) and the backward transfer of KAR, whose threshold, 0.9, is the
    default. Inferred: the moment, and that the model which has just learnt the experience judges old labels too.

    Args:
        threshold: Probability over which a label is present.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        # Ascending ids and what was found in them; until there are any, one that no image has.
        self.ids = torch.tensor([-1])
        self.found = torch.zeros(1, 0, dtype=torch.bool)

    def __call__(self, memory: MultiLabelDataset, names: tuple[str, ...]) -> MultiLabelDataset:
        """Return the memory as it reads once ``names`` have been seen."""
        stored = memory.widened(names)
        ids, labels = stored.sample_ids.data, stored.labels
        present = self._found_in(ids, len(names)) & ~is_known(labels.data)
        states = labels.data.masked_fill(present, PRESENT)
        matrix = LabelMatrix(states, names, labels.first_new, labels.record)
        return MultiLabelDataset.from_rows(stored.inputs, ids, matrix)

    def look(self, strategy: Any, memory: MultiLabelDataset) -> None:
        """Find labels in the images of a memory, with the model that has just learnt an experience."""
        stored = memory.widened(strategy.model.head.label_names)
        ids, states = stored.sample_ids.data, stored.labels.data
        scores = read_logits(strategy.model, stored, strategy.eval_mb_size, strategy.device).sigmoid().cpu()
        found = self._found_in(ids, states.shape[1]) | fill(states, scores, self.threshold).is_pseudo
        order = ids.argsort()
        self.ids, self.found = ids[order], found[order]

    def _found_in(self, ids: Tensor, width: int) -> Tensor:
        """Return (N, width) bool, what was found in the images with (N,) ids."""
        rows = torch.searchsorted(self.ids, ids).clamp(max=len(self.ids) - 1)
        found = self.found[rows] & (self.ids[rows] == ids)[:, None]
        return pad(found, (0, width - found.shape[1]))
