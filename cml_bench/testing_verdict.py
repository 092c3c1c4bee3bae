"""A criterion on a batch of made-up images, as the training loop calls it: the stage of the kit for criteria."""

from __future__ import annotations

import copy
import dataclasses
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from cml_bench.data.inputs import TensorInputs
from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED
from cml_bench.losses.criterion import Criterion
from cml_bench.models.heads.head import HeadOutput
from cml_bench.models.model import MultiLabelModel
from cml_bench.options import convert, fold, parse_pairs, split_words
from cml_bench.registry import load
from cml_bench.runs.isolation import isolated
from cml_bench.runs.method import Method
from cml_bench.runs.setup import plan_method
from cml_bench.streams.dataset import LabelMatrix, MultiLabelDataset
from cml_bench.testing_data import WIDTH, Toy
from cml_bench.testing_trial import Trial, try_out
from cml_bench.training.strategy import Strategy, StrategyMeta

N_LABELS = 5
EPOCHS = 8
"""Long enough for criteria that change after some epochs."""
_N_IMAGES = 12
_FIRST_NEW = 2


@dataclass(frozen=True)
class _Plain(Strategy):
    """Train on each experience and do nothing else."""

    meta = StrategyMeta(name="plain", title="Plain", family="test")


@dataclass(frozen=True)
class Verdict:
    """What a criterion made of a batch.

    Attributes:
        loss: Scalar, detached.
        logits: (B, n) gradient.
        pooled: (B, D) gradient, 0 where the criterion does not read it.
        label_features: (B, n, D) gradient, likewise.
        changed: Whether what was judged is no longer what it was.
    """

    loss: Tensor
    logits: Tensor
    pooled: Tensor
    label_features: Tensor
    changed: bool = False

    @property
    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """All three."""
        return self.logits, self.pooled, self.label_features


def made_up_labels(*states: int, seed: int = 0) -> Tensor:
    """Return (12, 5) random states, all four unless some are named; each occurs among old and new labels."""
    pool = torch.tensor(states or (PRESENT, ABSENT, UNMARKED, OUT_OF_SCOPE), dtype=torch.int8)
    drawn = torch.randint(len(pool), (_N_IMAGES, N_LABELS), generator=torch.Generator().manual_seed(seed))
    drawn[: len(pool), 0] = drawn[: len(pool), -1] = torch.arange(len(pool))
    return pool[drawn]


def made_up_output(rows: int = _N_IMAGES, seed: int = 0) -> HeadOutput:
    """Return what a head might say of images: all that a criterion can read."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, N_LABELS, generator=generator)
    pooled = torch.randn(rows, WIDTH, generator=generator)
    return HeadOutput(logits, pooled, torch.randn(rows, N_LABELS, WIDTH, generator=generator))


def made_up_dataset(labels: Tensor, first_id: int = 4, first_new: int = _FIRST_NEW) -> MultiLabelDataset:
    """Return a dataset with these labels; ids are neither rows nor consecutive."""
    names = tuple(f"label{i}" for i in range(labels.shape[1]))
    table = torch.randn(200, WIDTH, 2, 2, generator=torch.Generator().manual_seed(0))
    ids = first_id + 3 * torch.arange(len(labels))
    return MultiLabelDataset.from_rows(TensorInputs(table), ids, LabelMatrix(labels, names, first_new))


class CriterionCase:
    """A criterion under test.

    Attributes:
        name: What it goes by.
        kind: Its class.
        options: Typed options.
        file: Where it is written; None if it was typed into an interpreter.
    """

    def __init__(self, criterion: str | type[Criterion]) -> None:
        pairs: dict[str, str] = {}
        if isinstance(criterion, str):
            written, *words = split_words(criterion) or [""]
            self.name, pairs = fold(written, dict(parse_pairs(words)))
            self.kind = load("criteria", self.name)
        else:
            self.name, self.kind = f"{criterion.__module__}:{criterion.__qualname__}", criterion
        self.options = convert(self.kind, pairs, owner=f"criterion {self.name}")
        self.file = getattr(sys.modules.get(self.kind.__module__), "__file__", None)

    @property
    def head(self) -> str:
        """A head that gives it what it reads."""
        return self.kind.meta.head or ("dlfl" if self.kind.meta.reads == "label_features" else "linear")

    def model(self) -> MultiLabelModel:
        """Return a model of made-up images, without labels."""
        # Both kinds of features, whatever the criterion reads: those of images come for nothing.
        return MultiLabelModel(None, load("heads", self.kind.meta.head or "dlfl")(WIDTH))

    def prepared(self, dataset: MultiLabelDataset, epoch: int = 0, spare: int = 0) -> Any:
        """Return a fresh criterion as it stands at the beginning of an epoch."""
        with isolated(0, 1):
            criterion, model = self.kind(**self.options), self.model()
            criterion.spare = spare
            self.enter(criterion, model, dataset)
            for each in range(epoch + 1):
                criterion.start_epoch(model, dataset, each, EPOCHS)
        return criterion.train()

    def enter(self, criterion: Any, model: MultiLabelModel, dataset: MultiLabelDataset) -> None:
        """Begin an experience, as the training loop does."""
        model.head.grow(dataset.labels.names[model.head.n_labels :])
        criterion.start_experience(dataset)
        criterion.build(model, dataset)

    def judge(
        self,
        criterion: Any,
        dataset: MultiLabelDataset,
        output: HeadOutput | None = None,
        *,
        epoch: int = 0,
        rows: Tensor | None = None,
        width: int = N_LABELS,
        view: bool = False,
    ) -> Verdict:
        """Let a copy of the criterion judge images of a dataset, so that what it keeps does not move.

        Args:
            criterion: The criterion.
            dataset: Whose labels and ids.
            output: What the head says of the images.
            epoch: The epoch.
            rows: Which images, in which order; all of them by default.
            width: Label columns of the batch.
            view: Whether there is a second view of the images.
        """
        chosen = torch.arange(len(dataset)) if rows is None else rows
        said = output or made_up_output(len(dataset))
        # Leaves behind a step, as logits of a model are: what changes them in place is found here.
        assert said.label_features is not None
        leaves = [part[chosen].clone().requires_grad_() for part in (said.logits, said.pooled, said.label_features)]
        logits, pooled, label_features = leaves
        given = HeadOutput(logits * 1, pooled * 1, label_features * 1)
        again = HeadOutput(logits + 0.1, pooled + 0.1, label_features + 0.1) if view else None
        labels, ids = dataset.labels.data[chosen, :width], dataset.sample_ids.data[chosen]
        before = [part.clone() for part in (*given[:3], labels) if part is not None]
        with isolated(0, 1):
            loss = copy.deepcopy(criterion)(given, labels, ids, epoch, again)
        after = [part for part in (*given[:3], labels) if part is not None]
        changed = not all(torch.equal(*pair) for pair in zip(before, after, strict=True))
        if loss.requires_grad:
            loss.backward()
        of = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
        return Verdict(loss.detach(), of[0], of[1], of[2], changed)

    @cached_property
    def trial(self) -> Trial:
        """A run of plain training on the toy stream, with this criterion."""
        method = Method("plain", self.head, "bce", (), (), ())
        plan = plan_method(method, _Plain, Toy(), {})
        return try_out(dataclasses.replace(plan, criterion=self.kind, criterion_options=self.options))
