"""Averaging models: weighted means of state dicts, in which a label's rows come from those who learnt it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.head import Head

State = Mapping[str, Tensor]


def label_tensors(model: nn.Module) -> dict[str, slice]:
    """Return the tensors of a model's state dict that have one row for each label of one growth, with these labels.

    A model has a head, and heads of its wrapper if that judges labels too.

    Heads keep what belongs to labels in blocks, one a growth. So a series of tensors, numbered by growth, whose first
    dimensions are the sizes of the growths, holds rows of labels (inferred from shapes; heads need not declare it).
    """
    heads = ((name, part) for name, part in model.named_modules() if isinstance(part, Head))
    return {
        f"{prefix}.{name}" if prefix else name: labels
        for prefix, head in heads
        for name, labels in _rows_of_labels(head).items()
    }


def _rows_of_labels(head: Head) -> dict[str, slice]:
    series: defaultdict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    state = head.state_dict()
    for name in state:
        for number in re.finditer(r"(?:^|(?<=\.))\d+(?=\.|$)", name):
            series[name[: number.start()], name[number.end() :]][int(number[0])] = name
    found = {}
    for names in series.values():
        blocks = [state[names[i]] for i in range(len(names))] if sorted(names) == list(range(len(names))) else []
        if [block.shape[:1] for block in blocks] == [(n,) for n in head.growth]:
            ends = torch.tensor(head.growth).cumsum(0).tolist()
            found.update(
                {names[i]: slice(end - n, end) for i, (n, end) in enumerate(zip(head.growth, ends, strict=True))}
            )
    return found


class Average:
    """The mean of models, weighted by images: ``sum_k n_k w_k / sum_k n_k`` over all tensors, buffers included.

    Sums are taken in float64 and rounded once, so models that are all alike average to themselves, and the order in
    which models come makes no difference beyond that rounding. The mean of whole numbers (BatchNorm's count of batches)
    is rounded to one. A single model is returned as it is.

    A row of a label is averaged over the models that learnt the label, by their images; where none did, over all
    (inferred: a teacher or a penalty may have trained it, and FedAvg knows but one set of labels).

    Args:
        rows: Tensors with one row a label, and which labels these are; see ``label_tensors``.
    """

    def __init__(self, rows: Mapping[str, slice]) -> None:
        self.rows = rows
        self.images = 0
        self._first: dict[str, Tensor] = {}
        self._count = 0
        self._sums: dict[str, Tensor] = {}
        self._row_sums: dict[str, Tensor] = {}
        self._row_images = torch.zeros(0)

    def add(self, state: State, images: int, learnt: Tensor) -> None:
        """Take in a model.

        Args:
            state: Its tensors by name.
            images: Number of images it was trained on, at least 1.
            learnt: (n,) bool, labels that it was taught.

        Raises:
            CmlBenchError: If its tensors are not those of the models before.
        """
        if not self._count:
            self._first = {name: value.detach().clone() for name, value in state.items()}
            self._sums = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in state.items()}
            self._row_sums = {name: torch.zeros_like(self._sums[name]) for name in self.rows}
            self._row_images = torch.zeros(len(learnt), dtype=torch.float64, device=learnt.device)
        shapes = {name: value.shape for name, value in state.items()}
        odd = dict(shapes.items() ^ {name: value.shape for name, value in self._sums.items()}.items())
        if odd:
            raise CmlBenchError(f"models of different shapes cannot be averaged ({', '.join(sorted(odd)[:3])} differ)")
        self._count += 1
        self.images += images
        weights = images * learnt.double()
        self._row_images += weights
        for name, value in state.items():
            wide = value.detach().double()
            self._sums[name] += images * wide
            if name in self.rows:
                own = weights[self.rows[name]].to(wide.device)
                self._row_sums[name] += own.reshape(-1, *[1] * (wide.dim() - 1)) * wide

    def result(self) -> dict[str, Tensor]:
        """Return the mean, each tensor in the type it came in."""
        return self._first if self._count == 1 else {name: self._mean(name) for name in self._first}

    def _mean(self, name: str) -> Tensor:
        like, mean = self._first[name], self._sums[name] / self.images
        if name in self.rows:
            images = self._row_images[self.rows[name]].to(mean.device).reshape(-1, *[1] * (mean.dim() - 1))
            mean = torch.where(images > 0, self._row_sums[name] / images.clamp(min=1), mean)
        return (mean if like.is_floating_point() else mean.round()).to(like.dtype)
