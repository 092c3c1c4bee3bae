"""CDCR: which candidates count, when they are chosen, and that nothing but the criterion hears of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED
from cml_bench.losses.assume_negative import AssumeNegative
from cml_bench.losses.bce import BCE
from cml_bench.options import convert
from cml_bench.registry import load

CDCR, Naive = load("strategies", "cdcr"), load("strategies", "naive")
accept = load("strategies", "cml_bench.strategies.cdcr:accept")
NOISY = "candidates noise=0.3"


# -- which candidates count --------------------------------------------------------------------------------------------


def test_truth_table() -> None:
    """Rows: surely absent, candidate; columns: confidence under, at and over the threshold."""
    confidence = torch.tensor([[0.2, 0.6, 0.9], [0.2, 0.6, 0.9]], dtype=torch.float64)
    candidates = torch.tensor([[False] * 3, [True] * 3])
    assert accept(confidence, candidates, 0.6, adaptive=False).tolist() == [[False] * 3, [False, True, True]]


def test_adaptive_truth_table() -> None:
    """Means of candidates 0.3 and 0.8, of all 0.55: thresholds 0.35 and 0.85 in place of 0.6."""
    confidence = torch.tensor([[0.2, 0.7], [0.4, 0.9], [0.9, 0.9]], dtype=torch.float64)
    candidates = torch.tensor([[True, True], [True, True], [False, False]])
    assert accept(confidence, candidates, 0.6, adaptive=True).tolist() == [[False, False], [True, True], [False, False]]


def by_hand(confidence: Tensor, candidates: Tensor, threshold: float) -> list[list[bool]]:
    entries = [(i, c) for i in range(len(confidence)) for c in range(confidence.shape[1]) if candidates[i, c]]
    overall = sum(float(confidence[e]) for e in entries) / max(1, len(entries))
    found = [[False] * confidence.shape[1] for _ in confidence]
    for i, c in entries:
        own = [float(confidence[e]) for e in entries if e[1] == c]
        found[i][c] = float(confidence[i, c]) - sum(own) / len(own) >= threshold - overall + 1e-12
    return found


@given(seed=st.integers(0, 2**31), share=st.floats(0, 1), threshold=st.floats(0.1, 0.9))
def test_adaptive_against_a_loop(seed: int, share: float, threshold: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.rand(7, 3, generator=generator, dtype=torch.float64)
    candidates = torch.rand(7, 3, generator=generator) < share
    assert accept(confidence, candidates, threshold, adaptive=True).tolist() == by_hand(
        confidence, candidates, threshold
    )


@given(seed=st.integers(0, 2**31))
def test_equal_means_make_adaptive_plain(seed: int) -> None:
    """The same confidences in every column, in other orders."""
    generator = torch.Generator().manual_seed(seed)
    column = torch.rand(9, generator=generator, dtype=torch.float64)
    confidence = torch.stack([column[torch.randperm(9, generator=generator)] for _ in range(4)], dim=1)
    candidates = torch.ones(9, 4, dtype=torch.bool)
    assert torch.equal(accept(confidence, candidates, 0.6, True), accept(confidence, candidates, 0.6, False))


def test_a_label_without_candidates_divides_nothing() -> None:
    confidence = torch.tensor([[0.9, 0.9], [0.5, 0.9]])
    some, none = torch.tensor([[True, False]] * 2), torch.zeros(2, 2, dtype=torch.bool)
    assert accept(confidence, some, 0.6, adaptive=True).tolist() == [[True, False], [False, False]]
    assert not accept(confidence, none, 0.6, adaptive=True).any()


# -- in training -------------------------------------------------------------------------------------------------------


class Judge(BCE):
    """Keeps the labels that the criterion sees in training, by epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, Tensor, Tensor]] = []

    def judge(self, output: Any, labels: Tensor, sample_ids: Any, epoch: int, view: Any) -> Tensor:
        if output.logits.requires_grad:
            self.seen.append((epoch, sample_ids, labels.clone()))
        return super().judge(output, labels, sample_ids, epoch, view)


