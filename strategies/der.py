"""Dark experience replay with growing logits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from cml_bench.memory.budget import MemorySize
from cml_bench.memory.pixels import Store
from cml_bench.memory.reservoir import ReservoirBuffer
from cml_bench.models.reading import read_logits
from cml_bench.streams.dataset import MultiLabelDataset
from cml_bench.training.context import RunContext
from cml_bench.training.relabel import Relabel, make_reader
from cml_bench.training.replay import MemoryPlugin
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["DER"]


@dataclass(frozen=True)
class DER(Strategy):
    """Replay past images with the logits they had when they were stored (mean squared error), without their labels.

    The loss is ``L + alpha sum_i sum_{c < w_i} (z_ic - h_ic)^2 / sum_i w_i`` over images i drawn from the memory, h_i
    being the logits of the w_i labels that there were when image i was stored, and L the criterion's loss.

    Source: Buzzega et al. 2020, arXiv 2004.07211, section 3.1. In an online stream the logits of each training step are
    stored, as there. Departures: else logits are stored after the experience on images without augmentation, because
    experiences are trained for several epochs; labels that came later are not constrained; the error is a mean over
    entries, in the paper the squared distance of an image's logits.

    Attributes:
        memory_size: Images in memory, or for each label seen so far as in ``20/label``.
        replay_batch_size: Memory images a draw; None for as many as a full batch of the stream.
        alpha: Weight of the logit term.
        store: As for ``ER``: ``ids`` of stored images, or copies of their ``pixels``.
    """

    memory_size: MemorySize = 2000
    replay_batch_size: PositiveInt | None = None
    alpha: NonNegativeFloat = 0.1
    store: Store = "ids"

    meta = StrategyMeta(name="der", title="DER", family="replay", reference="arXiv:2004.07211", compares_logits=True)

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the DER plugin over a reservoir."""
        return [DERPlugin(*self.parts(run), alpha=self.alpha)]

    def parts(self, run: RunContext, relabel: Relabel = "as_stored") -> tuple[Any, ...]:
        """Return what a ``MemoryPlugin`` over a reservoir is made of."""
        buffer = ReservoirBuffer(self.memory_size, run.generator("reservoir"))
        return buffer, self.replay_batch_size, run.generator("replay"), make_reader(relabel, run, self.store)


class DERPlugin(MemoryPlugin):
    """Keeps the logits of stored images, and holds the model to them.

    Attributes:
        logits: Sample id to the (w,) logits of the w labels that there were when the image was stored.
    """

    def __init__(self, *parts: Any, alpha: float) -> None:
        super().__init__(*parts)
        self.alpha = alpha
        self.logits: dict[int, Tensor] = {}

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the logit term on a draw of its own."""
        if self.memory is not None and self.alpha:
            batch = self.draw(strategy)
            stored = [self.logits[sample] for sample in batch.sample_id.tolist()]
            strategy.loss += self.alpha * stored_logit_loss(strategy.model(batch[0]), stored)

    def show(self, strategy: Any, batch: MultiLabelDataset) -> None:
        """Show a batch of an online stream to the reservoir and store the step's logits of what it took in."""
        super().show(strategy, batch)
        self._keep(batch.sample_ids.data.tolist(), strategy.mb_output.detach())

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Show a whole experience to the reservoir and store the logits of what it took in."""
        super().after_training_exp(strategy, **kwargs)
        stored = self.buffer.buffer
        new = [row for row, sample in enumerate(stored.sample_ids.data.tolist()) if sample not in self.logits]
        images = stored.subset(new)
        read = read_logits(strategy.model, images, strategy.eval_mb_size, strategy.device) if new else ()
        self._keep(images.sample_ids.data.tolist(), read)

    def _keep(self, ids: list[int], logits: Iterable[Tensor]) -> None:
        """Keep what was said of images that have come into the memory; forget those that have left."""
        said = dict(zip(ids, logits, strict=True))
        # A copy of the row: a view would keep all the others alive.
        self.logits = {
            sample: self.logits[sample] if sample in self.logits else said[sample].clone()
            for sample in self.buffer.buffer.sample_ids.data.tolist()
        }


def stored_logit_loss(logits: Tensor, stored: list[Tensor]) -> Tensor:
    """Return the mean squared error between (B, n) logits and B stored rows over each row's own width."""
    target = torch.nn.utils.rnn.pad_sequence(stored, batch_first=True)
    widths = torch.tensor([len(row) for row in stored], device=logits.device)
    valid = torch.arange(target.shape[1], device=logits.device) < widths[:, None]
    error = (logits[:, : target.shape[1]] - target).square() * valid
    return error.sum() / valid.sum()
