"""KIS: the reference's three images, a script over a whole stream, and equal values."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cml_bench.memory.kis import KISMemory, kis_scores
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.model import MultiLabelModel


def test_worked_example() -> None:
    """Distances .6667, .2108, .7601; rep .4361, 1, .3679; info 0, 1, .5."""
    features, chances = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), np.array([0.2, 0.6, 0.4])
    assert kis_scores(features, chances, 1.0) == pytest.approx([0.4361, 1.0, 0.3679], abs=1e-4)
    assert kis_scores(features, chances, 0.0) == pytest.approx([0.0, 1.0, 0.5])
    assert kis_scores(features, chances, 0.5) == pytest.approx([0.2181, 1.0, 0.4339], abs=1e-4)
    seen = np.concatenate([features * [[3.0], [0.5], [2.0]], chances[:, None]], axis=1)
    memory = KISMemory(9)
    assert memory.rank(seen, 3, np.zeros(3, dtype=bool)).tolist() == [1, 2, 0]
    assert memory.rank(seen, 2, np.array([False, True, False])).tolist() == [2, 0]


def test_equal_values_are_1() -> None:
    same = np.ones((3, 2))
    assert kis_scores(same, np.array([0.3, 0.3, 0.3]), 0.5) == pytest.approx([0.5 * math.exp(-1) + 0.5] * 3)
    assert KISMemory(3).rank(np.concatenate([same, same[:, :1]], 1), 2, np.zeros(3, dtype=bool)).tolist() == [0, 1]
    assert KISMemory(3).rank(np.empty((0, 3)), 2, np.zeros(0, dtype=bool)).tolist() == []


def by_definition(features: Any, chances: Any, balance: float) -> list[float]:
    """Image by image."""
    unit = [row / math.sqrt(sum(row**2)) for row in features]
    mean = sum(unit) / len(unit)
    distance = [math.sqrt(sum((row - mean) ** 2)) for row in unit]
    scores = []
    for d, p in zip(distance, chances, strict=True):
        near = (d - min(distance)) / (max(distance) - min(distance))
        info = (p - min(chances)) / (max(chances) - min(chances))
        scores.append(balance * math.exp(-near) + (1 - balance) * info)
    return scores


@given(seed=st.integers(0, 999), n=st.integers(2, 12), balance=st.floats(0, 1))
def test_scores_by_definition(seed: int, n: int, balance: float) -> None:
    rng = np.random.default_rng(seed)
    features, chances = rng.normal(size=(n, 3)), rng.random(n)
    if n == 2:
        features[1] = features[0] * 2  # two images are equally far from their mean
        assert kis_scores(features, chances, 0.0) == pytest.approx((chances == chances.max()).astype(float))
        return
    assert kis_scores(features, chances, balance) == pytest.approx(by_definition(features, chances, balance), abs=1e-9)


def test_lists_over_a_stream(tiny_scenario: Any) -> None:
    """Each new label ranks its images by the model of the day; older lists are cut, not ranked anew."""
    scenario, memory = tiny_scenario(n=60), KISMemory(15)
    model = MultiLabelModel(None, LinearHead(6))
    agent = SimpleNamespace(model=model, eval_mb_size=16, device="cpu")
    lists: list[list[int]] = []
    for t, experience in enumerate(scenario.train_stream):
        torch.manual_seed(t)
        model.train().adaptation(experience)
        memory.post_adapt(agent, experience)
        assert model.training
        data = experience.dataset
        ids = np.sort(data.sample_ids.data.numpy())
        maps = torch.from_numpy(data.inputs.table.numpy()[ids])
        with torch.no_grad():
            chance = model(maps).sigmoid()[:, 2 * t :].mean(dim=1).double().numpy()
        pooled = maps.mean(dim=(2, 3)).double().numpy()
        depth = math.ceil(15 / (2 * t + 2))
        lists = [listed[:depth] for listed in lists]
        for label in (2 * t, 2 * t + 1):
            rows = np.flatnonzero(scenario.splits["train"].truth[ids, label] == 1)
            scores = np.array(by_definition(pooled[rows], chance[rows], 0.5))
            lists.append(ids[rows[np.argsort(-scores, kind="stable")]][:depth].tolist())
        assert memory.lists == lists
        assert set(memory.buffer.sample_ids.data.tolist()) <= {sample for listed in lists for sample in listed}
        assert len(memory.buffer) <= 15
