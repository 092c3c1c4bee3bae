"""Averages of models: weights sum to 1, order and copies make no difference, labels come from who learnt them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.csc import CSCHead
from cml_bench.models.heads.ctran import CTranHead
from cml_bench.models.heads.krt import KRTHead
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.model import MultiLabelModel
from cml_bench.models.wrappers.pat import PAT
from cml_bench.training.averaging import Average, label_tensors

GROWTH = (("a", "b"), ("c", "d"), ("e", "f"))
HEADS = ("head", "wrapper.score", "wrapper.weight")
ROWS = {"rows.0": slice(0, 2), "rows.1": slice(2, 5)}


def model(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "shared": torch.randn(3, 4, generator=generator),
        "rows.0": torch.randn(2, 4, generator=generator),
        "rows.1": torch.randn(3, generator=generator),
        "steps": torch.randint(0, 2**40, (), generator=generator),
        "flag": torch.rand(2, generator=generator) > 0.5,
        "half": torch.randn(2, generator=generator).half(),
    }


def mean(clients: list[tuple[dict[str, torch.Tensor], int, list[bool]]]) -> dict[str, torch.Tensor]:
    average = Average(ROWS)
    for state, images, learnt in clients:
        average.add(state, images, torch.tensor(learnt))
    return average.result()


LEARNT = st.lists(st.booleans(), min_size=5, max_size=5)
CLIENTS = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 10**6), LEARNT), min_size=1, max_size=6)


@given(CLIENTS)
def test_against_numpy(clients: list[Any]) -> None:
    """Row by row: those who learnt the label, or all if none did."""
    found = mean([(model(seed), images, learnt) for seed, images, learnt in clients])
    states = [model(seed) for seed, _, _ in clients]
    images = np.array([images for _, images, _ in clients], dtype=np.float64)
    stacked = {name: np.stack([state[name].double().numpy() for state in states]) for name in states[0]}
    for name in ("shared", "half", "steps", "flag"):
        expected = np.tensordot(images / images.sum(), stacked[name], axes=1)
        expected = np.round(expected) if name in ("steps", "flag") else expected
        np.testing.assert_allclose(found[name].double().numpy(), expected, rtol=1e-6 if name != "half" else 1e-3)
        assert found[name].dtype == states[0][name].dtype
    for name, labels in ROWS.items():
        for row, label in enumerate(range(labels.start, labels.stop)):
            who = np.array([learnt[label] for _, _, learnt in clients])
            who = who if who.any() else np.ones(len(clients), dtype=bool)
            weights = images * who / (images * who).sum()
            expected = np.tensordot(weights, stacked[name][:, row], axes=1)
            np.testing.assert_allclose(found[name][row].double().numpy(), expected, rtol=1e-5, atol=1e-7)


@given(st.integers(0, 9), st.lists(st.tuples(st.integers(1, 10**6), LEARNT), min_size=1, max_size=6))
def test_alike_models_average_to_themselves_bit_for_bit(seed: int, clients: list[Any]) -> None:
    found = mean([(model(seed), images, learnt) for images, learnt in clients])
    assert all(torch.equal(found[name], value) for name, value in model(seed).items())


@given(CLIENTS, st.randoms(use_true_random=False))
def test_the_order_of_clients_is_without_effect(clients: list[Any], random: Any) -> None:
    shuffled = list(clients)
    random.shuffle(shuffled)
    first, second = (mean([(model(seed), n, learnt) for seed, n, learnt in order]) for order in (clients, shuffled))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-6, atol=1e-7)


@given(CLIENTS, st.floats(-8, 8))
def test_weights_sum_to_one(clients: list[Any], shift: float) -> None:
    """A constant that is added to all models is added to their mean, also where rows are averaged over some."""
    double = [{name: model(seed)[name].double() for name in ("shared", *ROWS)} for seed, _, _ in clients]
    moved = [{name: value + shift for name, value in state.items()} for state in double]
    plain = mean([(state, n, learnt) for state, (_, n, learnt) in zip(double, clients, strict=True)])
    other = mean([(state, n, learnt) for state, (_, n, learnt) in zip(moved, clients, strict=True)])
    for name, value in plain.items():
        torch.testing.assert_close(other[name], value + shift)


def test_batch_norm_counts_are_averaged_and_stay_whole() -> None:
    average = Average({})
    for steps in (3, 4, 4):
        norm = nn.BatchNorm1d(2)
        norm.num_batches_tracked.fill_(steps)
        norm.running_mean.fill_(steps)  # type: ignore[union-attr]
        average.add(norm.state_dict(), 10, torch.zeros(0, dtype=torch.bool))
    result = average.result()
    assert (result["num_batches_tracked"].dtype, int(result["num_batches_tracked"])) == (torch.int64, 4)
    torch.testing.assert_close(result["running_mean"], torch.full((2,), 11 / 3))


def test_what_was_added_may_change_afterwards() -> None:
    """The model is one and the same object for all clients."""
    average, state = Average({}), model(0)
    average.add(state, 1, torch.zeros(0))
    state["shared"].zero_()
    average.add(state, 1, torch.zeros(0))
    torch.testing.assert_close(average.result()["shared"], model(0)["shared"] / 2)


def test_models_of_different_shapes_are_refused() -> None:
    average = Average({})
    average.add(model(0), 1, torch.zeros(0))
    with pytest.raises(CmlBenchError, match=r"models of different shapes cannot be averaged \(shared differ"):
        average.add({**model(0), "shared": torch.zeros(2)}, 1, torch.zeros(0))
    with pytest.raises(CmlBenchError, match="different shapes"):
        average.add({name: value for name, value in model(0).items() if name != "flag"}, 1, torch.zeros(0))


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (LinearHead(6), {"weights", "biases"}),
        (CTranHead(8, layers=2), {"weights", "biases", "words"}),
        (CTranHead(8, text="hash:5", layers=1), {"weights", "biases", "words"}),
        (KRTHead(8, width=8, heads=2), {"classifiers.*.1.weight", "classifiers.*.1.bias"}),
        (CSCHead(8), {"maps", "rows", "links.*.weight", "links.*.bias", "classifiers.*.weight", "classifiers.*.bias"}),
    ],
)
def test_the_rows_of_labels_are_found(head: Any, expected: set[str]) -> None:
    """Of CSC's graph, (old, n) columns and (n, seen) rows: only the latter have one row for each new label."""
    for names in GROWTH:
        head.grow(names)
    model = MultiLabelModel(None, head)
    assert label_tensors(model) == {f"head.{name}": labels for name, labels in label_tensors(head).items()}
    found = label_tensors(head)
    blocks = {name.replace("*", str(i)) if "*" in name else f"{name}.{i}" for name in expected for i in range(3)}
    assert set(found) == blocks
    for name, labels in found.items():
        growth = int(next(part for part in name.split(".") if part.isdigit()))
        assert labels == slice(2 * growth, 2 * growth + 2)


def test_heads_of_a_wrapper_have_rows_of_labels_too() -> None:
    """PAT judges patches by two more heads, which learn the labels of their client as the first one does."""
    model = MultiLabelModel(None, LinearHead(6))
    model.wrap(PAT(), lambda: LinearHead(6))
    assert model.wrapper is not None
    for names in GROWTH:
        model.head.grow(names)
        model.wrapper.grow(names)
    expected = {f"{part}.{name}": labels for part in HEADS for name, labels in label_tensors(model.head).items()}
    assert label_tensors(model) == expected