class Onlooker(SupervisedPlugin):
    """Looks at all images itself before each epoch, and at the batch after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.confidence: dict[tuple[int, int], Tensor] = {}
        self.batches: list[tuple[Tensor, Tensor]] = []

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        model, dataset = strategy.model, strategy.adapted_dataset
        model.eval()
        with torch.no_grad():
            logits = model(dataset.inputs.fetch(dataset.sample_ids.data, training=False))
        model.train()
        self.confidence[strategy.clock.train_exp_counter, strategy.clock.train_exp_epochs] = logits.sigmoid()

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self.batches.append((strategy.mb_sample_id, strategy.mb_y.clone()))


def test_the_criterion_sees_what_a_look_at_all_images_chooses(tiny_scenario: Any, learn: Any) -> None:
    scenario, judge, onlooker = tiny_scenario(regime=NOISY), Judge(), Onlooker()
    learn(CDCR(threshold=0.7), scenario, criterion=judge, extra=[onlooker], epochs=5, stop_after=1)
    dataset = scenario.train_stream[0].dataset
    annotated = dict(zip(dataset.sample_ids.data.tolist(), dataset.labels.data, strict=True))
    place = {int(row): k for k, row in enumerate(dataset.sample_ids.data)}
    candidates = dataset.labels.data == PRESENT
    left_out = 0
    for epoch, ids, labels in judge.seen:
        counts = by_hand(onlooker.confidence[0, epoch].double(), candidates, 0.7)
        for row, found in zip(ids.tolist(), labels, strict=True):
            for column, state in enumerate(annotated[row].tolist()):
                dropped = epoch >= 3 and state == PRESENT and not counts[place[row]][column]
                assert int(found[column]) == (OUT_OF_SCOPE if dropped else state)
                left_out += dropped
    assert left_out > 0


def test_only_the_criterion_hears_of_it(tiny_scenario: Any, learn: Any) -> None:
    scenario, onlooker = tiny_scenario(regime=NOISY), Onlooker()
    learnt = learn(CDCR(threshold=0.9, memory_size=8), scenario, extra=[onlooker], epochs=3)
    annotated: dict[int, Tensor] = {}
    for experience in scenario.train_stream:
        for row, labels in zip(experience.dataset.sample_ids.data, experience.dataset.labels.data, strict=True):
            known = annotated.setdefault(int(row), torch.full((6,), OUT_OF_SCOPE, dtype=torch.int8))
            known[: len(labels)] = torch.maximum(known[: len(labels)], labels)
    for ids, labels in onlooker.batches:
        for row, found in zip(ids.tolist(), labels, strict=True):
            known = annotated[row][: len(found)]
            assert ((found == known) | (found == OUT_OF_SCOPE)).all()
            assert ((found == PRESENT) <= (known == PRESENT)).all()
    memory = learnt.plugins[1].buffer.buffer
    truth = torch.from_numpy(scenario.splits["train"].truth)
    stored, rows = memory.labels.data, memory.sample_ids.data
    known = stored >= 0
    assert len(memory) == 8
    assert torch.equal(stored[known], torch.stack([annotated[int(row)] for row in rows])[:, : stored.shape[1]][known])
    assert bool((stored[known] != truth[rows][:, : stored.shape[1]][known]).any()), (
        "a memory holds candidates, not truth"
    )


def test_candidates_of_a_memory_are_chosen_from_as_well(tiny_scenario: Any, learn: Any) -> None:
    scenario, judge = tiny_scenario(regime=NOISY, assignment="disjoint", n=90), Judge()
    learnt = learn(CDCR(threshold=1.1, adaptive=False, memory_size=12), scenario, criterion=judge, epochs=3)
    fresh = set(scenario.train_stream[2].dataset.sample_ids.data.tolist())
    last = [(epoch, ids, labels) for epoch, ids, labels in judge.seen if labels.shape[1] == 6]
    replayed = [
        (epoch, labels[row]) for epoch, ids, labels in last for row in range(len(ids)) if int(ids[row]) not in fresh
    ]
    assert learnt.plugins[1].memory is not None
    assert any(bool((labels == PRESENT).any()) for epoch, labels in replayed if epoch < 2)
    assert not any(bool((labels == PRESENT).any()) for epoch, labels in replayed if epoch == 2)
    assert any(bool((labels == ABSENT).any()) for epoch, labels in replayed if epoch == 2)


class Gradients(SupervisedPlugin):
    """Keeps, of the second stage's steps: labels, which candidates were left out, and where logits get a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[Tensor, Tensor, Tensor]] = []
        self.logits = torch.empty(0)

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        def keep(head: Any, features: Any, output: Any) -> None:
            hook.remove()
            self.logits = output.logits

        hook = strategy.model.head.register_forward_hook(keep)

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        plugin = strategy.plugins[0]
        if len(plugin.ids):
            labels = strategy.mb_y if plugin.annotated is None else plugin.annotated
            chosen = plugin.chosen[torch.searchsorted(plugin.ids, strategy.mb_sample_id)]
            (gradient,) = torch.autograd.grad(strategy.loss, self.logits, retain_graph=True)
            self.steps.append((labels, (labels == PRESENT) & ~chosen, gradient != 0))


