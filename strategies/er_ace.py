"""Experience replay with an asymmetric loss: new images do not touch old labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.storage_policy import ExemplarsBuffer

from cml_bench.labels import PRESENT
from cml_bench.memory.reservoir import ReservoirBuffer
from cml_bench.training.context import RunContext
from cml_bench.training.rehearsal import Rehearsal
from cml_bench.training.relabel import Reader
from cml_bench.training.replay import MemoryPlugin
from cml_bench.training.strategy import StrategyMeta

__all__ = ["ERACE"]


@dataclass(frozen=True)
class ERACE(Rehearsal):
    """Experience replay in which images of the stream teach new labels alone, and images of the memory all labels.

    Source: Caccia et al. 2022, arXiv 2104.05025, where the softmax of a stream image runs over the classes of its batch
    only, so that new classes do not push old logits down. No form for several labels is published; this one is
    inferred: the loss is the mean of the criterion on the stream's rows, over the labels that the experience brings,
    and on the memory's rows, over all. Where old labels of stream images are unknown to the criterion anyway, that
    differs from ER in the weight of the rows only; it bites with ``loss=assume_negative loss.scope=seen``, or where old
    labels are annotated. Without memory rows the loss is as it was.

    Attributes:
        present_only: Whether stream images teach only those new labels that one of their batch shows, which is the
            literal translation.
    """

    present_only: bool = False

    meta = StrategyMeta(
        name="er_ace", title="ER-ACE", family="replay", reference="arXiv:2104.05025", criterion="logits"
    )

    def memory(self, run: RunContext) -> ReservoirBuffer:
        """Return a reservoir."""
        return ReservoirBuffer(self.memory_size, run.generator("reservoir"))

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the plugin that replaces the loss."""
        return [ACEPlugin(*self.parts(run), present_only=self.present_only)]


class ACEPlugin(MemoryPlugin):
    """Replaces the stream's loss by the mean of one over new labels and the memory's."""

    def __init__(
        self,
        buffer: ExemplarsBuffer,
        batch_size: int | None,
        generator: torch.Generator,
        reader: Reader | None = None,
        *,
        present_only: bool,
    ) -> None:
        super().__init__(buffer, batch_size, generator, reader)
        self.present_only = present_only

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Replace the loss."""
        if self.memory is None:
            return
        labels = strategy.mb_y
        taught = torch.arange(labels.shape[1], device=labels.device) >= strategy.experience.dataset.labels.first_new
        if self.present_only:
            taught &= (labels == PRESENT).any(dim=0)
        # The columns are cut out, not marked unknown: a criterion may make up targets for unknown entries.
        epoch = strategy.clock.train_exp_epochs
        stream = strategy._criterion(strategy.mb_output[:, taught], labels[:, taught], strategy.mb_sample_id, epoch)
        strategy.loss = (stream + self.loss(strategy, self.draw(strategy))) / 2
