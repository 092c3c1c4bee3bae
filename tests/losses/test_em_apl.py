"""EM + APL: who gets a soft label when, against a loop over labels, and what it costs from then on."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from cml_bench.labels import OUT_OF_SCOPE, UNMARKED, widen
from cml_bench.losses.em import EM
from cml_bench.losses.em_apl import EMAPL
from cml_bench.losses.entry_store import keys_of
from cml_bench.models.heads.head import HeadOutput
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.model import MultiLabelModel
from cml_bench.registry import load


def soft_labels(criterion: EMAPL, ids: list[int], width: int) -> dict[tuple[int, int], float]:
    """Soft labels by position and column."""
    numbers = criterion.soft.find(keys_of(torch.tensor(ids), width))
    return {(i, c): float(numbers[i, c]) for i, c in (~numbers.isnan()).nonzero().tolist()}


def model_of(experience: Any, seed: int = 0) -> MultiLabelModel:
    torch.manual_seed(seed)
    model = MultiLabelModel(None, LinearHead(6)).train()
    model.adaptation(experience)
    return model


def shaken(model: MultiLabelModel) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))


@pytest.mark.parametrize(
    ("epochs", "warm_up", "warm", "share"),
    [(10, 0.5, 5, 0.9), (10, 0.3, 3, 0.9), (4, 0.0, 1, 0.9), (3, 0.9, 3, 0.9), (10, 0.5, 5, 0.4), (4, 0.5, 2, 0.0)],
)
def test_the_lowest_of_each_label_are_taken(
    tiny_scenario: Any, epochs: int, warm_up: float, warm: int, share: float
) -> None:
    experience = tiny_scenario(n=90, increment=6, regime="single_positive").train_stream[0]
    dataset = experience.dataset
    ids, states = dataset.sample_ids.data.tolist(), dataset.labels.data
    model, criterion = model_of(experience), EMAPL(warm_up=warm_up, share=share)
    criterion.start_experience(dataset)
    n_open = [int((states[:, c] == UNMARKED).sum()) for c in range(6)]
    expected: dict[tuple[int, int], float] = {}
    for epoch in range(epochs):
        shaken(model)
        if epoch >= warm:
            p = model(dataset.batch(torch.arange(len(dataset)))[0]).detach().sigmoid()
            for c in range(6):
                free = [i for i in range(len(dataset)) if states[i, c] == UNMARKED and (i, c) not in expected]
                due = round(share * n_open[c] * (epoch - warm + 1) / (epochs - warm))
                for i in sorted(free, key=lambda i: float(p[i, c]))[: due - (n_open[c] - len(free))]:
                    expected[i, c] = float(p[i, c])
        criterion.start_epoch(model, dataset, epoch, epochs)
        assert soft_labels(criterion, ids, 6) == pytest.approx(expected)
    assert len(expected) == (sum(round(share * n) for n in n_open) if epochs > warm else 0)


def test_looking_leaves_no_trace(tiny_scenario: Any) -> None:
    experience = tiny_scenario(regime="single_positive").train_stream[0]
    model, criterion = model_of(experience), EMAPL()
    model.backbone = nn.BatchNorm2d(6).eval()  # frozen, in a model that trains
    before, drawn = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    criterion.start_experience(experience.dataset)
    criterion.start_epoch(model, experience.dataset, 1, 2)
    assert len(criterion.soft) > 0
    assert model.training
    assert not model.backbone.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert set(experience.dataset.labels.data.unique().tolist()) <= {1, UNMARKED}


def test_a_soft_label_costs_its_cross_entropy() -> None:
    labels = torch.tensor([[1, -1, -1, 0, -2], [-1, -1, 1, -1, -1]], dtype=torch.int8)
    criterion = EMAPL(alpha=0.1, beta=0.4)
    ids = torch.tensor([3, 8])
    # The last two: a label that was verified absent, and one that nobody asked for here.
    soft = {(0, 1): 0.2, (1, 3): 0.05, (0, 3): 0.9, (0, 4): 0.9}
    keys = keys_of(ids, 5)
    criterion.soft.put(torch.stack([keys[place] for place in soft]), torch.tensor(list(soft.values())))
    z = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    total = 0.0
    for i in range(2):
        for c in range(5):
            p, state = 1 / (1 + math.exp(-float(z[i, c]))), int(labels[i, c])
            if state == 1:
                total -= math.log(p)
            elif state == 0:
                total -= math.log(1 - p)
            elif state == UNMARKED and (i, c) in soft:
                total -= 0.4 * (soft[i, c] * math.log(p) + (1 - soft[i, c]) * math.log(1 - p))
            elif state == UNMARKED:
                total += 0.1 * (p * math.log(p) + (1 - p) * math.log(1 - p))
    output = HeadOutput(z, z)
    assert float(criterion(output, labels, ids)) == pytest.approx(total / 9)
    # Without soft labels it is EM; ids of other images find none.
    torch.testing.assert_close(criterion(output, labels, ids + 1), EM(0.1)(z, labels))


def test_soft_labels_follow_a_replayed_image() -> None:
    stored, ids = torch.tensor([[1, -1]], dtype=torch.int8), torch.tensor([5])
    criterion = EMAPL()
    criterion.soft.put(keys_of(ids, 2)[0, 1:], torch.tensor([0.1]))
    z = torch.zeros(1, 4)
    labels = widen(stored, 4)
    assert (labels[:, 2:] == OUT_OF_SCOPE).all()
    expected = (math.log(2) + 0.9 * math.log(2)) / 2
    assert float(criterion(HeadOutput(z, z), labels, ids)) == pytest.approx(expected)


class Count(SupervisedPlugin):
    """Counts soft labels when each epoch begins to train, and keeps their values at the end of each experience."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[list[int]] = []
        self.values: list[Tensor] = []
        self.keys: list[Tensor] = []

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.counts.append([])

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self.counts[-1].append(len(strategy._criterion.soft))

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.keys.append(strategy._criterion.soft.keys.clone())
        self.values.append(strategy._criterion.soft.numbers.clone())


def test_every_experience_labels_its_own_images(tiny_scenario: Any, learn: Any) -> None:
    scenario = tiny_scenario(regime="single_positive")
    count = Count()
    method = load("strategies", "er")(memory_size=20)
    learn(method, scenario, epochs=4, lr=0.01, criterion=EMAPL(warm_up=0.5), extra=[count])
    before = 0
    for t, experience in enumerate(scenario.train_stream):
        states = experience.dataset.labels.data
        n_open = [int((states[:, c] == UNMARKED).sum()) for c in range(states.shape[1])]
        half, whole = sum(round(0.9 * n / 2) for n in n_open), sum(round(0.9 * n) for n in n_open)
        assert count.counts[t] == [before, before, before + half, before + whole]
        before += whole
        if t:
            old = dict(zip(count.keys[t - 1].tolist(), count.values[t - 1].tolist(), strict=True))
            new = dict(zip(count.keys[t].tolist(), count.values[t].tolist(), strict=True))
            assert old.items() <= new.items()


def test_a_single_epoch_has_no_soft_labels(tiny_scenario: Any, learn: Any) -> None:
    criterion = EMAPL(warm_up=0)
    learn(load("strategies", "naive")(), tiny_scenario(regime="single_positive"), epochs=1, criterion=criterion)
    assert len(criterion.soft) == 0
