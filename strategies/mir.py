"""Maximally interfered retrieval: replay what the next step would harm most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.func import functional_call, vmap

from cml_bench.errors import CmlBenchError
from cml_bench.labels import is_known
from cml_bench.losses.criterion import Criterion
from cml_bench.models.evaluating import evaluating
from cml_bench.training.context import RunContext
from cml_bench.training.replay import MemoryPlugin
from cml_bench.training.strategy import StrategyMeta

from .er import ER

__all__ = ["MIR"]

_CHOICE = 5
"""Candidates for each image that is replayed."""


@dataclass(frozen=True)
class MIR(ER):
    """Experience replay of those drawn images whose loss a step on the stream's batch alone would raise most.

    Of the drawn images i, those with the largest ``l_i(theta - lr grad L(theta)) - l_i(theta)`` are replayed, with L
    the loss of the stream's batch and l_i that of one image; the loss is ``L(batch) + L(chosen)``.

    Source: Aljundi et al. 2019, arXiv 1908.04742, section 3.1 (ER-MIR): the step is plain gradient descent with the
    current learning rate, whatever the optimiser. Inferred, for several labels: l_i is the criterion's on the image's
    row alone. Departures: both losses are read in evaluation mode, so that the look leaves no trace in batch-norm
    statistics; the rows chosen make a loss of their own.

    Attributes:
        candidates: Memory images drawn a step, of which the ``replay_batch_size`` worst are replayed; None for five
            times as many, the published 50 for 10.
    """

    candidates: PositiveInt | None = None

    meta = StrategyMeta(name="mir", title="MIR", family="replay", reference="arXiv:1908.04742", criterion="logits")

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the plugin that retrieves and replays.

        Raises:
            CmlBenchError: If all candidates would be replayed.
        """
        replayed = self.replay_batch_size or run.training.batch_size
        candidates = self.candidates or _CHOICE * replayed
        if candidates <= replayed:
            raise CmlBenchError(
                f"candidates={candidates} leaves nothing to choose where {replayed} images are replayed a step: set "
                f"candidates={_CHOICE * replayed}, or a smaller replay_batch_size"
            )
        return [MIRPlugin(*self.parts(run), candidates=candidates)]


class MIRPlugin(MemoryPlugin):
    """Adds the loss of the most interfered candidates."""

    def __init__(self, *parts: Any, candidates: int) -> None:
        super().__init__(*parts)
        self.candidates = candidates

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Retrieve and replay."""
        if self.memory is None:
            return
        batch = self.draw(strategy, self.candidates)
        logits = look_ahead(strategy.model, strategy.loss, batch[0], strategy.optimizer.param_groups[0]["lr"])
        harm = interference(strategy._criterion, *logits, batch[1], strategy.clock.train_exp_epochs)
        # Stable: of equals the first.
        worst = harm.sort(descending=True, stable=True).indices[: self.batch_size or strategy.train_mb_size]
        strategy.loss += self.loss(strategy, batch.select(worst))


def look_ahead(model: nn.Module, loss: Tensor, x: Tensor, lr: float) -> tuple[Tensor, Tensor]:
    """Return (B, n) logits of a batch in evaluation mode, now and after a step down the gradient of ``loss``.

    The model, its gradients included, and the graph of the loss are left as they are.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss.sum(), list(parameters.values()), retain_graph=True, allow_unused=True)
    with torch.no_grad(), evaluating(model):
        moved = {
            name: p if g is None else p - lr * g for (name, p), g in zip(parameters.items(), gradients, strict=True)
        }
        return model(x), functional_call(model, moved, (x,))


def interference(criterion: Criterion, now: Tensor, then: Tensor, labels: Tensor, epoch: int = 0) -> Tensor:
    """Return (B,) by how much each image's own loss rises from one set of (B, n) logits to another.

    The loss is that of the epoch: some criteria change from one to the next.

    An image without a known label of which the criterion makes nothing has nothing to lose, and comes last: minus
    infinity.
    """
    of_one = vmap(lambda logits, states: criterion(logits[None], states[None], epoch=epoch))
    before, after = of_one(now, labels), of_one(then, labels)
    rise: Tensor = after - before
    nothing = ~is_known(labels).any(dim=1) & (before == 0) & (after == 0)
    return rise.masked_fill(nothing, -torch.inf)
