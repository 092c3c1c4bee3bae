"""OCDM against its worked example and against a loop that computes every divergence anew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cml_bench.data.inputs import TensorInputs
from cml_bench.memory.ocdm import Divergence, OCDMMemory, least_missed
from cml_bench.streams.dataset import LabelMatrix, MultiLabelDataset

ROWS = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1]], dtype=float)
EXAMPLE = {
    "memory_to_target": [0.0196, 0.0196, 0.0872, 0.0872, 0.2310],
    "target_to_memory": [0.0190, 0.0190, 0.0959, 0.0959, 0.2310],
}
each_divergence = pytest.mark.parametrize("divergence", ["memory_to_target", "target_to_memory"])


def divergence_of(rows: list[list[int]], share: list[float], divergence: str, missing: Sequence[int] = ()) -> float:
    """The divergence by its definition; infinite if no label is left or one with a target is.

    Labels in ``missing`` were lost before: their term is infinite whatever goes, so it is taken with next to none.
    """
    counts = [sum(column) for column in zip(*rows, strict=True)] if rows else [0]
    if not (total := sum(counts)):
        return math.inf
    if divergence == "memory_to_target":
        return sum(c / total * math.log(c / total / p) for c, p in zip(counts, share, strict=True) if c)
    counts = [1e-9 if label in missing else count for label, count in enumerate(counts)]
    return sum(p * math.log(p * total / c) if c else math.inf for c, p in zip(counts, share, strict=True))


def loop(rows: list[list[int]], share: list[float], count: int, divergence: str) -> list[int]:
    """Row numbers in the order of deletion, every candidate's divergence computed anew; equals go by number."""
    alive, gone = list(range(len(rows))), []
    for _ in range(count):
        unlabelled = [row for row in alive if not any(rows[row])]
        missing = [c for c in range(len(share)) if not any(rows[row][c] for row in alive)]
        without = {
            row: divergence_of([rows[r] for r in alive if r != row], share, divergence, missing) for row in alive
        }
        best = min(without.values())
        gone.append(unlabelled[0] if unlabelled else next(r for r in alive if without[r] <= best + 1e-12))
        alive.remove(gone[-1])
    return gone


@each_divergence
def test_worked_example(divergence: Divergence) -> None:
    share, rows = [1 / 3] * 3, ROWS.astype(int).tolist()
    found = [divergence_of(rows[:j] + rows[j + 1 :], share, divergence) for j in range(5)]
    assert found == pytest.approx(EXAMPLE[divergence], abs=5e-5)
    assert least_missed(ROWS, np.array(share), 2, divergence) == [0, 1]


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**16),
    n=st.integers(1, 25),
    n_labels=st.integers(1, 6),
    rate=st.sampled_from([0.1, 0.3, 0.7]),
    rho=st.sampled_from([0.0, 0.1, 1.0, -0.5]),
    divergence=st.sampled_from(["memory_to_target", "target_to_memory"]),
)
def test_same_rows_as_a_loop(seed: int, n: int, n_labels: int, rate: float, rho: float, divergence: Divergence) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.random((n, n_labels)) < rate).astype(int)
    share = (rng.integers(1, 50, n_labels) + rows.sum(axis=0)) ** rho
    share = share / share.sum()
    count = int(rng.integers(0, n + 1))
    expected = loop(rows.tolist(), share.tolist(), count, divergence)
    assert least_missed(rows.astype(float), share, count, divergence) == expected


