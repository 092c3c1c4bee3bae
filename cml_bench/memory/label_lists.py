"""A memory of one ranked list for each label."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
from avalanche.benchmarks import DatasetExperience
from avalanche.training.storage_policy import ExemplarsBuffer

from cml_bench.labels import PRESENT
from cml_bench.memory.budget import images_allowed
from cml_bench.streams.dataset import MultiLabelDataset, merge
from cml_bench.streams.timeline import ends_experience

Array = npt.NDArray[np.floating[Any]]


class ListMemory(ExemplarsBuffer):
    """A memory to which each label adds a list of images, best first; a subclass says what is best.

    After an experience each of its new labels gets a list, of images that show it. A list never changes, it is cut:
    with n labels seen and room for M images each has ``ceil(M / n)``. The memory holds the union of the lists, first
    all first images, then all second ones, until it is full. With less room than labels, the labels that keep an image
    are spread evenly over the order in which labels arrived (``spread``). An image that returns in a later experience
    while it is stored has its annotations merged, known entries winning. In an online stream the chunks of an
    experience are looked at together when it ends.

    Args:
        size: Images the memory may hold, or ``"20/label"`` for as many a label seen.
        refill: Whether a list passes over images that are on another; else an image on several lists takes one place,
            and the memory may not be full.

    Attributes:
        lists: For each label seen, sample ids in the order of choice. Where the size is no multiple of the labels, the
            last ones listed may not be stored.
    """

    def __init__(self, size: int | str, *, refill: bool = False) -> None:
        super().__init__(images_allowed(size, 0))
        self.size = size
        self.refill = refill
        self.lists: list[list[int]] = []
        self._chunks: list[MultiLabelDataset] = []

    @abstractmethod
    def look(self, agent_state: Any, dataset: MultiLabelDataset) -> Array:
        """Return (N, ...) what images are ranked by, from the model that has just learnt them."""

    @abstractmethod
    def rank(self, seen: Array, count: int, passed_over: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
        """Return up to ``count`` rows, best first.

        Args:
            seen: What ``look`` returned of the images that show a label.
            count: Rows to choose.
            passed_over: (N,) rows that are not chosen.
        """

    def post_adapt(self, agent_state: Any, exp: DatasetExperience) -> None:
        """Choose exemplars of an experience's new labels, and cut the lists of the old ones."""
        self._chunks.append(exp.dataset)
        if not ends_experience(exp):
            return
        dataset, self._chunks = merge(self._chunks), []
        self.max_size = images_allowed(self.size, len(dataset.labels.names))
        seen = self.look(agent_state, dataset)
        ids, shown = dataset.sample_ids.data.numpy(), dataset.labels.data.numpy() == PRESENT
        depth = math.ceil(self.max_size / len(dataset.labels.names))
        for label in range(len(self.lists), len(dataset.labels.names)):
            rows = np.flatnonzero(shown[:, label])
            listed = [sample for other in self.lists for sample in other[:depth]] if self.refill else []
            passed_over = np.isin(ids[rows], np.array(listed, dtype=np.int64))
            self.lists.append(ids[rows[self.rank(seen[rows], depth, passed_over)]].tolist())
        self._keep(merge([self.buffer, dataset]) if len(self.buffer) else dataset)

    def resize(self, strategy: Any, new_size: int) -> None:
        """Change the size; shrinking cuts every list."""
        self.size = self.max_size = new_size
        if len(self.buffer):
            self._keep(self.buffer)

    def _keep(self, dataset: MultiLabelDataset) -> None:
        """Cut the lists and store the rows of ``dataset`` that are on one of them."""
        depth = math.ceil(self.max_size / len(self.lists))
        self.lists = [listed[:depth] for listed in self.lists]
        # With less room than labels, the first ones to arrive would keep it all.
        lists = self.lists if self.max_size >= len(self.lists) else [self.lists[c] for c in spread(len(self.lists))]
        by_rank = (listed[rank] for rank in range(depth) for listed in lists if rank < len(listed))
        place = {sample: row for row, sample in enumerate(dataset.sample_ids.data.tolist())}
        chosen = [sample for sample in dict.fromkeys(by_rank) if sample in place][: self.max_size]
        self.buffer = dataset.subset([place[sample] for sample in chosen])


def spread(n: int) -> list[int]:
    """Return the numbers below ``n`` in an order of which every beginning is spread evenly over them.

    Which of two numbers comes first does not depend on ``n``: what once had no room is never missed later.
    """
    golden = (math.sqrt(5) - 1) / 2
    return sorted(range(n), key=lambda number: number * golden % 1, reverse=True)
