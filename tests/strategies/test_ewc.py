"""EWC: the Fisher information against closed forms, the bookkeeping against the sum over experiences."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from avalanche.training.plugins import EWCPlugin as UpstreamEWC
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cml_bench.data.inputs import TensorInputs
from cml_bench.labels import OUT_OF_SCOPE
from cml_bench.losses.bce import BCE
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.model import MultiLabelModel
from cml_bench.registry import load
from cml_bench.streams.dataset import LabelMatrix, MultiLabelDataset

EWC, Naive = load("strategies", "ewc"), load("strategies", "naive")
EWCPlugin = load("strategies", "cml_bench.strategies.ewc:EWCPlugin")
fisher_information = load("strategies", "cml_bench.strategies.ewc:fisher_information")


def linear(weights: Any) -> MultiLabelModel:
    """A linear model with the given (n, D) weights and no bias to speak of."""
    weights = torch.as_tensor(weights, dtype=torch.float32)
    model = MultiLabelModel(None, LinearHead(weights.shape[1]))
    model.head.grow([f"label{i}" for i in range(len(weights))])
    with torch.no_grad():
        model.head.weights[0].copy_(weights)
    return model


def dataset(features: Any, labels: Any) -> MultiLabelDataset:
    table = torch.as_tensor(features, dtype=torch.float32)
    states = torch.as_tensor(labels, dtype=torch.int8).reshape(len(table), -1)
    names = tuple(f"label{i}" for i in range(states.shape[1]))
    return MultiLabelDataset.from_rows(TensorInputs(table), torch.arange(len(table)), LabelMatrix(states, names, 0))


def fisher(model: MultiLabelModel, data: MultiLabelDataset, *, seed: int = 0, **options: Any) -> torch.Tensor:
    options = {"samples": 10**6, **options}
    found = fisher_information(model, data, generator=torch.Generator().manual_seed(seed), **options)
    weight: torch.Tensor = found["head.weights.0"]
    return weight


OPPOSITES = dataset([[1, 0], [1, 0]], [[1], [0]])
"""Two equal images with opposite labels: their gradients cancel, their squares do not."""


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_opposite_images_do_not_cancel(batch_size: int) -> None:
    found = fisher(linear([[0, 0]]), OPPOSITES, empirical=True, batch_size=batch_size)
    assert torch.allclose(found, torch.tensor([[0.25, 0.0]]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("batch_size", "expected"), [(1, [[0.25, 0.0]]), (2, [[0.0, 0.0]])])
def test_upstream_squares_the_mean_gradient(batch_size: int, expected: list[list[float]]) -> None:
    """Why the suite has its own: if this ever changes upstream, this test says so."""
    model = linear([[0, 0]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plugin = UpstreamEWC(ewc_lambda=1.0)
    found = plugin.compute_importances(model, BCE(), optimizer, OPPOSITES, "cpu", batch_size)
    assert torch.allclose(found["head.weights.0"].data, torch.tensor(expected))


def test_fisher_does_not_depend_on_the_batch_size() -> None:
    rng = np.random.default_rng(0)
    data = dataset(rng.normal(size=(13, 4)), rng.integers(-2, 2, (13, 3)))
    model = linear(rng.normal(size=(3, 4)))
    for empirical in (True, False):
        found = [fisher(model, data, empirical=empirical, batch_size=size) for size in (1, 2, 5, 64)]
        if empirical:
            assert all(torch.allclose(found[0], other, atol=1e-6) for other in found[1:])
        assert all(bool((other >= 0).all()) for other in found)


def test_empirical_fisher_equals_one_autograd_call_an_image() -> None:
    rng = np.random.default_rng(1)
    labels = torch.from_numpy(rng.integers(-2, 2, (9, 3)))
    data = dataset(rng.normal(size=(9, 4)), labels)
    model = linear(rng.normal(size=(3, 4)))
    expected = torch.zeros(3, 4)
    for row in range(9):
        model.zero_grad()
        z = model(data.batch(torch.tensor([row]))[0])[0]
        loss = sum(
            nn.functional.softplus(-z[c] if labels[row, c] == 1 else z[c]) for c in range(3) if labels[row, c] >= 0
        )
        if isinstance(loss, torch.Tensor):
            loss.backward()
            expected += model.head.weights[0].grad.square() / 9
    assert torch.allclose(fisher(model, data, empirical=True), expected, atol=1e-6)


def test_true_fisher_of_a_linear_row_has_a_closed_form() -> None:
    """Mean over images of p (1 - p) phi^2, whatever the labels say; by hand p = 0.8, phi = [1, 2]: [0.16, 0.64]."""
    logit = float(np.log(0.8 / 0.2))
    one = dataset([[1.0, 2.0]], [[0]])
    model = linear([[logit, 0.0]])
    mean = torch.stack([fisher(model, one, seed=seed) for seed in range(600)]).mean(dim=0)
    assert torch.allclose(mean, torch.tensor([[0.16, 0.64]]), rtol=0.1)

    rng = np.random.default_rng(2)
    features, weights = rng.normal(size=(6, 3)), rng.normal(size=(2, 3))
    labels = rng.integers(0, 2, (6, 2))
    labels[0, 1] = labels[3, 0] = OUT_OF_SCOPE
    p = 1 / (1 + np.exp(-features @ weights.T))
    closed = np.einsum("nc,nd->cd", (labels >= 0) * p * (1 - p), features**2) / 6
    model = linear(weights)
    drawn = torch.stack([fisher(model, dataset(features, labels), seed=seed) for seed in range(600)]).mean(dim=0)
    assert np.allclose(drawn.numpy(), closed, rtol=0.15)


@pytest.mark.parametrize("empirical", [True, False])
def test_an_unknown_column_adds_nothing(empirical: bool) -> None:
    rng = np.random.default_rng(3)
    features, labels = rng.normal(size=(8, 3)), rng.integers(0, 2, (8, 2))
    weights = rng.normal(size=(3, 3))
    padded = np.concatenate([labels, np.full((8, 1), OUT_OF_SCOPE)], axis=1)
    found = fisher(linear(weights), dataset(features, padded), empirical=empirical)
    assert float(found[2].abs().max()) == 0.0
    assert float(found[:2].min()) > 0.0
    if empirical:
        without = fisher(linear(weights[:2]), dataset(features, labels), empirical=True)
        assert torch.allclose(found[:2], without, atol=1e-6)


def test_estimating_leaves_the_model_and_the_global_generator() -> None:
    model = linear([[0.5, -0.5]]).train()
    before, generator = model.head.weights[0].clone(), torch.get_rng_state()
    fisher(model, OPPOSITES)
    assert model.training
    assert torch.equal(before, model.head.weights[0])
    assert model.head.weights[0].grad is None
    assert torch.equal(generator, torch.get_rng_state())


def test_samples_are_drawn_without_replacement() -> None:
    features = np.eye(12)
    found = fisher(linear(np.zeros((1, 12))), dataset(features, np.ones(12)), samples=5, empirical=True)
    # Each image has its own coordinate with squared gradient 0.25; five of them, mean over five.
    assert sorted(found[0].tolist()) == pytest.approx([0.0] * 7 + [0.05] * 5)


# -- the penalty -----------------------------------------------------------------------------------------------------

POSITIVE = st.floats(0.0, 5.0, allow_subnormal=False)
ANY = st.floats(-5.0, 5.0, allow_subnormal=False)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 5).flatmap(
        lambda d: st.tuples(
            st.lists(
                st.tuples(st.lists(POSITIVE, min_size=d, max_size=d), st.lists(ANY, min_size=d, max_size=d)),
                min_size=1,
                max_size=5,
            ),
            st.lists(ANY, min_size=d, max_size=d),
            st.lists(ANY, min_size=d, max_size=d),
        )
    )
)
def test_one_quadratic_is_the_sum_over_experiences_up_to_a_constant(case: Any) -> None:
    experiences, here, there = case
    model = nn.Module()
    model.theta = nn.Parameter(torch.zeros(len(here), dtype=torch.float64))
    plugin = EWCPlugin(1.0, True, 1, torch.Generator())
    experience = SimpleNamespace(dataset=dataset([[1.0]], [[1]]))
    strategy = SimpleNamespace(model=model, device="cpu", eval_mb_size=256, experience=experience)
    for information, optimum in experiences:
        with torch.no_grad():
            model.theta.copy_(torch.tensor(optimum, dtype=torch.float64))
        told = {"theta": torch.tensor(information, dtype=torch.float64)}
        with patch("cml_bench.strategies.ewc.fisher_information", return_value=told):
            plugin.after_training_exp(strategy)

    def both(point: list[float]) -> tuple[float, float]:
        with torch.no_grad():
            model.theta.copy_(torch.tensor(point, dtype=torch.float64))
        parts = sum(float(np.sum(np.array(f) * (np.array(point) - np.array(o)) ** 2)) for f, o in experiences)
        return plugin.penalty(model).item(), parts

    (mine, theirs), (mine_too, theirs_too) = both(here), both(there)
    assert mine - mine_too == pytest.approx(theirs - theirs_too, abs=1e-6)


def test_the_penalty_pulls_towards_the_old_model(tiny_scenario: Any, learn: Any) -> None:
    """With every old label annotated anew, naive moves old rows; a strong penalty holds them."""
    scenario = tiny_scenario(annotation="seen")
    drift = {}
    for strategy in (Naive(), EWC(ewc_lambda=50.0)):
        learnt = learn(strategy, scenario, lr=0.01, epochs=4)
        drift[type(strategy).__name__] = float((learnt.logits[1][:, :2] - learnt.logits[0]).abs().mean())
    assert drift["EWC"] < 0.5 * drift["Naive"]


def test_new_rows_carry_no_penalty_until_the_experience_ends(tiny_scenario: Any, learn: Any) -> None:
    learnt = learn(EWC(), tiny_scenario(), stop_after=2)
    plugin = learnt.plugins[0]
    assert set(plugin.curvature) == {"head.weights.0", "head.biases.0", "head.weights.1", "head.biases.1"}
    assert plugin.curvature.keys() == plugin.centre.keys()


def test_memory_does_not_grow_with_experiences(tiny_scenario: Any, learn: Any) -> None:
    learnt = learn(EWC(), tiny_scenario(increment=1))
    plugin = learnt.plugins[0]
    parameters = sum(p.numel() for p in learnt.model.parameters())
    assert sum(value.numel() for value in plugin.curvature.values()) == parameters
    assert sum(value.numel() for value in plugin.centre.values()) == parameters


def test_the_chunks_of_an_online_experience_give_one_fisher_at_its_end() -> None:
    features, labels = torch.randn(12, 3, generator=torch.Generator().manual_seed(1)), torch.eye(2).repeat(6, 1)
    whole = dataset(features, labels)
    plugin = load("strategies", "ewc")(fisher="empirical").plugins(
        SimpleNamespace(generator=lambda _: torch.Generator())
    )[0]
    model = linear([[0.3, -0.2, 0.1], [0.0, 0.4, -0.1]])
    for start in (0, 4, 8):
        chunk = SimpleNamespace(dataset=whole.subset(range(start, start + 4)), is_last_subexp=start == 8)
        assert not plugin.curvature
        plugin.after_training_exp(SimpleNamespace(model=model, device="cpu", eval_mb_size=256, experience=chunk))
    name = next(name for name in plugin.curvature if "weights" in name)
    assert torch.allclose(plugin.curvature[name], fisher(model, whole, samples=12, empirical=True), atol=1e-6)
