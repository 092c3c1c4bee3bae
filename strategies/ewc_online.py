"""Online EWC: one Fisher information that fades, around the latest parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from avalanche.core import SupervisedPlugin
from pydantic import NonNegativeFloat, PositiveInt
from torch import nn

from cml_bench.training.context import RunContext
from cml_bench.training.importance import Importance
from cml_bench.training.strategy import Strategy, StrategyMeta

from .ewc import EWCPlugin

__all__ = ["OnlineEWC"]


@dataclass(frozen=True)
class OnlineEWC(Strategy):
    """Penalise moving away from the latest parameters, by a Fisher information in which old experiences fade.

    ``F <- gamma F + F_t`` after experience t, and the penalty is ``ewc_lambda / 2 sum F (theta - theta_t)^2``. F_t is
    EWC's Fisher information: per image, over known entries.

    Source: Schwarz et al. 2018, arXiv 1805.06370 (Progress & Compress), the online EWC of its section 3. Departures:
    the penalty has F where the paper's has ``gamma F``; independent labels instead of classes; parameters that arrive
    with new labels carry no penalty until the experience ends.

    Attributes:
        ewc_lambda: Weight of the penalty; has no safe default and must be swept.
        gamma: What is left of the old Fisher information after an experience; 1 keeps all of it.
        fisher: ``true`` draws the labels from the model (one draw an image), ``empirical`` takes the annotated ones.
        fisher_samples: Images that the Fisher information is estimated on.
    """

    ewc_lambda: NonNegativeFloat = 10.0
    gamma: NonNegativeFloat = 1.0
    fisher: Literal["true", "empirical"] = "true"
    fisher_samples: PositiveInt = 1000

    meta = StrategyMeta(name="ewc_online", title="Online EWC", family="regularization", reference="arXiv:1805.06370")

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the online EWC plugin."""
        empirical, generator = self.fisher == "empirical", run.generator("fisher")
        return [OnlineEWCPlugin(self.ewc_lambda, self.gamma, empirical, self.fisher_samples, generator)]


class OnlineEWCPlugin(EWCPlugin):
    """EWC's measurement, with a running Fisher information."""

    def __init__(
        self, ewc_lambda: float, gamma: float, empirical: bool, samples: int, generator: torch.Generator
    ) -> None:
        super().__init__(ewc_lambda, empirical, samples, generator)
        self.gamma = gamma

    def consolidate(self, model: nn.Module, importance: Importance) -> None:
        """Let the old Fisher information fade, add the new one, and move the centre."""
        faded = {name: self.gamma * old for name, old in self.curvature.items()}
        self.anchor(model, {name: faded[name] + new if name in faded else new for name, new in importance.items()})
