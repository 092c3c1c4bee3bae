"""AGCN: the correlation matrix against loops and worked numbers, its losses, and its course through a stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cml_bench.losses.assume_negative import AssumeNegative
from cml_bench.registry import load
from cml_bench.testing.strategies import StrategyCase
from cml_bench.testing.toy import toy_scenario
from cml_bench.testing.trial import try_out

AGCN, Naive, LwF = (load("strategies", name) for name in ("agcn", "naive", "lwf"))
PairCounts = load("strategies", "cml_bench.strategies.agcn:PairCounts")

LABELS = torch.tensor([[1, 1], [1, 0], [0, 1], [1, 0]], dtype=torch.int8)
SCORES = torch.tensor([[0.9, 0.1], [0.6, 0.2], [0.1, 0.8], [0.7, 0.3]])


def close(found: Tensor, expected: list[list[float]]) -> None:
    assert np.abs(found.numpy() - np.array(expected)).max() < 5e-5


def test_worked_example() -> None:
    counts = PairCounts()
    counts.add(LABELS[:1], SCORES[:1])
    counts.add(LABELS[1:], SCORES[1:])
    among_new, old_new, new_old = counts.frequencies()
    close(among_new, [[0, 0.5], [0.3333, 0]])
    close(old_new, [[0.7333, 0.5], [0.2, 0.45]])
    close(new_old, [[0.4783, 0.2143], [0.2174, 0.3214]])
    old = torch.tensor([[0.7, 0.1], [0.2, 0.9]])
    matrix = counts.correlation(old, 0.4, 0.3)
    close(matrix[:2, :2], old.tolist())
    close(matrix[:2, 2:], [[0.25, 0.125], [0, 0.125]])
    close(matrix[2:, :2], [[0.25, 0], [0, 0.25]])
    close(matrix[2:, 2:], [[0.8, 0], [0.2236, 1]])


@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 3), st.integers(0, 2**31))
def test_frequencies_by_loops(images: int, n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, scores = rng.choice([1, 0, -1, -2], size=(images, n)).astype(np.int8), rng.random((images, m))
    counts = PairCounts()
    for part in np.array_split(np.arange(images), 3):
        counts.add(torch.from_numpy(labels[part]), torch.from_numpy(scores[part]))
    among_new, old_new, new_old = (part.numpy() for part in counts.frequencies())
    # Where none is marked absent, what counts is that the label was asked for.
    counted = np.where((labels == 0).any(axis=0), labels >= 0, labels > -2)
    for j in range(n):
        shows = labels[:, j] == 1
        for i in range(n):
            asked = shows & counted[:, i]
            share = (labels[asked, i] == 1).mean() if asked.any() and i != j else 0.0
            assert among_new[i, j] == pytest.approx(share)
        for i in range(m):
            assert old_new[i, j] == pytest.approx(scores[shows, i].mean() if shows.any() else 0.0)
            base = scores[counted[:, j], i].sum()
            assert new_old[j, i] == pytest.approx(scores[shows, i].sum() / base / 2 if base > 1e-6 else 0.0, abs=1e-6)


def test_a_label_that_never_occurs_is_linked_to_itself() -> None:
    counts = PairCounts()
    counts.add(torch.tensor([[1, 0], [1, 0]], dtype=torch.int8), torch.zeros(2, 0))
    close(counts.correlation(torch.empty(0, 0), 0.4, 0.3), [[1, 0], [0, 1]])


def test_unknown_entries_count_for_no_pair() -> None:
    """Of three images with label 1, one shows label 0, one does not, one leaves it open: a half, not a third."""
    counts = PairCounts()
    counts.add(torch.tensor([[1, 1], [0, 1], [-1, 1]], dtype=torch.int8), torch.zeros(3, 0))
    close(counts.frequencies()[0], [[0, 0.5], [1, 0]])


def test_where_only_positives_are_marked_not_every_pair_is_linked() -> None:
    """Each image marks one of three labels, or two: of 2 that show label 1, one shows label 0."""
    counts = PairCounts()
    labels = torch.tensor([[1, 1, -1], [-1, 1, -1], [-1, -1, 1], [1, -1, -2]], dtype=torch.int8)
    counts.add(labels, torch.full((4, 1), 0.5))
    among_new, _, new_old = counts.frequencies()
    close(among_new, [[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]])
    close(new_old, [[0.25], [0.25], [1 / 6]])


class Watcher(SupervisedPlugin):
    """Notes the correlation matrix at the end of every experience, and the first increments of the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.matrices: list[Tensor] = []
        self.added: list[float] = []

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        self.added.append(float((strategy.loss.sum() - strategy.criterion()).detach()))

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.matrices.append(strategy.model.head.correlation.clone())


def watched(spec: str, with_plugins: Any) -> Watcher:
    watcher = Watcher()
    with_plugins(watcher)
    try_out(StrategyCase(spec).plan)
    return watcher


def test_old_links_stay_and_new_ones_are_counted(with_plugins: Any) -> None:
    watcher = watched("agcn head.hidden=32 cross_link=0.1", with_plugins)
    first, second, third = watcher.matrices
    assert torch.equal(second[:2, :2], first)
    assert torch.equal(third[:4, :4], second)
    # Whole epochs of an experience count to the frequencies of its label table.
    for t, experience in enumerate(toy_scenario().train_stream):
        own = experience.dataset.labels.data[:, 2 * t :]
        counts = PairCounts()
        counts.add(own, torch.zeros(len(own), 0))
        expected = counts.correlation(torch.empty(0, 0), 0.4, 0.1)
        assert torch.allclose(watcher.matrices[t][2 * t :, 2 * t :], expected.float(), atol=1e-6)
    assert bool(third[:4, 4:].any())
    assert bool(third[4:, :4].any())


def test_first_experience_learns_from_labels_alone(with_plugins: Any) -> None:
    watcher = watched("agcn head.hidden=32", with_plugins)
    steps = len(toy_scenario().train_stream[0].dataset)
    per_experience = -(-steps // 12) * 5
    assert watcher.added[:per_experience] == [0.0] * per_experience
    assert all(added >= -1e-6 for added in watcher.added[per_experience:])
    assert max(watcher.added[per_experience:]) > 0.01


def test_zero_weights_leave_the_losses_out(tiny_scenario: Any, learn: Any) -> None:
    """Without a graph head there are no nodes: zero weights are naive, and it is LwF at temperature 1."""
    scenario = tiny_scenario()

    def states(strategy: Any, data: Any = scenario, **options: Any) -> dict[str, Tensor]:
        found: dict[str, Tensor] = learn(strategy, data, **options).state()
        return found

    def seen() -> AssumeNegative:
        return AssumeNegative("bce", "seen")

    def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
        return all(torch.equal(one[name], other[name]) for name in one)

    assert same(states(AGCN(distillation_weight=0.0)), states(Naive()))
    assert same(states(AGCN(distillation_weight=0.0), criterion=seen()), states(Naive(), criterion=seen()))
    assert same(states(AGCN(distillation_weight=2.0)), states(LwF(alpha=2.0, temperature=1.0)))
    whole = tiny_scenario(base=6)
    assert same(states(AGCN(), whole), states(Naive(), whole))


def test_soft_scores_are_an_option() -> None:
    softmax, sigmoid = (
        try_out(StrategyCase(f"agcn head.hidden=16 scores={kind} cross_link=0.4").plan)
        for kind in ("softmax", "sigmoid")
    )
    assert softmax.differs_from(sigmoid) is not None
