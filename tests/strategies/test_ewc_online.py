"""Online EWC: the running Fisher information, and the Fisher information of a backbone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn

from cml_bench.registry import load
from cml_bench.training.importance import fisher_information

OnlineEWC, EWC, Naive = (load("strategies", name) for name in ("ewc_online", "ewc", "naive"))
OnlineEWCPlugin = load("strategies", "cml_bench.strategies.ewc_online:OnlineEWCPlugin")


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("gamma", "expected"), [(1.0, 3.0), (0.0, 1.0), (0.5, 1.75)])
def test_a_constant_fisher_adds_up_by_gamma(tiny_dataset: Any, gamma: float, expected: float) -> None:
    model = nn.Module()
    model.theta = nn.Parameter(torch.zeros(2))
    plugin = OnlineEWCPlugin(1.0, gamma, True, 1, torch.Generator())
    experience = SimpleNamespace(dataset=tiny_dataset([0], [[1]]))
    strategy = SimpleNamespace(model=model, device="cpu", eval_mb_size=256, experience=experience)
    for where in (1.0, 2.0, 3.0):
        with torch.no_grad():
            model.theta.fill_(where)
        with patch("cml_bench.strategies.ewc.fisher_information", return_value={"theta": torch.ones(2)}):
            plugin.after_training_exp(strategy)
    assert plugin.curvature["theta"].tolist() == [expected, expected]
    assert plugin.centre["theta"].tolist() == [3.0, 3.0]
    with torch.no_grad():
        model.theta.copy_(torch.tensor([5.0, 3.0]))
    strategy.loss = torch.zeros(1)
    plugin.before_backward(strategy)
    assert strategy.loss.item() == pytest.approx(0.5 * expected * 4)


def test_zero_strength_and_a_single_experience_are_naive(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    parts, whole = tiny_scenario(), tiny_scenario(base=6)
    for around in (lambda strategy: strategy, on_backbone):
        naive = learn(around(Naive()), parts)
        assert same(learn(around(OnlineEWC(ewc_lambda=0.0)), parts), naive)
        assert same(learn(around(OnlineEWC()), whole), learn(around(Naive()), whole))
        assert not same(learn(around(OnlineEWC(ewc_lambda=1.0)), tiny_scenario(annotation="seen"), lr=0.01), naive)


def test_the_penalty_holds_old_rows_and_the_backbone(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    """With every old label annotated anew, naive moves what a strong penalty holds."""
    scenario, drift = tiny_scenario(annotation="seen"), {}
    for strategy in (Naive(), OnlineEWC(ewc_lambda=50.0)):
        learnt = learn(strategy, scenario, lr=0.01, epochs=4)
        rows = float((learnt.logits[1][:, :2] - learnt.logits[0]).abs().mean())
        early, late = (learn(on_backbone(strategy), scenario, lr=0.01, stop_after=n).state() for n in (1, 3))
        name = "backbone.0.weight"
        drift[type(strategy).__name__] = rows, float((late[name] - early[name]).norm())
    assert all(held < 0.75 * free for held, free in zip(drift["OnlineEWC"], drift["Naive"], strict=True)), drift


def test_new_rows_are_born_without_penalty(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    plugin = learn(on_backbone(OnlineEWC()), tiny_scenario(), stop_after=2).plugins[0]
    blocks = {"head.weights.0", "head.biases.0", "head.weights.1", "head.biases.1"}
    backbone = {"backbone.0.weight", "backbone.0.bias", "backbone.1.weight", "backbone.1.bias"}
    assert set(plugin.curvature) == set(plugin.centre) == blocks | backbone


def test_fisher_of_a_backbone_equals_one_backward_an_image(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    learnt = learn(on_backbone(Naive()), tiny_scenario(annotation="seen"))
    model, data = learnt.model, tiny_scenario(annotation="seen").train_stream[2].dataset.eval()
    model.train()
    statistics = {name: value.clone() for name, value in model.named_buffers()}
    found = fisher_information(model, data, samples=10**6, generator=torch.Generator(), empirical=True, batch_size=5)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, statistics[name]) for name, value in model.named_buffers())
    model.eval()
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for row in range(len(data)):
        x, y = data.batch(torch.tensor([row]))[:2]
        z = model(x)[0]
        terms = [nn.functional.softplus(-z[c] if y[0, c] == 1 else z[c]) for c in range(len(z)) if y[0, c] >= 0]
        model.zero_grad()
        torch.stack(terms).sum().backward()
        for name, p in model.named_parameters():
            expected[name] += p.grad.square() / len(data)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-4, atol=1e-6)
