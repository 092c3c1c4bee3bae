"""iCaRL: its loss entry by entry, and that annotations of old labels are neither needed nor read."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from cml_bench.labels import OUT_OF_SCOPE
from cml_bench.losses.assume_negative import AssumeNegative
from cml_bench.losses.bce import BCE
from cml_bench.memory.herding import HerdingMemory
from cml_bench.registry import load

ICaRL, Naive = load("strategies", "icarl"), load("strategies", "naive")


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_naive_in_a_single_experience(tiny_scenario: Any, learn: Any) -> None:
    assert same(learn(ICaRL(), tiny_scenario(base=6)), learn(Naive(), tiny_scenario(base=6)))
    assert not same(learn(ICaRL(memory_size=0), tiny_scenario()), learn(Naive(), tiny_scenario()))


class Entries(SupervisedPlugin):
    """Works out the loss entry by entry, with the old model's probabilities from a copy of its own."""

    def __init__(self, seen: bool) -> None:
        super().__init__()
        self.seen = seen
        self.old: Any = None
        self.steps = 0

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        labels, logits = strategy.mb_y.tolist(), strategy.mb_output.tolist()
        n_old = 0 if self.old is None else self.old[1].shape[0]
        old, new = [], []
        for row, states, x in zip(logits, labels, strategy.mb_x, strict=True):
            pooled = x.mean(dim=(1, 2))
            for c, z in enumerate(row):
                if c < n_old:
                    q = 1 / (1 + math.exp(-float(self.old[0][c] @ pooled + self.old[1][c])))
                    old.append(q * math.log1p(math.exp(-z)) + (1 - q) * math.log1p(math.exp(z)))
                elif states[c] >= 0 or self.seen:
                    new.append(math.log1p(math.exp(-z if states[c] == 1 else z)))
        share = n_old / len(logits[0])
        expected = (1 - share) * sum(new) / len(new) + (share * sum(old) / len(old) if old else 0.0)
        assert strategy.loss.item() == pytest.approx(expected, rel=1e-4)
        self.steps += bool(old)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        head = strategy.model.head
        self.old = [torch.cat([p.detach().clone() for p in parts]) for parts in (head.weights, head.biases)]


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("relabel", ["as_stored", "oracle"])
def test_the_loss(tiny_scenario: Any, learn: Any, seen: bool, relabel: str) -> None:
    entries, criterion = Entries(seen), AssumeNegative("bce", "seen") if seen else BCE()
    learn(ICaRL(memory_size="3/label", relabel=relabel), tiny_scenario(), extra=[entries], criterion=criterion)
    assert entries.steps > 10


def test_annotations_of_old_labels_are_not_read(tiny_scenario: Any, learn: Any) -> None:
    current, seen = (tiny_scenario(annotation=annotation) for annotation in ("current", "seen"))
    assert (current.train_stream[1].dataset.labels.data[:, :2] == OUT_OF_SCOPE).all()
    assert (seen.train_stream[1].dataset.labels.data[:, :2] >= 0).all()
    assert same(learn(ICaRL(memory_size=12), current), learn(ICaRL(memory_size=12), seen))


def test_later_plugins_and_the_memory_see_what_was_annotated(tiny_scenario: Any, learn: Any) -> None:
    class Known(SupervisedPlugin):
        old = 0

        def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            self.old += int((strategy.mb_y[:, : strategy.plugins[1].n_old] >= 0).sum())

    known = Known()
    learnt = learn(ICaRL(memory_size=12, refill=True), tiny_scenario(), extra=[known])
    assert known.old > 0
    memory = learnt.plugins[0].buffer
    assert isinstance(memory, HerdingMemory)
    assert memory.refill
    assert len(memory.buffer) <= 12


def test_the_teacher_stays_what_it_was(tiny_scenario: Any, learn: Any) -> None:
    class Still(SupervisedPlugin):
        before: Any = None
        steps = 0

        def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            if strategy.plugins[1].teacher is not None:
                self.before = [p.clone() for p in strategy.plugins[1].teacher.parameters()]

        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            if self.before:
                self.steps += 1
                now = list(strategy.plugins[1].teacher.parameters())
                assert all(torch.equal(a, b) for a, b in zip(self.before, now, strict=True))

    still = Still()
    learn(ICaRL(), tiny_scenario(), extra=[still])
    assert still.steps > 0


def test_an_online_stream_has_one_teacher_an_experience(tiny_scenario: Any, learn: Any) -> None:
    widths: list[int] = []

    class Widths(SupervisedPlugin):
        def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            widths.append(strategy.plugins[1].n_old)

    learn(ICaRL(), tiny_scenario(online_chunk=6), extra=[Widths()], epochs=1)
    seen = [len(e.dataset.labels.names) for e in tiny_scenario(online_chunk=6).train_stream]
    assert widths == [n - 2 for n in seen]
