"""The Similarity-Dissimilarity loss against the paper's factors in loops, its baselines, and SupCon."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cml_bench.errors import CmlBenchError
from cml_bench.losses.bce import BCE
from cml_bench.losses.contrast import common_counts
from cml_bench.losses.similarity_dissimilarity import Partners, SimilarityDissimilarity, agreement
from cml_bench.models.heads.head import HeadOutput
from cml_bench.registry import load


def draw(seed: int, states: tuple[int, ...] = (1, 0, -1, -2), images: int = 6) -> tuple[HeadOutput, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits, pooled = (torch.randn(images, n, generator=generator, dtype=torch.float64) for n in (4, 5))
    drawn = torch.randint(len(states), (images, 4), generator=generator)
    return HeadOutput(logits, pooled.requires_grad_()), torch.tensor(states, dtype=torch.int8)[drawn]


def in_loops(features: Tensor, labels: Tensor, temperature: float, partners: str) -> float:
    n, total, anchors = len(labels), 0.0, 0
    for i in range(n):
        known = {c for c in range(4) if int(labels[i, c]) >= 0}
        whole = {c for c in known if int(labels[i, c]) == 1}
        if not whole:
            continue
        anchors += 1
        compared, drawn = {}, []
        for j in range(n):
            both = known & {c for c in range(4) if int(labels[j, c]) >= 0}
            if j == i or not both:
                continue
            compared[j] = float(features[i] @ features[j]) / temperature
            s, t = whole & both, {c for c in both if int(labels[j, c]) == 1}
            if s & t and (partners != "all" or s == t):
                weight = len(s & t) / len(s) / (1 + len(t - s)) if partners == "graded" else 1.0
                drawn.append((weight, j))
        if drawn:
            denominator = math.log(sum(math.exp(score) for score in compared.values()))
            total -= sum(weight * (compared[j] - denominator) for weight, j in drawn) / len(drawn)
    return total / max(1, anchors)


@given(seed=st.integers(0, 2**31), partners=st.sampled_from(["graded", "any", "all"]))
def test_against_loops(seed: int, partners: Partners) -> None:
    output, labels = draw(seed)
    criterion = SimilarityDissimilarity(weight=2.0, temperature=0.3, partners=partners)
    loss = (criterion(output, labels) - BCE()(output.logits, labels)).detach()
    assert criterion.projector is not None
    features = criterion.projector(output.pooled).detach()
    assert float(loss) == pytest.approx(2 * in_loops(features, labels, 0.3, partners), rel=1e-5, abs=1e-6)


def test_equal_sets_weigh_one_and_others_less_and_not_both_ways_alike() -> None:
    labels = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]], dtype=torch.int8)
    _, shared, first, second = common_counts(labels)
    weights = agreement(shared, first, second)
    assert weights[0, 1] == weights[1, 0] == 1
    assert float(weights[0, 2]) == pytest.approx(1 / 2)
    assert float(weights[2, 0]) == pytest.approx(2 / 3)
    assert float(weights[0, 3]) == pytest.approx(1 / 2 * 1 / 2)


def test_one_label_an_image_is_supcon_however_partners_are_chosen() -> None:
    output, _ = draw(0)
    labels = torch.nn.functional.one_hot(torch.tensor([0, 1, 0, 2, 1, 0]), 4).to(torch.int8)
    criteria = [SimilarityDissimilarity(partners=partners) for partners in ("graded", "any", "all")]
    criteria[0].fit(output)
    for criterion in criteria:
        criterion.projector = criteria[0].projector
    losses = [criterion(output, labels) for criterion in criteria]
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], losses[2])


def test_images_of_experiences_without_a_common_label_are_strangers() -> None:
    output, _ = draw(1, images=4)
    labels = torch.tensor([[1, 1, -2, -2], [1, 0, -2, -2], [-2, -2, 1, 1], [-2, -2, 0, 1]], dtype=torch.int8)
    criterion = SimilarityDissimilarity(weight=1.0)
    criterion(output, labels)
    both = criterion.term(output, labels, None, 0, None)
    halves = [criterion.term(output.rows(part), labels[part], None, 0, None) for part in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(both, sum(halves) / 2)


def test_a_second_view_is_another_image_of_the_same_labels() -> None:
    (one, labels), (two, _) = draw(2), draw(3)
    criterion = SimilarityDissimilarity()
    both = criterion.term(one, labels, None, 0, two)
    doubled = HeadOutput(torch.cat([one.logits, two.logits]), torch.cat([one.pooled, two.pooled]))
    torch.testing.assert_close(both, criterion.term(doubled, torch.cat([labels, labels]), None, 0, None))


@given(seed=st.integers(0, 2**31), states=st.sampled_from([(0, -1, -2), (1,), (0,), (-2,), (1, -2)]))
def test_rows_without_positives_stay_finite(seed: int, states: tuple[int, ...]) -> None:
    output, labels = draw(seed, states)
    loss = SimilarityDissimilarity()(output, labels)
    loss.backward()
    assert loss.isfinite()
    assert output.pooled.grad is not None
    assert output.pooled.grad.isfinite().all()
    if not (labels == 1).any():
        assert (output.pooled.grad == 0).all()


def test_it_trains_through_a_stream(tiny_scenario: Any, learn: Any) -> None:
    criterion = SimilarityDissimilarity()
    learn(load("strategies", "naive")(), tiny_scenario(spatial=False), criterion=criterion)
    assert criterion.projector is not None
    assert all(parameter.grad is not None for parameter in criterion.projector.parameters())


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"projection": 0}, {"partners": "some"}])
def test_bad_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(CmlBenchError, match=f"similarity_dissimilarity: {next(iter(options))}="):
        SimilarityDissimilarity(**options)
