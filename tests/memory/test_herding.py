"""Herding against its definition and Avalanche's, and how lists of several labels make up one memory."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.training.storage_policy import HerdingSelectionStrategy
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cml_bench.data.inputs import TensorInputs
from cml_bench.labels import OUT_OF_SCOPE
from cml_bench.memory.herding import HerdingMemory, herd, pooled_features
from cml_bench.memory.label_lists import spread
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.model import MultiLabelModel
from cml_bench.streams.dataset import LabelMatrix, MultiLabelDataset

Array = np.ndarray[Any, Any]


def normal(features: Array) -> Array:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def brute(features: Array, count: int, passed_over: Array | None = None) -> list[int]:
    """The definition: whichever row brings the mean closest to the mean of all."""
    rows, chosen = normal(features), []
    free = [j for j in range(len(rows)) if passed_over is None or not passed_over[j]]
    while free and len(chosen) < count:
        distance = [np.linalg.norm(rows.mean(axis=0) - rows[[*chosen, j]].mean(axis=0)) for j in free]
        # Equal on paper: each of two images is as far from their mean.
        chosen.append(free.pop(next(i for i, far in enumerate(distance) if far <= min(distance) + 1e-12)))
    return chosen


# -- one list --------------------------------------------------------------------------------------------------------


def test_worked_example() -> None:
    """By hand: (.8, .6) is nearest to the direction of the mean, (.6, .8) makes up for it; the rest are equals."""
    assert herd(np.array([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]]), 4).tolist() == [1, 3, 0, 2]


@settings(max_examples=50)
@given(seed=st.integers(0, 2**16), n=st.integers(1, 30), d=st.integers(2, 12), count=st.integers(0, 35))
def test_same_order_as_the_definition(seed: int, n: int, d: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    features, passed_over = rng.normal(size=(n, d)) + 0.5, rng.random(n) < 0.3
    assert herd(features, count).tolist() == brute(features, count)
    assert herd(features, count, passed_over).tolist() == brute(features, count, passed_over)
    assert herd(features, count // 2).tolist() == herd(features, count).tolist()[: count // 2]


def test_order_of_avalanche_on_features_of_length_one() -> None:
    """Upstream's order, if its features had length 1; it takes them as they are, and orders them all."""
    upstream = HerdingSelectionStrategy.__new__(HerdingSelectionStrategy)
    features = torch.randn(150, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.3
    mine = herd(features.numpy(), 40).tolist()
    assert upstream.make_sorted_indices_from_features(torch.from_numpy(normal(features.numpy())))[:40] == mine
    assert upstream.make_sorted_indices_from_features(features)[:40] != mine


def test_images_that_nobody_has_features_of() -> None:
    assert herd(np.zeros((0, 4)), 3).tolist() == []
    assert sorted(herd(np.zeros((3, 4)), 5).tolist()) == [0, 1, 2]


def test_many_images_are_summed_up_better_than_by_chance() -> None:
    """Twenty of 2,000: their mean is nearer to that of all than the means of a thousand random twenties by half."""
    rng = np.random.default_rng(0)
    rows = normal(rng.normal(size=(2000, 16)) + 2 * rng.normal(size=(4, 16))[rng.integers(0, 4, 2000)])
    centre = rows.mean(axis=0)
    drawn = [np.linalg.norm(rows[rng.choice(2000, 20, replace=False)].mean(axis=0) - centre) for _ in range(1000)]
    assert np.linalg.norm(rows[herd(rows, 20)].mean(axis=0) - centre) < 0.5 * min(drawn)


# -- features --------------------------------------------------------------------------------------------------------


class Moody(TensorInputs):
    """Augmentation is a shift by a thousand."""

    def fetch(self, rows: torch.Tensor, *, training: bool) -> torch.Tensor:
        return super().fetch(rows, training=training) + 1000 * training


def test_features_are_those_of_evaluation() -> None:
    """Running statistics are used and left alone, dropout is off, nothing is augmented, maps are pooled."""
    images = torch.randn(20, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    backbone = nn.Sequential(nn.Conv2d(3, 5, 2), nn.BatchNorm2d(5), nn.Dropout(0.5))
    model = MultiLabelModel(backbone, LinearHead(5)).train()
    labels = LabelMatrix(torch.ones(20, 1, dtype=torch.int8), ("a",), 0)
    dataset = MultiLabelDataset.from_rows(Moody(images), torch.arange(20), labels).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = pooled_features(model, dataset, 8, "cpu")
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with torch.no_grad():
        expected = backbone.eval()(images).mean(dim=(2, 3))
    assert np.allclose(found, expected.numpy(), atol=1e-6)


# -- a memory --------------------------------------------------------------------------------------------------------


def agent() -> SimpleNamespace:
    """Cached features: the input is the feature."""
    return SimpleNamespace(model=MultiLabelModel(None, LinearHead(6)), eval_mb_size=16, device="cpu")


def expected_lists(scenario: Any, t: int, depths: list[int], refill: bool) -> list[list[int]]:
    """Lists after experience t by the definition; ``depths`` are the list lengths after each experience."""
    split, lists = scenario.splits["train"], []
    table = split.inputs.table.numpy().mean(axis=(2, 3))
    low = 0
    for s in range(t + 1):
        rows, high = np.sort(split.experiences[s]), scenario.n_seen[s]
        lists = [listed[: depths[s]] for listed in lists]
        for label in range(low, high):
            mine = rows[split.truth[rows, label] == 1]
            taken = {row for listed in lists for row in listed} if refill else set()
            order = brute(table[mine].astype(np.float64), depths[s], np.isin(mine, list(taken)))
            lists.append(mine[order].tolist())
        low = high
    return lists


@pytest.mark.parametrize("refill", [False, True])
@pytest.mark.parametrize(("size", "depths"), [(13, [7, 4, 3]), ("2/label", [2, 2, 2]), (3, [2, 1, 1])])
def test_lists_and_memory(tiny_scenario: Any, size: int | str, depths: list[int], refill: bool) -> None:
    scenario, memory, shared = tiny_scenario(n=60), HerdingMemory(size, refill=refill), 0
    for t, experience in enumerate(scenario.train_stream):
        memory.post_adapt(agent(), experience)
        lists = expected_lists(scenario, t, depths, refill)
        assert memory.lists == lists
        limit = 2 * len(lists) if size == "2/label" else size
        union: list[int] = []
        # With less room than labels, in the order of the golden ratio's multiples less whole numbers.
        order = {4: [3, 1, 2, 0], 6: [3, 1, 4, 2, 5, 0]}[len(lists)] if limit < len(lists) else range(len(lists))
        for rank, listed in itertools.product(range(depths[t]), [lists[label] for label in order]):
            if rank < len(listed) and listed[rank] not in union:
                union.append(listed[rank])
        assert memory.max_size == limit
        assert memory.buffer.sample_ids.data.tolist() == union[:limit]
        shared += sum(map(len, lists)) - len({row for listed in lists for row in listed})
        if refill:
            assert len(memory.buffer) == limit
    if refill or size == 13:
        assert (shared == 0) == refill


def test_an_image_of_two_experiences_knows_the_labels_of_both(tiny_scenario: Any) -> None:
    scenario, memory = tiny_scenario(n=60), HerdingMemory(60)
    written = np.full((60, 6), OUT_OF_SCOPE)
    for experience in scenario.train_stream:
        before = set(memory.buffer.sample_ids.data.tolist()) if len(memory.buffer) else set()
        memory.post_adapt(agent(), experience)
        data = experience.dataset
        # Of what had left the memory, or was never in, only this experience's annotation is there.
        written[[row for row in range(60) if row not in before]] = OUT_OF_SCOPE
        width = data.labels.data.shape[1]
        rows = data.sample_ids.data.numpy()
        written[rows, :width] = np.maximum(written[rows, :width], data.labels.data.numpy())
        assert memory.buffer.labels.data.tolist() == written[memory.buffer.sample_ids.data, :width].tolist()
    known = written[memory.buffer.sample_ids.data] >= 0
    assert {2, 4} <= set(known.sum(axis=1).tolist())


def test_shrinking_cuts_every_list(tiny_scenario: Any) -> None:
    """What is left is what the smaller memory would have chosen at once."""
    experience = tiny_scenario(n=60, base=6).train_stream[0]
    memory, direct = HerdingMemory(30), HerdingMemory(12)
    for each in (memory, direct):
        each.post_adapt(agent(), experience)
    memory.resize(None, 12)
    assert memory.max_size == 12
    assert memory.lists == direct.lists == [listed[:2] for listed in memory.lists]
    assert memory.buffer.sample_ids.data.tolist() == direct.buffer.sample_ids.data.tolist()


def test_what_did_not_fit_is_gone(tiny_scenario: Any) -> None:
    """Ten do not divide among six labels: two of the second images are listed and not stored, and room comes late."""
    memory = HerdingMemory(10, refill=True)
    memory.post_adapt(agent(), tiny_scenario(n=60, base=6).train_stream[0])
    stored = memory.buffer.sample_ids.data.tolist()
    assert (len(stored), sum(map(len, memory.lists))) == (10, 12)
    memory.resize(None, 12)
    assert memory.buffer.sample_ids.data.tolist() == stored


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_with_less_room_than_labels_those_that_keep_an_image_are_spread(tiny_scenario: Any, size: int) -> None:
    """Not those that arrived first: an image of each third of the labels if there are three."""
    truth = np.tile(np.eye(12, dtype=np.int8), (3, 1))
    memory, learner = HerdingMemory(size), agent()
    for experience in tiny_scenario(truth=truth).train_stream:
        memory.post_adapt(learner, experience)
        kept = truth[memory.buffer.sample_ids.data.numpy()].argmax(axis=1).tolist()
        seen = len(experience.dataset.labels.names)
        assert kept == (spread(seen)[:size] if size < seen else kept)
        assert len(kept) == min(size, seen * 3)
        if size < seen:
            # Parts of as many labels each, but for rounding, have as many images each, but for one.
            held = np.bincount([label * 2 // seen for label in kept], minlength=2)
            assert abs(int(held[0]) - int(held[1])) <= 1


@given(n=st.integers(1, 200), more=st.integers(1, 50))
def test_who_comes_first_stays_so(n: int, more: int) -> None:
    assert [number for number in spread(n + more) if number < n] == spread(n)
    assert sorted(spread(n)) == list(range(n))


@given(n=st.integers(1, 200), count=st.integers(1, 200))
def test_every_beginning_is_spread(n: int, count: int) -> None:
    """The widest gap is a small multiple of that between numbers at equal distances."""
    chosen = [-1, *sorted(spread(n)[:count]), n]
    assert max(np.diff(chosen)) <= 3 * (n + 1) / (min(n, count) + 1) + 1


def test_chunks_are_looked_at_together(tiny_scenario: Any) -> None:
    lists = []
    for chunk in (None, 7):
        memory = HerdingMemory(10)
        for experience in tiny_scenario(online_chunk=chunk).train_stream:
            memory.post_adapt(agent(), experience)
        lists.append(memory.lists)
    assert lists[0] == lists[1]
    assert [len(listed) for listed in lists[0]] == [math.ceil(10 / 6)] * 6


def test_a_label_without_images_has_an_empty_list(tiny_scenario: Any) -> None:
    truth = np.eye(4, dtype=np.int8)[np.arange(40) % 4]
    truth[truth[:, 1] == 1, 0], truth[:, 1] = 1, 0
    memory = HerdingMemory(6)
    for experience in tiny_scenario(truth=truth).train_stream:
        memory.post_adapt(agent(), experience)
    assert [len(listed) for listed in memory.lists] == [2, 0, 2, 2]
