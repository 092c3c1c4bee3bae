"""Learning rates step by step against closed forms and torch's own schedulers."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch.optim.lr_scheduler import OneCycleLR

from cml_bench.registry import load
from cml_bench.training.schedule import SchedulePlugin

LR = 0.08
Naive = load("strategies", "naive")


class RateWatcher(SupervisedPlugin):
    """Notes the learning rate of every update of every parameter group."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[list[float]] = []

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.rates.append([])

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        rates = {group["lr"] for group in strategy.optimizer.param_groups}
        assert len(rates) == 1, "old and new parameters learn at different rates"
        self.rates[-1] += rates


def one_cycle(steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler = OneCycleLR(optimizer, LR, total_steps=steps + 1, pct_start=0.2, cycle_momentum=False)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


EXPECTED = {
    "constant": lambda steps: [LR] * steps,
    "cosine": lambda steps: [LR * (1 + math.cos(math.pi * k / steps)) / 2 for k in range(steps)],
    "one_cycle": one_cycle,
}


@pytest.mark.parametrize("kind", sorted(EXPECTED))
def test_every_experience_runs_the_whole_schedule(tiny_scenario: Any, learn: Any, kind: str) -> None:
    watcher, scenario = RateWatcher(), tiny_scenario()
    learn(Naive(), scenario, schedule=kind, lr=LR, epochs=3, extra=[watcher])
    assert len(watcher.rates) == 3
    for experience, rates in zip(scenario.train_stream, watcher.rates, strict=True):
        steps = 3 * math.ceil(len(experience.dataset) / 8)
        assert rates == pytest.approx(EXPECTED[kind](steps), rel=1e-6)
        if kind == "one_cycle":
            assert max(rates) == pytest.approx(LR, rel=0.05)


@pytest.mark.parametrize("steps", range(1, 12))
def test_few_steps_are_enough_for_every_schedule(steps: int) -> None:
    """Four made torch divide by zero; whatever their number, one cycle reaches its peak, after at least one."""
    for kind in EXPECTED:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
        plugin = SchedulePlugin(kind, LR)  # type: ignore[arg-type]
        plugin.before_training_exp(SimpleNamespace(optimizer=optimizer, dataloader=range(steps), train_epochs=1))
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            plugin.after_training_iteration(None)
        rates.append(optimizer.param_groups[0]["lr"])
        assert all(0 <= rate <= LR for rate in rates)
        if steps == 1:
            assert rates[0] == LR, "all that there is to learn with is a twenty-fifth of the rate asked for"
        elif kind == "one_cycle":
            assert rates[0] < rates[1]
            assert max(rates) > 0.8 * LR


@pytest.mark.parametrize("kind", ["cosine", "one_cycle"])
def test_an_experience_without_steps_has_no_scheduler(kind: str) -> None:
    """That of the experience before would go on beyond its last step."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    plugin = SchedulePlugin(kind, LR)  # type: ignore[arg-type]
    for steps in (3, 0):
        plugin.before_training_exp(SimpleNamespace(optimizer=optimizer, dataloader=range(steps), train_epochs=1))
        assert (plugin.scheduler is None) == (steps == 0)


@pytest.mark.parametrize("kind", ["cosine", "one_cycle"])
def test_a_group_keeps_its_factor(kind: str) -> None:
    """Estimates of ROLE learn ten times as fast, at the peak and on the way."""
    slow, fast = (torch.zeros(1, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [slow]}, {"params": [fast], "lr_factor": 10.0}], lr=LR)
    plugin = SchedulePlugin(kind, LR)
    plugin.before_training_exp(SimpleNamespace(optimizer=optimizer, dataloader=range(9), train_epochs=1))
    for _ in range(9):
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates[1] == pytest.approx(10 * rates[0])
        optimizer.step()
        plugin.after_training_iteration(None)
