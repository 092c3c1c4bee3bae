"""Recall by confidence and entropy: the reference's numbers, a loop over entries, and what an experience leaves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from hypothesis import given
from hypothesis import strategies as st

from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED
from cml_bench.registry import load
from cml_bench.training.pseudo_labels import fill
from cml_bench.training.recall import Recall, RecallPlugin, binary_entropy

PseudoLabel = load("strategies", "pseudo_label")


def entropy(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def recalled(recall: Recall, scores: list[float], *, by_entropy: bool, below: float = -math.inf) -> list[int]:
    column = torch.tensor(scores, dtype=torch.float64)[:, None]
    unknown = torch.full((len(scores), 1), OUT_OF_SCOPE, dtype=torch.int8)
    return fill(unknown, *recall.thresholds(column, by_entropy=by_entropy), below).labels[:, 0].tolist()


def test_worked_example() -> None:
    """Positives .9, .8, .7: eps .8, tau .4788; .85 is recalled, .80 is confident enough and too uncertain."""
    recall = Recall()
    labels = torch.tensor([[1], [1], [1], [0], [-1]], dtype=torch.int8)
    recall.refresh(labels, torch.tensor([[0.9], [0.8], [0.7], [0.99], [0.01]], dtype=torch.float64))
    assert recall.confidence.tolist() == pytest.approx([0.8])
    assert recall.uncertainty.tolist() == pytest.approx([0.4788], abs=1e-4)
    assert binary_entropy(torch.tensor([0.9, 0.8, 0.7, 0.0, 1.0])).tolist() == pytest.approx(
        [0.3251, 0.5004, 0.6109, 0.0, 0.0], abs=1e-4
    )
    assert recalled(recall, [0.85, 0.80 + 1e-12, 0.79], by_entropy=False) == [PRESENT, PRESENT, OUT_OF_SCOPE]
    assert recalled(recall, [0.85, 0.80 + 1e-12], by_entropy=True) == [PRESENT, OUT_OF_SCOPE]
    assert recalled(recall, [0.85, 0.80 + 1e-12], by_entropy=True, below=math.inf) == [PRESENT, ABSENT]


def test_reaching_the_mean_is_enough() -> None:
    recall = Recall()
    recall.refresh(torch.tensor([[1]], dtype=torch.int8), torch.tensor([[0.75]]))
    column, unknown = torch.tensor([[0.75]]), torch.tensor([[UNMARKED]], dtype=torch.int8)
    for by_entropy in (False, True):
        assert fill(unknown, *recall.thresholds(column, by_entropy=by_entropy)).labels.item() == PRESENT


def test_a_label_without_positives_is_never_recalled_and_others_stay() -> None:
    recall = Recall()
    recall.refresh(torch.tensor([[1, 0]], dtype=torch.int8), torch.tensor([[0.6, 0.9]], dtype=torch.float64))
    assert recall.confidence.tolist() == [0.6, math.inf]
    recall.refresh(torch.tensor([[-2, -1, 1]], dtype=torch.int8), torch.full((1, 3), 0.7, dtype=torch.float64))
    assert recall.confidence.tolist() == [0.6, math.inf, 0.7]
    assert recall.uncertainty.tolist() == pytest.approx([entropy(0.6), 0.0, entropy(0.7)])
    recall.refresh(torch.tensor([[1, 1, 0]], dtype=torch.int8), torch.full((1, 3), 0.8, dtype=torch.float64))
    assert recall.confidence.tolist() == [0.8, 0.8, 0.7]


@given(seed=st.integers(0, 999), by_entropy=st.booleans())
def test_entry_by_entry(seed: int, by_entropy: bool) -> None:
    rng = np.random.default_rng(seed)
    states, scores = rng.integers(-2, 2, (12, 3)), rng.uniform(0.05, 0.95, (12, 3))
    recall = Recall()
    recall.refresh(torch.tensor(states, dtype=torch.int8), torch.tensor(scores))
    new, seen = rng.integers(-2, 2, (9, 4)), rng.uniform(0.05, 0.95, (9, 3))
    expected = new.copy()
    for i in range(9):
        for j in range(3):
            own = [scores[k, j] for k in range(12) if states[k, j] == 1]
            if new[i, j] < 0 and own:
                sure = seen[i, j] >= sum(own) / len(own)
                if sure and (not by_entropy or entropy(seen[i, j]) <= sum(map(entropy, own)) / len(own)):
                    expected[i, j] = 1
    gated = recall.thresholds(torch.tensor(seen), by_entropy=by_entropy)
    assert fill(torch.tensor(new, dtype=torch.int8), *gated).labels.tolist() == expected.tolist()


@pytest.mark.parametrize("chunk", [None, 6])
@pytest.mark.parametrize("rule", ["mean_confidence", "confidence_entropy"])
def test_measured_when_an_experience_ends(tiny_scenario: Any, learn: Any, rule: str, chunk: int | None) -> None:
    class Measures(SupervisedPlugin):
        """Measures anew, image by image."""

        expected: list[float] = []
        filled = 0

        def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            plugin = strategy.plugins[0]
            assert isinstance(plugin, RecallPlugin)
            assert plugin.by_entropy == (rule == "confidence_entropy")
            if not getattr(strategy.experience, "is_last_subexp", True):
                return
            names = strategy.experience.dataset.labels.names
            whole = next(e.dataset for e in tiny_scenario().train_stream if e.dataset.labels.names == names)
            strategy.model.eval()
            with torch.no_grad():
                chance = strategy.model(whole.inputs.fetch(whole.sample_ids.data, training=False)).sigmoid()
            strategy.model.train()
            for c in range(len(self.expected), len(names)):
                self.expected.append(float(chance[whole.labels.data[:, c] == 1, c].mean()))
            assert plugin.recall.confidence.tolist() == pytest.approx(self.expected, rel=1e-4)

        def before_backward(self, strategy: Any, **kwargs: Any) -> None:
            plugin = strategy.plugins[0]
            if plugin.n_old:
                made = plugin.fill(strategy.mb_y, plugin.taught.logits.sigmoid()).is_pseudo
                self.filled += int(made.sum())
                assert not made[:, plugin.n_old :].any()

    measures = Measures()
    options = {"online_chunk": chunk} if chunk else {}
    learn(PseudoLabel(rule=rule), tiny_scenario(**options), extra=[measures], epochs=1 if chunk else 3)
    assert len(measures.expected) == 6
    assert measures.filled > 0
