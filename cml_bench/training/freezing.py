"""Freezing that holds: no gradient, no weight decay, no drifting statistics."""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin
from torch import nn

from cml_bench.streams.timeline import ends_experience


class FreezePlugin(SupervisedPlugin):
    """Freezes a part of the model as it is when an experience ends.

    Parameters that are born later, the rows of new labels, train in the experience that brings them. Optimisers skip
    parameters without a gradient, so neither momentum nor weight decay moves a frozen one. A backbone that is frozen
    altogether is kept in evaluation mode, and so is frozen batch norm (Avalanche's ``freeze_everything`` sets that
    once, and the next ``model.train()`` undoes it, after which batch-norm statistics drift).

    Args:
        part: The model or a module of it.
    """

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Keep the statistics of a frozen backbone, and of frozen batch norm elsewhere."""
        backbone = strategy.model.backbone
        if not any(parameter.requires_grad for parameter in backbone.parameters()):
            backbone.eval()
        for layer in self.part.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.affine and not layer.weight.requires_grad:
                layer.eval()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Freeze."""
        if ends_experience(strategy.experience):
            self.part.requires_grad_(False)
