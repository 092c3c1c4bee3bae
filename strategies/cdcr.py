"""CDCR: learn from candidate labels, and from those alone that the model itself is confident of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from avalanche.core import SupervisedPlugin
from pydantic import Field
from torch import Tensor

from cml_bench.labels import OUT_OF_SCOPE, PRESENT
from cml_bench.memory.budget import MemorySize
from cml_bench.memory.reservoir import ReservoirBuffer
from cml_bench.models.reading import read_logits
from cml_bench.training.context import RunContext
from cml_bench.training.rehearsal import Rehearsal
from cml_bench.training.replay import ReplayPlugin
from cml_bench.training.shown_labels import ShownLabelsPlugin
from cml_bench.training.strategy import StrategyMeta

__all__ = ["CDCR"]


@dataclass(frozen=True)
class CDCR(Rehearsal):
    """Learn from all candidate labels first, then, chosen anew before each epoch, from those the model believes in.

    A candidate is what is marked present (regime ``candidates``: all that is there, and some that is not); a label that
    is marked absent is surely so, and always learnt. In the second stage the model looks at all images, in evaluation
    mode and without augmentation, and a candidate counts where its confidence p is at least ``threshold``, or, class by
    class, where ``p - mu_c >= threshold - mu``, with mu_c the mean confidence of label c's candidates and mu that of
    all. A candidate that does not count is out of scope for the criterion, and nothing is learnt through its logit: it
    is neither present nor absent, under a criterion that takes unknown labels for absent, too.

    With a memory, stored images keep their candidates, are looked at and chosen from with the experience's own.

    Source: arXiv 2207.02410; ``xiemk/PML-CDCR``. The second stage is meant to train on strong views
    (``augment=strong``) of what was chosen on weak ones. Published: 16 epochs of the first stage, and 21 of the second
    as executed (41 where the threshold is plain). Departures: one schedule for both stages, no moving average of
    weights, the criterion's mean over what counts in place of a sum, no random flip where the model looks. How many of
    the chosen candidates are true is not monitored: that would take the truth, which a learner is not shown. An online
    stream has one epoch, so it never leaves the first stage.

    Attributes:
        warmup: Share of an experience's epochs in the first stage, rounded up.
        threshold: Confidence from which a candidate counts.
        adaptive: Whether that depends on the label.
        memory_size: Images in memory, or for each label seen so far as in ``20/label``; 0 for no replay.
    """

    warmup: Annotated[float, Field(gt=0, le=1)] = 16 / 37
    threshold: float = 0.6
    adaptive: bool = True
    memory_size: MemorySize = 0

    meta = StrategyMeta(name="cdcr", title="CDCR", family="weak labels", reference="arXiv:2207.02410")

    def memory(self, run: RunContext) -> ReservoirBuffer:
        """Return a reservoir."""
        return ReservoirBuffer(self.memory_size, run.generator("reservoir"))

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the plugin that chooses and, with a memory, the one that replays it."""
        replay = ReplayPlugin(*self.parts(run)) if self.memory_size else None
        return [CandidatePlugin(self, replay), *([replay] if replay else [])]


class CandidatePlugin(ShownLabelsPlugin):
    """Chooses among candidates before each epoch of the second stage.

    Attributes:
        ids: (N,) ascending ids of the images looked at; empty in the first stage.
        chosen: (N, n) bool, where a candidate counts.

    Args:
        options: When, and from which confidence.
        replay: Whose memory is looked at as well; None for none.
    """

    def __init__(self, options: CDCR, replay: ReplayPlugin | None) -> None:
        super().__init__()
        self.options = options
        self.replay = replay
        self.ids = torch.empty(0, dtype=torch.int64)
        self.chosen = torch.empty(0, 0, dtype=torch.bool)

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Look at all images and choose, unless it is the first stage."""
        self.ids = self.ids[:0]
        # Against rounding: 0.4 of 5 epochs are 2.
        if strategy.clock.train_exp_epochs < self.options.warmup * strategy.train_epochs - 1e-9:
            return
        datasets = [strategy.adapted_dataset]
        if self.replay is not None and self.replay.memory is not None:
            datasets.append(self.replay.memory)
        confidence = torch.cat(
            [read_logits(strategy.model, each, strategy.eval_mb_size, strategy.device).sigmoid() for each in datasets]
        ).cpu()
        candidates = torch.cat([each.labels.data for each in datasets]) == PRESENT
        accepted = accept(confidence, candidates, self.options.threshold, self.options.adaptive)
        # An image that is in both has one row: each of them says of which labels it is a candidate.
        self.ids, rows = torch.unique(torch.cat([each.sample_ids.data for each in datasets]), return_inverse=True)
        counts = torch.zeros(len(self.ids), accepted.shape[1], dtype=torch.int64).index_add_(0, rows, accepted.long())
        self.chosen = counts > 0

    def shown(self, strategy: Any) -> Tensor | None:
        """Return labels with the candidates that count."""
        if not len(self.ids):
            return None
        labels: Tensor = strategy.mb_y
        rows = torch.searchsorted(self.ids, strategy.mb_sample_id.cpu())
        return labels.masked_fill((labels == PRESENT) & ~self.chosen[rows].to(labels.device), OUT_OF_SCOPE)

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Show them; a criterion may make something of what is out of scope, which is not to reach the model."""
        super().after_forward(strategy, **kwargs)
        if self.annotated is not None:
            left_out = strategy.mb_y != self.annotated
            strategy.head_output = strategy.head_output.without_gradient(left_out)
            strategy.second_view = strategy.second_view and strategy.second_view.without_gradient(left_out)
            strategy.mb_output = strategy.head_output.logits


def accept(confidence: Tensor, candidates: Tensor, threshold: float, adaptive: bool) -> Tensor:
    """Return the (N, n) bool of candidates that count.

    Args:
        confidence: (N, n) probabilities.
        candidates: (N, n) bool.
        threshold: Confidence from which one counts.
        adaptive: Whether ``confidence - mu_c`` is compared with ``threshold - mu``.
    """
    if adaptive:
        # A label without candidates has no mean, and nothing to accept either.
        sums, counts = (confidence * candidates).sum(dim=0), candidates.sum(dim=0)
        confidence = confidence - sums / counts.clamp(min=1)
        threshold = threshold - float(sums.sum() / counts.sum().clamp(min=1))
    return candidates & (confidence >= threshold)
