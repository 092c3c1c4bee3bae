"""CSC: the entropy term, the mixture of losses, and when it is naive."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.distributions import Bernoulli, kl_divergence

from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED
from cml_bench.registry import load

CSC, Naive = load("strategies", "csc"), load("strategies", "naive")
CSCPlugin = load("strategies", "cml_bench.strategies.csc:CSCPlugin")
negative_entropy = load("strategies", "cml_bench.strategies.csc:negative_entropy")


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_worked_example() -> None:
    both = torch.tensor([[0.5, 0.9]])
    assert 0.04 * float(negative_entropy(both)) == pytest.approx(-0.01766, abs=1e-5)
    assert float(negative_entropy(both.repeat(3, 1))) == pytest.approx(float(negative_entropy(both)))


def test_it_draws_towards_one_over_e() -> None:
    p = torch.tensor([[1 / math.e, 0.2, 0.6, 0.99]], dtype=torch.float64, requires_grad=True)
    negative_entropy(p).backward()
    at, low, high, sure = p.grad[0].tolist()
    assert at == pytest.approx(0.0, abs=1e-4)
    assert low < 0 < high < sure


class Step:
    """One iteration with a teacher of one label."""

    mb_x = torch.zeros(2, 1)
    mb_output = torch.tensor([[0.5, 1.0], [-1.0, 2.0]])

    def __init__(self, states: list[int]) -> None:
        self.mb_y = torch.tensor([[state, 1] for state in states], dtype=torch.int8)
        self.loss = torch.tensor(0.7)


def taught(alpha: float, entropy_weight: float) -> Any:
    plugin = CSCPlugin(alpha, entropy_weight)
    plugin.teacher = torch.nn.Module()
    plugin.teacher.head = torch.nn.Module()
    plugin.teacher.head.n_labels = 1
    plugin.teacher.head_output = lambda x: type("Out", (), {"logits": torch.tensor([[2.0], [-0.5]])})()
    return plugin


@pytest.mark.parametrize(
    ("states", "distilled"),
    [
        ([UNMARKED, OUT_OF_SCOPE], [0, 1]),
        ([UNMARKED, ABSENT], [0]),
        ([PRESENT, OUT_OF_SCOPE], [1]),
        ([PRESENT, ABSENT], []),
    ],
)
def test_mixture_of_losses(states: list[int], distilled: list[int]) -> None:
    step = Step(states)
    taught(0.3, 0.1).before_backward(step)
    teacher, student = torch.tensor([2.0, -0.5]), step.mb_output[:, 0]
    divergence = kl_divergence(Bernoulli(logits=teacher), Bernoulli(logits=student))[distilled]
    p = torch.sigmoid(step.mb_output)
    entropy = sum(float(v) * math.log(float(v) + 1e-5) for v in p.flatten()) / 2
    expected = 0.3 * 0.7 + 0.7 * (float(divergence.mean()) if distilled else 0.0) + 0.1 * entropy
    assert float(step.loss) == pytest.approx(expected, abs=1e-6)


def test_when_it_is_naive(tiny_scenario: Any, learn: Any) -> None:
    parts, whole = tiny_scenario(), tiny_scenario(base=6)
    assert same(learn(CSC(), whole), learn(Naive(), whole))
    assert same(learn(CSC(alpha=1.0, entropy_weight=0.0), parts), learn(Naive(), parts))
    assert not same(learn(CSC(alpha=1.0, entropy_weight=0.1), parts), learn(Naive(), parts))


def test_entropy_holds_confidence_back(tiny_scenario: Any, learn: Any) -> None:
    scenario, sure = tiny_scenario(n=80), []
    for weight in (0.0, 1.0):
        learnt = learn(CSC(entropy_weight=weight), scenario, epochs=6, lr=0.3)
        sure.append(float((learnt.logits[-1].sigmoid() - 1 / math.e).abs().mean()))
    assert sure[1] < 0.8 * sure[0]


def test_grown_parameters_are_trained() -> None:
    """In the released code they never reach the optimiser."""
    from cml_bench.testing.strategies import StrategyCase
    from cml_bench.testing.trial import try_out

    learner = try_out(StrategyCase("csc head.width=8").plan).learner
    optimised = {id(p) for group in learner.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in learner.model.parameters()} == optimised
    for block in (learner.model.head.maps[2], learner.model.head.rows[2], learner.model.head.columns[1]):
        assert bool(learner.optimizer.state[block]["exp_avg"].any())
