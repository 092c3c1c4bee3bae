"""AN, AN-LS, WAN, EPR, EM, PR and RLSEP: the table of the literature in NumPy, and what theory says of each."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED
from cml_bench.losses.an import AN
from cml_bench.losses.an_ls import ANLS
from cml_bench.losses.assume_negative import AssumeNegative
from cml_bench.losses.bce import BCE
from cml_bench.losses.criterion import Criterion
from cml_bench.losses.em import EM
from cml_bench.losses.epr import EPR
from cml_bench.losses.pairwise_ranking import PairwiseRanking
from cml_bench.losses.rlsep import RLSEP
from cml_bench.losses.wan import WAN

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int8]

STATES = st.sampled_from([PRESENT, ABSENT, UNMARKED, OUT_OF_SCOPE])
TABLES = arrays.arrays(np.int8, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=STATES)
SEEDS = st.integers(0, 2**31)


def logits_for(labels: Labels, seed: int) -> Tensor:
    return 3 * torch.randn(labels.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def nl(p: Floats | float) -> Floats:
    """As published, with its epsilon."""
    return np.asarray(-np.log(np.asarray(p) + 1e-5))


def full_single(seed: int, shape: tuple[int, int] = (5, 6)) -> tuple[Tensor, Tensor]:
    """One positive of each image, all else open: the setting of the papers."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.full(shape, UNMARKED, dtype=torch.int8)
    labels[torch.arange(shape[0]), torch.randint(shape[1], (shape[0],), generator=generator)] = PRESENT
    return 2 * torch.randn(shape, generator=generator, dtype=torch.float64), labels


def published_an(p: Floats, s: Labels) -> Floats:
    return np.where(s == 1, nl(p), nl(1 - p))


def published_an_ls(p: Floats, s: Labels) -> Floats:
    return np.where(s == 1, 0.9 * nl(p) + 0.1 * nl(1 - p), 0.9 * nl(1 - p) + 0.1 * nl(p))


def published_wan(p: Floats, s: Labels) -> Floats:
    return np.where(s == 1, nl(p), nl(1 - p) / (s.shape[1] - 1))


def published_em(p: Floats, s: Labels) -> Floats:
    return np.where(s == 1, nl(p), -0.1 * (p * nl(p) + (1 - p) * nl(1 - p)))


def published_epr(p: Floats, s: Labels) -> Floats:
    regulariser = (p.sum(axis=1).mean() - 1.5) ** 2 / s.shape[1] ** 2
    return np.where(s == 1, nl(p), 0) + regulariser


def published_pr(p: Floats, s: Labels) -> Floats:
    costs = np.zeros_like(p)
    for b, i in zip(*np.nonzero(s == 1), strict=True):
        costs[b, i] = sum(max(0.0, 1 - p[b, i] + p[b, j]) for j in range(s.shape[1]) if s[b, j] == -1)
    return costs


@pytest.mark.parametrize(
    ("criterion", "published"),
    [
        (AN(), published_an),
        (ANLS(), published_an_ls),
        (WAN(), published_wan),
        (EM(), published_em),
        (EPR(k=1.5), published_epr),
        (PairwiseRanking(), published_pr),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, Criterion) else "",
)
@pytest.mark.parametrize("seed", range(3))
def test_single_positives_cost_what_is_published(
    criterion: Criterion, published: Callable[[Floats, Labels], Floats], seed: int
) -> None:
    """Sums over images and labels by B * C, to the epsilon in the published logarithm."""
    logits, labels = full_single(seed)
    expected = published(logits.sigmoid().numpy(), labels.numpy()).mean()
    assert float(criterion(logits, labels)) == pytest.approx(expected, rel=1e-3, abs=1e-4)


# -- the family of AN ------------------------------------------------------------------------------------------------


