"""Optimisers by name."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from cml_bench.models.divided import agree, is_divided
from cml_bench.training.config import TrainingConfig


def make_optimizer(config: TrainingConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser over all trainable parameters that the model has so far; growth adds the rest."""
    made = _by_name(config, [p for p in model.parameters() if p.requires_grad])
    hang_hooks(made)
    return made


def hang_hooks(optimizer: torch.optim.Optimizer) -> None:
    """Give an optimiser the hooks that its process needs, and no others."""
    optimizer._optimizer_step_pre_hooks = OrderedDict()
    if is_divided():
        optimizer.register_step_pre_hook(agree)


def _by_name(config: TrainingConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=config.lr, momentum=0.9, weight_decay=config.weight_decay)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    # Fused: an eighth less a step of a small network on a CPU, one kernel in place of hundreds on a GPU.
    return kind(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
