"""What the criterion alone is shown, and that nothing of a batch outlives its step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from cml_bench.labels import OUT_OF_SCOPE
from cml_bench.losses.bce import BCE
from cml_bench.registry import load
from cml_bench.training.shown_labels import ShownLabelsPlugin

BATCH = 7


class EverySecond(ShownLabelsPlugin):
    """Shows the criterion nothing in every second step."""

    def __init__(self) -> None:
        super().__init__()
        self.step = 0

    def shown(self, strategy: Any) -> Tensor | None:
        self.step += 1
        return None if self.step % 2 else torch.full_like(strategy.mb_y, OUT_OF_SCOPE)


def test_the_criterion_alone_is_shown_others(tiny_scenario: Any, learn: Any) -> None:
    judged, read = [], []

    class Watching(BCE):
        def forward(self, output: Any, labels: Tensor, *arguments: Any, **options: Any) -> Tensor:
            if torch.is_grad_enabled():  # not in evaluation
                judged.append(labels.clone())
            return super().forward(output, labels, *arguments, **options)

    class Reading(SupervisedPlugin):
        def before_forward(self, strategy: Any, **kwargs: Any) -> None:
            read.append(strategy.mb_y.clone())

        def before_backward(self, strategy: Any, **kwargs: Any) -> None:
            assert torch.equal(strategy.mb_y, read[-1])

    learn(load("strategies", "naive")(), tiny_scenario(), criterion=Watching(), extra=[EverySecond(), Reading()])
    assert len(judged) == len(read) > 3
    for step, (labels, annotated) in enumerate(zip(judged, read, strict=True)):
        assert torch.equal(labels, annotated) if step % 2 == 0 else bool((labels == OUT_OF_SCOPE).all())


def tensors_of(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [found for part in value for found in tensors_of(part)] if isinstance(value, tuple) else []


class Keepers(SupervisedPlugin):
    """Notes which attributes of plugins hold a batch: within the step, and where a checkpoint would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.within: set[str] = set()
        self.after: set[str] = set()

    def holding(self, strategy: Any) -> set[str]:
        own = [pair for plugin in strategy.plugins for pair in vars(plugin).items()]
        return {name for name, value in own if any(t.shape[:1] == (BATCH,) for t in tensors_of(value))}

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        self.within |= self.holding(strategy)

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self.after |= self.holding(strategy)


@pytest.mark.parametrize(
    ("name", "options", "within"),
    [
        ("pseudo_label", {}, {"taught", "annotated"}),
        ("icarl", {"memory_size": 0}, {"annotated"}),
        ("cdcr", {"warmup": 0.1}, {"annotated"}),
        ("mile", {"teacher_steps": 1, "student_steps": 1}, {"annotated"}),
        ("agcn", {}, {"taught"}),
    ],
)
def test_no_batch_is_kept(tiny_scenario: Any, learn: Any, name: str, options: dict[str, Any], within: set[str]) -> None:
    keepers = Keepers()
    learn(load("strategies", name)(**options), tiny_scenario(), extra=[keepers], batch_size=BATCH)
    assert keepers.within == within
    assert not keepers.after
