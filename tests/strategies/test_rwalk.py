"""RWalk: worked numbers, running Fisher and scores against a loop, and upstream's training in evaluation mode."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import RWalkPlugin as UpstreamRWalk
from torch import nn

from cml_bench.registry import load

RWalk, Naive = load("strategies", "rwalk"), load("strategies", "naive")
RWalkPlugin = load("strategies", "cml_bench.strategies.rwalk:RWalkPlugin")
scaled = load("strategies", "cml_bench.strategies.rwalk:scaled")


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def walk(window: int, steps: list[tuple[float, float]], fisher: float = 2.0) -> Any:
    """Lead a plugin with a constant Fisher information through (gradient, step) pairs of one weight."""
    plugin, model = RWalkPlugin(0.1, 0.9, window), nn.Module()
    model.theta = nn.Parameter(torch.zeros(1))
    strategy = SimpleNamespace(model=model, experience=SimpleNamespace())
    plugin.before_training_exp(strategy)
    plugin.fisher = {"theta": torch.tensor([fisher])}
    for gradient, step in steps:
        model.theta.grad = torch.tensor([gradient])
        plugin.before_update(strategy)
        with torch.no_grad():
            model.theta += step
        plugin.after_update(strategy)
    plugin.after_training_exp(strategy)
    return plugin


def test_worked_example() -> None:
    plugin = walk(1, [(-1.0, 0.5)])
    assert float(plugin.past_scores["theta"]) == pytest.approx(2.0, rel=1e-5)
    assert plugin.curvature["theta"].tolist() == [2.0]


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (1, 0.5 / 0.25 + 0.125 / 0.0625 - 0.2 / 0.01),
        (2, 0.625 / 0.75**2 - 0.2 / 0.01),  # the last window is cut short
        (3, 0.425 / 0.65**2),
        (10, 0.425 / 0.65**2),
    ],
)
def test_windows_add_up(window: int, expected: float) -> None:
    plugin = walk(window, [(-1.0, 0.5), (-0.5, 0.25), (-2.0, -0.1)])
    assert float(plugin.past_scores["theta"]) == pytest.approx(expected, rel=1e-4)


def test_scores_that_are_negative_or_zero_count_for_nothing() -> None:
    assert walk(1, [(1.0, 0.5)]).curvature["theta"].tolist() == [1.0]
    assert walk(1, [(0.0, 0.5)], fisher=0.0).curvature["theta"].tolist() == [0.0]
    assert {name: value.tolist() for name, value in scaled({"a": torch.tensor([1.0, 4.0])}).items()} == {
        "a": [0.25, 1.0]
    }


class Loop(SupervisedPlugin):
    """The method once more, weight by weight and image by image, on task gradients taken on their own."""

    def __init__(self, alpha: float, window: int) -> None:
        super().__init__()
        self.alpha, self.window = alpha, window
        self.fisher: dict[str, torch.Tensor] = {}
        self.scores: dict[str, torch.Tensor] = {}
        self.expected: dict[str, torch.Tensor] = {}
        self.modes: set[bool] = set()

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.steps = 0
        self.now = {name: torch.zeros_like(p) for name, p in strategy.model.named_parameters()}
        self._open(strategy)

    def _open(self, strategy: Any) -> None:
        self.begin = {name: p.detach().clone() for name, p in strategy.model.named_parameters()}
        self.fallen = {name: torch.zeros_like(value) for name, value in self.begin.items()}

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        model = strategy.model
        names, parameters = zip(*model.named_parameters(), strict=True)
        squares = [torch.zeros_like(p) for p in parameters]
        model.eval()
        for x, y in zip(strategy.mb_x, strategy.mb_y, strict=True):
            known = y >= 0
            z = model(x[None])[0][known]
            loss = nn.functional.binary_cross_entropy_with_logits(z, y[known].float(), reduction="sum")
            for square, g in zip(squares, torch.autograd.grad(loss, parameters), strict=True):
                square += g**2 / len(strategy.mb_x)
        model.train()
        for name, square in zip(names, squares, strict=True):
            old = self.fisher.get(name, square)
            self.fisher[name] = self.alpha * square + (1 - self.alpha) * old

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        self.modes |= {module.training for module in strategy.model.modules()}
        names, parameters = zip(*strategy.model.named_parameters(), strict=True)
        gradients = torch.autograd.grad(strategy.criterion(), parameters, retain_graph=True)
        self.gradients = dict(zip(names, gradients, strict=True))
        self.before = {name: p.detach().clone() for name, p in strategy.model.named_parameters()}

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        for name, p in strategy.model.named_parameters():
            self.fallen[name] -= self.gradients[name] * (p.detach() - self.before[name])
        self.steps += 1
        if self.steps % self.window == 0:
            self._score(strategy)

    def _score(self, strategy: Any) -> None:
        for name, p in strategy.model.named_parameters():
            length = 0.5 * self.fisher[name] * (p.detach() - self.begin[name]) ** 2
            self.now[name] += self.fallen[name] / (length + torch.finfo(torch.float32).eps)
        self._open(strategy)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self._score(strategy)
        for name, now in self.now.items():
            self.scores[name] = 0.5 * (self.scores[name] + now) if name in self.scores else now
        most_f = max(float(value.max()) for value in self.fisher.values())
        most_s = max(float(value.max()) for value in self.scores.values())
        self.expected = {name: self.fisher[name] / most_f + s.clamp(min=0) / most_s for name, s in self.scores.items()}


def test_fisher_scores_and_penalty_equal_a_loop(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    watcher, scenario = Loop(alpha=0.7, window=4), tiny_scenario(annotation="seen")
    strategy = RWalk(rwalk_lambda=0.5, alpha=0.7, window=4)
    learnt = learn(on_backbone(strategy), scenario, extra=[watcher], lr=0.01)
    plugin = learnt.plugins[0]
    assert watcher.modes == {True}, "the model does not train in training mode"
    assert plugin.curvature.keys() == watcher.expected.keys()
    for name, value in watcher.expected.items():
        assert torch.allclose(plugin.fisher[name], watcher.fisher[name], rtol=1e-3, atol=1e-7), name
        assert torch.allclose(plugin.curvature[name], value, rtol=1e-2, atol=1e-3), name


@pytest.mark.filterwarnings("ignore")
def test_upstream_trains_in_evaluation_mode(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    """Why the suite has its own: if this ever changes upstream, this test says so."""

    class Modes(SupervisedPlugin):
        seen: set[bool] = set()

        def before_forward(self, strategy: Any, **kwargs: Any) -> None:
            self.seen.add(strategy.model.training)

    learn(on_backbone(Naive()), tiny_scenario(), extra=[UpstreamRWalk(), Modes()], stop_after=1)
    assert Modes.seen == {False}


def test_a_block_without_entries_has_no_largest_value() -> None:
    """CSC's head links new labels to those before, and the first ones have none before them."""
    found = scaled({"none": torch.empty(0, 2), "some": torch.tensor([1.0, 4.0])})
    assert {name: value.tolist() for name, value in found.items()} == {"none": [], "some": [0.25, 1.0]}


def test_zero_strength_and_a_single_experience_are_naive(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    parts, whole = tiny_scenario(), tiny_scenario(base=6)
    for around in (lambda strategy: strategy, on_backbone):
        assert same(learn(around(RWalk(rwalk_lambda=0.0)), parts), learn(around(Naive()), parts))
        assert same(learn(around(RWalk()), whole), learn(around(Naive()), whole))


def test_the_penalty_holds_old_rows_and_the_backbone(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    """With every old label annotated anew, naive moves what a strong penalty holds."""
    scenario, drift = tiny_scenario(annotation="seen"), {}
    for strategy in (Naive(), RWalk(rwalk_lambda=20.0)):
        learnt = learn(strategy, scenario, lr=0.01, epochs=4)
        rows = float((learnt.logits[1][:, :2] - learnt.logits[0]).abs().mean())
        early, late = (learn(on_backbone(strategy), scenario, lr=0.01, stop_after=n).state() for n in (1, 3))
        name = "backbone.0.weight"
        drift[type(strategy).__name__] = rows, float((late[name] - early[name]).norm())
    assert all(held < 0.75 * free for held, free in zip(drift["RWalk"], drift["Naive"], strict=True)), drift
