"""LwF with one sigmoid a label: worked numbers, invariants, and what it leaves to the labels."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Bernoulli, kl_divergence

from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED
from cml_bench.losses.assume_negative import AssumeNegative
from cml_bench.registry import load

LwF, Naive = load("strategies", "lwf"), load("strategies", "naive")
sigmoid_distillation = load("strategies", "cml_bench.strategies.lwf:sigmoid_distillation")


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.5589), (2.0, 0.6063)])
def test_worked_example(temperature: float, expected: float) -> None:
    teacher, student = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.0, 2.0]])
    loss = sigmoid_distillation(student, teacher, torch.ones(1, 2, dtype=torch.bool), temperature)
    assert float(loss) == pytest.approx(expected, abs=5e-5)


def test_worked_example_of_the_decay() -> None:
    """kappa = 1, q = (sigmoid 1, sigmoid -1) = (.7311, .2689): both weigh exp(-.4621) = .62996, so .63 of LwF's."""
    teacher, student = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.0, 2.0]])
    loss = sigmoid_distillation(student, teacher, torch.ones(1, 2, dtype=torch.bool), 1.0, 1.0)
    assert float(loss) == pytest.approx(0.5589 * 0.62996, abs=5e-5)


def test_the_decay_weighs_the_unsure_fully_and_the_sure_least() -> None:
    """exp(-kappa |2 q - 1|): 1 at q = 1/2, falling to exp(-kappa) at 0 and 1, in equal steps of |2 q - 1|."""
    q = torch.tensor([0.5, 0.75, 0.25, 0.9, 1 - 1e-9, 1e-9], dtype=torch.float64)
    teacher, student = torch.logit(q)[:, None], torch.logit(q)[:, None] + 0.3
    everything = torch.ones(1, 1, dtype=torch.bool)
    weights = [
        float(
            sigmoid_distillation(s[None], t[None], everything, 1.0, 2.0)
            / sigmoid_distillation(s[None], t[None], everything)
        )
        for s, t in zip(student, teacher, strict=True)
    ]
    assert weights == pytest.approx(
        [1.0, math.exp(-1), math.exp(-1), math.exp(-1.6), math.exp(-2), math.exp(-2)], rel=1e-6
    )


