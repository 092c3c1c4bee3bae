"""A training batch of one image, which has no statistics of its own where its map is a single position."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def running_statistics_if_alone(model: nn.Module) -> Iterator[None]:
    """Let batch norms that are shown one value a channel go by their running statistics.

    Of one value torch takes no mean and variance but raises; every map of more positions is normalised by its own.
    """
    silenced: list[nn.Module] = []

    def look(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if layer.training and inputs[0].numel() == inputs[0].shape[1]:
            layer.eval()
            silenced.append(layer)

    hooks = [
        part.register_forward_pre_hook(look)
        for part in model.modules()
        if isinstance(part, _BatchNorm) and part.track_running_stats
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer in silenced:
            layer.training = True
