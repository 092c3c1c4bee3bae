"""What all slot memories share: sizes, returning images, labels as annotated, the buffer that others read."""

from __future__ import annotations

from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.training.storage_policy import ExemplarsBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from cml_bench.errors import CmlBenchError
from cml_bench.labels import OUT_OF_SCOPE
from cml_bench.memory.budget import images_allowed
from cml_bench.memory.exemplars import SlotMemory, draw_one
from cml_bench.memory.label_balanced import LabelBalancedMemory
from cml_bench.memory.ocdm import OCDMMemory
from cml_bench.memory.prs import PRSMemory
from cml_bench.options import convert
from cml_bench.registry import load

KINDS = (LabelBalancedMemory, PRSMemory, OCDMMemory)
each_kind = pytest.mark.parametrize("kind", KINDS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Agent:
    train_mb_size = 4


# -- sizes -----------------------------------------------------------------------------------------------------------


def test_a_size_is_a_number_or_a_number_a_label() -> None:
    assert (images_allowed(7, 5), images_allowed("7", 5), images_allowed("7/label", 5)) == (7, 7, 35)
    for wrong in (-1, "x", "7/labels", "/label", "1.5", "7 /label"):
        with pytest.raises(ValueError, match="20/label"):
            images_allowed(wrong, 5)


@pytest.mark.parametrize("name", ["er_balanced", "er_herding", "prs", "ocdm"])
def test_a_size_is_an_option(name: str) -> None:
    kind = load("strategies", name)
    assert kind().memory_size == 2000
    assert convert(kind, {"memory_size": "30"}, owner="x") == {"memory_size": 30}
    assert convert(kind, {"memory_size": "5/label"}, owner="x") == {"memory_size": "5/label"}
    assert convert(kind, {"memory_size": "0/label"}, owner="x") == {"memory_size": 0}
    with pytest.raises(CmlBenchError, match="a number a label as in 20/label"):
        convert(kind, {"memory_size": "5/class"}, owner="x")


@each_kind
def test_a_size_a_label_grows_with_the_labels(tiny_dataset: Any, kind: Any) -> None:
    memory = kind("3/label", generator())
    for t, width in enumerate((2, 3, 5)):
        memory.update_from_dataset(tiny_dataset(range(40 * t, 40 * t + 40), np.eye(width)[np.arange(40) % width]))
        assert memory.max_size == len(memory.buffer) == 3 * width


@each_kind
def test_an_experience_is_shown_in_batches_in_random_order(
    tiny_dataset: Any, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[list[int]] = []
    monkeypatch.setattr(kind, "_show", lambda self, ids, labels: shown.append(ids))
    for seed in (0, 1):
        kind(5, generator(seed)).post_adapt(Agent(), SimpleNamespace(dataset=tiny_dataset(range(30), np.ones((30, 2)))))
    one, other = (list(chain.from_iterable(part)) for part in (shown[:8], shown[8:]))
    assert [len(batch) for batch in shown] == [4] * 7 + [2] + [4] * 7 + [2]
    assert sorted(one) == sorted(other) == list(range(30))
    assert len({tuple(one), tuple(other), tuple(range(30))}) == 3


# -- the buffer ------------------------------------------------------------------------------------------------------


def brute_counts(memory: SlotMemory) -> tuple[list[int], list[int]]:
    shown = memory.buffer.labels.data == 1
    return shown.sum(dim=0).tolist(), shown.sum(dim=1).tolist()


@each_kind
@settings(max_examples=25)
@given(data=st.data(), limit=st.integers(0, 8))
def test_what_is_stored(tiny_dataset: Any, kind: Any, data: st.DataObject, limit: int) -> None:
    """Never too many, no id twice, full as soon as it can be; labels as annotated, known entries winning; counts."""
    memory, annotated, width = kind(limit, generator()), {}, 0
    seen = np.zeros(6, dtype=int)
    for _ in range(data.draw(st.integers(1, 6))):
        width = min(6, width + data.draw(st.integers(1 if width == 0 else 0, 2)))
        rows = data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=6, unique=True))
        # The truth of an entry never changes; whether it is annotated does.
        states = np.array(
            [[(row + c) % 3 == 0 if data.draw(st.booleans()) else -1 for c in range(width)] for row in rows]
        )
        memory.update_from_dataset(tiny_dataset(rows, states))
        seen[:width] += (states == 1).sum(axis=0)
        before = set(annotated)
        stored = memory.buffer.sample_ids.data.tolist()
        assert len(stored) == len(set(stored)) <= limit == memory.max_size
        assert set(stored) <= before | set(rows)
        for row, state in zip(rows, states, strict=True):
            old = annotated.get(row, np.empty(0, dtype=int))
            annotated[row] = np.maximum(state, np.pad(old, (0, width - len(old)), constant_values=OUT_OF_SCOPE))
        annotated = {row: annotated[row] for row in stored}
        for row, labels in zip(stored, memory.buffer.labels.data.tolist(), strict=True):
            assert labels[len(annotated[row]) :] == [OUT_OF_SCOPE] * (width - len(annotated[row]))
            # An image that left and came back within a batch has only its last annotation.
            assert all(s in (t, -1, OUT_OF_SCOPE) for s, t in zip(labels, annotated[row].tolist(), strict=False))
        assert (memory.held.tolist(), memory.sizes.tolist()) == brute_counts(memory)
        assert memory.seen.tolist() == seen[:width].tolist()


