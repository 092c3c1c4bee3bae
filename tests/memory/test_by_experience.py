"""The memory by experience: equal shares, what is past, and chunks of online experiences."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cml_bench.labels import OUT_OF_SCOPE
from cml_bench.memory.by_experience import ExperienceMemory


def memory(size: int | str, seed: int = 0) -> ExperienceMemory:
    return ExperienceMemory(size, torch.Generator().manual_seed(seed))


def show(found: ExperienceMemory, dataset: Any, last: bool = True) -> None:
    found.post_adapt(None, SimpleNamespace(dataset=dataset, is_last_subexp=last))


@pytest.mark.parametrize(("size", "shares"), [(10, [4, 3, 3]), (3, [1, 1, 1]), (2, [1, 1, 0]), (0, [0, 0, 0])])
def test_shares_are_equal_and_shrink(tiny_dataset: Any, size: int, shares: list[int]) -> None:
    found = memory(size)
    held: list[set[int]] = []
    for t in range(3):
        show(found, tiny_dataset(range(20 * t, 20 * t + 20), [[1] * (t + 1)] * 20))
        rows = [set(part.buffer.sample_ids.data.tolist()) if len(part.buffer) else set() for part in found.parts]
        assert sum(map(len, rows)) == size
        assert all(now <= before for now, before in zip(rows, held, strict=False)), "a share that shrinks only gives up"
        held = rows
    assert [len(rows) for rows in held] == shares
    assert len(found.buffer) == size


def test_a_size_per_label_grows_with_the_labels(tiny_dataset: Any) -> None:
    found = memory("3/label")
    show(found, tiny_dataset(range(20), [[1, 0]] * 20))
    assert len(found.buffer) == 6
    show(found, tiny_dataset(range(20, 40), [[1, 0, 0, 1]] * 20))
    assert [len(part.buffer) for part in found.parts] == [6, 6]


def test_another_size_holds_from_then_on(tiny_dataset: Any) -> None:
    found = memory(20)
    show(found, tiny_dataset(range(20), [[1]] * 20))
    found.resize(None, 6)
    assert len(found.buffer) == found.max_size == 6
    show(found, tiny_dataset(range(20, 40), [[1, 0]] * 20))
    assert len(found.buffer) == found.max_size == 6


def test_labels_stay_as_annotated(tiny_dataset: Any) -> None:
    found = memory(10)
    show(found, tiny_dataset([0, 1], [[1, 0], [0, 1]]))
    show(found, tiny_dataset([1, 2], [[-2, -2, 1], [-2, -2, 0]], first_new=2))
    names = ("label0", "label1", "label2")
    first, second = found.past(names)
    assert sorted(first.labels.data.tolist()) == [[0, 1, OUT_OF_SCOPE], [1, 0, OUT_OF_SCOPE]]
    assert sorted(second.labels.data.tolist()) == [[-2, -2, 0], [-2, -2, 1]]
    everything = dict(zip(found.buffer.sample_ids.data.tolist(), found.buffer.labels.data.tolist(), strict=True))
    assert everything == {0: [1, 0, -2], 1: [0, 1, 1], 2: [-2, -2, 0]}


def test_chunks_are_one_experience_that_is_past_when_it_ends(tiny_dataset: Any) -> None:
    found, names = memory(8), ("label0",)
    show(found, tiny_dataset(range(10), [[1]] * 10))
    for start in (10, 15, 20):
        show(found, tiny_dataset(range(start, start + 5), [[1]] * 5), last=start == 20)
        assert [len(part.buffer) for part in found.parts] == [4, 4]
        assert len(found.past(names)) == (2 if start == 20 else 1)
    assert set(found.parts[1].buffer.sample_ids.data.tolist()) <= set(range(10, 25))


def test_every_image_of_an_experience_is_equally_likely(tiny_dataset: Any) -> None:
    counts = torch.zeros(20)
    for seed in range(300):
        found = memory(8, seed)
        for t in range(2):
            show(found, tiny_dataset(range(10 * t, 10 * t + 10), [[1]] * 10))
        counts[found.buffer.sample_ids.data] += 1
    # 120 expected, standard deviation 8.5.
    assert float((counts - 120).abs().max()) < 40
