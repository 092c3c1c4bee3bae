"""Pseudo-labels: the operator against a loop, the dynamic threshold against sorting, and who gets to see them."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED
from cml_bench.training.pseudo_labels import DynamicCount, PseudoLabelPlugin, count_threshold, fill

STATES = st.sampled_from([PRESENT, ABSENT, UNMARKED, OUT_OF_SCOPE])
CASES = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(0, 4)).flatmap(
    lambda shape: st.tuples(
        st.lists(st.lists(STATES, min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]),
        st.just(min(shape[2], shape[1])),
        st.integers(0, 2**31),
    )
)


def by_loop(labels: list[list[int]], scores: Tensor, above: float, below: float) -> tuple[list[list[int]], set[Any]]:
    result, changed = [list(row) for row in labels], set()
    for i, row in enumerate(scores.tolist()):
        for j, score in enumerate(row):
            if labels[i][j] in (PRESENT, ABSENT):
                continue
            if score > above:
                result[i][j] = PRESENT
            elif score < below:
                result[i][j] = ABSENT
            else:
                continue
            changed.add((i, j))
    return result, changed


@given(CASES, st.sampled_from([0.0, 0.3, 0.8, 1.0]), st.sampled_from([-math.inf, 0.2, math.inf]))
def test_fill_is_the_loop(case: Any, above: float, below: float) -> None:
    rows, scored, seed = case
    labels = torch.tensor(rows, dtype=torch.int8)
    before = labels.clone()
    scores = torch.rand(len(rows), scored, generator=torch.Generator().manual_seed(seed))
    filled = fill(labels, scores, above, below)
    expected, changed = by_loop(rows, scores, above, below)
    assert filled.labels.tolist() == expected
    assert {(i, j) for i, j in filled.is_pseudo.nonzero().tolist()} == changed
    assert torch.equal(labels, before)
    assert filled.labels.dtype == torch.int8


def test_the_ends_of_the_scale() -> None:
    labels = torch.tensor([[1, -1, -2, -2], [0, -2, 1, -2]], dtype=torch.int8)
    scores = torch.tensor([[0.1, 0.999, 0.01], [0.9, 1.0, 0.2]])
    assert torch.equal(fill(labels, scores, 1.0).labels, labels), "nothing exceeds a probability of 1"
    assert fill(labels, scores, 0.0).labels.tolist() == [[1, 1, 1, -2], [0, 1, 1, -2]]
    per_label = fill(labels, scores, torch.tensor([0.5, 0.9995, 0.005])).labels
    assert per_label.tolist() == [[1, -1, 1, -2], [0, 1, 1, -2]]


@pytest.mark.parametrize("threshold", [0.01, 0.5, 0.99])
def test_a_perfect_teacher_restores_the_truth(threshold: float) -> None:
    truth = (torch.rand(50, 6, generator=torch.Generator().manual_seed(1)) < 0.4).to(torch.int8)
    annotated = truth.clone()
    annotated[:, :4] = OUT_OF_SCOPE
    assert torch.equal(fill(annotated, truth[:, :4].float(), threshold, math.inf).labels, truth)


@given(st.integers(0, 2**31), st.lists(st.floats(0, 1), min_size=2, max_size=5))
def test_positives_do_not_increase_with_the_threshold(seed: int, thresholds: list[float]) -> None:
    labels = torch.full((8, 3), UNMARKED, dtype=torch.int8)
    scores = torch.rand(8, 3, generator=torch.Generator().manual_seed(seed))
    counts = [int(fill(labels, scores, threshold).is_pseudo.sum()) for threshold in sorted(thresholds)]
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize(("expected", "threshold"), [(0.7, 0.8), (0.5, 0.835), (1.25, 0.615)])
def test_worked_thresholds(expected: float, threshold: float) -> None:
    scores = torch.tensor([[0.96, 0.12], [0.22, 0.91], [0.832, 0.31], [0.617, 0.71]])
    assert count_threshold(scores, expected) == pytest.approx(threshold, abs=1e-9)


@given(st.integers(1, 60), st.integers(1, 6), st.floats(0, 6), st.floats(0.05, 0.95), st.integers(0, 2**31))
def test_the_threshold_is_where_sorting_puts_it(
    rows: int, width: int, expected: float, start: float, seed: int
) -> None:
    scores = np.random.default_rng(seed).beta(0.5, 1.5, size=(rows, width)).astype(np.float32)

    def count(threshold: float) -> float:
        return float((scores > threshold).sum()) / rows

    found = count_threshold(torch.from_numpy(scores), expected, start)
    step = 0.0051
    # Off by more than the tolerance only at an end of the scale, or where one step crosses the tolerance.
    if count(found) > expected + 0.1:
        assert found >= 0.999998 or count(found + step) < expected - 0.1
    elif count(found) < expected - 0.1:
        assert found <= 0.00011 or count(found - step) > expected + 0.1


def test_expected_labels_from_the_annotations(tiny_dataset: Any) -> None:
    """Labels 0, 1 come with images 0 to 3, label 2 with images 2 to 5: four and three positives, six images."""
    count = DynamicCount("estimated", 0.8)
    count.observe(tiny_dataset([0, 1, 2, 3], [[1, 0], [1, 1], [0, 1], [0, 0]]))
    assert count.expect(2) == pytest.approx(1.0)
    count.observe(tiny_dataset([2, 3, 4, 5], [[-2, -2, 1], [-2, -2, 1], [-2, -2, 0], [-2, -2, 1]], first_new=2))
    assert count.expect(3) == pytest.approx(7 / 6)
    assert count.expect(2) == pytest.approx(4 / 6)
    assert DynamicCount(0.03625, 0.8).expect(70) == pytest.approx(2.9 * 70 / 80)


def test_old_labels_that_are_annotated_count_too(tiny_dataset: Any) -> None:
    """Label 0 shows in two of images 0 to 3 and one of images 4 and 5; image 3 comes back, and counts once."""
    count = DynamicCount("estimated", 0.8)
    count.observe(tiny_dataset([0, 1, 2, 3], [[1], [0], [0], [1]]))
    count.observe(tiny_dataset([3, 4, 5], [[1, 0], [1, 1], [0, 1]], first_new=1))
    assert count.expect(1) == pytest.approx(3 / 6)
    assert count.expect(2) == pytest.approx(5 / 6)


def test_the_estimate_is_too_high_as_described(tiny_dataset: Any) -> None:
    """Every second image shows a label, whatever the others: of t old ones t / 2, over the share that shows any."""
    truth, count = np.array(list(itertools.product((0, 1), repeat=6))), DynamicCount("estimated", 0.8)
    for label in range(6):
        rows = truth[:, label].nonzero()[0]
        if label:
            assert truth[rows, :label].sum(axis=1).mean() == label / 2
            assert count.expect(label) == pytest.approx(label / 2 / (1 - 0.5**label))
        states = np.full((len(rows), label + 1), OUT_OF_SCOPE)
        states[:, label] = 1
        count.observe(tiny_dataset(rows.tolist(), states, first_new=label))


def test_unmarked_entries_are_not_absent(tiny_dataset: Any) -> None:
    """One of two known entries is present: an image counts for a half, not for a quarter."""
    count = DynamicCount("estimated", 0.8)
    count.observe(tiny_dataset([0, 1, 2, 3], [[1], [0], [-1], [-1]]))
    assert count.expect(1) == pytest.approx(0.5)


def test_where_only_positives_are_marked_they_are_counted(tiny_dataset: Any) -> None:
    """Label 0 is marked in one of four images, label 1 in two and verified absent in one: 1 / 4 + 2 / 3."""
    count = DynamicCount("estimated", 0.8)
    count.observe(tiny_dataset([0, 1, 2, 3], [[1, 1], [-1, 1], [-1, 0], [-1, -1]]))
    assert count.expect(1) == pytest.approx(0.25)
    assert count.expect(2) == pytest.approx(0.25 + 2 / 3)


def test_chunks_count_like_the_whole(tiny_dataset: Any) -> None:
    whole, parts = DynamicCount("estimated", 0.8), DynamicCount("estimated", 0.8)
    labels = [[1, 0], [-1, 1], [0, 1], [0, -1]]
    whole.observe(tiny_dataset([0, 1, 2, 3], labels))
    for row in range(4):
        parts.observe(tiny_dataset([row], labels[row : row + 1]))
    assert parts.expect(2) == whole.expect(2) > 0


def test_online_chunks_share_a_window(tiny_dataset: Any) -> None:
    count = DynamicCount(0.5, 0.8)
    first, later = torch.full((10, 2), 0.9), torch.full((30, 2), 0.1)
    assert count.update(first, first_chunk=True) > 0.89
    # 20 scores over a threshold between 0.1 and 0.9 for 40 images are half a label an image; 1 is expected.
    assert count.update(later, first_chunk=False) <= 0.1 + 1e-6
    assert len(count._window) == 40
    count.update(torch.rand(1200, 2), first_chunk=False)
    assert len(count._window) == 1000
    assert count.update(first, first_chunk=True) > 0.1


class Spy(SupervisedPlugin):
    """Notes what is in the batch when the criterion has read it, and later."""

    def __init__(self) -> None:
        super().__init__()
        self.later: list[Tensor] = []

    def after_backward(self, strategy: Any, **kwargs: Any) -> None:
        self.later.append(strategy.mb_y.clone())


def test_only_the_criterion_sees_them(tiny_scenario: Any, learn: Any) -> None:
    from cml_bench.losses.bce import BCE

    class Listening(BCE):
        seen: list[Tensor] = []

        def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                self.seen.append(labels.clone())
            return super().loss(logits, labels)

    spy, strategy = Spy(), SimpleNamespace(plugins=lambda run: [PseudoLabelPlugin(0.5, math.inf)])
    strategy.curriculum = lambda stream, run: stream
    criterion = Listening()
    learnt = learn(strategy, tiny_scenario(), criterion=criterion, extra=[spy], epochs=1)
    assert len(criterion.seen) == len(spy.later)
    pairs = list(zip(criterion.seen, spy.later, strict=True))
    for read, annotated in pairs:
        n_old = {2: 0, 4: 2, 6: 4}[annotated.shape[1]]
        assert bool((annotated[:, :n_old] == OUT_OF_SCOPE).all())
        assert bool((read[:, :n_old] >= 0).all())
        assert torch.equal(read[:, n_old:], annotated[:, n_old:])
    assert any(bool((read != annotated).any()) for read, annotated in pairs)
    assert learnt.plugins[0].n_old == 6


def test_the_teacher_is_left_alone(tiny_scenario: Any, learn: Any) -> None:
    class Hash(SupervisedPlugin):
        def __init__(self) -> None:
            super().__init__()
            self.start: dict[str, Tensor] = {}
            self.checked = 0

        def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            teacher = strategy.plugins[0].teacher
            self.start = {name: value.clone() for name, value in teacher.state_dict().items()} if teacher else {}

        def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
            teacher = strategy.plugins[0].teacher
            if teacher:
                self.checked += 1
                assert all(torch.equal(value, self.start[name]) for name, value in teacher.state_dict().items())

    strategy = SimpleNamespace(plugins=lambda run: [PseudoLabelPlugin(0.8, 0.2, DynamicCount("estimated", 0.8))])
    strategy.curriculum = lambda stream, run: stream
    watcher = Hash()
    learn(strategy, tiny_scenario(), extra=[watcher])
    assert watcher.checked == 4
