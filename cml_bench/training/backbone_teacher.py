"""Distilling what the backbone sees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.head import Head
from cml_bench.models.model import MultiLabelModel
from cml_bench.training.backbone_listener import BackboneListener, full
from cml_bench.training.strategy import Strategy
from cml_bench.training.teacher import TeacherPlugin


@dataclass(frozen=True)
class BackboneDistillation(Strategy):
    """A strategy that holds the features of a trained backbone in place."""

    def build_model(self, backbone: nn.Module | None, head: Head) -> MultiLabelModel:
        """Return backbone and head.

        Raises:
            CmlBenchError: If the backbone has nothing to train.
        """
        if backbone is None or not any(parameter.requires_grad for parameter in backbone.parameters()):
            raise CmlBenchError(
                f"{self.meta.name} holds the features of a trained backbone in place, but here the model reads fixed "
                "features: set frozen=false, or take lwf"
            )
        return super().build_model(backbone, head)


class BackboneTeacherPlugin(BackboneListener, TeacherPlugin, ABC):
    """Adds a distance between what the backbone and the old backbone return for the same batch.

    The old backbone runs in evaluation mode, the new one as it trains: with batch norm there is a distance even where
    their weights are equal. The teacher answers for features, not for labels: a criterion that assumes unknown entries
    to be negative goes on doing so for old labels (no ``Criterion.spare``).
    """

    def __init__(self) -> None:
        super().__init__(answers=False)

    @abstractmethod
    def distance(self, now: Any, before: Any, strategy: Any) -> Tensor:
        """Return the loss of the backbone's features, (B, D, ...) or several maps, given those of the old one."""

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Listen to the backbone, once there is an old one to compare it with."""
        if self.teacher is not None:
            super().before_forward(strategy, **kwargs)

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the distance to the old features."""
        if self.teacher is None:
            return
        x = strategy.mb_x
        with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=self.teacher.bf16):
            before = full(self.teacher.backbone(x))
        assert self.seen is not None
        # A criterion that compares views has had a second one of each image read after the first.
        n = len(x)
        seen = tuple(level[:n] for level in self.seen) if isinstance(self.seen, tuple) else self.seen[:n]
        strategy.loss += self.distance(seen, before, strategy)
        self.seen = None
