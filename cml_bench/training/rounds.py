"""What a client of a federation does in a round besides training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from cml_bench.labels import OUT_OF_SCOPE, widen


@runtime_checkable
class HearsOfRounds(Protocol):
    """A plugin that has to know what a federation hands out for a round."""

    def start_round(self, strategy: Any, received: Mapping[str, Tensor]) -> None:
        """Take the server's weights by name; they stay as they are through the round."""

    def end_round(self, strategy: Any) -> None:
        """Let go of them: between rounds a client keeps no model."""


class ProximalPlugin(SupervisedPlugin):
    """Adds FedProx's ``mu / 2 ||w - w_received||^2`` over the trainable parameters to each loss."""

    def __init__(self, mu: float) -> None:
        super().__init__()
        self.mu = mu
        self.received: Mapping[str, Tensor] = {}

    def start_round(self, strategy: Any, received: Mapping[str, Tensor]) -> None:
        """Take the weights to stay near to."""
        self.received = received

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the term."""
        trained = ((name, p) for name, p in strategy.model.named_parameters() if p.requires_grad)
        strategy.loss += self.mu / 2 * sum((p - self.received[name]).square().sum() for name, p in trained)

    def end_round(self, strategy: Any) -> None:
        """Let go of the weights."""
        self.received = {}


class LearntLabels(SupervisedPlugin):
    """Notes which labels the batches asked for, those of a memory included.

    Attributes:
        labels: (n,) bool.
    """

    def __init__(self) -> None:
        super().__init__()
        self.labels = torch.zeros(0, dtype=torch.bool)

    def start(self, labels: Tensor, width: int) -> None:
        """Begin with the labels that (N, m) four-state labels ask for, out of ``width``."""
        self.labels = widen(labels, width).gt(OUT_OF_SCOPE).any(dim=0)

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add those of a batch."""
        asked = (strategy.mb_y > OUT_OF_SCOPE).any(dim=0)
        self.labels = self.labels.to(asked.device)
        self.labels[: len(asked)] |= asked
