"""C-GMVAE: the loss term by term against torch.distributions and loops, and the head it is about."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.losses.c_gmvae import CGMVAE, known_costs, present_costs
from cml_bench.models.heads.c_gmvae import CGMVAEHead, sample
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.model import MultiLabelModel
from cml_bench.registry import load
from cml_bench.runs.job import make_jobs
from cml_bench.runs.plan import plan
from cml_bench.testing.heads import check_head

STATES = [(1, 0, -1, -2), (0, -1, -2), (1,), (0,), (-2,), (1, -2)]
D, N = 6, 4


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        yield


def ready(dropout: float = 0.0, **options: float) -> tuple[CGMVAE, CGMVAEHead]:
    head = CGMVAEHead(D, latent=3, embedding=8, dropout=dropout)
    head.grow(["a", "b"])
    head.grow(["c", "d"])
    criterion = CGMVAE(**options)
    criterion.build(MultiLabelModel(None, head), None)  # type: ignore[arg-type]
    return criterion, head.train()


def draw(seed: int, states: tuple[int, ...] = STATES[0]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(states), (5, N), generator=generator)
    return torch.randn(5, D, generator=generator), torch.tensor(states, dtype=torch.int8)[drawn]


@given(seed=st.integers(0, 2**31))
def test_costs_against_loops(seed: int) -> None:
    _, labels = draw(seed)
    logits = torch.randn(5, N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    known, present = known_costs(logits, labels), present_costs(logits, labels)
    for i in range(5):
        asked = [c for c in range(N) if int(labels[i, c]) >= 0]
        there = [c for c in asked if int(labels[i, c]) == 1]
        p = {c: 1 / (1 + math.exp(-float(logits[i, c]))) for c in asked}
        assert float(known[i]) == pytest.approx(-sum(math.log(p[c] if c in there else 1 - p[c]) for c in asked))
        below = sum(math.exp(float(logits[i, c])) for c in asked)
        total = -sum(math.log(math.exp(float(logits[i, c])) / below) for c in there)
        assert float(present[i]) == pytest.approx(total / max(1, len(there)))


def test_divergence_is_that_from_torchs_uniform_mixture() -> None:
    criterion, head = ready(divergence=1.0)
    features, labels = draw(0)
    torch.manual_seed(9)
    with_it = criterion(head(features), labels)
    criterion.divergence = 0.0
    torch.manual_seed(9)
    without = criterion(head(features), labels)
    # The last of the draws that both made, one in the head and three in the loss.
    torch.manual_seed(9)
    mean, log_variance = head.encode(features)
    drawn = [sample(mean, log_variance) for _ in range(4)][-1]
    own = Independent(Normal(mean, (log_variance / 2).exp()), 1).log_prob(drawn)
    means, log_variances = head.label_gaussians()
    total = 0.0
    for i in range(5):
        there = (labels[i] == 1).nonzero()[:, 0]
        if len(there):
            parts = Independent(Normal(means[there], (log_variances[there] / 2).exp()), 1)
            mixture = MixtureSameFamily(Categorical(torch.ones(len(there))), parts)
            total += float(own[i].detach()) - float(mixture.log_prob(drawn[i]).detach())
    assert float((with_it - without).detach()) == pytest.approx(total / 5, rel=1e-4)


def test_without_noise_the_loss_is_its_terms() -> None:
    """Variances of nearly 0: every draw is the mean."""
    criterion, head = ready(divergence=0.0)
    with torch.no_grad():
        head.feature_gaussian.weight[3:] = 0
        head.feature_gaussian.bias[3:] = -60
    features, labels = draw(1, (1, 0))
    labels[:, 0], labels[0] = 1, 0
    output = head(features)
    means, _ = head.label_gaussians()
    shares = (labels == 1) / (labels == 1).sum(1, keepdim=True).clamp(min=1)
    from_labels = head.score(head.decode(features, shares @ means))
    target, rows = labels.float(), labels.any(1)
    images = F.binary_cross_entropy_with_logits(output.logits, target, reduction="none").sum(1)
    texts = F.binary_cross_entropy_with_logits(from_labels, target, reduction="none").sum(1)
    near = present_costs(from_labels, labels) + present_costs(output.logits, labels)
    expected = (0.5 * (2 * images + rows * texts) + near / 2).mean()
    torch.testing.assert_close(criterion(output, labels), expected)
    assert not rows[0]


@given(seed=st.integers(0, 2**31), states=st.sampled_from(STATES))
def test_rows_without_positives_stay_finite(seed: int, states: tuple[int, ...]) -> None:
    criterion, head = ready()
    features, labels = draw(seed, states)
    loss = criterion(head(features.requires_grad_()), labels)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())
    assert features.grad is not None
    assert (features.grad[(labels < 0).all(1)] == 0).all()


def test_labels_that_a_row_lacks_are_not_read() -> None:
    criterion, head = ready()
    features, labels = draw(2)
    labels[:, 2:] = -2
    losses = []
    for rows in (labels, labels[:, :2]):
        torch.manual_seed(1)
        losses.append(criterion(head(features), rows))
    torch.testing.assert_close(*losses)


def test_the_embedding_has_length_one_and_evaluation_no_noise() -> None:
    _, head = ready(dropout=0.5)
    features = torch.randn(3, D, 2, 2)
    pooled = features.mean((2, 3))
    mean, _ = head.encode(pooled)
    torch.testing.assert_close(head.decode(pooled, mean).norm(dim=1), torch.ones(3))
    assert not torch.equal(head(features).logits, head(features).logits)
    head.eval()
    torch.testing.assert_close(head(features).logits, head.score(head.decode(pooled, head.encode(pooled)[0])))


def test_the_head_keeps_the_rules() -> None:
    check_head("c_gmvae")


def test_the_criterion_has_no_parameters_and_needs_its_head(tiny_scenario: Any, learn: Any) -> None:
    criterion, _ = ready()
    assert not list(criterion.parameters())
    with pytest.raises(CmlBenchError, match="head=linear has not"):
        learn(load("strategies", "naive")(), tiny_scenario(spatial=False), criterion=CGMVAE())
    with pytest.raises(CmlBenchError, match="head=linear has not"):
        CGMVAE().build(MultiLabelModel(None, LinearHead(D)), None)  # type: ignore[arg-type]


def test_a_head_that_takes_the_place_of_another_is_found() -> None:
    criterion, _ = ready()
    model = MultiLabelModel(None, CGMVAEHead(D))
    criterion.start_epoch(model, None, 0, 1)  # type: ignore[arg-type]
    assert criterion._head == [model.head]


def test_another_head_is_refused_before_anything_runs() -> None:
    (job,) = make_jobs(["digits"], ["naive loss=c_gmvae"], ["default"], [0], [])
    with pytest.raises(CmlBenchError, match="head=linear has not: set head=c_gmvae"):
        plan(job)
    (job,) = make_jobs(["digits"], ["naive head=c_gmvae loss=c_gmvae"], ["default"], [0], [])
    assert plan(job).describe()["loss"] == "C-GMVAE"


@pytest.mark.parametrize("options", [{"latent": 0}, {"embedding": 0}, {"dropout": 1.0}])
def test_bad_options_of_the_head_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(CmlBenchError, match="of the c_gmvae head"):
        CGMVAEHead(D, **options)


@pytest.mark.parametrize("options", [{"coefficient": 0.0}, {"divergence": -1.0}])
def test_bad_options_of_the_loss_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(CmlBenchError, match=f"c_gmvae: {next(iter(options))}="):
        CGMVAE(**options)


def test_a_draw_has_the_standard_deviation() -> None:
    drawn = sample(torch.zeros(20_000), torch.full((20_000,), math.log(9.0)))
    assert float(drawn.std()) == pytest.approx(3, rel=0.05)


def test_dropout_is_that_of_the_head() -> None:
    head = CGMVAEHead(6, dropout=0.3)
    assert {part.p for part in head.modules() if isinstance(part, torch.nn.Dropout)} == {0.3}
