"""The criterion contract: a loss on logits and four-state labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from cml_bench.models.heads.head import HeadOutput


@dataclass(frozen=True)
class CriterionMeta:
    """What is declared of a criterion.

    Attributes:
        name: File stem and registry name.
        title: How tables call it.
        reference: Paper.
    """

    name: str
    title: str
    reference: str


class Criterion(nn.Module, ABC):
    """A loss that reads four-state labels.

    Attributes:
        spare: Number of leading columns whose unknown entries another loss term answers for (a teacher, say). A
            criterion that makes up targets for unknown entries leaves these alone; known entries always count.
    """

    meta: ClassVar[CriterionMeta]
    spare: int = 0

    def forward(
        self,
        output: HeadOutput | Tensor,
        labels: Tensor,
        sample_ids: Tensor | None = None,
        epoch: int = 0,
    ) -> Tensor:
        """Return the scalar loss of a batch.

        Labels and logits are compared over the columns both have: a memory row is narrower than a grown head, a later
        experience's row wider than an earlier head.

        Args:
            output: Head output, or bare (B, n) logits as Avalanche's own plugins pass them.
            labels: (B, m) four-state labels.
            sample_ids: (B,) stable ids, for criteria that keep state per image.
            epoch: Epoch within the experience, from 0.
        """
        logits = output.logits if isinstance(output, HeadOutput) else output
        width = min(logits.shape[1], labels.shape[1])
        # Slicing costs as much as a tenth of a linear head's step, so it is left out where nothing is cut.
        logits = logits if logits.shape[1] == width else logits[:, :width]
        labels = labels if labels.shape[1] == width else labels[:, :width]
        return self.loss(logits, labels)

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of (B, n) logits under (B, n) four-state labels; 0 with a graph if nothing counts."""
