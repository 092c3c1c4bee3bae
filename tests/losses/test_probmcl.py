"""ProbMCL: its two phases in a real training loop, its contrast in loops, the limits of alpha."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cml_bench.errors import CmlBenchError
from cml_bench.losses.asl import ASL
from cml_bench.losses.mixture import similarity
from cml_bench.losses.probmcl import ProbMCL
from cml_bench.models.heads.head import HeadOutput
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.model import MultiLabelModel
from cml_bench.registry import load
from cml_bench.training.template import MultiLabelTemplate

STATES = [(1, 0, -1, -2), (0, -1, -2), (1,), (-2,), (1, -2)]


def draw(seed: int, states: tuple[int, ...] = STATES[0]) -> tuple[HeadOutput, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits, pooled = (torch.randn(6, n, generator=generator, dtype=torch.float64, requires_grad=True) for n in (4, 5))
    drawn = torch.randint(len(states), (6, 4), generator=generator)
    return HeadOutput(logits, pooled), torch.tensor(states, dtype=torch.int8)[drawn]


def pcl(alike: Tensor, labels: Tensor, alpha: float, temperature: float) -> float:
    n, total = len(labels), 0.0
    for i in range(n):
        partners, compared = [], {}
        for j in range(n):
            both = [c for c in range(4) if int(labels[i, c]) >= 0 and int(labels[j, c]) >= 0]
            if i == j or not both:
                continue
            compared[j] = math.exp(float(alike[i, j]) / temperature)
            s, t = ({c for c in both if int(labels[row, c]) == 1} for row in (i, j))
            if s | t and len(s & t) / len(s | t) >= alpha:
                partners.append(j)
        total -= sum(math.log(compared[j] / sum(compared.values())) for j in partners) / max(1, len(partners))
    return total / n


@given(seed=st.integers(0, 2**31), alpha=st.sampled_from([1e-9, 0.5, 1.0]))
def test_contrast_against_loops(seed: int, alpha: float) -> None:
    _, labels = draw(seed)
    alike = torch.rand(6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    criterion = ProbMCL(alpha=alpha)
    assert float(criterion.overlap_contrast(alike, labels)) == pytest.approx(pcl(alike, labels, alpha, 0.2), abs=1e-12)


def test_limits_of_alpha() -> None:
    """Above 0 any shared label makes partners, at 1 equal sets alone do."""
    labels = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 1, 1], [0, 0, 0]], dtype=torch.int8)
    alike = torch.rand(4, 4, dtype=torch.float64, requires_grad=True)
    for alpha, partners in ((1e-9, {(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)}), (1.0, {(0, 1), (1, 0)})):
        (gradient,) = torch.autograd.grad(ProbMCL(alpha=alpha).overlap_contrast(alike, labels), alike)
        # A partner is drawn near; what is only compared is pushed away.
        assert {(i, j) for i, j in (gradient < 0).nonzero().tolist()} <= partners
        anchors = {i for i, _ in partners}
        assert {i for i in range(4) if gradient[i].abs().sum() > 0} == anchors


@given(seed=st.integers(0, 2**31), states=st.sampled_from(STATES))
def test_the_first_phase_is_finite_and_leaves_the_classifier(seed: int, states: tuple[int, ...]) -> None:
    output, labels = draw(seed, states)
    view, _ = draw(seed + 1)
    criterion = ProbMCL()
    for second in (None, view):
        loss = criterion(output, labels, None, 0, second)
        loss.backward()
        assert loss.isfinite()
    assert output.logits.grad is None  # the classifier learns in the second phase alone
    assert output.pooled.grad is not None
    assert output.pooled.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in criterion.parameters())


def test_likelihood_is_that_of_torchs_mixture() -> None:
    output, labels = draw(3)
    criterion = ProbMCL(weight=0.0)
    labels[2] = -2
    loss = criterion(output, labels)
    asked = (labels > -2).any(dim=1)
    means, variances = criterion.components(output.pooled)
    spread = (variances[..., None].expand(-1, -1, 5)).sqrt()
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=criterion.weight_rows(output.pooled)),
        torch.distributions.Independent(torch.distributions.Normal(means[..., None].expand(-1, -1, 5), spread), 1),
    )
    torch.testing.assert_close(loss, -mixture.log_prob(output.pooled)[asked].mean())


def test_likelihood_does_not_reach_the_encoder() -> None:
    output, labels = draw(4)
    criterion = ProbMCL(weight=0.0)
    criterion(output, labels).backward()
    assert output.pooled.grad is not None
    assert (output.pooled.grad == 0).all()
    assert all(p.grad is not None and (p.grad != 0).any() for p in criterion.parameters())


def encoder() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())


class Watch(SupervisedPlugin):
    """Notes what changes in each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[dict[str, Tensor]] = []
        self.changed: list[set[str]] = []
        self.released: list[bool] = []

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self.states.append({name: value.clone() for name, value in strategy.model.state_dict().items()})

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        state = strategy.model.state_dict()
        self.changed.append({name for name, value in self.states[-1].items() if not torch.equal(state[name], value)})

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        trained = [parameter.requires_grad for parameter in strategy.model.parameters()]
        self.released.append(all(trained) and strategy.model.backbone[1].training)


