"""What contrastive criteria share, against SupCon and counts written out in loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from cml_bench.losses.contrast import Projector, common_counts, contrast, jaccard, label_contrast, log_shares, others

SEEDS = st.integers(0, 2**31)


def draw(
    seed: int, images: int = 6, labels: int = 4, states: tuple[int, ...] = (1, 0, -1, -2)
) -> tuple[Tensor, Tensor]:
    """Unit label features (B, n, 5) and four-state labels (B, n)."""
    generator = torch.Generator().manual_seed(seed)
    features = F.normalize(torch.randn(images, labels, 5, generator=generator, dtype=torch.float64), dim=2)
    drawn = torch.randint(len(states), (images, labels), generator=generator)
    return features, torch.tensor(states, dtype=torch.int8)[drawn]


def supcon(features: list[list[float]], classes: list[int], temperature: float) -> float:
    """Khosla et al., equation 2, in loops; the mean over anchors, a lone one adding 0."""
    n, total = len(features), 0.0
    for i in range(n):
        score = [sum(a * b for a, b in zip(features[i], other, strict=True)) / temperature for other in features]
        partners = [p for p in range(n) if p != i and classes[p] == classes[i]]
        denominator = sum(math.exp(score[a]) for a in range(n) if a != i)
        total -= sum(score[p] - math.log(denominator) for p in partners) / max(1, len(partners))
    return total / n


@given(seed=SEEDS)
def test_one_label_an_image_is_supcon(seed: int) -> None:
    features, _ = draw(seed, images=9)
    classes = torch.randint(4, (9,), generator=torch.Generator().manual_seed(seed))
    labels = F.one_hot(classes, 4).to(torch.int8)
    rows = features[torch.arange(9), classes].tolist()
    expected = supcon(rows, classes.tolist(), 0.2)
    assert float(label_contrast(features, labels, 0.2)) == pytest.approx(expected)


@given(seed=SEEDS)
def test_many_labels_are_supcon_over_pairs(seed: int) -> None:
    features, labels = draw(seed)
    pairs = [(i, c) for i in range(6) for c in range(4) if int(labels[i, c]) == 1]
    expected = supcon([features[i, c].tolist() for i, c in pairs], [c for _, c in pairs], 0.3) if pairs else 0.0
    assert float(label_contrast(features, labels, 0.3)) == pytest.approx(expected)


@given(seed=SEEDS)
def test_order_of_images_and_of_labels_makes_no_difference(seed: int) -> None:
    features, labels = draw(seed)
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.randperm(6, generator=generator), torch.randperm(4, generator=generator)
    once = label_contrast(features, labels, 0.2)
    again = label_contrast(features[rows][:, columns], labels[rows][:, columns], 0.2)
    torch.testing.assert_close(once, again)


@given(seed=SEEDS, states=st.sampled_from([(1, 0, -1, -2), (0, -1, -2), (1,), (-2,)]))
def test_gradient_reaches_present_pairs_alone_and_is_finite(seed: int, states: tuple[int, ...]) -> None:
    features, labels = draw(seed, states=states)
    features.requires_grad_()
    loss = label_contrast(features, labels, 0.2)
    loss.backward()
    assert loss.isfinite()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert (features.grad[labels != 1] == 0).all()
    if not (labels == 1).any():
        assert loss == 0


def test_shares_of_what_is_compared_sum_to_one_and_the_rest_is_left_out() -> None:
    scores = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    among = torch.rand(5, 7) < 0.6
    among[3] = False
    shares = log_shares(scores, among)
    assert (shares[~among] == 0).all()
    sums = (shares.exp() * among).sum(1)
    torch.testing.assert_close(sums, among.any(1).double())
    shares.sum().backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert (scores.grad[~among] == 0).all()


def test_large_scores_do_not_overflow() -> None:
    scores = torch.tensor([[0.0, 2000.0, -2000.0], [2000.0, 0.0, 1.0], [-2000.0, 1.0, 0.0]])
    among = others(3, scores.device)
    loss = contrast(scores, among, among)
    assert loss.isfinite().all()
    assert float(loss[0]) == pytest.approx(2000.0)  # -((0) + (-4000)) / 2


def test_weights_stand_outside_the_logarithm() -> None:
    scores, among = torch.randn(4, 4, dtype=torch.float64), others(4, torch.device("cpu"))
    positives = among.clone()
    positives[0, 1:] = torch.tensor([True, False, False])
    weights = torch.rand(4, 4, dtype=torch.float64)
    expected = -weights[0, 1] * (scores[0, 1] - scores[0, 1:].exp().sum().log())
    torch.testing.assert_close(contrast(scores, positives, among, weights)[0], expected)


@given(seed=SEEDS)
def test_pairs_are_counted_over_labels_known_of_both(seed: int) -> None:
    _, labels = draw(seed)
    common, shared, first, second = common_counts(labels)
    index = jaccard(labels)
    for i in range(6):
        for j in range(6):
            both = [c for c in range(4) if int(labels[i, c]) >= 0 and int(labels[j, c]) >= 0]
            s, t = ({c for c in both if int(labels[row, c]) == 1} for row in (i, j))
            counts = (len(both), len(s & t), len(s), len(t))
            assert tuple(int(count[i, j]) for count in (common, shared, first, second)) == counts
            assert float(index[i, j]) == pytest.approx(len(s & t) / len(s | t) if s | t else 0.0)


def test_projected_features_have_length_one() -> None:
    projector = Projector(5, 3, torch.zeros(1, dtype=torch.float64))
    projected = projector(torch.randn(2, 4, 5, dtype=torch.float64))
    assert projected.shape == (2, 4, 3)
    torch.testing.assert_close(projected.norm(dim=2), torch.ones(2, 4, dtype=torch.float64))