@given(labels=TABLES, seed=SEEDS, spare=st.integers(0, 3))
@settings(max_examples=30)
def test_an_entry_by_entry(labels: Labels, seed: int, spare: int) -> None:
    logits = logits_for(labels, seed)
    costs = [
        math.log1p(math.exp(-z if state == PRESENT else z))
        for row, states in zip(logits.tolist(), labels.tolist(), strict=True)
        for column, (z, state) in enumerate(zip(row, states, strict=True))
        if state >= ABSENT or (state == UNMARKED and column >= spare)
    ]
    an = AN()
    an.spare = spare
    assert float(an(logits, torch.from_numpy(labels))) == pytest.approx(sum(costs) / max(len(costs), 1))


@given(seed=SEEDS)
@settings(max_examples=10)
def test_fully_annotated_they_are_bce(seed: int) -> None:
    logits, labels = full_single(seed)
    labels = labels.masked_fill(labels == UNMARKED, ABSENT)
    for criterion in (AN(), ANLS(smoothing=0), WAN(), EM()):
        torch.testing.assert_close(criterion(logits, labels), BCE()(logits, labels))


def test_wan_is_an_if_and_only_if_two_labels_were_asked_for() -> None:
    for width in range(1, 7):
        logits, labels = full_single(width, (8, width))
        same = torch.isclose(WAN()(logits, labels), AN()(logits, labels))
        assert bool(same) == (width <= 2), "with one label nothing is open"
    # Width alone is not the point: labels that nobody was asked for do not count.
    logits, labels = full_single(9, (4, 5))
    labels[:, :2] = torch.tensor([[PRESENT, UNMARKED]] * 4)
    labels[:, 2:] = OUT_OF_SCOPE
    torch.testing.assert_close(WAN()(logits, labels), AN()(logits, labels))


@given(labels=TABLES, seed=SEEDS)
@settings(max_examples=30)
def test_wan_weighs_by_the_labels_asked_for_of_each_image(labels: Labels, seed: int) -> None:
    logits = logits_for(labels, seed)
    total, n = 0.0, 0
    for row, states in zip(logits.tolist(), labels.tolist(), strict=True):
        asked = sum(state != OUT_OF_SCOPE for state in states)
        n += asked
        for z, state in zip(row, states, strict=True):
            p = 1 / (1 + math.exp(-z))
            if state == PRESENT:
                total -= math.log(p)
            elif state != OUT_OF_SCOPE:
                total -= math.log(1 - p) / (max(asked - 1, 1) if state == UNMARKED else 1)
    assert float(WAN()(logits, torch.from_numpy(labels))) == pytest.approx(total / max(n, 1))


def test_smoothed_targets_are_where_the_loss_is_least() -> None:
    """The minimum of the cross-entropy is at its target."""
    z = torch.tensor([[math.log(9), -math.log(9)]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[PRESENT, UNMARKED]], dtype=torch.int8)
    (slope,) = torch.autograd.grad(ANLS(0.1)(z, labels), z)
    torch.testing.assert_close(slope, torch.zeros_like(slope))


# -- EM --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0])
@pytest.mark.parametrize("z", [-30.0, -3.0, -0.1, 0.0, 0.1, 2.0, 30.0])
def test_the_gradient_of_em(alpha: float, z: float) -> None:
    logits = torch.tensor([[z]], dtype=torch.float64, requires_grad=True)
    loss = EM(alpha)(logits, torch.tensor([[UNMARKED]], dtype=torch.int8))
    (slope,) = torch.autograd.grad(loss, logits)
    p = 1 / (1 + math.exp(-z))
    assert float(slope) == pytest.approx(alpha * z * p * (1 - p), abs=1e-11)


# -- EPR -------------------------------------------------------------------------------------------------------------


def test_the_regulariser_is_least_at_the_expected_count() -> None:
    """Gradient descent on open labels alone ends where they sum to k, and there the loss is 0."""
    labels = torch.full((3, 8), UNMARKED, dtype=torch.int8)
    z = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    optimiser = torch.optim.Adam([z], lr=0.05)
    for _ in range(500):
        optimiser.zero_grad()
        loss = EPR(k=2.5)(z, labels)
        loss.backward()
        optimiser.step()
    assert float(z.detach().sigmoid().sum(dim=1).mean()) == pytest.approx(2.5, abs=1e-3)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-8)


