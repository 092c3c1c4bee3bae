"""Generalised cross-validation: by its definition, and leave-one-out by leaving one out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge as SklearnRidge

from cml_bench.registry import load
from cml_bench.training.cross_validation import _GRID, generalised_cross_validation

choose_penalty, RidgePlugin = (
    load("strategies", f"cml_bench.strategies.ridge:{name}") for name in ("choose_penalty", "RidgePlugin")
)
L3A, Ridge = load("strategies", "l3a"), load("strategies", "ridge")

Array = np.ndarray[Any, Any]


def chosen(features: Array, targets: Array) -> float:
    """What the function under test chooses, without an intercept."""
    f, y = torch.tensor(features), torch.tensor(targets)
    return generalised_cross_validation(f.T @ f, f.T @ y, y.square().sum(dim=0), len(f))


def candidates(features: Array) -> Array:
    return _GRID.numpy() * np.linalg.eigvalsh(features.T @ features)[-1]


def leave_one_out(features: Array, targets: Array, penalty: float, *, intercept: bool = False) -> float:
    """Fit N times, each time without one image, and sum the squared errors on that one."""
    total = 0.0
    for out in range(len(features)):
        kept = np.arange(len(features)) != out
        model = SklearnRidge(alpha=penalty, fit_intercept=intercept, solver="cholesky").fit(
            features[kept], targets[kept]
        )
        total += float(((model.predict(features[out : out + 1]) - targets[out]) ** 2).sum())
    return total


def by_definition(features: Array, targets: Array, penalty: float) -> float:
    hat = features @ np.linalg.solve(features.T @ features + penalty * np.eye(features.shape[1]), features.T)
    residual = targets - hat @ targets
    return float((residual**2).sum() / (len(features) - np.trace(hat)) ** 2)


def data(seed: int, n: int, d: int, noise: float = 0.5, scale: float = 1.0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d)) * np.linspace(1, 3, d)
    return scale * features, features @ rng.normal(size=(d, 2)) + noise * rng.normal(size=(n, 2))


@settings(max_examples=40)
@given(seed=st.integers(0, 999), n=st.integers(5, 30), d=st.integers(1, 8), noise=st.floats(0.1, 10))
def test_the_smallest_error_by_definition(seed: int, n: int, d: int, noise: float) -> None:
    features, targets = data(seed, n, d, noise)
    errors = [by_definition(features, targets, penalty) for penalty in candidates(features)]
    # As many rows as columns and hardly a penalty: both sides lose digits to a division of 0 by 0.
    assert by_definition(features, targets, chosen(features, targets)) == pytest.approx(min(errors), rel=1e-4)


def circulant(seed: int, n: int, d: int) -> Array:
    """Features whose rows are alike under rotation, so that every image has the same leverage at every penalty."""
    rng, angle = np.random.default_rng(seed), 2 * np.pi * np.arange(n)[:, None] / n
    waves = [f(k * angle) * scale for k, scale in enumerate(rng.uniform(0.3, 3, d), start=1) for f in (np.cos, np.sin)]
    return np.concatenate(waves, axis=1)


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 6))])
def test_it_is_leave_one_out_where_leverages_are_equal(seed: int) -> None:
    """Then the two are the same number, and the same penalty wins: brute force over all."""
    features, rng = circulant(seed, 13, 3), np.random.default_rng(seed)
    targets = features @ rng.normal(size=(6, 2)) + rng.normal(size=(13, 2)) * 2
    penalties = candidates(features)
    errors = [leave_one_out(features, targets, penalty) for penalty in penalties]
    assert chosen(features, targets) == pytest.approx(penalties[int(np.argmin(errors))])
    for penalty, error in zip(penalties[::8], errors[::8], strict=True):
        assert 13**2 * by_definition(features, targets, penalty) == pytest.approx(error, rel=1e-6)


@pytest.mark.parametrize(
    "noise", [pytest.param(0.3, marks=pytest.mark.slow), 3.0, pytest.param(30.0, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("n", "d"), [(40, 5), (25, 20), (15, 40)])
def test_it_is_nearly_as_good_as_leave_one_out_anywhere(n: int, d: int, noise: float) -> None:
    """More features than images, too."""
    features, targets = data(1, n, d, noise)
    errors = {penalty: leave_one_out(features, targets, penalty) for penalty in candidates(features)}
    assert leave_one_out(features, targets, chosen(features, targets)) <= 1.25 * min(errors.values())


@given(seed=st.integers(0, 99), scale=st.floats(1e-3, 1e3))
def test_it_follows_the_scale_of_the_features(seed: int, scale: float) -> None:
    plain, scaled = (chosen(*data(seed, 20, 4, 2.0, s)) for s in (1.0, scale))
    assert scaled / plain == pytest.approx(scale**2, rel=1e-6)


def test_with_an_intercept_it_is_centred() -> None:
    """What ``ridge`` chooses of its sums with a 1 appended, against leave-one-out with scikit-learn's intercept."""
    rng = np.random.default_rng(0)
    base = circulant(3, 13, 3)
    features = base + 5.0
    targets = np.where(base @ rng.normal(size=(6, 2)) + 0.8 * rng.normal(size=(13, 2)) > 0.4, 1.0, -1.0)
    extended = torch.tensor(np.concatenate([features, np.ones((13, 1))], axis=1))
    found = choose_penalty(extended.T @ extended, extended.T @ torch.tensor(targets))
    penalties = candidates(base)
    errors = [leave_one_out(features, targets, penalty, intercept=True) for penalty in penalties]
    assert found == pytest.approx(penalties[int(np.argmin(errors))])


