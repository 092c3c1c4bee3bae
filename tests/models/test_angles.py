"""Angles between label features and classifier rows: the law of the shared feature, and how to escape it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import cml_bench
from cml_bench.models.angles import angle_law, head_angles, label_angles
from cml_bench.models.heads.agcn import AGCNHead
from cml_bench.models.heads.csra import CSRAHead
from cml_bench.models.heads.dlfl import DLFLHead
from cml_bench.models.heads.linear import LinearHead

PRINTED = {2: 45.00, 3: 54.74, 20: 77.08, 26: 78.69, 35: 80.27, 51: 81.95, 80: 83.58}
"""Degrees of the closed form; for 51 the formula's, where a predecessor's notes print 81.27."""


@pytest.mark.parametrize("labels", PRINTED)
def test_the_closed_form(labels):
    assert angle_law(labels) == pytest.approx(PRINTED[labels], abs=0.005)
    assert cml_bench.angle_law(labels) == angle_law(labels)


def test_no_labels_have_no_angle():
    with pytest.raises(ValueError, match="0 labels"):
        angle_law(0)
    assert angle_law(1) == 0.0


@pytest.mark.parametrize("labels", [2, 3, 20, 26, 35, 51, 80])
def test_the_minimiser_of_the_logistic_loss_keeps_the_angle(labels):
    """Orthonormal rows, one feature of length 5, some labels absent: an optimiser of scipy's finds where it stands."""
    rng = np.random.default_rng(labels)
    rows = np.linalg.qr(rng.normal(size=(labels + 4, labels)))[0].T
    signs = np.where(rng.random(labels) < 0.3, -1.0, 1.0)

    def loss(x):
        length = np.linalg.norm(x)
        unit = x / length
        margins = -5 * signs * (rows @ unit)
        pull = -5 * (signs / (1 + np.exp(-margins))) @ rows
        return np.logaddexp(0, margins).sum(), (pull - (pull @ unit) * unit) / length

    found = minimize(loss, rng.normal(size=labels + 4), jac=True, tol=1e-14).x
    angles = label_angles(torch.from_numpy(found)[None], torch.from_numpy(rows))[0].numpy()
    expected = np.where(signs > 0, angle_law(labels), 180 - angle_law(labels))
    assert np.allclose(angles, expected, atol=0.05)


def test_angles_of_numpy():
    rng = np.random.default_rng(0)
    features, rows = rng.normal(size=(3, 5, 7)), rng.normal(size=(5, 7))
    cosine = (features * rows).sum(-1) / np.linalg.norm(features, axis=-1) / np.linalg.norm(rows, axis=-1)
    found = label_angles(torch.from_numpy(features), torch.from_numpy(rows)).numpy()
    assert np.allclose(found, np.degrees(np.arccos(cosine)))
    shared = label_angles(torch.from_numpy(features[:, 0]), torch.from_numpy(rows)).numpy()
    assert shared.shape == (3, 5)
    assert shared[1, 0] == pytest.approx(found[1, 0])
    assert bool(label_angles(torch.zeros(1, 2), torch.ones(1, 2)).isnan().all())


def test_a_feature_of_its_own_reaches_0_and_180_degrees():
    """Positions that cancel in the mean: a loud query keeps the one that points along its row, or against it."""
    labels, width = 6, 8
    head = DLFLHead(width)
    head.grow([str(label) for label in range(labels)])
    rows = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0)))[0][:labels]
    signs = torch.tensor([1.0, 1, -1, 1, -1, -1])
    with torch.no_grad():
        head.weights[0].copy_(rows)
        head.queries[0].copy_(1e4 * signs[:, None] * rows)
    tokens = torch.cat([rows, -rows])[None]
    angles = head_angles(head, head(tokens))
    assert torch.allclose(angles[0].detach(), torch.where(signs > 0, 0.0, 180.0).double(), atol=0.1)


def test_which_heads_have_angles():
    features = torch.randn(2, 8, 2, 2)
    for kind in (LinearHead, DLFLHead, CSRAHead):
        head = kind(8)
        head.grow(["a", "b", "c"])
        output = head(features)
        angles = head_angles(head, output)
        assert angles.shape == (2, 3)
        # A logit says on which side of the right angle its feature is; biases are 0 in a new head.
        assert torch.equal(output.logits > 0, angles < 90)
    head = AGCNHead(8)
    head.grow(["a"])
    assert head_angles(head, head(features)) is None
    assert math.isclose(angle_law(4), 60.0)