@pytest.mark.parametrize("scope", ["unmarked", "seen"])
def test_no_criterion_makes_something_of_what_is_left_out(tiny_scenario: Any, learn: Any, scope: Any) -> None:
    """One that takes unknown labels for absent does so with those of old labels, not with rejected candidates."""
    gradients = Gradients()
    learn(
        CDCR(threshold=0.7),
        tiny_scenario(regime=NOISY),
        criterion=AssumeNegative("bce", scope),
        extra=[gradients],
        epochs=5,
        stop_after=2,
    )
    labels, left_out, moved = (torch.cat([step[k].flatten() for step in gradients.steps]) for k in range(3))
    known = labels >= 0
    assert 0 < int(left_out.sum()) < int((labels == PRESENT).sum())
    assert torch.equal(moved[known], ~left_out[known])
    assert bool((moved[~known] == (scope == "seen")).all())


@pytest.mark.parametrize("options", [{"threshold": 0.0, "adaptive": False}, {"warmup": 1.0}])
def test_where_all_candidates_count_it_is_plain_training(tiny_scenario: Any, learn: Any, options: Any) -> None:
    scenario = tiny_scenario(regime=NOISY)
    ours, naive = (learn(each, scenario, epochs=4).logits for each in (CDCR(**options), Naive()))
    assert all(torch.equal(*pair) for pair in zip(ours, naive, strict=True))
    other = learn(CDCR(threshold=0.9, adaptive=False), scenario, epochs=4).logits
    assert not torch.equal(other[-1], naive[-1])


def test_without_noise_what_counts_is_true(tiny_scenario: Any, learn: Any) -> None:
    scenario = tiny_scenario(regime="candidates noise=0")
    learnt = learn(CDCR(), scenario, epochs=5)
    plugin, truth = learnt.plugins[0], torch.from_numpy(scenario.splits["train"].truth)
    assert plugin.chosen.any()
    assert (truth[plugin.ids][plugin.chosen] == PRESENT).all()


@pytest.mark.parametrize(
    ("warmup", "epochs", "first"), [(16 / 37, 5, 3), (0.4, 5, 2), (0.2, 3, 1), (0.01, 4, 1), (1.0, 4, 4)]
)
def test_the_first_stage_lasts_its_share(
    tiny_scenario: Any, learn: Any, warmup: float, epochs: int, first: int
) -> None:
    judge = Judge()
    options = {"warmup": warmup, "threshold": 2.0, "adaptive": False}
    learn(CDCR(**options), tiny_scenario(regime=NOISY), criterion=judge, epochs=epochs, stop_after=1)
    with_candidates = {epoch for epoch, _, labels in judge.seen if (labels == PRESENT).any()}
    assert with_candidates == set(range(first))
    assert math.ceil(round(warmup * epochs, 9)) == first


def test_open_and_unasked_labels_stay_so(tiny_scenario: Any, learn: Any) -> None:
    judge = Judge()
    scenario = tiny_scenario(regime=f"{NOISY} + partial_labels known=0.5")
    learn(CDCR(), scenario, criterion=judge, epochs=4, stop_after=2)
    dataset = scenario.train_stream[1].dataset
    annotated = dict(zip(dataset.sample_ids.data.tolist(), dataset.labels.data, strict=True))
    for _, ids, labels in judge.seen[-6:]:
        for row, found in zip(ids.tolist(), labels, strict=True):
            left = annotated[row] != PRESENT
            assert torch.equal(found[left], annotated[row][left])
    assert any((labels == UNMARKED).any() for labels in annotated.values())


@pytest.mark.parametrize("options", [{"warmup": "0"}, {"warmup": "1.5"}])
def test_a_share_is_a_share(options: Any) -> None:
    from cml_bench.errors import CmlBenchError

    with pytest.raises((CmlBenchError, ValidationError), match="warmup"):
        convert(CDCR, options, owner="strategy cdcr")


def test_choosing_helps_against_noise(tiny_scenario: Any, learn: Any) -> None:
    """Most of what is left out is wrong: the chosen candidates are purer than all of them."""
    scenario = tiny_scenario(n=300, regime="candidates noise=0.2", n_labels=4, increment=4)
    plugin = learn(CDCR(), scenario, epochs=10).plugins[0]
    truth = scenario.splits["train"].truth[plugin.ids.numpy()] == PRESENT
    dataset = scenario.train_stream[0].dataset
    candidates = np.asarray(dataset.labels.data)[np.argsort(dataset.sample_ids.data.numpy())] == PRESENT
    chosen = plugin.chosen.numpy()
    assert 0 < chosen.sum() < candidates.sum()
    assert truth[chosen].mean() > truth[candidates].mean() + 0.05
