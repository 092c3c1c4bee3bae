"""What is frozen stays to the bit: frozen, frozen rows, linear probe."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.utils import freeze_everything
from torch import Tensor, nn

from cml_bench.errors import CmlBenchError
from cml_bench.losses.assume_negative import AssumeNegative
from cml_bench.registry import load
from cml_bench.testing.strategies import StrategyCase
from cml_bench.testing.trial import try_out

Naive, Frozen, FreezeOldRows, LinearProbe = (
    load("strategies", name) for name in ("naive", "frozen", "freeze_old_rows", "linear_probe")
)
ADAM = {"optimizer": "adamw", "weight_decay": 0.1, "lr": 0.05}
"""The optimiser that moves parameters without a gradient, where it is allowed to."""


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Moved(SupervisedPlugin):
    """Notes, for each experience, which entries of the state that was there at its start changed in it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[set[str]] = []
        self.start: dict[str, Tensor] = {}

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.start = {name: value.clone() for name, value in strategy.model.state_dict().items()}

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        state = strategy.model.state_dict()
        self.names.append({name for name, value in self.start.items() if not torch.equal(value, state[name])})


def blocks(*experiences: int) -> set[str]:
    return {f"head.{kind}.{t}" for t in experiences for kind in ("weights", "biases")}


BACKBONE = {f"backbone.0.{name}" for name in ("weight", "bias")} | {
    f"backbone.1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
}
EXPECTED = {
    "frozen": [BACKBONE | blocks(0), blocks(1), blocks(2)],
    "freeze_old_rows": [BACKBONE | blocks(0), BACKBONE | blocks(1), BACKBONE | blocks(2)],
    "linear_probe": [blocks(0), blocks(0, 1), blocks(0, 1, 2)],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_what_moves_in_each_experience(tiny_scenario: Any, learn: Any, on_backbone: Any, name: str) -> None:
    """With every old label annotated anew and an optimiser with moments and weight decay."""
    watcher = Moved()
    learn(on_backbone(load("strategies", name)()), tiny_scenario(annotation="seen"), extra=[watcher], **ADAM)
    assert watcher.names == EXPECTED[name]


@pytest.mark.parametrize("head", ["linear", "dlfl"])
def test_frozen_forgets_nothing_at_all(tiny_scenario: Any, learn: Any, on_backbone: Any, head: str) -> None:
    """Even where the criterion pushes old labels down."""
    scenario = tiny_scenario()
    learnt = learn(on_backbone(Frozen()), scenario, head=head, criterion=AssumeNegative("bce", "seen"), **ADAM)
    for before, after in zip(learnt.logits, learnt.logits[1:], strict=False):
        # Parameters are equal to the bit; a wider product may add in another order.
        assert torch.allclose(after[:, : before.shape[1]], before, atol=1e-6)
    pushed = learn(on_backbone(Naive()), scenario, head=head, criterion=AssumeNegative("bce", "seen"), **ADAM)
    assert not torch.allclose(pushed.logits[2][:, :2], pushed.logits[0], atol=0.1)


def test_the_first_experience_is_naive(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    whole = tiny_scenario(base=6)
    for strategy in (Frozen(), FreezeOldRows()):
        assert same(learn(on_backbone(strategy), whole), learn(on_backbone(Naive()), whole))


def test_on_cached_features(tiny_scenario: Any, learn: Any) -> None:
    """Without a backbone a linear probe is naive, and freezing rows is freezing."""
    scenario = tiny_scenario(annotation="seen")
    assert same(learn(LinearProbe(), scenario), learn(Naive(), scenario))
    assert same(learn(Frozen(), scenario), learn(FreezeOldRows(), scenario))
    assert not same(learn(Frozen(), scenario), learn(Naive(), scenario))


class Chunk:
    is_last_subexp = False


def test_a_chunk_of_an_online_experience_freezes_nothing() -> None:
    plugin = load("strategies", "cml_bench.training.freezing:FreezePlugin")(nn.Linear(2, 2))
    strategy = type("Strategy", (), {"experience": Chunk()})()
    plugin.after_training_exp(strategy)
    assert plugin.part.weight.requires_grad
    strategy.experience.is_last_subexp = True
    plugin.after_training_exp(strategy)
    assert not plugin.part.weight.requires_grad


def test_upstreams_freezing_does_not_survive_training_mode() -> None:
    """Why the suite has its own: if this ever changes upstream, this test says so."""
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    freeze_everything(model)
    model.train()
    model(torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)))
    assert not any(p.requires_grad for p in model.parameters())
    assert int(model[1].num_batches_tracked) == 1


class Statistics(SupervisedPlugin):
    """Notes the batch-norm statistics of the head at the end of each experience."""

    def __init__(self) -> None:
        super().__init__()
        self.means: list[torch.Tensor] = []

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        state = strategy.model.head.state_dict()
        self.means.append(torch.cat([value.flatten() for name, value in state.items() if "running" in name]))


def test_frozen_batch_norm_of_a_head_keeps_its_statistics(with_plugins: Any) -> None:
    def end(spec: str) -> list[torch.Tensor]:
        watcher = Statistics()
        with_plugins(watcher)
        try_out(StrategyCase(spec).plan)
        return watcher.means

    first, second, third = end("frozen head=csc")
    assert len(first)
    assert torch.equal(first, second)
    assert torch.equal(second, third)
    first, second, _ = end("naive head=csc")
    assert not torch.equal(first, second)


def test_a_head_without_rows_of_its_own_has_nothing_left_to_train() -> None:
    with pytest.raises(CmlBenchError, match="nothing is left to train: the strategy froze all that the model has"):
        try_out(StrategyCase("frozen head=hp_dval").plan)
