"""The label-balanced reservoir against a loop with buckets, and on long streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from avalanche.training.storage_policy import ClassBalancedBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from cml_bench.data.inputs import TensorInputs
from cml_bench.memory.label_balanced import LabelBalancedMemory
from cml_bench.streams.dataset import LabelMatrix, MultiLabelDataset


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dataset(labels: Any) -> MultiLabelDataset:
    states = torch.as_tensor(np.asarray(labels), dtype=torch.int8)
    names = tuple(map(str, range(states.shape[1])))
    inputs = TensorInputs(torch.zeros(len(states), 1))
    return MultiLabelDataset.from_rows(inputs, torch.arange(len(states)), LabelMatrix(states, names, 0))


class Loop:
    """The rule with one list of images a bucket, and the same draws."""

    def __init__(self, size: int, n_labels: int, seed: int) -> None:
        self.size, self.n_labels, self.draws = size, n_labels, generator(seed)
        self.slots: list[tuple[int, tuple[int, ...], int | None]] = []
        self.n, self.brought = [0] * n_labels, dict.fromkeys([None, *range(n_labels)], 0)

    def draw(self) -> float:
        return torch.rand((), generator=self.draws, dtype=torch.float64).item()

    def bucket(self, owner: int | None) -> list[int]:
        return [slot for slot, (_, _, other) in enumerate(self.slots) if other == owner]

    def show(self, sample: int, labels: tuple[int, ...]) -> None:
        stored = [sum(c in held for _, held, _ in self.slots) for c in range(self.n_labels)]
        owner = sorted(labels, key=lambda c: (self.n[c], stored[c], c))[0] if labels else None
        self.brought[owner] += 1
        slot = len(self.slots) if len(self.slots) < self.size else self.slot_for(owner)
        if slot is not None:
            self.slots[slot : slot + 1] = [(sample, labels, owner)]
        for c in labels:
            self.n[c] += 1

    def slot_for(self, owner: int | None) -> int | None:
        quota = self.size / (self.n_labels + 1)
        largest = max(range(self.n_labels), key=lambda c: (len(self.bucket(c)), -c))
        victim = None if len(self.bucket(None)) > quota else largest
        if owner is None:
            may_grow = len(self.bucket(None)) + 1 <= quota
        else:
            may_grow = victim is None or len(self.bucket(owner)) + 1 <= len(self.bucket(victim))
        if may_grow:
            return self.any_of(victim)
        if self.draw() < len(self.bucket(owner)) / self.brought[owner]:
            return self.any_of(owner)
        return None

    def any_of(self, owner: int | None) -> int:
        slots = self.bucket(owner)
        return slots[int(self.draw() * len(slots))]


@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**16),
    size=st.integers(1, 12),
    n_labels=st.integers(1, 5),
    rate=st.sampled_from([0.1, 0.3, 0.8]),
)
def test_same_slots_as_a_loop(tiny_dataset: Any, seed: int, size: int, n_labels: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.random((90, n_labels)) < rate * 1.2 / np.arange(1, n_labels + 1)).astype(np.int8)
    labels[:45, n_labels // 2 + 1 :] = 0
    memory, loop = LabelBalancedMemory(size, generator(seed)), Loop(size, n_labels, seed)
    for row, states in enumerate(labels):
        memory.update_from_dataset(tiny_dataset([row], states))
        loop.show(row, tuple(np.flatnonzero(states).tolist()))
        assert memory.ids.tolist() == [sample for sample, _, _ in loop.slots]
        assert memory.owners.tolist() == [0 if owner is None else owner + 1 for _, _, owner in loop.slots]


def test_one_label_an_image() -> None:
    """Equal frequencies: buckets differ by at most one image."""
    for seed in range(3):
        memory = LabelBalancedMemory(23, generator(seed))
        order = np.random.default_rng(seed).permutation(400)
        memory.update_from_dataset(dataset(np.eye(4)[order % 4]))
        assert memory.held.max() - memory.held.min() <= 1


@pytest.mark.parametrize("seed", [0, 1])
def test_rare_labels(seed: int) -> None:
    """Label 0 in every image, nine labels in 1% each: ten buckets of ten, where a reservoir holds about one of each."""
    labels = np.random.default_rng(seed).random((20_000, 10)) < np.array([1, *[0.01] * 9])
    memory = LabelBalancedMemory(100, generator(seed))
    memory.update_from_dataset(dataset(labels))
    assert np.bincount(memory.owners, minlength=11).tolist() == [0, *[10] * 10]
    assert memory.held[1:].min() >= 10


def test_within_a_label_every_image_is_equally_likely() -> None:
    """Two labels, thirty images each, four slots each: each image is stored with chance 4/30."""
    runs, counts, draws = 500, np.zeros(60), generator(2)
    shown = dataset(np.eye(2)[np.arange(60) % 2])
    for _ in range(runs):
        memory = LabelBalancedMemory(8, draws)
        memory.update_from_dataset(shown)
        counts[memory.ids] += 1
    assert np.abs(counts / runs - 4 / 30).max() < 4.5 * (4 / 30 * 26 / 30 / runs) ** 0.5


def test_images_without_labels_have_a_quota() -> None:
    """They fill an empty memory, give way down to one in (labels + 1) slots, and hold that."""
    labels = np.zeros((300, 3))
    labels[30:] = np.eye(4)[np.arange(270) % 4][:, :3]
    memory = LabelBalancedMemory(12, generator())
    memory.update_from_dataset(dataset(labels[:30]))
    assert len(memory.ids) == 12
    memory.update_from_dataset(dataset(labels))
    assert np.count_nonzero(memory.sizes == 0) == 3
    assert memory.held.tolist() == [3, 3, 3]


def test_images_without_labels_give_way_to_any_label_at_once() -> None:
    """Twelve of them fill the memory; of nine images with the one label there is, each takes the place of one."""
    memory = LabelBalancedMemory(12, generator())
    memory.update_from_dataset(dataset([[0, 0, 0]] * 12 + [[1, 0, 0]] * 9))
    assert memory.held.tolist() == [9, 0, 0]
    assert np.count_nonzero(memory.sizes == 0) == 3


def test_an_unknown_entry_is_no_label() -> None:
    memory = LabelBalancedMemory(4, generator())
    memory.update_from_dataset(dataset([[-1, 1], [-2, -1], [0, -2]]))
    assert memory.owners.tolist() == [2, 0, 0]


def test_avalanches_balanced_buffer_wants_one_class_an_image(tiny_scenario: Any) -> None:
    """Why this is not upstream's ClassBalancedBuffer: it needs ``targets``, and integers in it."""
    data = tiny_scenario().train_stream[0].dataset
    with pytest.raises(AssertionError):
        ClassBalancedBuffer(5).update_from_dataset(data)
    label_sets = DataAttribute([tuple(row) for row in data.labels.data.tolist()], "targets")
    with pytest.raises(TypeError):
        ClassBalancedBuffer(5).update_from_dataset(data.update_data_attribute("targets", label_sets))