@given(seed=st.integers(0, 99), temperature=st.sampled_from([1.0, 2.0]))
def test_the_decay_scales_gradients_and_0_is_lwf(seed: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    teacher, student = (3 * torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.rand(4, 3, generator=generator) < 0.7
    plain, none, decayed = (student.clone().requires_grad_() for _ in range(3))
    sigmoid_distillation(plain, teacher, mask, temperature).backward()
    sigmoid_distillation(none, teacher, mask, temperature, 0.0).backward()
    sigmoid_distillation(decayed, teacher, mask, temperature, 1.5).backward()
    assert torch.equal(plain.grad, none.grad)
    q = torch.sigmoid(teacher / temperature)
    assert torch.allclose(decayed.grad, plain.grad * torch.exp(-1.5 * (2 * q - 1).abs()))


LOGITS = st.lists(st.lists(st.floats(-6, 6, width=32), min_size=3, max_size=3), min_size=1, max_size=4)


@settings(max_examples=50, deadline=None)
@given(teacher=LOGITS, seed=st.integers(0, 99), temperature=st.sampled_from([0.5, 1.0, 2.0, 5.0]))
def test_equals_the_divergence_of_bernoullis(teacher: list[list[float]], seed: int, temperature: float) -> None:
    old = torch.tensor(teacher, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    new = 3 * torch.randn(old.shape, generator=generator, dtype=torch.float64)
    mask = torch.rand(old.shape, generator=generator) < 0.6
    expected = kl_divergence(Bernoulli(logits=old / temperature), Bernoulli(logits=new / temperature))[mask]
    loss = sigmoid_distillation(new, old, mask, temperature)
    assert float(loss) == pytest.approx(temperature**2 * float(expected.mean()) if len(expected) else 0.0, abs=1e-9)


def test_equal_logits_cost_nothing_and_push_nothing() -> None:
    teacher = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    student = teacher.clone().requires_grad_()
    loss = sigmoid_distillation(student, teacher, torch.ones(5, 4, dtype=torch.bool), 2.0)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert float(student.grad.abs().max()) < 1e-8


def test_labels_do_not_compete() -> None:
    """A constant added to all logits changes the loss (softmax would not see it), a label's gradient is its own."""
    teacher = torch.tensor([[1.0, -1.0, 0.5]])
    student = (teacher + 1.0).requires_grad_()
    everything = torch.ones(1, 3, dtype=torch.bool)
    assert float(sigmoid_distillation(student, teacher, everything).detach()) > 0.01
    lone = torch.tensor([[0.0, -1.0, 0.5]], requires_grad=True)
    sigmoid_distillation(lone, teacher, everything).backward()
    assert float(lone.grad[0, 0].abs()) > 0.01
    assert lone.grad[0, 1:].abs().max() < 1e-8


class Increment(SupervisedPlugin):
    """Notes, at each step, what the strategy added to the criterion and where it pushes the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.added: list[float] = []
        self.labels: list[torch.Tensor] = []

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        extra = strategy.loss.sum() - strategy.criterion()
        self.added.append(float(extra.detach()))
        self.labels.append(strategy.mb_y.clone())


def test_the_option_of_the_decay(tiny_scenario: Any, learn: Any) -> None:
    scenario = tiny_scenario()
    plain = learn(LwF(), scenario, epochs=4)
    assert same(learn(LwF(confidence_decay=0.0), scenario, epochs=4), plain)
    assert not same(learn(LwF(confidence_decay=2.0), scenario, epochs=4), plain)
    assert same(learn(LwF(confidence_decay=1e6), scenario, epochs=4), learn(Naive(), scenario, epochs=4))


def test_first_experience_has_no_teacher_and_the_second_starts_at_zero(tiny_scenario: Any, learn: Any) -> None:
    watcher = Increment()
    scenario = tiny_scenario()
    learn(LwF(), scenario, extra=[watcher], batch_size=64, epochs=3)
    assert watcher.added[:3] == [0.0, 0.0, 0.0]
    assert watcher.added[3] == pytest.approx(0.0, abs=1e-6)
    assert watcher.added[6] == pytest.approx(0.0, abs=1e-6)


def test_annotated_entries_are_learnt_from_labels_alone(tiny_scenario: Any, learn: Any) -> None:
    """Where every old label is annotated anew there is nothing left to distil: LwF is naive, bit for bit."""
    scenario = tiny_scenario(annotation="seen")
    assert same(learn(LwF(alpha=5.0), scenario), learn(Naive(), scenario))
    partly = tiny_scenario(annotation="current")
    assert not same(learn(LwF(alpha=5.0), partly, epochs=4), learn(Naive(), partly, epochs=4))


@pytest.mark.parametrize("state", [PRESENT, ABSENT, UNMARKED, OUT_OF_SCOPE])
def test_which_states_are_distilled(state: int) -> None:
    plugin = load("strategies", "cml_bench.strategies.lwf:LwFPlugin")(1.0, 1.0)
    plugin.teacher = torch.nn.Module()
    plugin.teacher.head = torch.nn.Module()
    plugin.teacher.head.n_labels = 1
    plugin.teacher.head_output = lambda x: type("Out", (), {"logits": torch.zeros(len(x), 1)})()

    class Step:
        mb_x = torch.zeros(2, 1)
        mb_y = torch.tensor([[state, 1], [state, 0]], dtype=torch.int8)
        mb_output = torch.full((2, 2), 3.0)
        loss = torch.zeros(1)

    step = Step()
    plugin.before_backward(step)
    # KL of a fair coin to sigmoid(3): ln 2 subtracted from the mean of softplus(3) and softplus(-3).
    expected = 0.0 if state >= 0 else (3.04858735 + 0.04858735) / 2 - 0.69314718
    assert float(step.loss) == pytest.approx(expected, abs=1e-6)


def test_the_teacher_spares_old_columns_from_assumed_negatives(tiny_scenario: Any, learn: Any) -> None:
    """The criterion would call old labels absent in new images; while a teacher answers for them it must not."""
    scenario = tiny_scenario(annotation="current")

    def assuming() -> AssumeNegative:
        return AssumeNegative("bce", "seen")

    unweighted = learn(LwF(alpha=0.0), scenario, criterion=assuming())
    assert same(unweighted, learn(Naive(), scenario, criterion=assuming())), "nobody answers for what is unknown"
    scarcely = learn(LwF(alpha=1e-30), scenario, criterion=assuming())
    assert same(scarcely, learn(Naive(), scenario)), "without distillation only the known entries are left"
    pushed = learn(Naive(), scenario, criterion=assuming(), epochs=6)
    held = learn(LwF(alpha=1.0), scenario, criterion=assuming(), epochs=6)
    fall = [float((learnt.logits[2][:, :2] - learnt.logits[0]).mean()) for learnt in (pushed, held)]
    assert fall[0] < -0.3
    assert abs(fall[1]) < 0.3 * abs(fall[0])


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
