"""KMCL against its formulas in loops; the release's pitfalls."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cml_bench.errors import CmlBenchError
from cml_bench.losses.asl import ASL
from cml_bench.losses.kmcl import KMCL, kernel_contrast, reconstruction
from cml_bench.models.heads.head import HeadOutput
from cml_bench.registry import load

STATES = [(1, 0, -1, -2), (0, -1, -2), (1,), (0,), (-2,), (1, -2), (1, 0)]


def draw(seed: int, states: tuple[int, ...] = STATES[0]) -> tuple[HeadOutput, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    pooled = torch.randn(6, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    drawn = torch.randint(len(states), (6, 4), generator=generator)
    return HeadOutput(logits, pooled), torch.tensor(states, dtype=torch.int8)[drawn]


def in_loops(criterion: KMCL, output: HeadOutput, labels: Tensor) -> tuple[float, float]:
    """Reconstruction and contrast, as the paper writes them."""
    criterion.fit(output)
    means, variances = (part.detach().numpy() for part in criterion.components(output.pooled))
    features, weights = output.pooled.detach().numpy(), output.logits.detach().sigmoid().numpy()
    y = labels.numpy()
    images, columns = y.shape
    width = features.shape[1]
    fit = 0.0
    for n in range(images):
        g = [
            math.exp(-0.5 * sum((f - means[n, k]) ** 2 for f in features[n]) / variances[n, k]) for k in range(columns)
        ]
        above = sum(weights[n, k] * g[k] for k in range(columns) if y[n, k] == 1)
        below = sum(weights[n, k] * g[k] for k in range(columns) if y[n, k] >= 0)
        fit -= math.log(above / below) if above else 0.0

    def rho(n: int, m: int, k: int) -> float:
        one, two = math.sqrt(variances[n, k]), math.sqrt(variances[m, k])
        squares = one**2 + two**2
        apart = (means[n, k] - means[m, k]) ** 2
        return math.exp(-(width / 2 * math.log(squares / (2 * one * two)) + width / 4 * apart / squares))

    total = 0.0
    for n in range(images):
        mates = 0
        inner = 0.0
        for m in range(images):
            shared = [k for k in range(columns) if y[n, k] == y[m, k] == 1]
            if m == n or not shared:
                continue
            mates += 1
            known = [k for k in range(columns) if y[n, k] >= 0 and y[m, k] >= 0]
            union = [k for k in known if 1 in (y[n, k], y[m, k])]
            for k in shared:
                compared = [i for i in range(images) if i != n and y[i, k] >= 0]
                below = sum(math.exp(rho(n, i, k) / criterion.temperature) for i in compared)
                inner += math.log(len(shared) / len(union) * math.exp(rho(n, m, k) / criterion.temperature) / below)
        total -= inner / max(1, mates)
    return fit / images, total / images


@given(seed=st.integers(0, 2**31), states=st.sampled_from(STATES))
def test_against_loops(seed: int, states: tuple[int, ...]) -> None:
    output, labels = draw(seed, states)
    criterion = KMCL(base="bce", weight=0.5)
    term = criterion.term(output, labels, None, 0, None)
    assert float(term.detach()) == pytest.approx(sum(in_loops(criterion, output, labels)), rel=1e-5, abs=1e-6)
    torch.testing.assert_close(criterion(output, labels), criterion.base(output, labels) + 0.5 * term)


@given(seed=st.integers(0, 2**31), states=st.sampled_from(STATES))
def test_gradients_are_finite_and_unknown_entries_get_none(seed: int, states: tuple[int, ...]) -> None:
    output, labels = draw(seed, states)
    criterion = KMCL()
    loss = criterion(output, labels)
    loss.backward()
    assert loss.isfinite()
    assert output.logits.grad is not None
    assert output.logits.grad.isfinite().all()
    assert (output.logits.grad[labels < 0] == 0).all()
    for parameter in criterion.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()
    if (labels < 0).all():
        assert loss == 0


def test_the_base_is_the_published_asl() -> None:
    output, labels = draw(0)
    expected = ASL(gamma_neg=4, gamma_pos=1, clip=0.05, detach_focal=False, reduction="sum")
    torch.testing.assert_close(KMCL(weight=0)(output, labels), expected(output.logits, labels))


def test_an_image_that_explains_itself_by_its_labels_costs_nothing() -> None:
    weights = torch.tensor([[0.0, -90.0, 5.0]], dtype=torch.float64)
    labels = torch.tensor([[1, 0, -2]], dtype=torch.int8)
    assert float(reconstruction(weights, labels)) == pytest.approx(0.0, abs=1e-12)
    assert float(reconstruction(weights.flip(1), labels.flip(1))) == pytest.approx(0.0, abs=1e-12)
    assert float(reconstruction(weights, 1 - labels.clamp(min=0))) > 0


def test_an_anchor_that_shares_a_label_with_the_whole_batch_counts() -> None:
    distance = torch.rand(3, 3, 2, dtype=torch.float64)
    labels = torch.tensor([[1, 0], [1, 0], [1, 0]], dtype=torch.int8)
    kernels = (-distance[:, :, 0]).exp() / 0.5
    expected = 0.0
    for n in range(3):
        row = torch.stack([kernels[n, m] for m in range(3) if m != n])
        expected -= float(row.log_softmax(0).mean()) / 3
    assert float(kernel_contrast(distance, labels, 0.5)) == pytest.approx(expected)


def test_images_without_a_common_annotation_are_not_compared() -> None:
    distance = torch.rand(4, 4, 2, dtype=torch.float64)
    labels = torch.tensor([[1, -2], [1, -2], [-2, 1], [-2, 1]], dtype=torch.int8)
    # One partner and no other: the share is 1, the index is 1.
    assert float(kernel_contrast(distance, labels, 0.17)) == pytest.approx(0.0, abs=1e-12)
    known = torch.where(labels < 0, 0, labels)
    assert float(kernel_contrast(distance, known, 0.17)) > 0


def test_order_makes_no_difference() -> None:
    output, labels = draw(5)
    criterion = KMCL()
    loss = criterion(output, labels)
    order = torch.randperm(6)
    mixed = HeadOutput(output.logits[order], output.pooled[order])
    torch.testing.assert_close(criterion(mixed, labels[order]), loss)


def test_rows_grow_through_a_stream(tiny_scenario: Any, learn: Any) -> None:
    criterion = KMCL()
    learn(load("strategies", "naive")(), tiny_scenario(spatial=False), criterion=criterion, lr=1e-3)
    for rows in (criterion.components.mean_rows, criterion.components.variance_rows):
        assert [tuple(block.shape) for block in rows.weights] == [(2, 6)] * 3


def test_bad_options_are_named() -> None:
    with pytest.raises(CmlBenchError, match="kmcl: temperature=0"):
        KMCL(temperature=0)
