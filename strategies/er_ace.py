"""Experience replay with an asymmetric loss: new images do not touch old labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from avalanche.core import SupervisedPlugin

from cml_bench.errors import CmlBenchError
from cml_bench.labels import OUT_OF_SCOPE, PRESENT
from cml_bench.training.context import RunContext
from cml_bench.training.replay import MemoryPlugin
from cml_bench.training.strategy import StrategyMeta

from .er import ER

__all__ = ["ERACE"]


@dataclass(frozen=True)
class ERACE(ER):
    """Experience replay in which images of the stream teach new labels alone, and images of the memory all labels.

    Source: Caccia et al. 2022, arXiv 2104.05025, where the softmax of a stream image runs over the classes of its batch
    only, so that new classes do not push old logits down. No form for several labels is published; this one is
    inferred: the loss is ``(L(batch, new labels) + L(draw, all labels)) / 2`` (the paper adds the two), L being the
    criterion's and new labels those that the experience brings. Where old labels of stream images are unknown to the
    criterion anyway, that differs from ER in the weight of the rows only; it bites with
    ``loss=assume_negative loss.scope=seen``, or where old labels are annotated. Without memory rows the loss is as it
    was.

    Attributes:
        present_only: Whether stream images teach only those new labels that one of their batch shows, which is the
            literal translation.
    """

    present_only: bool = False

    meta = StrategyMeta(
        name="er_ace", title="ER-ACE", family="replay", reference="arXiv:2104.05025", criterion="logits"
    )

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the plugin that replaces the loss.

        Raises:
            CmlBenchError: If columns are to be cut out of batches whose criterion knows labels by their columns, or a
                wrapper would have nothing to learn from.
        """
        if run.model.wrapper is not None and run.model.wrapper.meta.learns:
            name = run.model.wrapper.meta.name
            raise CmlBenchError(
                f"wrap={name} learns from what the criterion is told of patches, and er_ace tells it of logits alone: "
                "take wrap=pat_inference, or another strategy"
            )
        if self.present_only and any(True for _ in run.criterion.buffers()):
            name = run.criterion.meta.name
            raise CmlBenchError(
                f"er_ace present_only=true judges some labels of a batch alone, and loss={name} knows labels by their "
                "place: leave present_only out, or take another loss"
            )
        return [ACEPlugin(*self.parts(run), present_only=self.present_only)]


class ACEPlugin(MemoryPlugin):
    """Replaces the stream's loss by the mean of one over new labels and the memory's."""

    def __init__(self, *parts: Any, present_only: bool) -> None:
        super().__init__(*parts)
        self.present_only = present_only

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Replace the loss."""
        if self.memory is None:
            return
        criterion, first_new = strategy._criterion, strategy.experience.dataset.labels.first_new
        logits, labels = strategy.mb_output, strategy.mb_y.clone()
        labels[:, :first_new] = OUT_OF_SCOPE
        # A criterion may make up targets for unknown entries: these columns it is to leave alone.
        criterion.spare = first_new
        if self.present_only:
            shown = (labels == PRESENT).any(dim=0)
            criterion.spare, logits, labels = 0, logits[:, shown], labels[:, shown]
        stream = criterion(logits, labels, strategy.mb_sample_id, strategy.clock.train_exp_epochs)
        criterion.spare = 0
        strategy.loss = (stream + self.loss(strategy, self.draw(strategy))) / 2
