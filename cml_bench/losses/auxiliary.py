"""A weighted term beside another criterion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cml_bench.losses.based import Based
from cml_bench.losses.criterion import Criterion
from cml_bench.losses.entries import check_option
from cml_bench.models.evaluating import evaluating
from cml_bench.models.heads.head import HeadOutput

if TYPE_CHECKING:
    from cml_bench.models.model import MultiLabelModel
    from cml_bench.streams.dataset import MultiLabelDataset


class Auxiliary(Based):
    """``base + weight * term``: the base judges the logits of every view, a subclass computes the term in ``judge``.

    Args:
        base: The criterion that judges the logits: a name, with options if need be, or a criterion object.
        weight: Weight of the term, >= 0.

    Raises:
        CmlBenchError: If the base or one of its options is unknown, or the weight is negative.
    """

    def __init__(self, base: str | Criterion, weight: float) -> None:
        super().__init__(base)
        check_option(self.meta.name, "weight", weight, weight >= 0, "0 or more")
        self.weight = weight

    def forward(
        self,
        output: HeadOutput | Tensor,
        labels: Tensor,
        sample_ids: Tensor | None = None,
        epoch: int = 0,
        view: HeadOutput | None = None,
    ) -> Tensor:
        """Return the base's loss, the mean over the views, and the term; arguments as in ``Criterion.forward``."""
        return self.base_loss(output, labels, sample_ids, epoch, view) + self.weight * self.term(
            output, labels, sample_ids, epoch, view
        )

    def base_loss(
        self,
        output: HeadOutput | Tensor,
        labels: Tensor,
        sample_ids: Tensor | None,
        epoch: int,
        view: HeadOutput | None,
    ) -> Tensor:
        """Return the base's loss, the mean over the views."""
        # Calls, not ``judge``: a base may reach over columns that rows are too narrow to have.
        loss: Tensor = self.base(output, labels, sample_ids, epoch, view)
        if view is None:
            return loss
        assert isinstance(output, HeadOutput)
        again: Tensor = self.base(view, labels, sample_ids, epoch, output)
        return (loss + again) / 2

    def term(
        self,
        output: HeadOutput | Tensor,
        labels: Tensor,
        sample_ids: Tensor | None,
        epoch: int,
        view: HeadOutput | None,
    ) -> Tensor:
        """Return the term, unweighted, over the columns that output and labels have in common."""
        return super().forward(output, labels, sample_ids, epoch, view)

    def fit(self, output: HeadOutput) -> None:
        """Add the parameters that an output of these shapes needs, none by default; leave those that are there."""

    def build(self, model: MultiLabelModel, dataset: MultiLabelDataset) -> None:
        """Look at one image for the widths of features, and add what they need."""
        super().build(model, dataset)
        self.fit(first_look(model, dataset))


@torch.no_grad()
def first_look(model: MultiLabelModel, dataset: MultiLabelDataset) -> HeadOutput:
    """Return what a model says of the first image of a dataset, and leave no trace in the model."""
    image = dataset.inputs.fetch(dataset.sample_ids.data[:1], training=False)
    with evaluating(model):
        return model.head_output(image.to(next(model.parameters()).device))
