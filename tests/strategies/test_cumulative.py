"""Cumulative training: the union of what came so far, and nothing that comes later."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from cml_bench.labels import OUT_OF_SCOPE
from cml_bench.registry import load

Cumulative, Naive = load("strategies", "cumulative"), load("strategies", "naive")


@pytest.mark.parametrize("assignment", ["overlap", "disjoint"])
def test_unions_grow_by_the_images_that_are_new(tiny_scenario: Any, assignment: str) -> None:
    scenario = tiny_scenario(assignment=assignment)
    part, pulled = scenario.splits["train"], []

    def stream() -> Iterator[Any]:
        for t, experience in enumerate(scenario.train_stream):
            pulled.append(t)
            yield [experience]

    union: set[int] = set()
    known: dict[int, set[int]] = {}
    for t, (made,) in enumerate(Cumulative().curriculum(stream(), None)):
        assert pulled == list(range(t + 1)), "looks ahead"
        new = range((0, *scenario.n_seen)[t], scenario.n_seen[t])
        for row in part.experiences[t].tolist():
            union.add(row)
            known.setdefault(row, set()).update(new)
        assert made.dataset.sample_ids.data.tolist() == sorted(union)
        expected = [
            [int(part.truth[row, c]) if c in known[row] else OUT_OF_SCOPE for c in range(scenario.n_seen[t])]
            for row in sorted(union)
        ]
        assert made.dataset.labels.data.tolist() == expected
        assert made.classes_in_this_experience == list(new)
        assert made.classes_seen_so_far == list(range(scenario.n_seen[t]))


def test_every_image_so_far_is_trained_on_in_every_epoch(tiny_scenario: Any, learn: Any) -> None:
    class Counting(SupervisedPlugin):
        def __init__(self) -> None:
            super().__init__()
            self.counts = [0, 0, 0]

        def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            self.counts[strategy.clock.train_exp_counter] += len(strategy.mb_x)

    counting, scenario = Counting(), tiny_scenario()
    learn(Cumulative(), scenario, extra=[counting], epochs=3)
    experiences = [set(rows.tolist()) for rows in scenario.splits["train"].experiences]
    assert counting.counts == [3 * len(set().union(*experiences[: t + 1])) for t in range(3)]


def test_single_experience_is_naive(tiny_scenario: Any, learn: Any) -> None:
    scenario = tiny_scenario(base=6)
    one, other = learn(Cumulative(), scenario).state(), learn(Naive(), scenario).state()
    assert all(torch.equal(one[name], other[name]) for name in one)
