"""GDumb: the model is what the memory makes of a fresh one, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training import supervised as upstream

from cml_bench.losses.bce import BCE
from cml_bench.registry import load

GDumb, FromScratch = load("strategies", "gdumb"), load("strategies", "from_scratch")


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Rows(SupervisedPlugin):
    """Collects the ids and labels of every trained row, by experience and epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[list[tuple[int, tuple[int, ...]]]] = []

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self.epochs.append([])

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        ids, labels = strategy.mb_sample_id.tolist(), strategy.mb_y.tolist()
        self.epochs[-1] += [(row, tuple(states)) for row, states in zip(ids, labels, strict=True)]


@pytest.mark.parametrize("size", [12, "3/label", 1000])
def test_trains_on_the_memory_alone(tiny_scenario: Any, learn: Any, size: int | str) -> None:
    """Each epoch of an experience goes once through the memory as it is by then, with labels as annotated."""
    rows, memories = Rows(), []

    class Memory(SupervisedPlugin):
        def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            stored = strategy.plugins[0].buffer.buffer
            labels = map(tuple, stored.labels.data.tolist())
            memories.append(sorted(zip(stored.sample_ids.data.tolist(), labels, strict=True)))

    learn(GDumb(memory_size=size, memory_epochs=3), tiny_scenario(), extra=[rows, Memory()])
    assert [sorted(epoch) for epoch in rows.epochs] == [memory for memory in memories for _ in range(3)]
    assert [len(labels) for ((_, labels), *_) in memories] == [2, 4, 6]
    assert all(len(memory) <= (1000 if size == 1000 else 18) for memory in memories)


def test_what_is_learnt_depends_on_what_is_stored_alone(tiny_scenario: Any, learn: Any) -> None:
    """The stream the other way round within its experiences, but the same memory: the same model."""
    plain, turned = tiny_scenario(), tiny_scenario()
    for experience in turned.train_stream:
        dataset = experience.dataset
        experience._dataset = dataset.subset(list(range(len(dataset)))[::-1])
    one, other = learn(GDumb(), plain), learn(GDumb(), turned)
    stored = [learnt.plugins[0].buffer.buffer.sample_ids.data.tolist() for learnt in (one, other)]
    assert stored[0] != stored[1]
    assert sorted(stored[0]) == sorted(stored[1])
    assert same(one, other)


def test_a_single_experience_that_is_stored_whole_is_trained_on_as_it_is(tiny_scenario: Any, learn: Any) -> None:
    whole = tiny_scenario(base=6)
    assert same(learn(GDumb(), whole), learn(FromScratch(), whole))
    assert not same(learn(GDumb(memory_size=9), whole), learn(FromScratch(), whole))


def test_every_experience_starts_afresh(tiny_scenario: Any, learn: Any) -> None:
    """With a learning rate of nearly nothing, what was learnt before would show."""

    class Slow(SupervisedPlugin):
        def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
            lr = 0.3 if strategy.clock.train_exp_counter == 0 else 1e-9
            strategy.optimizer.param_groups[0]["lr"] = lr

    learnt = learn(GDumb(), tiny_scenario(), extra=[Slow()], epochs=20)
    untrained = learnt.plugins[1].untrained.head.weights[0]
    now = next(iter(learnt.model.head.weights))
    assert torch.allclose(now, untrained, atol=1e-6)


def test_an_online_experience_is_trained_for_when_it_is_over(tiny_scenario: Any, learn: Any) -> None:
    rows = Rows()
    scenario = tiny_scenario(online_chunk=6, assignment="disjoint")
    learn(GDumb(memory_epochs=4), scenario, extra=[rows], epochs=1)
    experiences = [set(ids.tolist()) for ids in scenario.splits["train"].experiences]
    seen: set[int] = set()
    expected = [sorted(seen := seen | ids) for ids in experiences for _ in range(4)]
    assert [sorted(row for row, _ in epoch) for epoch in rows.epochs] == expected


@pytest.mark.parametrize("protocol", [{}, {"online_chunk": 6}])
def test_a_criterion_counts_what_is_trained_on(tiny_scenario: Any, learn: Any, protocol: dict[str, int]) -> None:
    """Each image of the memory once, however many chunks have come and however often they were stored."""
    criterion = load("criteria", "db")()
    learnt = learn(GDumb(), tiny_scenario(assignment="disjoint", **protocol), criterion=criterion, epochs=1)
    stored = learnt.plugins[0].buffer.buffer.labels.data
    assert learnt.template._criterion.present.tolist() == (stored == 1).sum(dim=0).tolist()


@pytest.mark.parametrize(("size", "looks"), [(1000, 3 * (1 + 2)), (0, 0)])
def test_a_criterion_is_not_asked_to_look_at_nothing(tiny_scenario: Any, learn: Any, size: int, looks: int) -> None:
    """Once an experience, and once for each of two epochs: not for the chunks that are only stored."""
    sizes: list[int] = []  # outside the criterion, which each experience has a copy of

    class Looking(BCE):
        def build(self, model: Any, dataset: Any) -> None:
            sizes.append(len(dataset))

        def start_epoch(self, model: Any, dataset: Any, epoch: int, epochs: int) -> None:
            sizes.append(len(dataset))

    learn(GDumb(memory_size=size, memory_epochs=2), tiny_scenario(online_chunk=6), epochs=1, criterion=Looking())
    assert len(sizes) == looks
    assert all(sizes)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_without_memory_the_model_stays_untrained(tiny_scenario: Any, learn: Any, schedule: str) -> None:
    learnt = learn(GDumb(memory_size=0), tiny_scenario(), schedule=schedule)
    assert [logits.shape[1] for logits in learnt.logits] == [2, 4, 6]
    untrained = learnt.plugins[1].untrained.head.weights[0]
    assert torch.equal(learnt.model.head.weights[0], untrained)


def test_upstream_needs_one_class_an_image(tiny_scenario: Any) -> None:
    model = torch.nn.Linear(6, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    learner = upstream.GDumb(model=model, optimizer=optimizer, criterion=torch.nn.BCEWithLogitsLoss())
    with pytest.raises(AssertionError):
        learner.train(tiny_scenario(spatial=False).train_stream[0])