@each_kind
def test_a_returning_image_keeps_its_slot_and_gains_labels(tiny_dataset: Any, kind: Any) -> None:
    memory = kind(10, generator())
    assert isinstance(memory, ExemplarsBuffer)
    assert len(memory.buffer) == 0
    memory.update_from_dataset(tiny_dataset([4, 9, 2], [[1, 0], [0, 0], [0, 1]]))
    memory.update_from_dataset(tiny_dataset([2, 7], [[-2, -2, 1], [-2, -2, 0]]))
    assert memory.buffer.sample_ids.data.tolist() == [4, 9, 2, 7]
    assert memory.buffer.labels.data.tolist() == [[1, 0, -2], [0, 0, -2], [0, 1, 1], [-2, -2, 0]]
    assert memory.seen.tolist() == [1, 1, 1]


@each_kind
def test_a_buffer_that_was_read_does_not_change(tiny_dataset: Any, kind: Any) -> None:
    memory = kind(2, generator())
    memory.update_from_dataset(tiny_dataset([0, 1], [[0, 0], [0, 0]]))
    before = memory.buffer
    for row in range(2, 30):
        memory.update_from_dataset(tiny_dataset([row], [[1, 1]]))
    assert before.sample_ids.data.tolist() == [0, 1]
    assert before.labels.data.tolist() == [[0, 0], [0, 0]]


@each_kind
@pytest.mark.parametrize("annotation", ["current", "all"])
def test_later_labels_of_a_stored_image(tiny_scenario: Any, kind: Any, annotation: str) -> None:
    """Labels that count as annotated from the start are there when they arrive, and are counted."""
    scenario = tiny_scenario(annotation=annotation, assignment="disjoint")
    memory = kind(100, generator())
    for experience in scenario.train_stream:
        memory.post_adapt(Agent, experience)
    truth, lists = scenario.splits["train"].truth, scenario.splits["train"].experiences
    home = {int(row): t for t, rows in enumerate(lists) for row in rows}
    bounds = (0, *scenario.n_seen)
    for row, labels in zip(memory.ids.tolist(), memory.buffer.labels.data.tolist(), strict=True):
        low, high = bounds[home[row]], bounds[home[row] + 1]
        expected = [int(v) if low <= c < high else OUT_OF_SCOPE for c, v in enumerate(truth[row])]
        assert labels == (truth[row].tolist() if annotation == "all" else expected)
    assert (memory.held.tolist(), memory.sizes.tolist()) == brute_counts(memory)


@each_kind
def test_every_image_of_an_experience_is_shown_once(tiny_scenario: Any, kind: Any) -> None:
    scenario = tiny_scenario()
    memory, state = kind(5, generator()), torch.get_rng_state()
    total = np.zeros(6, dtype=int)
    for experience in scenario.train_stream:
        memory.post_adapt(Agent, experience)
        labels = experience.dataset.labels.data.numpy()
        total[: labels.shape[1]] += (labels == 1).sum(axis=0)
    assert memory.seen.tolist() == total.tolist()
    assert torch.equal(state, torch.get_rng_state())


@each_kind
def test_shrinking_and_growing(tiny_dataset: Any, kind: Any) -> None:
    memory, labels = kind(20, generator()), np.eye(4)[np.arange(60) % 4]
    memory.update_from_dataset(tiny_dataset(range(60), labels))
    large = set(memory.ids.tolist())
    memory.resize(None, 8)
    assert len(memory.buffer) == memory.max_size == 8
    assert set(memory.ids.tolist()) < large
    # PRS draws the label to take from; the others take from the largest.
    assert np.abs(memory.held - 2).max() <= (kind is PRSMemory)
    memory.resize(None, 12)
    assert len(memory.buffer) == 8
    memory.update_from_dataset(tiny_dataset(range(60, 120), labels))
    assert len(memory.buffer) == 12
    memory.resize(None, 0)
    assert len(memory.buffer) == 0


# -- draws -----------------------------------------------------------------------------------------------------------


def test_draws_follow_the_weights() -> None:
    weights, draws = np.array([0.0, 3.0, 0.0, 1.0, 4.0, 0.0]), generator()
    found = np.bincount([draw_one(weights, draws) for _ in range(4000)], minlength=6) / 4000
    assert found[weights == 0].tolist() == [0.0, 0.0, 0.0]
    assert np.abs(found - weights / 8).max() < 4 * (0.25 / 4000) ** 0.5
