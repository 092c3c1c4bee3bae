"""Feature distillation: the distance by hand, what it holds, and when it is naive or refuses."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from cml_bench.data.inputs import TensorInputs
from cml_bench.errors import CmlBenchError
from cml_bench.losses.assume_negative import AssumeNegative
from cml_bench.losses.bce import BCE
from cml_bench.registry import load
from cml_bench.runs.check import check_jobs

FeatureDistillation, Naive = load("strategies", "feature_distillation"), load("strategies", "naive")
relative_distance = load("strategies", "cml_bench.strategies.feature_distillation:relative_distance")


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_worked_example() -> None:
    before, now = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[3.0, 3.0], [2.0, 0.0]])
    assert float(relative_distance(now, before)) == pytest.approx((1 + 4) / 25)
    assert float(relative_distance(10 * now, 10 * before)) == pytest.approx(5 / 25)
    assert float(relative_distance(before * 0, before * 0)) == 0.0


def test_features_stay_and_labels_are_left_to_the_criterion(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    scenario, moved = tiny_scenario(n=80), {}
    images = scenario.train_stream[0].dataset.eval().batch(torch.arange(10))[0]
    for weight in (0.0, 3.0):
        backbone = on_backbone(FeatureDistillation(weight=weight), batch_norm=False)
        early, late = (learn(backbone, scenario, epochs=4, lr=0.02, stop_after=n) for n in (1, 3))
        with torch.no_grad():
            now, before = (learnt.model.backbone(images).mean((2, 3)) for learnt in (late, early))
        moved[weight] = float(relative_distance(now, before))
        assert late.run.criterion.spare == 0
    assert moved[3.0] < 0.1 * moved[0.0]


def test_zero_weight_and_a_single_experience_are_naive(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    parts, whole = tiny_scenario(), tiny_scenario(base=6)
    assert same(learn(on_backbone(FeatureDistillation()), whole), learn(on_backbone(Naive()), whole))
    assert not same(learn(on_backbone(FeatureDistillation()), parts), learn(on_backbone(Naive()), parts))
    settings = {"criterion": AssumeNegative("bce", "seen")}
    silent = learn(on_backbone(FeatureDistillation(weight=0.0)), parts, **settings)
    assert same(silent, learn(on_backbone(Naive()), parts, **settings))


@pytest.mark.parametrize("name", ["feature_distillation", "podnet"])
def test_a_second_view_of_the_images_is_not_distilled(
    tiny_scenario: Any, learn: Any, on_backbone: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A criterion that compares views has the backbone read each image twice; the old model reads it once."""

    class TwoViews(BCE):
        meta = replace(BCE.meta, views=2)

    class Compared(SupervisedPlugin):
        steps = 0

        def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            plugin = strategy.plugins[0]

            def distance(now: Any, before: Any, strategy: Any) -> Any:
                with torch.no_grad():
                    expected = [model.backbone(strategy.mb_x) for model in (strategy.model, plugin.teacher)]
                assert torch.allclose(now, expected[0], atol=1e-6)
                assert torch.equal(before, expected[1])
                assert strategy.second_view is not None
                self.steps += 1
                return type(plugin).distance(plugin, now, before, strategy)

            plugin.distance = distance

    monkeypatch.setattr(TensorInputs, "augments", True)
    compared = Compared()
    # Without batch norm an image's features are its own.
    backbone = on_backbone(load("strategies", name)(), batch_norm=False)
    learn(backbone, tiny_scenario(), criterion=TwoViews(), extra=[compared])
    assert compared.steps > 10


def test_of_a_pyramid_the_first_view_of_the_coarsest_map_is_distilled() -> None:
    """Two views of three images, in levels of two sizes."""
    fine, coarse, old = torch.rand(6, 2, 4, 4), torch.rand(6, 5, 2, 2), torch.rand(3, 5, 2, 2)
    plugin = FeatureDistillation(weight=2.0).plugins(None)[0]
    plugin.teacher = SimpleNamespace(backbone=lambda images: (fine[:3], old), bf16=False)
    plugin._hear(None, (), (fine, coarse))
    strategy = SimpleNamespace(mb_x=torch.zeros(3, 3, 8, 8), loss=torch.zeros(()))
    plugin.before_backward(strategy)
    now, before = coarse[:3].mean((2, 3)), old.mean((2, 3))
    torch.testing.assert_close(strategy.loss, 2 * (now - before).square().sum() / before.square().sum())


def test_nothing_listens_between_experiences(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    learnt = learn(on_backbone(FeatureDistillation()), tiny_scenario())
    plugin = learnt.plugins[0]
    for model in (learnt.model, plugin.teacher):
        assert not model.backbone._forward_hooks
    assert plugin.seen is None
    assert all(torch.equal(value, learnt.state()[name]) for name, value in plugin.teacher.state_dict().items())


@pytest.mark.parametrize("name", ["feature_distillation", "podnet"])
def test_fixed_features_are_refused_before_anything_runs(small_jobs: Any, name: str) -> None:
    with pytest.raises(CmlBenchError, match=f"{name} holds .* set frozen=false, or take lwf"):
        check_jobs(small_jobs([f"{name} frozen=true"]))
    check_jobs(small_jobs([f"{name} frozen=false"]))
