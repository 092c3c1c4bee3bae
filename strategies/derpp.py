"""Dark experience replay ++ with growing logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from cml_bench.memory.reservoir import ReservoirBuffer
from cml_bench.streams.dataset import Batch, MultiLabelDataset
from cml_bench.streams.loading import BatchLoader
from cml_bench.training.context import RunContext
from cml_bench.training.replay import draw, read_memory
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["DERpp"]


@dataclass(frozen=True)
class DERpp(Strategy):
    """Replay stored logits (mean squared error) and stored labels of past images, drawn independently.

    Source: Buzzega et al. 2020, arXiv 2004.07211. Departures: logits are stored after the experience on images without
    augmentation, because experiences are trained for several epochs; a stored row constrains only the labels that
    existed when it was stored.

    Attributes:
        memory_size: Images in memory.
        replay_batch_size: Memory images a draw; None for as many as stream images.
        alpha: Weight of the logit term.
        beta: Weight of the label term; 0 is DER.
    """

    memory_size: NonNegativeInt = 2000
    replay_batch_size: PositiveInt | None = None
    alpha: NonNegativeFloat = 0.1
    beta: NonNegativeFloat = 0.5

    meta = StrategyMeta(name="derpp", title="DER++", family="replay", reference="arXiv:2004.07211")

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the DER++ plugin over a reservoir."""
        buffer = ReservoirBuffer(self.memory_size, run.generator("reservoir"))
        return [DERppPlugin(buffer, self.replay_batch_size, self.alpha, self.beta, run.generator("replay"))]


class DERppPlugin(SupervisedPlugin):
    """Keeps a reservoir with the logits that its images had when they were stored."""

    def __init__(
        self,
        buffer: ReservoirBuffer,
        batch_size: int | None,
        alpha: float,
        beta: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.buffer = buffer
        self.batch_size = batch_size
        self.alpha = alpha
        self.beta = beta
        self.generator = generator
        self.logits: dict[int, Tensor] = {}
        self.memory: MultiLabelDataset | None = None

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Read the memory for the experience."""
        if len(self.buffer.buffer):
            names = strategy.experience.dataset.labels.names
            self.memory = read_memory(self.buffer.buffer, names).train()

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the logit and the label term, each on its own draw."""
        if self.memory is None:
            return
        if self.alpha:
            batch = self._draw(strategy)
            stored = [self.logits[sample] for sample in batch.sample_id.tolist()]
            strategy.loss += self.alpha * stored_logit_loss(strategy.model(batch[0]), stored)
        if self.beta:
            batch = self._draw(strategy)
            output = strategy.model.head_output(batch[0])
            strategy.loss += self.beta * strategy._criterion(output, batch[1], batch.sample_id)

    def _draw(self, strategy: Any) -> Batch:
        assert self.memory is not None
        batch = draw(self.memory, self.batch_size or strategy.train_mb_size, self.generator)
        batch[:] = [part.to(strategy.device) for part in batch]
        return batch

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Show the experience to the reservoir and store the logits of what it took in."""
        self.buffer.post_adapt(strategy, strategy.experience)
        stored = self.buffer.buffer.eval()
        new = [row for row, sample in enumerate(stored.sample_ids.data.tolist()) if sample not in self.logits]
        logits = {sample: self.logits[sample] for sample in stored.sample_ids.data.tolist() if sample in self.logits}
        was_training = strategy.model.training
        strategy.model.eval()
        if new:
            for batch in BatchLoader(stored.subset(new), strategy.eval_mb_size):
                logits.update(zip(batch.sample_id.tolist(), strategy.model(batch[0].to(strategy.device)), strict=True))
        strategy.model.train(was_training)
        self.logits = logits


def stored_logit_loss(logits: Tensor, stored: list[Tensor]) -> Tensor:
    """Return the mean squared error between (B, n) logits and B stored rows over each row's own width."""
    target = torch.nn.utils.rnn.pad_sequence(stored, batch_first=True)
    widths = torch.tensor([len(row) for row in stored], device=logits.device)
    valid = torch.arange(target.shape[1], device=logits.device) < widths[:, None]
    error = (logits[:, : target.shape[1]] - target).square() * valid
    return error.sum() / valid.sum()
