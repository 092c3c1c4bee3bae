"""Listening to the backbone for a step."""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cml_bench.models.layout import Features


class BackboneListener(SupervisedPlugin):
    """Keeps what the backbone returns in the forward pass of a step.

    It listens for that pass alone: for longer, and a learner could not be stored between steps.

    Attributes:
        seen: What was returned, in float32 whatever the precision; to be let go of once it has been used.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: Features | None = None
        self._hook: RemovableHandle | None = None

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Listen."""
        self._hook = strategy.model.backbone.register_forward_hook(self._hear)

    def _hear(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Features) -> None:
        self.seen = full(output)

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Stop listening, before anything else is shown to the backbone."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None


def full(features: Features) -> Features:
    """Return features in float32."""
    return tuple(level.float() for level in features) if isinstance(features, tuple) else features.float()
