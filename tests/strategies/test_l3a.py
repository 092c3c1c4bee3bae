"""L3A: the closed form against one regression over everything, worked numbers, and what it stores."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cml_bench.errors import CmlBenchError
from cml_bench.labels import is_known
from cml_bench.registry import load
from cml_bench.testing.strategies import StrategyCase
from cml_bench.testing.trial import try_out

L3A = load("strategies", "l3a")
RidgeSums = load("strategies", "cml_bench.strategies.l3a:RidgeSums")
label_weights = load("strategies", "cml_bench.strategies.l3a:label_weights")
image_weights = load("strategies", "cml_bench.strategies.l3a:image_weights")


def test_worked_example() -> None:
    weights = label_weights(torch.tensor([4.0, 1.0], dtype=torch.float64))
    assert weights.tolist() == pytest.approx([0.6667, 1.3333], abs=1e-4)
    targets = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    omega = image_weights(targets, weights)
    assert omega.tolist() == pytest.approx([2 / 3, 1.0, 1.0])
    sums = RidgeSums(2)
    sums.add(torch.eye(2, dtype=torch.float64), targets[:2], omega[:2])
    assert sums.solve(1.0).numpy() == pytest.approx(np.array([[0.4, 0.0], [0.5, 0.5]]))


def test_labels_without_positives_weigh_nothing() -> None:
    assert label_weights(torch.tensor([0.0, 4.0, 1.0])).tolist() == pytest.approx([0.0, 1.0, 2.0])
    assert label_weights(torch.zeros(2)).tolist() == [0.0, 0.0]


@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(1, 4), st.floats(0.01, 100))
def test_experiences_one_by_one_are_one_batch(seed: int, width: int, parts: int, ridge: float) -> None:
    """Least squares on the stacked system: rows scaled by the root of their weight, later labels padded by 0."""
    rng = np.random.default_rng(seed)
    sums, rows, targets, omegas = RidgeSums(width), [], [], []
    for part in range(parts):
        psi, y, omega = rng.normal(size=(7, width)), rng.integers(0, 2, (7, 2 * part + 2)), rng.uniform(0.5, 2, 7)
        sums.add(torch.from_numpy(psi), torch.from_numpy(y).double(), torch.from_numpy(omega))
        rows.append(psi)
        targets.append(np.pad(y, ((0, 0), (0, 2 * parts - y.shape[1]))))
        omegas.append(omega)
    root = np.sqrt(np.concatenate(omegas))[:, None]
    system = np.concatenate([root * np.concatenate(rows), math.sqrt(ridge) * np.eye(width)])
    wanted = np.concatenate([root * np.concatenate(targets), np.zeros((width, 2 * parts))])
    expected = np.linalg.lstsq(system, wanted, rcond=None)[0]
    assert np.abs(sums.solve(ridge).numpy() - expected).max() < 1e-8


def plain(scenario: Any, learnt: Any, options: Any) -> list[np.ndarray[Any, Any]]:
    """L3A of frozen features as a script: scores of all test images after each experience."""
    projection = learnt.model.head.projection.detach().double().numpy()
    test = scenario.evaluation_experience(0).dataset
    psi_test = np.maximum(test.inputs.table[test.sample_ids.data].mean((2, 3)).double().numpy() @ projection.T, 0)
    h = len(projection)
    gram, cross, counts, weights, scores = np.zeros((h, h)), np.zeros((h, 0)), np.zeros(0), np.zeros((h, 0)), []
    for experience in scenario.train_stream:
        dataset = experience.dataset
        labels = dataset.labels.data.numpy()
        new = labels.shape[1] - cross.shape[1]
        cross, counts = np.pad(cross, ((0, 0), (0, new))), np.pad(counts, (0, new))
        weights = np.pad(weights, ((0, 0), (0, new)))
        counts = counts + (labels == 1).sum(0)
        roots = np.array([n**-0.5 if n else 0.0 for n in counts])
        w = len(roots) * roots / roots.sum()
        features = dataset.inputs.table[dataset.sample_ids.data].mean((2, 3)).double().numpy()
        for x, row in zip(features, labels, strict=True):
            psi = np.maximum(projection @ x, 0)
            y = np.array([s if s >= 0 else float(psi @ weights[:, c] > options.threshold) for c, s in enumerate(row)])
            omega = (y @ w) / y.sum() if y.sum() else 1.0
            gram += omega * np.outer(psi, psi)
            cross += omega * np.outer(psi, y)
        weights = np.linalg.solve(gram + options.ridge * np.eye(h), cross)
        scores.append(psi_test @ weights)
    return scores


@pytest.mark.parametrize("annotation", ["current", "seen"])
def test_against_a_script(tiny_scenario: Any, learn: Any, annotation: str) -> None:
    scenario = tiny_scenario(annotation=annotation, test="all_images")
    options = L3A(ridge=0.5, threshold=0.45, expansion=3)
    learnt = learn(options, scenario)
    for logits, scores in zip(learnt.logits, plain(scenario, learnt, options), strict=True):
        assert np.abs(logits.numpy() + options.decision - scores).max() < 1e-4
    # The example is worth something: pseudo-labels were made.
    unknown = [~is_known(e.dataset.labels.data).numpy() for e in scenario.train_stream]
    assert any(u.any() for u in unknown) == (annotation == "current")


def test_pseudo_labels_alone_change_old_columns(tiny_scenario: Any, learn: Any) -> None:
    never = learn(L3A(threshold=1e9, ridge=0.5), tiny_scenario())
    (plugin,) = never.plugins
    first = learn(L3A(threshold=1e9, ridge=0.5), tiny_scenario(), stop_after=1).plugins[0]
    assert torch.equal(plugin.sums.cross[:, :2], first.sums.cross)
    often = learn(L3A(threshold=0.3, ridge=0.5), tiny_scenario()).plugins[0]
    assert not torch.equal(often.sums.cross[:, :2], first.sums.cross)


def test_nothing_is_trained_by_gradients_on_frozen_features(tiny_scenario: Any, learn: Any) -> None:
    one = learn(L3A(), tiny_scenario(), epochs=1, lr=0.1)
    other = learn(L3A(), tiny_scenario(), epochs=5, lr=3.0, batch_size=3)
    assert all(torch.equal(a, b) for a, b in zip(one.logits, other.logits, strict=True))
    assert not any(parameter.requires_grad for parameter in one.model.parameters())


def test_the_backbone_learns_from_the_first_experience_alone() -> None:
    frozen = try_out(StrategyCase("l3a train_backbone=false").plan).learner.model.backbone
    learnt = try_out(StrategyCase("l3a").plan).learner.model.backbone
    assert not torch.equal(frozen.weight, learnt.weight)
    from cml_bench.testing.toy import toy_scenario

    after_one = try_out(StrategyCase("l3a").plan, scenario=toy_scenario(2)).learner.model.backbone
    assert torch.equal(after_one.weight, learnt.weight)


def test_decision_is_logit_zero(tiny_scenario: Any, learn: Any) -> None:
    """Ridge scores lie near 0 and 1; a sigmoid of 0.525 is a score of 0.1001, of 0.7 one of 0.8473."""
    assert L3A().decision == pytest.approx(0.1001, abs=1e-4)
    assert L3A().threshold == pytest.approx(0.8473, abs=1e-4)
    low, high = (learn(L3A(decision=value), tiny_scenario()).logits[-1] for value in (0.0, 0.5))
    assert torch.allclose(low - high, torch.full_like(low, 0.5), atol=1e-6)


def test_the_backbone_may_learn_from_a_criterion_that_reads_more_than_logits() -> None:
    """Which the analytic classifier does not say, neither in later experiences nor when it is evaluated."""
    plain, contrasted = (try_out(StrategyCase(f"l3a head=dlfl loss={loss}").plan) for loss in ("bce", "sadcl"))
    assert [logits.shape[1] for logits in contrasted.logits] == [2, 4, 6]
    assert plain.differs_from(contrasted) == 0


def test_a_loss_that_reads_a_head_of_its_own_is_refused() -> None:
    with pytest.raises(CmlBenchError, match="loss=c_gmvae reads head=c_gmvae, in whose place l3a puts its own"):
        try_out(StrategyCase("l3a head=c_gmvae loss=c_gmvae").plan)