@settings(max_examples=30)
@given(seed=st.integers(0, 2**16), size=st.integers(1, 10), rho=st.sampled_from([0.0, 0.5, 1.0]))
def test_same_memory_as_a_loop(tiny_dataset: Any, seed: int, size: int, rho: float) -> None:
    """A stream in batches of four, labels arriving on the way, images without labels among them."""
    rng = np.random.default_rng(seed)
    memory, stored, seen = OCDMMemory(size, torch.Generator(), rho), [], [0] * 4
    for first in range(0, 60, 4):
        width = 2 if first < 30 else 4
        labels = (rng.random((4, width)) < 0.4).astype(np.int8)
        memory.update_from_dataset(tiny_dataset(range(first, first + 4), labels))
        for row, states in enumerate(labels.tolist(), start=first):
            stored.append((row, [*states, *[0] * (4 - width)]))
            seen = [n + shown for n, shown in zip(seen, stored[-1][1], strict=True)]
        columns = [c for c in range(4) if seen[c]]
        share = [seen[c] ** rho / sum(seen[d] ** rho for d in columns) for c in columns]
        rows = [[states[c] for c in columns] for _, states in stored]
        gone = loop(rows, share, max(0, len(rows) - size), "memory_to_target")
        stored = [item for row, item in enumerate(stored) if row not in gone]
        assert memory.ids.tolist() == [row for row, _ in stored]


@each_divergence
def test_never_worse_than_a_random_row(divergence: Divergence) -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        rows = (rng.random((40, 5)) < 0.3).astype(float)
        rows = rows[rows.any(axis=1)]
        (row,) = least_missed(rows, np.full(5, 0.2), 1, divergence)
        without = [divergence_of(np.delete(rows, j, 0).tolist(), [0.2] * 5, divergence) for j in range(len(rows))]
        assert without[row] <= min(without) + 1e-12


def test_a_label_keeps_its_last_image() -> None:
    """KL(target || memory) is infinite without it: the one image of label 1 outlives forty of label 0."""
    rows = np.array([[1, 0]] * 20 + [[1, 1]] + [[1, 0]] * 20, dtype=float)
    share = np.array([0.999, 0.001])
    assert 20 in least_missed(rows, share, 5, "memory_to_target")
    assert 20 not in least_missed(rows, share, 40, "target_to_memory")


def test_target_follows_a_power_of_the_stream(tiny_dataset: Any) -> None:
    """Twelve images of label 0 for each four of label 1: balanced, or as the stream."""
    labels = np.array([[1, 0], [1, 0], [1, 0], [0, 1]] * 25)
    for rho, expected in ((0.0, [10, 10]), (1.0, [15, 5])):
        memory = OCDMMemory(20, torch.Generator(), rho)
        for first in range(0, 100, 10):
            memory.update_from_dataset(tiny_dataset(range(first, first + 10), labels[first : first + 10]))
        assert memory.held.tolist() == expected


@each_divergence
@pytest.mark.parametrize("rho", [0.0, 1.0])
def test_a_long_stream(rho: float, divergence: Divergence) -> None:
    """5,000 images, label 0 in half of them, nine labels in 1% each: as near to the target as the stream allows.

    A reservoir of 100 holds about one image of each rare label. With equal shares in the target each must hold many
    times that; with the stream's own shares the memory's are the stream's, to within an image or two.
    """
    rng = np.random.default_rng(0)
    labels = (rng.random((5000, 10)) < np.array([0.5, *[0.01] * 9])).astype(np.int8)
    inputs, names = TensorInputs(torch.zeros(len(labels), 1)), tuple(map(str, range(10)))
    memory = OCDMMemory(100, torch.Generator(), rho, divergence)
    for rows in torch.arange(len(labels)).split(10):
        matrix = LabelMatrix(torch.from_numpy(labels)[rows], names, 0)
        memory.update_from_dataset(MultiLabelDataset.from_rows(inputs, rows, matrix))
    assert len(memory.ids) == 100
    assert memory.seen.tolist() == labels.sum(axis=0).tolist()
    share = memory.held / memory.held.sum()
    if rho:
        assert np.abs(share - labels.sum(axis=0) / labels.sum()).max() < 0.02
    else:
        assert np.abs(share - 0.1).max() < 0.02
        assert memory.held[1:].min() >= 8
