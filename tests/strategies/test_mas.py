"""MAS: importances against closed forms and one backward an image, their running mean, and upstream's cancellation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.training.plugins import MASPlugin as UpstreamMAS
from torch import nn

from cml_bench.data.inputs import TensorInputs
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.model import MultiLabelModel
from cml_bench.registry import load
from cml_bench.streams.dataset import LabelMatrix, MultiLabelDataset

MAS, Naive = load("strategies", "mas"), load("strategies", "naive")
MASPlugin = load("strategies", "cml_bench.strategies.mas:MASPlugin")


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def one_weight(weight: float) -> MultiLabelModel:
    model = MultiLabelModel(None, LinearHead(1))
    model.head.grow(["label"])
    with torch.no_grad():
        model.head.weights[0].fill_(weight)
    return model


def images(values: list[float], label: int = 1) -> MultiLabelDataset:
    labels = LabelMatrix(torch.full((len(values), 1), label, dtype=torch.int8), ("label",), 0)
    return MultiLabelDataset.from_rows(TensorInputs(torch.tensor(values)[:, None]), torch.arange(len(values)), labels)


def importance(model: MultiLabelModel, data: MultiLabelDataset, **options: Any) -> dict[str, torch.Tensor]:
    run = SimpleNamespace(generator=lambda _: torch.Generator())
    measured: dict[str, torch.Tensor] = (
        MAS(**options).plugins(run)[0].measure(SimpleNamespace(model=model, device="cpu", eval_mb_size=256), data)
    )
    return measured


@pytest.mark.parametrize(("values", "expected"), [([1.0, -1.0], 1.0), ([1.0, 2.0], 2.5)])
def test_worked_examples(values: list[float], expected: float) -> None:
    found = importance(one_weight(0.5), images(values))
    assert float(found["head.weights.0"]) == pytest.approx(expected)


def test_probabilities_have_their_own_closed_form() -> None:
    """d sigmoid(w x)^2 / dw = 2 p p (1 - p) x; at w = 0 and x = 3 that is 0.75."""
    found = importance(one_weight(0.0), images([3.0]), output="probabilities")
    assert float(found["head.weights.0"]) == pytest.approx(0.75)


def test_opposite_images_do_not_cancel() -> None:
    """z = w x + b with x = 1 and x = -1: d z^2 / db is 1 and -1."""
    assert float(importance(one_weight(0.5), images([1.0, -1.0]))["head.biases.0"]) == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore")
def test_upstream_cancels_and_measures_in_training_mode() -> None:
    """Why the suite has its own: if this ever changes upstream, this test says so."""
    model = one_weight(0.5)
    model.backbone = nn.BatchNorm1d(1, affine=False)
    model.eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    experience = SimpleNamespace(dataset=images([1.0, -1.0]))
    agent = SimpleNamespace(model=model, optimizer=optimizer, experience=experience, train_mb_size=2, device="cpu")
    found = UpstreamMAS()._get_importance(agent)
    assert float(found["head.biases.0"].data) == pytest.approx(0.0, abs=1e-6)
    assert model.training
    assert int(model.backbone.num_batches_tracked) == 1


def test_equals_one_backward_an_image_and_leaves_the_statistics(
    tiny_scenario: Any, learn: Any, on_backbone: Any
) -> None:
    learnt = learn(on_backbone(Naive()), tiny_scenario())
    model, data = learnt.model.train(), tiny_scenario().train_stream[2].dataset.eval()
    statistics = {name: value.clone() for name, value in model.named_buffers()}
    found = importance(model, data)
    assert all(torch.equal(value, statistics[name]) for name, value in model.named_buffers())
    assert all(module.training for module in model.modules())
    model.eval()
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for row in range(len(data)):
        model.zero_grad()
        model(data.batch(torch.tensor([row]))[0]).square().sum().backward()
        for name, p in model.named_parameters():
            expected[name] += p.grad.abs() / len(data)
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-4, atol=1e-5)


def test_reads_no_label() -> None:
    found = [importance(one_weight(0.5), images([1.0, 2.0], label)) for label in (1, 0, -1, -2)]
    assert all(torch.equal(found[0]["head.weights.0"], other["head.weights.0"]) for other in found[1:])


def test_running_mean_and_new_rows() -> None:
    plugin, model = MASPlugin(1.0, 0.25, None, 1, torch.Generator()), nn.Module()
    model.old, model.new = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    plugin.consolidate(model, {"old": torch.tensor([4.0])})
    plugin.consolidate(model, {"old": torch.tensor([8.0]), "new": torch.tensor([2.0])})
    assert {name: float(value) for name, value in plugin.curvature.items()} == {"old": 0.25 * 4 + 0.75 * 8, "new": 2.0}


def test_zero_strength_and_a_single_experience_are_naive(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    parts, whole = tiny_scenario(), tiny_scenario(base=6)
    for around in (lambda strategy: strategy, on_backbone):
        assert same(learn(around(MAS(mas_lambda=0.0)), parts), learn(around(Naive()), parts))
        assert same(learn(around(MAS()), whole), learn(around(Naive()), whole))


def test_the_penalty_holds_old_rows_and_the_backbone(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    """With every old label annotated anew, naive moves what a strong penalty holds."""
    scenario, drift = tiny_scenario(annotation="seen"), {}
    for strategy in (Naive(), MAS(mas_lambda=5.0)):
        learnt = learn(strategy, scenario, lr=0.01, epochs=4)
        rows = float((learnt.logits[1][:, :2] - learnt.logits[0]).abs().mean())
        early, late = (learn(on_backbone(strategy), scenario, lr=0.01, stop_after=n).state() for n in (1, 3))
        name = "backbone.0.weight"
        drift[type(strategy).__name__] = rows, float((late[name] - early[name]).norm())
    assert all(held < 0.75 * free for held, free in zip(drift["MAS"], drift["Naive"], strict=True)), drift
