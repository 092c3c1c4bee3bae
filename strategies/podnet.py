"""Pooled output distillation: the backbone keeps seeing it where it saw it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from pydantic import NonNegativeFloat
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.head import Head
from cml_bench.models.layout import in_place_of_map, pool
from cml_bench.models.model import MultiLabelModel
from cml_bench.training.backbone_teacher import BackboneDistillation, BackboneTeacherPlugin
from cml_bench.training.context import RunContext
from cml_bench.training.strategy import StrategyMeta

__all__ = ["PODNet"]


@dataclass(frozen=True)
class PODNet(BackboneDistillation):
    """Keep the rows and columns of the feature map, and the direction of the pooled feature, where they were.

    The loss is ``L + sqrt(n_seen / n_new) mean_x (spatial_weight ||s - s_o|| + flat_weight (1 - cos(f, f_o)))``, with L
    the criterion's, f the pooled feature, s the squared map summed over its height and over its width, joined and of
    length 1, and f_o and s_o what they are in the old backbone.

    Source: Douillard et al. 2020, arXiv 2004.13513 (POD-spatial and POD-flat), with squares, normalisation and weights
    of the released code (``arthurdouillard/incremental_learning.pytorch``). Departures: the last feature map alone,
    which every backbone here returns, not the output of each stage; the distillation alone, without cosine classifier,
    NCA loss, memory and balanced fine-tuning.

    Attributes:
        spatial_weight: Weight of the spatial term.
        flat_weight: Weight of the flat term.
    """

    spatial_weight: NonNegativeFloat = 3.0
    flat_weight: NonNegativeFloat = 1.0

    meta = StrategyMeta(name="podnet", title="POD", family="distillation", reference="arXiv:2004.13513")

    def build_model(self, backbone: nn.Module | None, head: Head) -> MultiLabelModel:
        """Return backbone and head.

        Raises:
            CmlBenchError: If the backbone has nothing to train, or what the head has it return is no map.
        """
        instead = in_place_of_map(backbone, head.meta.features)
        if instead == "vectors":
            raise CmlBenchError(
                "podnet compares feature maps, but this backbone returns vectors: take another backbone, or "
                "feature_distillation"
            )
        if instead:
            raise CmlBenchError(
                f"podnet compares feature maps, and for head={head.meta.name} the backbone returns {instead}: take "
                "another head, or feature_distillation"
            )
        return super().build_model(backbone, head)

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the distillation plugin."""
        if not self.spatial_weight and not self.flat_weight:
            return []
        return [PODPlugin(self.spatial_weight, self.flat_weight)]


class PODPlugin(BackboneTeacherPlugin):
    """Adds both terms."""

    def __init__(self, spatial_weight: float, flat_weight: float) -> None:
        super().__init__()
        self.spatial_weight = spatial_weight
        self.flat_weight = flat_weight

    def distance(self, now: Tensor, before: Tensor, strategy: Any) -> Tensor:
        """Return the weighted terms of (B, D, H, W) maps."""
        labels = strategy.experience.dataset.labels
        growth = math.sqrt(len(labels.names) / max(1, len(labels.names) - labels.first_new))
        spatial = self.spatial_weight * spatial_distance(now, before)
        return growth * (spatial + self.flat_weight * flat_distance(pool(now), pool(before)))


def spatial_distance(now: Tensor, before: Tensor) -> Tensor:
    """Return the mean over images of the distance of (B, D, H, W) maps as POD-spatial sees them."""
    distances: Tensor = torch.linalg.vector_norm(_strips(now) - _strips(before), dim=1)
    return distances.mean()


def _strips(maps: Tensor) -> Tensor:
    """Return (B, D (H + W)) unit vectors: the squared map summed over its width, and over its height."""
    squared = maps.square()
    return F.normalize(torch.cat([squared.sum(dim=3).flatten(1), squared.sum(dim=2).flatten(1)], dim=1), dim=1)


def flat_distance(now: Tensor, before: Tensor) -> Tensor:
    """Return the mean over images of one minus the cosine of (B, D) features."""
    cosine: Tensor = F.cosine_similarity(now, before, dim=1)
    return (1 - cosine).mean()
