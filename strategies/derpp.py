"""Dark experience replay ++: stored labels beside stored logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from avalanche.core import SupervisedPlugin
from pydantic import NonNegativeFloat

from cml_bench.training.context import RunContext
from cml_bench.training.relabel import Relabel
from cml_bench.training.strategy import StrategyMeta

from .der import DER, DERPlugin

__all__ = ["DERpp"]


@dataclass(frozen=True)
class DERpp(DER):
    """Replay stored logits (mean squared error) and stored labels of past images, drawn independently.

    The loss is ``L + alpha MSE + beta L(draw)``: ``DER``'s on one draw, and the criterion's on another with the stored
    labels.

    Source: Buzzega et al. 2020, arXiv 2004.07211, section 3.2. Departures: those of ``DER``.

    Attributes:
        beta: Weight of the label term; 0 is DER.
        relabel: Labels of stored images, as for ``ER``: ``as_stored``, ``pseudo`` (or ``pseudo>0.8``) or ``oracle``.
    """

    beta: NonNegativeFloat = 0.5
    relabel: Relabel = "as_stored"

    meta = StrategyMeta(
        name="derpp", title="DER++", family="replay", reference="arXiv:2004.07211", compares_logits=True
    )

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the DER++ plugin over a reservoir."""
        return [DERppPlugin(*self.parts(run, self.relabel), alpha=self.alpha, beta=self.beta)]


class DERppPlugin(DERPlugin):
    """Adds the label term to the logit term."""

    def __init__(self, *parts: Any, alpha: float, beta: float) -> None:
        super().__init__(*parts, alpha=alpha)
        self.beta = beta

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the logit and the label term, each on its own draw."""
        super().before_backward(strategy, **kwargs)
        if self.memory is not None and self.beta:
            strategy.loss += self.beta * self.loss(strategy, self.draw(strategy))
