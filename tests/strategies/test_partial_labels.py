"""Regularisers on partial labels, each against its closed form for a linear head: unmarked entries count for nothing.

With features f, logits ``z = W f + b`` and known entries K, the gradient of one image's likelihood in row c is
``K_c (p_c - y_c) f``, that of the mean loss of a batch ``sum_n K_nc (p_nc - y_nc) f_n / sum K``.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, kl_div

from cml_bench.labels import UNMARKED
from cml_bench.registry import load

OPTIONS: dict[str, dict[str, Any]] = {
    "ewc": {"fisher": "empirical"},
    "ewc_online": {"fisher": "empirical", "gamma": 0.7},
    "si": {},
    "mas": {},
    "rwalk": {"window": 3},
    "lwf": {"temperature": 1.0},
}


def partial(tiny_scenario: Any) -> Any:
    scenario = tiny_scenario(n=60, regime="partial_labels known=0.5")
    states = torch.cat([e.dataset.labels.data[:, e.dataset.labels.first_new :] for e in scenario.train_stream])
    assert 0.3 < float((states == UNMARKED).float().mean()) < 0.7
    return scenario


def rows_of(model: Any) -> Tensor:
    """(n, d + 1) weights and biases."""
    return torch.cat([torch.cat(list(model.head.weights)), torch.cat(list(model.head.biases))[:, None]], dim=1).detach()


def extended(x: Tensor) -> Tensor:
    """(B, d + 1) pooled features and a 1."""
    return torch.cat([x.mean(dim=(2, 3)), torch.ones(len(x), 1)], dim=1)


def stacked(found: dict[str, Tensor], n: int) -> Tensor:
    """(n, d + 1) of what a plugin keeps by parameter name."""
    blocks = [(found[f"head.weights.{t}"], found[f"head.biases.{t}"]) for t in range(n // 2)]
    return torch.cat([torch.cat([weight, bias[:, None]], dim=1) for weight, bias in blocks])


def squared_gradients(rows: Tensor, x: Tensor, labels: Tensor) -> Tensor:
    """(n, d + 1) mean over images of each one's squared gradient of its likelihood."""
    f = extended(x)
    miss = ((f @ rows.T).sigmoid() - (labels == 1).float()) * (labels >= 0)
    return (miss[:, :, None] * f[:, None]).square().mean(dim=0)


