"""ER-ACE: the stream teaches new labels alone, the memory all; against entry-by-entry sums and gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training import supervised as upstream

from cml_bench.errors import CmlBenchError
from cml_bench.losses.asl import ASL
from cml_bench.losses.assume_negative import AssumeNegative
from cml_bench.losses.bce import BCE
from cml_bench.registry import load

ERACE, Naive = load("strategies", "er_ace"), load("strategies", "naive")


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def mean_bce(logits: list[list[float]], labels: list[list[int]], columns: list[int], seen: bool) -> float:
    """Mean over the known entries of some columns, one by one; ``seen`` reads the unknown ones as absent."""
    terms = []
    for row, states in zip(logits, labels, strict=True):
        for c in columns:
            if states[c] >= 0 or seen:
                terms.append(math.log1p(math.exp(-row[c] if states[c] == 1 else row[c])))
    return sum(terms) / max(1, len(terms))


class Sums(SupervisedPlugin):
    """Works the loss out anew, from what the step drew."""

    def __init__(self, seen: bool, present_only: bool) -> None:
        super().__init__()
        self.seen, self.present_only = seen, present_only
        self.drawn: Any = None
        self.replaced = 0
        self.narrowed = 0

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        plugin = strategy.plugins[0]

        def draw(*args: Any) -> Any:
            self.drawn = type(plugin).draw(plugin, *args)
            return self.drawn

        plugin.draw = draw

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        if self.drawn is None:
            assert torch.equal(strategy.loss.sum(), strategy.criterion())
            return
        labels, width = strategy.mb_y.tolist(), strategy.mb_y.shape[1]
        columns = [
            c for c in range(width - 2, width) if not self.present_only or any(states[c] == 1 for states in labels)
        ]
        self.narrowed += len(columns) < 2
        stream = mean_bce(strategy.mb_output.tolist(), labels, columns, self.seen)
        logits = strategy.model(self.drawn[0])
        memory = mean_bce(logits.tolist(), self.drawn[1].tolist(), list(range(width)), self.seen)
        assert strategy.loss.item() == pytest.approx((stream + memory) / 2, rel=1e-4)
        # Old rows of the head learn from the memory alone: half its gradient, to the last bit but one.
        old = list(strategy.model.head.weights)[: (width - 2) // 2]
        half = strategy._criterion(logits, self.drawn[1]) / 2
        for ours, theirs in zip(
            torch.autograd.grad(strategy.loss, old, retain_graph=True), torch.autograd.grad(half, old), strict=True
        ):
            assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-8)
        self.drawn = None
        self.replaced += 1


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("present_only", [False, True])
@pytest.mark.parametrize("annotation", ["current", "seen"])
def test_the_loss_and_its_gradient(
    tiny_scenario: Any, learn: Any, seen: bool, present_only: bool, annotation: str
) -> None:
    sums, criterion = Sums(seen, present_only), AssumeNegative("bce", "seen") if seen else BCE()
    scenario = tiny_scenario(annotation=annotation)
    strategy = ERACE(memory_size=20, present_only=present_only)
    learn(strategy, scenario, extra=[sums], criterion=criterion, batch_size=3)
    assert sums.replaced > 10
    assert (sums.narrowed > 0) == present_only


class Counted(SupervisedPlugin):
    """DB of the stream's rows over the new columns, entry by entry, with these labels' own counts."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        plugin = strategy.plugins[0]
        plugin.loss = lambda strategy, batch: torch.zeros(())
        labels = strategy.experience.dataset.labels.data
        self.counts = [(int((column >= 0).sum()), int((column == 1).sum())) for column in labels.T]

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        if strategy.plugins[0].memory is None:
            return
        width, entries = strategy.mb_y.shape[1], []
        for row, states in zip(strategy.mb_output.tolist(), strategy.mb_y.tolist(), strict=True):
            rates = [1 / max(1, self.counts[c][1]) for c in range(width - 2, width) if states[c] == 1]
            for c in range(width - 2, width):
                n, n_c = self.counts[c]
                shifted = row[c] - 0.05 / 2 * math.log(max(1, n - n_c) / max(1, n_c))
                favour, scale = (shifted, 1.0) if states[c] == 1 else (-2 * shifted, 0.5)
                share = 1 / max(1, n_c) / sum(rates) if rates else math.inf
                weight = 0.1 + (1.0 if math.isinf(share) else 1 / (1 + math.exp(-10 * (share - 0.2))))
                entries.append(weight * scale * math.log1p(math.exp(-favour)))
        assert strategy.loss.item() == pytest.approx(sum(entries) / len(entries) / 2, rel=1e-3)
        self.steps += 1


@pytest.mark.parametrize("annotation", ["current", "seen"])
def test_a_criterion_that_counts_labels_finds_each_under_its_own_count(
    tiny_scenario: Any, learn: Any, annotation: str
) -> None:
    rates = np.array([0.7, 0.6, 0.5, 0.2, 0.15, 0.3])
    truth = (np.random.default_rng(0).random((60, 6)) < rates).astype(np.int8)
    counted = Counted()
    scenario = tiny_scenario(truth=truth, annotation=annotation)
    learn(ERACE(memory_size=20), scenario, extra=[counted], criterion=load("criteria", "db")(), epochs=1)
    assert counted.steps > 5
    with pytest.raises(CmlBenchError, match="loss=db knows labels by their place: leave present_only out"):
        learn(ERACE(present_only=True), scenario, criterion=load("criteria", "db")())


def test_where_old_labels_are_unknown_the_stream_teaches_what_er_teaches(tiny_scenario: Any, learn: Any) -> None:
    """Cutting old columns out is nothing to a criterion that does not read them, whatever it is."""
    for criterion in (BCE(), ASL()):
        experience = tiny_scenario().train_stream[2]
        labels = experience.dataset.labels.data
        logits = torch.randn(labels.shape, generator=torch.Generator().manual_seed(0))
        assert float(criterion(logits[:, 4:], labels[:, 4:])) == pytest.approx(float(criterion(logits, labels)))


@pytest.mark.parametrize("protocol", [{}, {"online_chunk": 6}])
def test_naive_without_a_memory(tiny_scenario: Any, learn: Any, protocol: dict[str, int]) -> None:
    naive = learn(Naive(), tiny_scenario(**protocol), epochs=1)
    assert same(learn(ERACE(memory_size=0), tiny_scenario(**protocol), epochs=1), naive)
    assert not same(learn(ERACE(), tiny_scenario(**protocol), epochs=1), naive)
    assert same(learn(ERACE(), tiny_scenario(base=6)), learn(Naive(), tiny_scenario(base=6)))


def test_upstream_needs_one_class_an_image(tiny_scenario: Any) -> None:
    model = torch.nn.Linear(6, 6)
    learner = upstream.ER_ACE(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(AssertionError):
        learner.train(tiny_scenario(spatial=False).train_stream[0])
