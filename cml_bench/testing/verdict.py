"""A criterion on a batch of made-up images, as the training loop calls it: the stage of the kit for criteria."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from cml_bench.data.inputs import TensorInputs
from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.models.heads.head import HeadOutput
from cml_bench.models.model import MultiLabelModel
from cml_bench.registry import load, load_class
from cml_bench.runs.isolation import isolated
from cml_bench.runs.method import Method
from cml_bench.runs.plan import plan_method
from cml_bench.streams.dataset import LabelMatrix, MultiLabelDataset
from cml_bench.testing.case import PartCase
from cml_bench.testing.outcome import require
from cml_bench.testing.toy import WIDTH, Toy
from cml_bench.testing.trial import Trial, try_out
from cml_bench.training.strategy import Strategy, StrategyMeta

N_LABELS = 5
EPOCHS = 8
"""Long enough for criteria that change after some epochs."""
ENDS = (0, EPOCHS - 1)
"""The first epoch and the last."""
_N_IMAGES = 12
_FIRST_NEW = 2
_TOLERANCE = 1e-4


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


def same(one: Tensor, other: Tensor) -> bool:
    """Return whether two losses are the same to rounding."""
    return torch.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE)


def require_same(one: Verdict, other: Verdict, otherwise: str) -> None:
    """Demand the same loss and the same gradients."""
    require(same(one.loss, other.loss), f"{otherwise}: {float(one.loss):.5g} and {float(other.loss):.5g}")
    require(all(same(*pair) for pair in zip(one.gradients, other.gradients, strict=True)), f"{otherwise}, in gradients")


def require_finite(verdict: Verdict, batch: str) -> None:
    """Demand a loss and gradients that are numbers."""
    require(bool(verdict.loss.isfinite()), f"{batch} costs {float(verdict.loss)}")
    require(all(bool(g.isfinite().all()) for g in verdict.gradients), f"{batch} gives gradients that are not finite")


def stir(criterion: nn.Module) -> None:
    """Move what is learnt away from where it starts, where images may be alike."""
    generator = torch.Generator().manual_seed(2)
    for parameter in criterion.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator).to(parameter)


class CriterionCase(PartCase):
    """A criterion under test."""

    noun = "criterion"
    place = "loss"

    def look_up(self, name: str) -> type[Criterion]:
        """Return the class of a criterion."""
        return load_class("criteria", name, Criterion)

    @cached_property
    def needs(self) -> list[CriterionMeta]:
        """What it, and what it is put on, declare."""
        return [layer.meta for layer in self.kind(**self.options).with_bases]

    @property
    def own_head(self) -> str:
        """The head that it is about; empty for any."""
        return next((need.head for need in self.needs if need.head), "")

    @property
    def head(self) -> str:
        """A head that gives it what it reads."""
        return self.own_head or ("dlfl" if any(need.reads == "label_features" for need in self.needs) else "linear")

    def model(self) -> MultiLabelModel:
        """Return a model of made-up images, without labels."""
        # Both kinds of features, whatever the criterion reads: those of images come for nothing.
        return MultiLabelModel(None, load("heads", self.own_head or "dlfl")(WIDTH))

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