class ByHand(SupervisedPlugin):
    """Works out what each regulariser should hold."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.held = torch.zeros(0, 7)
        self.compared = 0
        self.path = torch.zeros(0, 7)
        self.fisher = torch.zeros(0, 7)
        self.earlier = self.gradient = torch.zeros(0)

    def padded(self, values: Tensor, n: int) -> Tensor:
        return torch.cat([values, torch.zeros(n - len(values), 7)])

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.start = rows_of(strategy.model)
        self.path = torch.zeros_like(self.start)

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        rows, n = rows_of(strategy.model), len(rows_of(strategy.model))
        new = squared_gradients(rows, strategy.mb_x, strategy.mb_y)
        old = self.padded(self.fisher, n)
        born = torch.arange(n) >= len(self.fisher)
        old[born] = new[born]
        self.fisher = 0.9 * new + 0.1 * old

    def after_backward(self, strategy: Any, **kwargs: Any) -> None:
        f, known = extended(strategy.mb_x), strategy.mb_y >= 0
        miss = (strategy.mb_output.detach().sigmoid() - (strategy.mb_y == 1).float()) * known
        self.gradient = miss.T @ f / known.sum().clamp(min=1)
        self.earlier = rows_of(strategy.model)

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        self.path -= self.gradient * (rows_of(strategy.model) - self.earlier)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        rows, dataset, plugin = rows_of(strategy.model), strategy.experience.dataset.eval(), strategy.plugins[0]
        n, batch = len(rows), dataset.batch(torch.arange(len(dataset)))
        if self.name in ("ewc", "ewc_online"):
            fading = 1.0 if self.name == "ewc" else 0.7
            self.held = fading * self.padded(self.held, n) + squared_gradients(rows, batch[0], batch[1])
        elif self.name == "mas":
            f = extended(batch[0])
            new = (2 * (f @ rows.T)[:, :, None] * f[:, None]).abs().mean(dim=0)
            born = torch.arange(n)[:, None] >= len(self.held)
            alpha = plugin.alpha
            self.held = torch.where(born, new, alpha * self.padded(self.held, n) + (1 - alpha) * new)
        elif self.name == "si":
            moved = (rows - self.start).square()
            self.held = self.padded(self.held, n) + self.path.clamp(min=0) / (moved + 1e-3)
        else:
            return
        found = stacked(plugin.curvature, n)
        assert torch.allclose(found, self.held, rtol=2e-3, atol=2e-6)
        self.compared += 1


@pytest.mark.parametrize("name", ["ewc", "ewc_online", "mas", "si"])
def test_importance(tiny_scenario: Any, learn: Any, name: str) -> None:
    by_hand = ByHand(name)
    learn(load("strategies", name)(**OPTIONS[name]), partial(tiny_scenario), extra=[by_hand])
    assert by_hand.compared == 3


def test_the_running_fisher_information_of_rwalk(tiny_scenario: Any, learn: Any) -> None:
    class Running(ByHand):
        def before_backward(self, strategy: Any, **kwargs: Any) -> None:
            assert torch.allclose(
                stacked(strategy.plugins[0].fisher, len(self.fisher)), self.fisher, rtol=1e-3, atol=1e-7
            )
            self.compared += 1

    by_hand = Running("rwalk")
    learn(load("strategies", "rwalk")(**OPTIONS["rwalk"]), partial(tiny_scenario), extra=[by_hand])
    assert by_hand.compared > 10


def test_lwf_distils_what_is_not_annotated(tiny_scenario: Any, learn: Any) -> None:
    """Old entries without an annotation, whatever the reason, against the divergence of two coins each."""

    class Loss(ByHand):
        old: Tensor | None = None

        def before_backward(self, strategy: Any, **kwargs: Any) -> None:
            logits, labels = strategy.mb_output.detach(), strategy.mb_y
            known = labels >= 0
            terms = binary_cross_entropy_with_logits(logits, (labels == 1).float(), reduction="none") * known
            expected = float(terms.sum() / known.sum().clamp(min=1))
            if self.old is not None:
                m = len(self.old)
                q, p = (extended(strategy.mb_x) @ self.old.T).sigmoid(), logits[:, :m].sigmoid()
                coins = [torch.stack([c, 1 - c], dim=-1) for c in (p, q)]
                divergence = kl_div(coins[0].log(), coins[1], reduction="none").sum(dim=-1)
                unknown = ~known[:, :m]
                expected += float((divergence * unknown).sum() / unknown.sum().clamp(min=1))
                self.compared += 1
            assert strategy.loss.item() == pytest.approx(expected, rel=1e-3, abs=1e-6)

        def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            self.old = rows_of(strategy.model)

    by_hand = Loss("lwf")
    learn(load("strategies", "lwf")(**OPTIONS["lwf"]), partial(tiny_scenario), extra=[by_hand])
    assert by_hand.compared > 10


def test_feature_distillation_reads_no_label(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    """The criterion's mean over marked entries, and the distance of features: unmarked images count in the second."""

    class Loss(SupervisedPlugin):
        compared = 0

        def before_backward(self, strategy: Any, **kwargs: Any) -> None:
            teacher = strategy.plugins[0].teacher
            known, labels = strategy.mb_y >= 0, (strategy.mb_y == 1).float()
            terms = binary_cross_entropy_with_logits(strategy.mb_output.detach(), labels, reduction="none") * known
            expected = float(terms.sum() / known.sum().clamp(min=1))
            if teacher is not None:
                now = strategy.head_output.pooled.detach()
                with torch.no_grad():
                    before = teacher.backbone(strategy.mb_x).mean(dim=(2, 3))
                expected += 3.0 * float((now - before).square().sum() / before.square().sum())
                self.compared += 1
            assert strategy.loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)

    by_hand = Loss()
    strategy = load("strategies", "feature_distillation")(weight=3.0)
    learn(on_backbone(strategy), partial(tiny_scenario), extra=[by_hand])
    assert by_hand.compared > 10


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_what_lies_behind_an_unmarked_entry_is_not_read(tiny_scenario: Any, learn: Any, name: str) -> None:
    """An unmarked entry says as much as one that nobody was asked for: bit for bit the same weights."""
    states = []
    for replaced in (UNMARKED, -2):
        scenario = partial(tiny_scenario)
        for experience in scenario.train_stream:
            data = experience.dataset.labels.data
            data[data == UNMARKED] = replaced
        states.append(learn(load("strategies", name)(**OPTIONS[name]), scenario).state())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
