"""Looking at a model between two steps of training, without a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from cml_bench.models.model import MultiLabelModel


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode; afterwards every module has the mode it had.

    A wrapper that is about predictions alone is off meanwhile: what training looks at, it has no part in.
    """
    # Not ``model.train()`` afterwards: a frozen part of a model in training is in evaluation mode.
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    taken_off = model.take_off() if isinstance(model, MultiLabelModel) else None
    try:
        yield
    finally:
        if taken_off is not None:
            model.wrapper = taken_off
        for module, mode in modes:
            module.training = mode
