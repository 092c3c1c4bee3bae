"""CLML: against torch's singular values, finite differences, and cases worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from cml_bench.labels import OUT_OF_SCOPE, PRESENT
from cml_bench.losses.bce import BCE
from cml_bench.losses.clml import CLML
from cml_bench.losses.hill import Hill
from cml_bench.losses.nuclear import nuclear_norms
from cml_bench.losses.splc import SPLC
from cml_bench.models.heads.head import HeadOutput

SEEDS = st.integers(0, 2**31)


def features(seed: int, rows: int, width: int, rank: int | None = None) -> Tensor:
    """Random rows; of lower rank, some of them repeated and some zero, if told so."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    if rank is not None:
        x = x[:, :rank] @ torch.randn(rank, width, generator=generator, dtype=torch.float64)
        x[rows // 2 :] = x[: rows - rows // 2].clone()
        x[-1] = 0
    return x


def by_hand(x: Tensor, present: Tensor, least: float = 1.0) -> Tensor:
    """The formula, one label after the other, with torch's singular values."""
    labelled = present.any(dim=1)
    if not labelled.any():
        return x.sum() * 0
    total = -torch.linalg.svdvals(x[labelled]).sum()
    for c in range(present.shape[1]):
        if present[:, c].any():
            total = total + torch.linalg.svdvals(x[present[:, c]]).sum().clamp(min=least)
    return total / labelled.sum()


# -- nuclear norms ---------------------------------------------------------------------------------------------------


@given(seed=SEEDS, rows=st.integers(1, 8), width=st.integers(1, 10), groups=st.integers(1, 5), low=st.booleans())
@settings(max_examples=40)
def test_norms_and_directions_are_those_of_the_decomposition(
    seed: int, rows: int, width: int, groups: int, low: bool
) -> None:
    x = features(seed, rows, width, 1 if low else None)
    members = torch.rand(groups, rows, generator=torch.Generator().manual_seed(seed)) < 0.5
    norms, direction = nuclear_norms(x, members)
    expected = torch.zeros_like(x)
    for g in range(groups):
        part = x[members[g]]
        if not len(part):
            assert norms[g] == 0
            continue
        u, s, vt = torch.linalg.svd(part, full_matrices=False)
        torch.testing.assert_close(norms[g], s.sum(), rtol=1e-5, atol=1e-5)
        kept = s > 1e-6 * s.max()
        expected[members[g]] += u[:, kept] @ vt[kept]
    torch.testing.assert_close(direction, expected, rtol=1e-4, atol=1e-4)


def test_a_direction_is_the_slope_of_the_norm() -> None:
    """Finite differences along every entry, at full rank."""
    x, step = features(0, 4, 6), 1e-6
    whole = torch.ones(1, 4, dtype=torch.bool)
    _, direction = nuclear_norms(x, whole)
    for i in range(4):
        for j in range(6):
            shift = torch.zeros_like(x)
            shift[i, j] = step
            up, down = (nuclear_norms(x + sign * shift, whole)[0] for sign in (1, -1))
            assert float(up - down) / (2 * step) == pytest.approx(float(direction[i, j]), abs=1e-6)


@given(seed=SEEDS)
@settings(max_examples=20)
def test_at_low_rank_the_direction_is_a_subgradient(seed: int) -> None:
    x, other = features(seed, 6, 7, 2), features(seed + 1, 6, 7)
    whole = torch.ones(1, 6, dtype=torch.bool)
    norm, direction = nuclear_norms(x, whole)
    assert nuclear_norms(other, whole)[0] >= norm + (direction * (other - x)).sum() - 1e-6
    assert torch.linalg.matrix_norm(direction, 2) <= 1 + 1e-6


def test_features_of_float32_are_precise() -> None:
    x = features(1, 64, 300).float() * 50
    members = torch.rand(12, 64, generator=torch.Generator().manual_seed(0)) < 0.3
    norms, direction = nuclear_norms(x, members)
    assert direction.dtype == torch.float32
    exact = torch.stack([torch.linalg.svdvals(x[rows].double()).sum() for rows in members])
    torch.testing.assert_close(norms, exact, rtol=1e-6, atol=0)


def test_a_diverging_model_is_told_by_its_loss() -> None:
    loss = CLML("bce").structure(torch.full((2, 3), torch.nan), torch.ones(2, 1, dtype=torch.bool))
    assert loss.isnan()


# -- the loss on features --------------------------------------------------------------------------------------------

LABELS = arrays.arrays(np.bool_, st.tuples(st.integers(1, 8), st.integers(1, 5)))


@given(present=LABELS, seed=SEEDS, least=st.sampled_from([0.0, 1.0, 4.0]), low=st.booleans())
@settings(max_examples=60)
def test_it_is_the_formula_and_never_negative(present: Any, seed: int, least: float, low: bool) -> None:
    labels = torch.from_numpy(present)
    x = features(seed, len(labels), 6, 2 if low else None)
    loss = CLML("bce", least=least).structure(x, labels)
    torch.testing.assert_close(loss, by_hand(x, labels, least), rtol=1e-5, atol=1e-5)
    assert loss >= 0


@given(present=LABELS, seed=SEEDS, factor=st.sampled_from([1.0, -3.0, 0.25]))
@settings(max_examples=30)
def test_its_gradient_is_autograd_s_at_full_rank_times_what_comes_after(present: Any, seed: int, factor: float) -> None:
    labels = torch.from_numpy(present)
    ours, theirs = (features(seed, len(labels), 20).requires_grad_() for _ in range(2))
    (factor * CLML("bce").structure(ours, labels)).backward()
    (factor * by_hand(theirs, labels)).backward()
    assert ours.grad is not None
    if by_hand(theirs, labels) > 1e-6:
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_orthogonal_labels_cost_nothing() -> None:
    x = torch.zeros(6, 6, dtype=torch.float64)
    x[:3, :2], x[3:, 2:5] = features(0, 3, 2), features(1, 3, 3)
    labels = torch.tensor([[True, False]] * 3 + [[False, True]] * 3)
    assert CLML("bce").structure(3 * x, labels) == pytest.approx(0, abs=1e-9)
    # One image with both labels makes it cost, even so.
    labels[0, 1] = True
    assert CLML("bce").structure(3 * x, labels) > 0.05
    # Below the least norm every label costs the rest of it.
    small = CLML("bce").structure(1e-3 * x, torch.eye(2, dtype=torch.bool).repeat_interleave(3, dim=0))
    assert small == pytest.approx(2 / 6, abs=0.01)


def test_images_without_a_positive_would_make_it_negative() -> None:
    """The pitfall: the whole matrix counts them, the labels do not."""
    x = torch.eye(4, dtype=torch.float64) * 2
    labels = torch.tensor([[True], [False], [False], [False]])
    assert torch.linalg.svdvals(x[:1]).sum() - torch.linalg.svdvals(x).sum() < 0
    leaf = x.clone().requires_grad_()
    loss = CLML("bce").structure(leaf, labels)
    loss.backward()
    assert loss == 0
    assert leaf.grad is not None
    assert (leaf.grad[1:] == 0).all()


# -- as a criterion --------------------------------------------------------------------------------------------------


def test_base_and_features_are_judged_together() -> None:
    labels = torch.tensor([[1, 0, -2], [0, 1, -1], [0, 0, -1]], dtype=torch.int8)
    z, x = features(2, 3, 3), features(3, 3, 5)
    structure = by_hand(x, labels == PRESENT)
    output = HeadOutput(z, x)
    summed = CLML(Hill(reduction="sum"), weight=0.5, reduction="sum")(output, labels)
    torch.testing.assert_close(summed, Hill(reduction="sum")(z, labels) + 0.5 * structure)
    # On the mean scale the proportion of both is the same: 8 labels were asked for.
    mean = CLML(Hill(), weight=0.5)(output, labels)
    torch.testing.assert_close(mean, summed / 8)


def test_believed_labels_join_from_the_second_epoch_on() -> None:
    labels = torch.tensor([[1, -1], [-1, 1], [0, -1], [-1, OUT_OF_SCOPE]], dtype=torch.int8)
    z = torch.tensor([[-5.0, 5.0], [0.0, 5.0], [5.0, 0.8], [0.9, 5.0]], dtype=torch.float64)
    x = features(4, 4, 6)
    criterion = CLML(BCE(), tau=0.7, reduction="sum")
    base = BCE()(z, labels)
    marked = labels == PRESENT
    # sigmoid(0.8) = 0.69 and sigmoid(0.9) = 0.71; verified absence and labels not asked for stay.
    believed = marked | torch.tensor([[False, True], [False, False], [False, False], [True, False]])
    for epoch, present in ((0, marked), (1, believed), (7, believed)):
        loss = criterion(HeadOutput(z, x), labels, None, epoch)
        torch.testing.assert_close(loss, base + by_hand(x, present))


def test_no_gradient_goes_through_what_is_believed() -> None:
    labels = torch.tensor([[1, -1], [-1, 1]], dtype=torch.int8)
    z = torch.full((2, 2), 3.0, dtype=torch.float64, requires_grad=True)
    criterion = CLML(BCE(), reduction="sum")
    (gradient,) = torch.autograd.grad(criterion(HeadOutput(z, features(5, 2, 4)), labels, None, 1), z)
    (expected,) = torch.autograd.grad(BCE()(z, labels), z)
    assert torch.equal(gradient, expected)


def test_it_passes_on_what_the_base_needs() -> None:
    criterion = CLML()
    assert isinstance(criterion.base, SPLC)
    criterion.spare = 2
    assert criterion.base.spare == 2
    assert "SPLC" in criterion.title
