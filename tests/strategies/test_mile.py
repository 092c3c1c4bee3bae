"""MILe: whose turn it is, what the student is shown, and what stays as it was marked."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED
from cml_bench.losses.assume_negative import AssumeNegative
from cml_bench.registry import load

MILe, Naive = load("strategies", "mile"), load("strategies", "naive")
find = load("strategies", "cml_bench.strategies.mile:find")


def test_truth_table() -> None:
    """Only an open label can be found, and only over the threshold."""
    states = torch.tensor([[PRESENT, ABSENT, UNMARKED, OUT_OF_SCOPE]] * 2, dtype=torch.int8)
    logits = torch.tensor([[-2.0] * 4, [2.0] * 4])
    found = find(states, logits, 0.25)
    assert found.tolist() == [[1, 0, -1, -2], [1, 0, 1, -2]]
    assert states.tolist() == [[1, 0, -1, -2]] * 2
    at = torch.logit(torch.tensor([[0.24, 0.26]]))
    assert find(torch.full((1, 2), UNMARKED, dtype=torch.int8), at, 0.25).tolist() == [[-1, 1]]


class Judge(AssumeNegative):
    """Keeps the labels that the criterion is given in training."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, output: Any, labels: Tensor, *rest: Any) -> Tensor:
        if output.logits.requires_grad:
            self.seen.append(labels.clone())
        return super().forward(output, labels, *rest)


class Copies(SupervisedPlugin):
    """Keeps a copy of the model after every step, and every batch as it was marked."""

    def __init__(self) -> None:
        super().__init__()
        self.models: list[Any] = []
        self.batches: list[tuple[Tensor, Tensor]] = []
        self.experiences: list[int] = []

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self.models.append(copy.deepcopy(strategy.model).eval())
        self.batches.append((strategy.mb_x, strategy.mb_y.clone()))
        self.experiences.append(strategy.clock.train_exp_counter)


@pytest.mark.parametrize("online", [None, 7])
def test_the_student_is_shown_what_the_last_teacher_finds(tiny_scenario: Any, learn: Any, online: Any) -> None:
    """Five steps a teacher, three a student, in each experience anew: by hand from copies of the model."""
    scenario = tiny_scenario(n=80, regime="single_positive", online_chunk=online)
    judge, copies = Judge(), Copies()
    settings = {"epochs": 1, "batch_size": 3} if online else {"epochs": 2}
    learn(MILe(5, 3, 0.4), scenario, criterion=judge, extra=[copies], **settings)
    widths = [labels.shape[1] for labels in judge.seen]
    found, step = 0, 0
    for i, (seen, (images, marked)) in enumerate(zip(judge.seen, copies.batches, strict=True)):
        step = 0 if i == 0 or widths[i] != widths[i - 1] else step + 1
        if step % 8 < 5:
            assert torch.equal(seen, marked)
            continue
        teacher = copies.models[i - step % 8 + 4]
        with torch.no_grad():
            expected = (teacher(images).sigmoid() > 0.4) & (marked == UNMARKED)
        assert torch.equal(seen, torch.where(expected, PRESENT, marked))
        found += int(expected.sum())
    assert found > 0


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(*pair) for pair in zip(one.logits, other.logits, strict=True))


def test_where_nothing_is_open_it_is_plain_training(tiny_scenario: Any, learn: Any) -> None:
    scenario = tiny_scenario()
    criteria = (AssumeNegative(), AssumeNegative())
    ours, naive = (learn(s, scenario, criterion=c) for s, c in zip((MILe(2, 2), Naive()), criteria, strict=True))
    assert same(ours, naive)


def test_a_teacher_that_finds_nothing_teaches_nothing(tiny_scenario: Any, learn: Any) -> None:
    scenario = tiny_scenario(regime="single_positive")
    runs = [learn(each, scenario, criterion=AssumeNegative()) for each in (MILe(2, 2, 1.0), Naive(), MILe(2, 2, 0.1))]
    assert same(runs[0], runs[1])
    assert not same(runs[2], runs[1])


def test_it_finds_what_was_left_open(tiny_scenario: Any, learn: Any) -> None:
    """One label of each image is marked; of what the student is shown beside it, most is there."""
    scenario = tiny_scenario(n=300, regime="single_positive", n_labels=3, increment=3)
    judge, copies = Judge(), Copies()
    learn(MILe(20, 10), scenario, criterion=judge, extra=[copies], epochs=8)
    truth = torch.from_numpy(scenario.splits["train"].truth)
    features = scenario.splits["train"].inputs.table
    shown = right = base = 0
    for seen, (images, marked) in zip(judge.seen, copies.batches, strict=True):
        new = (seen == PRESENT) & (marked == UNMARKED)
        rows = torch.tensor([int((features == image).flatten(1).all(dim=1).nonzero()[0]) for image in images])
        shown, right = shown + int(new.sum()), right + int((new & (truth[rows] == PRESENT)).sum())
        base += int(((marked == UNMARKED) & (truth[rows] == PRESENT)).sum())
    open_share = base / sum(int((marked == UNMARKED).sum()) for _, marked in copies.batches)
    assert shown > 50
    assert right / shown > 2 * open_share
