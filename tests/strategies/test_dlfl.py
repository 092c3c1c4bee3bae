"""DLFL as a method: label features of old labels are held where the old model had them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from cml_bench.registry import load

DLFL, Naive = load("strategies", "dlfl"), load("strategies", "naive")


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Increment(SupervisedPlugin):
    """What the strategy adds to the criterion, against the same thing worked out anew."""

    def __init__(self, feature_weight: float, logit_weight: float, margin: float = 0.0) -> None:
        super().__init__()
        self.weights = feature_weight, logit_weight
        self.margin = margin
        self.teacher: Any = None
        self.added: list[tuple[int, float, float]] = []

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        t = strategy.clock.train_exp_counter
        added = float((strategy.loss.sum() - strategy.criterion()).detach())
        plugin = next(p for p in strategy.plugins if type(p).__name__ == "LabelFeaturePlugin")
        expected = 0.0
        if plugin.teacher is not None:
            with torch.no_grad():
                old, new = plugin.teacher.head_output(strategy.mb_x), strategy.model.head_output(strategy.mb_x)
            n = old.logits.shape[1]
            a, b = old.label_features, new.label_features
            a, b = (old.pooled, new.pooled) if a is None else (a, b[:, :n])
            distance = float(sum((x - y) ** 2 for x, y in zip(a.flatten(), b.flatten(), strict=True)))
            expected += self.weights[0] * distance / float(a.square().sum())
            p, q = torch.sigmoid(old.logits.double() - self.margin), torch.sigmoid(new.logits[:, :n].double())
            divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
            unknown = strategy.mb_y[:, :n] < 0
            if unknown.any():
                expected += self.weights[1] * float(divergence[unknown].mean())
        self.added.append((t, added, expected))


def varied_maps(n: int) -> torch.Tensor:
    """Maps whose positions differ a lot, so that it matters where a label looks."""
    return 2 * torch.randn(n, 6, 2, 2, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("feature_weight", "logit_weight", "annotation"), [(3.0, 0.0, "seen"), (0.0, 2.0, "current"), (1.0, 1.0, "current")]
)
def test_what_is_added_to_the_loss(
    tiny_scenario: Any, learn: Any, feature_weight: float, logit_weight: float, annotation: str
) -> None:
    scenario = tiny_scenario(annotation=annotation, features=varied_maps(40))
    watcher = Increment(feature_weight, logit_weight)
    strategy = DLFL(feature_weight=feature_weight, logit_weight=logit_weight)
    learn(strategy, scenario, head="dlfl", extra=[watcher], lr=0.5)
    starts = [next(i for i, entry in enumerate(watcher.added) if entry[0] == t) for t in (0, 1, 2)]
    for start in starts:
        assert watcher.added[start][1] == pytest.approx(0.0, abs=1e-6), "distillation starts at zero"
    for _, added, expected in watcher.added:
        assert added == pytest.approx(expected, rel=1e-3, abs=2e-6)
    assert max(added for t, added, _ in watcher.added if t == 2) > 1e-4
    assert all(added == 0.0 for t, added, _ in watcher.added if t == 0)


def test_a_margin_lowers_what_is_distilled(tiny_scenario: Any, learn: Any) -> None:
    watcher = Increment(0.0, 1.0, margin=1.5)
    strategy = DLFL(feature_weight=0.0, logit_margin=1.5)
    learn(strategy, tiny_scenario(features=varied_maps(40)), head="dlfl", extra=[watcher], lr=0.5)
    for t, added, expected in watcher.added:
        assert added == pytest.approx(expected, rel=1e-3, abs=2e-6)
        assert (t == 0) == (added == 0.0)


TWINS = {"herding": "er_herding", "reservoir": "er", "balanced": "er_balanced", "prs": "prs", "ocdm": "ocdm"}


@pytest.mark.parametrize(("selection", "twin"), TWINS.items())
def test_exemplars_are_those_of_replay_alone(tiny_scenario: Any, learn: Any, selection: Any, twin: str) -> None:
    strategies = DLFL(memory_size=9, selection=selection), load("strategies", twin)(memory_size=9)
    learnt = [learn(strategy, tiny_scenario(), head="dlfl", stop_after=1) for strategy in strategies]
    kept = [next(p for p in strategy.plugins if hasattr(p, "buffer")).buffer.buffer for strategy in learnt]
    assert len(kept[0])
    assert kept[0].sample_ids.data.tolist() == kept[1].sample_ids.data.tolist()


def test_zero_weights_and_single_experiences_are_naive_on_the_same_head(tiny_scenario: Any, learn: Any) -> None:
    parts, whole = tiny_scenario(), tiny_scenario(base=6)
    naive = learn(Naive(), parts, head="dlfl")
    assert same(learn(DLFL(feature_weight=0.0, logit_weight=0.0), parts, head="dlfl"), naive)
    assert not same(learn(DLFL(), parts, head="dlfl"), naive)
    for options in ({}, {"memory_size": 20}):
        assert same(learn(DLFL(**options), whole, head="dlfl"), learn(Naive(), whole, head="dlfl"))


def test_runs_on_a_head_that_shares_one_feature(tiny_scenario: Any, learn: Any) -> None:
    learnt = learn(DLFL(), tiny_scenario(), head="linear")
    assert [logits.shape[1] for logits in learnt.logits] == [2, 4, 6]


def test_memory_is_optional(tiny_scenario: Any, learn: Any) -> None:
    assert len(learn(DLFL(), tiny_scenario(), head="dlfl").plugins) == 1
    learnt = learn(DLFL(memory_size=9), tiny_scenario(), head="dlfl")
    assert len(learnt.plugins[1].buffer.buffer) == 9


def test_old_label_features_stay_nearer_than_without(tiny_scenario: Any, learn: Any) -> None:
    table = varied_maps(40)
    scenario = tiny_scenario(annotation="seen", features=table)
    moved = []
    for strategy in (Naive(), DLFL(feature_weight=20.0, logit_weight=0.0)):
        early, late = (
            learn(strategy, scenario, head="dlfl", epochs=8, lr=0.3, stop_after=stop).model for stop in (1, 3)
        )
        with torch.no_grad():
            before, after = (model.head_output(table).label_features[:, :2] for model in (early, late))
        moved.append(float((before - after).square().mean()))
    assert moved[1] < 0.5 * moved[0]
