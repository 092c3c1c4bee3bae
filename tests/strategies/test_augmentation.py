"""Images are augmented for steps of training, and for nothing that is measured, stored or solved between them."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from avalanche.core import SupervisedPlugin
from torch import Tensor

from cml_bench.data.inputs import TensorInputs
from cml_bench.registry import entries
from cml_bench.testing.strategies import StrategyCase
from cml_bench.testing.trial import try_out

NEED = {"gem": "memory_size=20", "krt": "memory_size=20 head.width=16", "er": "memory_size=20 relabel=pseudo"}
"""Options without which a strategy does not do what is looked at here."""


class Epochs(SupervisedPlugin):
    """Knows whether an epoch is under way, and which model it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = False
        self.model: Any = None

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self.under_way, self.model = True, strategy.model

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self.under_way = False


@pytest.mark.parametrize("name", entries("strategies"))
def test_images_are_augmented_in_steps_alone(with_plugins: Any, name: str) -> None:
    epochs, original = Epochs(), TensorInputs.fetch
    augmented: list[bool] = []

    def fetch(self: TensorInputs, rows: Tensor, *, training: bool) -> Tensor:
        if training:
            augmented.append(epochs.under_way and epochs.model.training)
        return original(self, rows, training=training)

    with_plugins(epochs)
    with patch.object(TensorInputs, "fetch", fetch):
        try_out(StrategyCase(f"{name} {NEED.get(name, '')}".strip()).plan)
    assert all(augmented)
    assert augmented or name in ("ridge", "l3a")
