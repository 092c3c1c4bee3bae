"""Distilling what the backbone sees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.head import Head
from cml_bench.models.layout import Features
from cml_bench.models.model import MultiLabelModel
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


class BackboneTeacherPlugin(TeacherPlugin, ABC):
    """Adds a distance between what the backbone and the old backbone return for the same batch.

    The old backbone runs in evaluation mode, the new one as it trains: with batch norm there is a distance even where
    their weights are equal. The teacher answers for features, not for labels: a criterion that assumes unknown entries
    to be negative goes on doing so for old labels (no ``Criterion.spare``).
    """

    def __init__(self) -> None:
        super().__init__(answers=False)
        self._seen: Features | None = None
        self._hook: RemovableHandle | None = None

    @abstractmethod
    def distance(self, now: Any, before: Any, strategy: Any) -> Tensor:
        """Return the loss of the backbone's features, (B, D, ...) or several maps, given those of the old one."""

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Listen to the backbone for a step; for longer, and a learner could not be stored between steps."""
        if self.teacher is not None:
            self._hook = strategy.model.backbone.register_forward_hook(self._see)

    def _see(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Features) -> None:
        self._seen = output

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Stop listening."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the distance to the old features."""
        if self.teacher is None:
            return
        with torch.no_grad():
            before = self.teacher.backbone(strategy.mb_x)
        assert self._seen is not None
        # A criterion that compares views has had a second one of each image read after the first.
        n = len(strategy.mb_x)
        seen = tuple(level[:n] for level in self._seen) if isinstance(self._seen, tuple) else self._seen[:n]
        strategy.loss += self.distance(seen, before, strategy)
        self._seen = None
