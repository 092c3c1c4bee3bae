"""Strategies that are a memory: when they are naive, what a step replays, what the memory is shown."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from cml_bench.labels import OUT_OF_SCOPE
from cml_bench.registry import load

NAMES = ("er_balanced", "er_herding", "prs", "ocdm")
each_strategy = pytest.mark.parametrize("name", NAMES)
each_online = pytest.mark.parametrize("name", ["er_balanced", "prs", "ocdm"])
Naive = load("strategies", "naive")


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Rows(SupervisedPlugin):
    """Notes the ids and labels of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[list[int], list[list[int]]]] = []

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        self.steps.append((strategy.mb_sample_id.tolist(), strategy.mb_y.tolist()))


def stream_rows(scenario: Any, batch: int) -> list[int]:
    """Stream images in each step of one epoch."""
    lengths = [len(experience.dataset) for experience in scenario.train_stream]
    return [min(batch, length - first) for length in lengths for first in range(0, length, batch)]


@each_strategy
def test_naive_without_memory_and_in_a_single_experience(tiny_scenario: Any, learn: Any, name: str) -> None:
    kind, whole, parts = load("strategies", name), tiny_scenario(base=6), tiny_scenario()
    assert same(learn(kind(), whole), learn(Naive(), whole))
    assert same(learn(kind(memory_size=0), parts), learn(Naive(), parts))
    assert not same(learn(kind(memory_size=10), parts), learn(Naive(), parts))
    online = tiny_scenario(online_chunk=6)
    settings = {"epochs": 1, "batch_size": 4}
    assert same(
        learn(kind(memory_size=0), online, **settings), learn(Naive(), tiny_scenario(online_chunk=6), **settings)
    )


@each_strategy
def test_whole_experiences_are_shown_when_they_end(tiny_scenario: Any, learn: Any, name: str) -> None:
    """No image is replayed in its own experience, those of earlier ones are, and a size a label grows."""
    scenario, watcher = tiny_scenario(assignment="disjoint"), Rows()
    learnt = learn(load("strategies", name)(memory_size="2/label"), scenario, extra=[watcher])
    home = {int(row): t for t, rows in enumerate(scenario.splits["train"].experiences) for row in rows}
    replayed = 0
    for ids, _ in watcher.steps:
        current = home[ids[0]]
        stream = [row for row in ids if home[row] == current]
        assert len(stream) == len(set(stream)) <= 8
        assert ids[: len(stream)] == stream
        assert all(home[row] < current for row in ids[len(stream) :])
        replayed += len(ids) - len(stream)
    assert replayed > 0
    buffer = learnt.plugins[0].buffer
    assert buffer.max_size == 12
    assert 6 < len(buffer.buffer) <= 12


@each_online
@pytest.mark.parametrize("batch", [3, 6])
def test_a_step_of_an_online_stream(tiny_scenario: Any, learn: Any, name: str, batch: int) -> None:
    """Each batch meets all that came before it, in the same chunk too, with labels as annotated by then."""
    scenario, watcher = tiny_scenario(online_chunk=6), Rows()
    strategy = load("strategies", name)(memory_size=1000, replay_batch_size=1000)
    learnt = learn(strategy, scenario, extra=[watcher], epochs=1, batch_size=batch)
    sizes = stream_rows(tiny_scenario(online_chunk=6), batch)
    annotated: dict[int, list[int]] = {}
    assert len(watcher.steps) == len(sizes)
    for (ids, labels), size in zip(watcher.steps, sizes, strict=True):
        assert set(ids[size:]) == set(annotated)
        assert len(ids) == size + len(annotated)
        width = len(labels[0])
        for row, states in zip(ids[size:], labels[size:], strict=True):
            assert states == annotated[row] + [OUT_OF_SCOPE] * (width - len(annotated[row]))
        for row, states in zip(ids[:size], labels[:size], strict=True):
            old = annotated.get(row, [])
            old = old + [OUT_OF_SCOPE] * (width - len(old))
            annotated[row] = [max(pair) for pair in zip(states, old, strict=True)]
    shown = sum((e.dataset.labels.data == 1).sum().item() for e in tiny_scenario(online_chunk=6).train_stream)
    assert int(learnt.plugins[0].buffer.seen.sum()) == shown


@each_online
def test_several_epochs_show_an_image_once(tiny_scenario: Any, learn: Any, name: str) -> None:
    seen = []
    for epochs in (1, 3):
        learnt = learn(load("strategies", name)(memory_size=9), tiny_scenario(online_chunk=6), epochs=epochs)
        seen.append(learnt.plugins[0].buffer.seen.tolist())
    assert seen[0] == seen[1]


@each_online
def test_oracle_gives_a_step_the_truth(tiny_scenario: Any, learn: Any, name: str) -> None:
    scenario, watcher = tiny_scenario(online_chunk=8), Rows()
    strategy = load("strategies", name)(relabel="oracle", replay_batch_size=1000)
    learn(strategy, scenario, extra=[watcher], epochs=1, batch_size=8)
    truth, sizes = scenario.splits["train"].truth, stream_rows(tiny_scenario(online_chunk=8), 8)
    assert sum(len(ids) for ids, _ in watcher.steps) > sum(sizes)
    first_new = (0, *scenario.n_seen[:-1])
    for (ids, labels), size in zip(watcher.steps, sizes, strict=True):
        for row, states in zip(ids[size:], labels[size:], strict=True):
            # From the first label of an experience that has the image on.
            since = next(column for column, state in enumerate(states) if state != OUT_OF_SCOPE)
            assert states[since:] == truth[row, since : len(states)].tolist()
            assert row in scenario.splits["train"].experiences[first_new.index(since)]


def test_options_reach_the_memory(tiny_scenario: Any, learn: Any) -> None:
    options = {
        "prs": {"memory_size": 7, "rho": 0.5, "official_quirks": True},
        "ocdm": {"memory_size": 7, "rho": 0.5, "divergence": "target_to_memory"},
        "er_herding": {"memory_size": 7, "refill": True},
    }
    for name, given in options.items():
        memory = learn(load("strategies", name)(**given), tiny_scenario(), stop_after=1, epochs=1).plugins[0].buffer
        assert memory.max_size == given.pop("memory_size")
        assert {option: getattr(memory, option) for option in given} == given