def test_ridge_keeps_the_penalty_of_labels_that_nobody_annotates(tiny_scenario: Any, learn: Any) -> None:
    early, late = (learn(Ridge(), tiny_scenario(n=60), stop_after=n).plugins[0] for n in (1, 3))
    assert early.chosen == {label: late.chosen[label] for label in (0, 1)}
    assert set(late.chosen) == set(range(6))
    (count, penalty), images = late.chosen[0], len(tiny_scenario(n=60).train_stream[0].dataset)
    assert count == images
    fixed = learn(Ridge(penalty=penalty), tiny_scenario(n=60), stop_after=1)
    again = learn(Ridge(), tiny_scenario(n=60), stop_after=1)
    assert torch.equal(fixed.logits[0], again.logits[0])


def test_l3a_chooses_once(tiny_scenario: Any, learn: Any) -> None:
    """On the first experience, by the weighted regression that it solves: rows scaled by the root of their weight."""
    first, last = (learn(L3A(expansion=3), tiny_scenario(n=60), stop_after=n) for n in (1, 3))
    ridge = first.plugins[0].ridge
    assert last.plugins[0].ridge == ridge
    fixed = learn(L3A(expansion=3, ridge=ridge), tiny_scenario(n=60))
    assert all(torch.equal(a, b) for a, b in zip(fixed.logits, last.logits, strict=True))
    dataset = tiny_scenario(n=60).train_stream[0].dataset
    labels = (dataset.labels.data == 1).double().numpy()
    counts = labels.sum(axis=0)
    weights = 2 * counts**-0.5 / (counts**-0.5).sum()
    shown = labels.sum(axis=1)
    omega = np.where(shown > 0, labels @ weights / np.maximum(shown, 1), 1.0)[:, None]
    projection = first.model.head.projection.double().numpy()
    pooled = dataset.inputs.table[dataset.sample_ids.data].mean((2, 3)).numpy()
    psi = np.maximum(pooled.astype(np.float64) @ projection.T, 0) * omega**0.5
    errors = [by_definition(psi, labels * omega**0.5, penalty) for penalty in candidates(psi)]
    assert by_definition(psi, labels * omega**0.5, ridge) == pytest.approx(min(errors), rel=1e-3)
