"""Feature distillation: the backbone keeps seeing what it saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from avalanche.core import SupervisedPlugin
from pydantic import NonNegativeFloat
from torch import Tensor

from cml_bench.models.layout import Features, pool
from cml_bench.training.backbone_teacher import BackboneDistillation, BackboneTeacherPlugin
from cml_bench.training.context import RunContext
from cml_bench.training.strategy import StrategyMeta

__all__ = ["FeatureDistillation"]


@dataclass(frozen=True)
class FeatureDistillation(BackboneDistillation):
    """Keep the pooled feature of every image where the old backbone had it.

    The loss is ``L + weight sum_x ||f_x - g_x||^2 / sum_x ||g_x||^2`` over the images of a batch, L being the
    criterion's, f the feature and g the old backbone's.

    Source: Jung et al. 2016, arXiv 1607.00122 (less-forgetting learning). Departures: the division, so that a weight
    means the same for every backbone; the old rows of the head are not frozen (a criterion without unknown entries in
    old columns leaves them alone anyway).

    Attributes:
        weight: Weight of the distance.
    """

    weight: NonNegativeFloat = 1.0

    meta = StrategyMeta(name="feature_distillation", title="FD", family="distillation", reference="arXiv:1607.00122")

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the distillation plugin."""
        return [FeatureDistillationPlugin(self.weight)] if self.weight else []


class FeatureDistillationPlugin(BackboneTeacherPlugin):
    """Adds the relative squared distance of the pooled features."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def distance(self, now: Features, before: Features, strategy: Any) -> Tensor:
        """Return the weighted distance; of a pyramid, that of the coarsest map."""
        return self.weight * relative_distance(pool(now), pool(before))


def relative_distance(now: Tensor, before: Tensor) -> Tensor:
    """Return the squared distance of (B, ...) features over the squared length of the old ones."""
    return (now - before).square().sum() / before.square().sum().clamp(min=1e-12)
