"""Gradient compensation: the reference's numbers, a mean of 1 in every group, and weighted terms of the loss."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits

from cml_bench.losses.asl import ASL
from cml_bench.models.heads.head import HeadOutput
from cml_bench.registry import load
from cml_bench.training.compensation import CompensationPlugin, compensation

PseudoLabel, Naive = load("strategies", "pseudo_label"), load("strategies", "naive")


def test_worked_example() -> None:
    scores, labels = torch.tensor([[0.2, 0.6], [0.9, 0.3]]), torch.tensor([[1, 0], [1, 0]], dtype=torch.int8)
    found = compensation(scores, labels, [0, 2])
    assert torch.allclose(found, torch.tensor([[1.778, 1.333], [0.222, 0.667]]), atol=1e-3)


@given(seed=st.integers(0, 999))
def test_groups(seed: int) -> None:
    """The mean weight of a group is 1; unknown entries and new labels weigh 1; group by group by definition."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(7, 6, generator=generator, dtype=torch.float64) * 0.9 + 0.05
    labels = torch.randint(-2, 2, (7, 6), generator=generator).to(torch.int8)
    weights = compensation(scores, labels, [0, 1, 4])
    assert (weights[:, 4:] == 1).all()
    assert (weights[labels < 0] == 1).all()
    for columns in (range(1), range(1, 4)):
        for state in (0, 1):
            group = [(i, j) for i in range(7) for j in columns if labels[i, j] == state]
            errors = [abs(float(scores[i, j]) - state) for i, j in group]
            for (i, j), error in zip(group, errors, strict=True):
                assert float(weights[i, j]) == pytest.approx(error * len(group) / sum(errors))
            if group:
                assert sum(float(weights[i, j]) for i, j in group) / len(group) == pytest.approx(1.0)


def test_without_errors_everything_weighs_1() -> None:
    assert (compensation(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.int8), [0, 2]) == 1).all()


def test_old_entries_are_weighted_in_a_run(tiny_scenario: Any, learn: Any) -> None:
    """The gradient of the head is that of terms weighted by hand; the loss that is reported is unweighted."""

    class ByHand(SupervisedPlugin):
        compared = 0
        differs = 0

        def after_backward(self, strategy: Any, **kwargs: Any) -> None:
            plugin, head = strategy.plugins[0], strategy.model.head
            if not plugin.n_old:
                return
            filled = plugin.fill(strategy.mb_y, plugin.taught.logits.sigmoid()).labels
            weights, biases = torch.cat(list(head.weights)).detach(), torch.cat(list(head.biases)).detach()
            weights.requires_grad_()
            logits = strategy.mb_x.mean(dim=(2, 3)) @ weights.T + biases
            starts = [2 * t for t in range(logits.shape[1] // 2)]
            psi = compensation(logits.detach().sigmoid(), filled, starts)
            known = filled >= 0
            terms = binary_cross_entropy_with_logits(logits, filled.float(), reduction="none") * known
            assert strategy.loss.item() == pytest.approx(float(terms.sum().detach() / known.sum()), rel=1e-5)
            ((psi * terms).sum() / known.sum()).backward()
            found = torch.cat([p.grad for p in head.weights])
            assert torch.allclose(found, weights.grad, atol=1e-6)
            self.differs += int((psi != 1).sum())
            self.compared += 1

    watcher = ByHand()
    strategy = PseudoLabel(rule="fixed", threshold=0.5, below="zero", compensate=True)
    learn(strategy, tiny_scenario(), extra=[watcher])
    assert watcher.compared > 10
    assert watcher.differs > 50


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_single_experience_is_naive(tiny_scenario: Any, learn: Any) -> None:
    strategy = PseudoLabel(rule="confidence_entropy", compensate=True, below="zero")
    whole, parts = tiny_scenario(base=6), tiny_scenario()
    assert same(learn(strategy, whole, criterion=ASL()), learn(Naive(), whole, criterion=ASL()))
    assert not same(learn(strategy, parts, criterion=ASL()), learn(Naive(), parts, criterion=ASL()))


def test_every_reading_is_weighted_by_its_own_errors() -> None:
    """Of three readings each gets the gradient of its own weights: the whole image, its patches, a second view."""
    plugin = CompensationPlugin()
    plugin.starts = [0, 2]
    labels = torch.tensor([[1, 0, 1], [0, 1, 0]], dtype=torch.int8)
    said = [torch.randn(2, 3, generator=torch.Generator().manual_seed(seed), requires_grad=True) for seed in range(3)]
    first, companion, second = (HeadOutput(logits, logits) for logits in said)
    step = SimpleNamespace(head_output=first._replace(companion=companion), second_view=second, mb_y=labels)
    plugin.after_forward(step)
    readings = [step.head_output.logits, step.head_output.companion.logits, step.second_view.logits]
    sum(reading.sum() for reading in readings).backward()
    for logits in said:
        assert torch.allclose(logits.grad, compensation(logits.detach().sigmoid(), labels, [0, 2]))
        assert not bool((logits.grad == 1).all())