def train(scenario: Any, criterion: ProbMCL, epochs: int) -> Watch:
    torch.manual_seed(0)
    model = MultiLabelModel(encoder(), LinearHead(8))
    model.train()
    model.adaptation(scenario.train_stream[0])
    watch = Watch()
    template = MultiLabelTemplate(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1),
        criterion=criterion,
        train_mb_size=20,
        train_epochs=epochs,
        eval_mb_size=16,
        generator=torch.Generator().manual_seed(0),
        plugins=[watch],
    )
    for experience in scenario.train_stream[:2]:
        template.train(experience, eval_streams=[])
    return watch


def test_the_second_phase_leaves_the_encoder_as_it_is(tiny_scenario: Any) -> None:
    criterion = ProbMCL()
    watch = train(tiny_scenario(spatial=False), criterion, 3)
    phases = [any(name.startswith("backbone") for name in changed) for changed in watch.changed]
    assert phases == [True, True, False] * 2  # round(1.5) = 2 epochs for the encoder
    heads = [any(name.startswith("head") for name in changed) for changed in watch.changed]
    assert heads == [False, False, True] * 2
    assert watch.released == [True, True]
    assert [len(block) for block in criterion.weight_rows.biases] == [2, 2]


@pytest.mark.parametrize(("share", "expected"), [(0.01, [True, False, False]), (0.99, [True, True, False])])
def test_each_phase_gets_an_epoch(tiny_scenario: Any, share: float, expected: list[bool]) -> None:
    watch = train(tiny_scenario(spatial=False), ProbMCL(encoder_share=share), 3)
    assert [any(name.startswith("backbone") for name in changed) for changed in watch.changed][:3] == expected


def test_one_epoch_is_refused(tiny_scenario: Any) -> None:
    with pytest.raises(CmlBenchError, match="two phases, but experiences have epochs=1"):
        train(tiny_scenario(spatial=False), ProbMCL(), 1)


def test_the_second_phase_is_the_base() -> None:
    (one, labels), (two, _) = draw(5), draw(6)
    criterion = ProbMCL()
    criterion.classifying = True
    expected = (ASL()(one.logits, labels) + ASL()(two.logits, labels)) / 2
    torch.testing.assert_close(criterion(one, labels, None, 1, two), expected)


def test_it_learns_in_the_runner(tiny_scenario: Any, learn: Any) -> None:
    learnt = learn(load("strategies", "naive")(), tiny_scenario(spatial=False), criterion=ProbMCL(), lr=0.01)
    assert all(logits.isfinite().all() for logits in learnt.logits)


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"alpha": 1.5}, {"temperature": 0.0}, {"encoder_share": 1.0}])
def test_bad_options_are_named(options: dict[str, float]) -> None:
    with pytest.raises(CmlBenchError, match=f"probmcl: {next(iter(options))}="):
        ProbMCL(**options)  # type: ignore[arg-type]


def test_the_first_phase_in_two_views() -> None:
    """Both views of an image go by its labels; the two terms are added."""
    (one, labels), (two, _) = draw(1), draw(2)
    criterion = ProbMCL(weight=0.7, temperature=0.5).double()
    found = criterion(one, labels, None, 0, two)
    features, twice = torch.cat([one.pooled, two.pooled]), torch.cat([labels, labels])
    alike = similarity(*criterion.mixture(features), 5).detach()
    expected = criterion.unlikelihood(features.detach(), twice) + 0.7 * pcl(alike, twice, criterion.alpha, 0.5)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
