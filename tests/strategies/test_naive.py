"""Naive fine-tuning: what it leaves alone, and what a criterion makes it forget."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.core import SupervisedPlugin

from cml_bench.losses.assume_negative import AssumeNegative
from cml_bench.registry import load

Naive = load("strategies", "naive")


class PlainDescent(SupervisedPlugin):
    """Takes the momentum out of the optimiser, which would carry gradients of one experience into the next."""

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        for group in strategy.optimizer.param_groups:
            group["momentum"] = 0.0


class OldRows(SupervisedPlugin):
    """Copies the head's old blocks when an experience starts and tells whether they are the same at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[bool] = []
        self.start: dict[str, torch.Tensor] = {}

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        state = strategy.model.state_dict()
        if self.start:
            self.kept.append(all(torch.equal(value, state[name]) for name, value in self.start.items()))
        self.start = {name: value.clone() for name, value in state.items()}


def test_old_rows_stay_bit_for_bit_on_frozen_features(tiny_scenario: Any, learn: Any) -> None:
    """Under bce unknown old labels give no gradient, so plain SGD cannot move their rows."""
    watcher = OldRows()
    learn(Naive(), tiny_scenario(annotation="current"), extra=[PlainDescent(), watcher])
    assert watcher.kept == [True, True]


def test_annotated_old_labels_do_move_old_rows(tiny_scenario: Any, learn: Any) -> None:
    watcher = OldRows()
    learn(Naive(), tiny_scenario(annotation="seen"), extra=[PlainDescent(), watcher])
    assert watcher.kept == [False, False]


def test_assuming_old_labels_negative_teaches_their_absence(tiny_scenario: Any, learn: Any) -> None:
    scenario = tiny_scenario(annotation="current")
    honest = learn(Naive(), scenario, extra=[PlainDescent()], epochs=5)
    assuming = learn(Naive(), scenario, extra=[PlainDescent()], epochs=5, criterion=AssumeNegative("bce", "seen"))
    assert torch.allclose(honest.logits[2][:, :2], honest.logits[0], atol=1e-6)
    assert float((assuming.logits[2][:, :2] - assuming.logits[0]).mean()) < -0.5


def test_logits_grow_with_the_labels(tiny_scenario: Any, learn: Any) -> None:
    learnt = learn(Naive(), tiny_scenario(base=1, increment=3))
    assert [logits.shape[1] for logits in learnt.logits] == [1, 4, 6]
