"""Focal, Hill and SPLC: against NumPy, torchvision's formula, BCE, and derivatives worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cml_bench.labels import ABSENT, PRESENT, UNMARKED
from cml_bench.losses.asl import ASL
from cml_bench.losses.assume_negative import AssumeNegative
from cml_bench.losses.bce import BCE
from cml_bench.losses.focal import Focal
from cml_bench.losses.hill import Hill
from cml_bench.losses.splc import SPLC
from cml_bench.models.heads.head import HeadOutput


def batch(seed: int, states: tuple[int, ...] = (1, 0, -1, -2)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(6, 5, generator=generator, dtype=torch.float64)
    return logits, torch.tensor(states, dtype=torch.int8)[torch.randint(len(states), (6, 5), generator=generator)]


def splc(criterion: SPLC, logits: Tensor, labels: Tensor, epoch: int) -> Tensor:
    loss: Tensor = criterion(HeadOutput(logits, logits), labels, torch.arange(len(logits)), epoch)
    return loss


def one(state: int, dtype: torch.dtype = torch.int8) -> Tensor:
    return torch.tensor([[state]], dtype=dtype)


# -- focal -----------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**31), gamma=st.sampled_from([0.0, 1.0, 2.0, 3.5]), alpha=st.sampled_from([-1, 0.25, 0.9]))
@settings(max_examples=20)
def test_focal_against_numpy(seed: int, gamma: float, alpha: float) -> None:
    logits, labels = batch(seed)
    total, n = 0.0, 0
    for z, y in zip(logits.ravel().tolist(), labels.ravel().tolist(), strict=True):
        if y < 0:
            continue
        p = 1 / (1 + math.exp(-z))
        hit, weight = (p, alpha) if y == 1 else (1 - p, 1 - alpha)
        total -= (1 if alpha < 0 else weight) * (1 - hit) ** gamma * math.log(hit)
        n += 1
    assert float(Focal(gamma, alpha, "sum")(logits, labels)) == pytest.approx(total)
    assert float(Focal(gamma, alpha)(logits, labels)) == pytest.approx(total / max(n, 1))


def test_focal_without_weights_is_symmetric_asl_and_without_focus_bce() -> None:
    logits, labels = batch(0)
    symmetric = ASL(gamma_neg=2, gamma_pos=2, clip=0, detach_focal=False)
    torch.testing.assert_close(Focal(alpha=-1)(logits, labels), symmetric(logits, labels))
    torch.testing.assert_close(Focal(gamma=0, alpha=-1)(logits, labels), BCE()(logits, labels))
    torch.testing.assert_close(Focal(gamma=0, alpha=0.5)(logits, labels), BCE()(logits, labels) / 2)


# -- Hill ------------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**31), height=st.floats(1, 3), margin=st.floats(-1, 2), gamma=st.floats(0, 3))
@settings(max_examples=20)
def test_hill_against_numpy(seed: int, height: float, margin: float, gamma: float) -> None:
    logits, labels = batch(seed)
    total, n = 0.0, 0
    for z, y in zip(logits.ravel().tolist(), labels.ravel().tolist(), strict=True):
        p, q = 1 / (1 + math.exp(-z)), 1 / (1 + math.exp(margin - z))
        if y == 1:
            total -= (1 - q) ** gamma * math.log(q)
        elif y in (0, -1):
            total += (height - p) * p * p
        n += y != -2
    assert float(Hill(height, margin, gamma, "sum")(logits, labels)) == pytest.approx(total, rel=1e-6)
    assert float(Hill(height, margin, gamma)(logits, labels)) == pytest.approx(total / max(n, 1), rel=1e-6)


@pytest.mark.parametrize("state", [ABSENT, UNMARKED])
@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.9, 0.999, 1 - 1e-9])
def test_the_slope_of_the_hill(state: int, p: float) -> None:
    """dL/dz = 3 p^2 (1 - p)^2, so that what is surely present is left alone."""
    z = torch.tensor([[math.log(p / (1 - p))]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(Hill()(z, one(state)), z)
    assert float(slope) == pytest.approx(3 * p**2 * (1 - p) ** 2, rel=1e-5, abs=1e-15)
    (pushed,) = torch.autograd.grad(BCE()(z, one(ABSENT)), z)
    assert slope < pushed
    if p > 0.99:
        assert slope < 1e-4 * pushed


def test_a_logit_beyond_what_log_of_sigmoid_could_bear() -> None:
    z = torch.tensor([[-400.0]], requires_grad=True)
    loss = Hill()(z, one(PRESENT))
    (slope,) = torch.autograd.grad(loss, z)
    assert float(loss.detach()) == pytest.approx(401)
    assert float(slope) == pytest.approx(-1)


# -- SPLC ------------------------------------------------------------------------------------------------------------


def numpy_splc(z: float, y: int, epoch: int, tau: float, margin: float, gamma: float) -> float:
    if y == -2:
        return 0.0
    shifted = z - margin if y == 1 else z
    q = 1 / (1 + math.exp(-shifted))
    present = y == 1 or (y == -1 and epoch >= 1 and q > tau)
    hit = q if present else 1 - q
    return float(-((1 - hit) ** gamma) * math.log(hit))


@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 2), tau=st.floats(0.3, 0.9), gamma=st.floats(0, 3))
@settings(max_examples=30)
def test_splc_against_numpy(seed: int, epoch: int, tau: float, gamma: float) -> None:
    logits, labels = batch(seed)
    pairs = zip(logits.ravel().tolist(), labels.ravel().tolist(), strict=True)
    total = sum(numpy_splc(z, y, epoch, tau, 1.0, gamma) for z, y in pairs)
    n = int((labels != -2).sum())
    assert float(splc(SPLC(tau, gamma=gamma, reduction="sum"), logits, labels, epoch)) == pytest.approx(total, rel=1e-6)
    assert float(splc(SPLC(tau, gamma=gamma), logits, labels, epoch)) == pytest.approx(total / max(n, 1), rel=1e-6)


def test_an_open_label_is_believed_from_the_second_epoch_on() -> None:
    slopes = {}
    for state in (UNMARKED, ABSENT):
        for epoch in (0, 1):
            z = torch.tensor([[2.0]], dtype=torch.float64, requires_grad=True)
            (slope,) = torch.autograd.grad(splc(SPLC(), z, one(state), epoch), z)
            slopes[state, epoch] = float(slope)
    assert slopes[UNMARKED, 0] > 0 > slopes[UNMARKED, 1]
    assert slopes[ABSENT, 0] == slopes[ABSENT, 1] == slopes[UNMARKED, 0]


def test_nothing_is_corrected_at_the_threshold_or_in_spare_columns() -> None:
    z = torch.tensor([[math.log(0.7 / 0.3)]], dtype=torch.float64)
    assert splc(SPLC(tau=float(z.sigmoid())), z, one(UNMARKED), 1) == splc(SPLC(), z, one(ABSENT), 1)
    criterion = SPLC()
    criterion.spare = 1
    assert splc(criterion, 3 * z, one(UNMARKED), 1) == 0


def test_without_margin_and_correction_it_is_focal_on_assumed_negatives() -> None:
    logits, labels = batch(3)
    plain = splc(SPLC(margin=0, change_epoch=9), logits, labels, 5)
    torch.testing.assert_close(plain, AssumeNegative("focal alpha=-1")(logits, labels))


def test_scale_is_that_of_bce_for_every_width() -> None:
    logits, labels = batch(5, (1, 0))
    for criterion in (Focal(), Hill()):
        wide = criterion(logits.repeat(1, 2), labels.repeat(1, 2))
        torch.testing.assert_close(wide, criterion(logits, labels))
    assert np.isclose(
        float(splc(SPLC(), logits.repeat(1, 2), labels.repeat(1, 2), 1)), float(splc(SPLC(), logits, labels, 1))
    )
