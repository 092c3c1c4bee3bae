"""Assume negative: what nobody marked is taken to be absent, openly and by name."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cml_bench.labels import ABSENT, UNMARKED, is_known, widen
from cml_bench.losses.based import Based
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.entries import check_option
from cml_bench.models.heads.head import HeadOutput


class AssumeNegative(Based):
    """Give unmarked entries to another criterion, its base, as ABSENT; the batch itself is left as it is.

    With ``scope="unmarked"`` only labels that the annotator was asked for and left open become absent ("AN" of the
    single-positive literature). With ``scope="seen"`` every unknown entry of a label that the head knows does, asked
    for or not, which is what the data loaders of KRT and its descendants do to old labels in new images. That scope
    reaches over columns which a row is too narrow to have (a memory row stored before the labels arrived), so that it
    makes no difference whether such rows were padded. Unknown entries of the leading ``spare`` columns stay unknown:
    another loss term answers for them.

    Source: Cole et al. 2021, arXiv 2106.09708, section 3 (unmarked); Dong et al. 2023, arXiv 2302.13334, released
    code (seen).

    Args:
        base: The criterion that is given the assumed labels: a name, with options if need be
            (``"asl reduction=sum"``), or a criterion object.
        scope: ``"unmarked"`` or ``"seen"``.

    Raises:
        CmlBenchError: If the base, one of its options or the scope is unknown.
    """

    meta = CriterionMeta(name="assume_negative", title="AN", reference="arXiv:2106.09708", open=True)

    def __init__(self, base: str | Criterion = "bce", scope: Literal["unmarked", "seen"] = "unmarked") -> None:
        super().__init__(base)
        check_option("assume_negative", "scope", scope, scope in ("unmarked", "seen"), "'unmarked' or 'seen'")
        self.scope = scope

    @property
    def title(self) -> str:
        """How tables call this criterion: the assumption is never hidden behind the name of the base."""
        return f"{self.meta.title}{' seen' if self.scope == 'seen' else ''} ({self.base.title})"

    def forward(
        self,
        output: HeadOutput | Tensor,
        labels: Tensor,
        sample_ids: Tensor | None = None,
        epoch: int = 0,
        view: HeadOutput | None = None,
    ) -> Tensor:
        """Return the base's loss under the assumed labels; arguments as in ``Criterion.forward``."""
        logits = output.logits if isinstance(output, HeadOutput) else output
        padded = widen(labels, max(labels.shape[1], logits.shape[1]))
        loss: Tensor = self.base(output, self.assume(padded), sample_ids, epoch, view)
        return loss

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the base's loss of (B, n) logits under the assumed labels."""
        return self.base.loss(logits, self.assume(labels))

    def assume(self, labels: Tensor) -> Tensor:
        """Return a copy of (B, n) four-state labels in which the scope's unknown entries are ABSENT."""
        assumed = labels == UNMARKED if self.scope == "unmarked" else ~is_known(labels)
        assumed &= torch.arange(labels.shape[1], device=labels.device) >= self.spare
        return labels.masked_fill(assumed, ABSENT)