@given(labels=TABLES, seed=SEEDS, k=st.none() | st.floats(0.5, 5))
@settings(max_examples=40)
def test_epr_on_any_table(labels: Labels, seed: int, k: float | None) -> None:
    logits = logits_for(labels, seed)
    p, asked = logits.sigmoid().numpy(), labels != OUT_OF_SCOPE
    n, images = max(int(asked.sum()), 1), int(asked.any(axis=1).sum())
    expected = (labels == PRESENT).sum() if k is None else k * images
    known = -np.log(p[labels == PRESENT]).sum() - np.log(1 - p[labels == ABSENT]).sum()
    loss = known / n + ((p[asked].sum() - expected) / n) ** 2
    assert float(EPR(k)(logits, torch.from_numpy(labels))) == pytest.approx(float(loss))


def test_the_default_count_is_what_is_marked() -> None:
    logits, labels = full_single(0)
    torch.testing.assert_close(EPR()(logits, labels), EPR(k=1)(logits, labels))
    labels = labels.masked_fill(labels == UNMARKED, ABSENT)
    labels[:, 0] = PRESENT
    k = float((labels == PRESENT).sum()) / len(labels)
    torch.testing.assert_close(EPR()(logits, labels), EPR(k)(logits, labels))


# -- rankings --------------------------------------------------------------------------------------------------------


@given(labels=TABLES, seed=SEEDS)
@settings(max_examples=40)
def test_pairwise_ranking_pair_by_pair(labels: Labels, seed: int) -> None:
    logits = logits_for(labels, seed)
    p = logits.sigmoid().numpy()
    total = 0.0
    for b, i in zip(*np.nonzero(labels == PRESENT), strict=True):
        for j in range(labels.shape[1]):
            if labels[b, j] in (UNMARKED, ABSENT):
                total += max(0.0, 1 - p[b, i] + p[b, j])
    n = max(int((labels != OUT_OF_SCOPE).sum()), 1)
    assert float(PairwiseRanking()(logits, torch.from_numpy(labels))) == pytest.approx(total / n)


@given(labels=TABLES, seed=SEEDS)
@settings(max_examples=40)
def test_rlsep_with_two_ranks_is_lsep(labels: Labels, seed: int) -> None:
    """Pair by pair, over every pair of ranks r_i > r_j."""
    logits = logits_for(labels, seed)
    costs = []
    for row, ranks in zip(logits.tolist(), labels.tolist(), strict=True):
        pairs = [
            math.exp(row[j] - row[i])
            for i, high in enumerate(ranks)
            for j, low in enumerate(ranks)
            if high > low >= ABSENT
        ]
        if pairs:
            costs.append(math.log1p(sum(pairs)))
    expected = sum(costs) / max(len(costs), 1)
    assert float(RLSEP()(logits, torch.from_numpy(labels))) == pytest.approx(expected)


def test_rlsep_leaves_well_ordered_labels_alone() -> None:
    labels = torch.tensor([[PRESENT, ABSENT, PRESENT, ABSENT]], dtype=torch.int8)
    z = torch.tensor([[60.0, -60.0, 90.0, -70.0]], dtype=torch.float64, requires_grad=True)
    for sign, least, most in ((1, 0.0, 1e-40), (-1, 0.1, 2.0)):
        (slope,) = torch.autograd.grad(RLSEP()(sign * z, labels), z)
        assert least <= float(slope.abs().max()) <= most


def test_rlsep_ranks_open_labels_only_under_an_assumption() -> None:
    logits, labels = full_single(1)
    assert RLSEP()(logits, labels) == 0
    explicit = labels.masked_fill(labels == UNMARKED, ABSENT)
    torch.testing.assert_close(AssumeNegative("rlsep")(logits, labels), RLSEP()(logits, explicit))
