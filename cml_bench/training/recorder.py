"""Collects the logits of an evaluation, whatever strategy runs it."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor


class LogitRecorder(SupervisedPlugin):
    """Keeps sample ids and logits of every evaluated batch, from any Avalanche strategy."""

    def __init__(self) -> None:
        super().__init__()
        self._ids: list[Tensor] = []
        self._logits: list[Tensor] = []

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Forget the previous evaluation."""
        self._ids, self._logits = [], []

    def after_eval_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Keep one batch."""
        self._ids.append(strategy.mbatch.sample_id)
        # They stay where they are: fetching them would stall a GPU at every batch.
        self._logits.append(strategy.mb_output.detach().float())

    def result(self) -> tuple[Tensor, Tensor]:
        """Return (N,) sample ids and (N, n) float32 logits of the last evaluation."""
        return torch.cat(self._ids).cpu(), torch.cat(self._logits).cpu()
