"""KAR: labels forward and backward, which memory, and when it is something simpler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from cml_bench.labels import OUT_OF_SCOPE, PRESENT
from cml_bench.memory.kis import KISMemory
from cml_bench.registry import load
from cml_bench.training.pseudo_labels import PseudoLabelPlugin
from cml_bench.training.relabel import PseudoLabels
from cml_bench.training.replay import ReplayPlugin

KAR, Naive, PseudoLabel = (load("strategies", name) for name in ("kar", "naive", "pseudo_label"))


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_parts(tiny_scenario: Any, learn: Any) -> None:
    learnt = learn(KAR(memory_size=12, threshold=0.7, balance=0.25), tiny_scenario())
    forward, replay = learnt.plugins
    assert isinstance(forward, PseudoLabelPlugin)
    assert forward.above == 0.7
    assert isinstance(replay, ReplayPlugin)
    assert isinstance(replay.buffer, KISMemory)
    assert replay.buffer.balance == 0.25
    assert isinstance(replay.reader, PseudoLabels)
    assert replay.reader.threshold == 0.9
    assert 0 < len(replay.buffer.buffer) <= 12


def test_without_a_memory_it_is_pseudo_labelling_forward(tiny_scenario: Any, learn: Any) -> None:
    forward = PseudoLabel(rule="fixed", threshold=0.4, below="zero")
    assert same(learn(KAR(memory_size=0, threshold=0.4), tiny_scenario()), learn(forward, tiny_scenario()))
    assert same(learn(KAR(), tiny_scenario(base=6)), learn(Naive(), tiny_scenario(base=6)))


class Directions(SupervisedPlugin):
    """Counts what nobody annotated and the criterion is shown as present, in stream rows and in memory rows."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = self.backward = 0

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        first_new = strategy.experience.dataset.labels.first_new
        shown, size = strategy.mb_y, strategy.train_mb_size
        stored, annotated = shown[size:], strategy.plugins[0]
        if first_new and annotated.annotated is not None and len(stored):
            made = (shown == PRESENT) & (annotated.annotated == OUT_OF_SCOPE)
            self.forward += int(made[:size, :first_new].sum())
            assert not made[:, first_new:].any(), "forward labels are old labels"
            # What the reader wrote backward is in the batch before anything forward.
            memory = strategy.plugins[1].memory
            truth = strategy.plugins[1].buffer.buffer.widened(memory.labels.names)
            self.backward = int(((memory.labels.data == PRESENT) & (truth.labels.data < 0)).sum())


@pytest.mark.parametrize(("relabel", "backward"), [("as_stored", False), ("pseudo>0.5", True)])
def test_both_directions(tiny_scenario: Any, learn: Any, relabel: str, backward: bool) -> None:
    watcher = Directions()
    strategy = KAR(memory_size=20, relabel=relabel, threshold=0.5)
    learn(strategy, tiny_scenario(n=60), extra=[watcher], epochs=6)
    assert watcher.forward > 0
    assert (watcher.backward > 0) == backward
