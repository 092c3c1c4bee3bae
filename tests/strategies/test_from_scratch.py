"""From scratch: every experience starts from the untrained model, and nothing of what was learnt before is left."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from cml_bench.labels import UNMARKED
from cml_bench.losses.bce import BCE
from cml_bench.models.heads.linear import LinearHead
from cml_bench.registry import load

FromScratch, Naive = load("strategies", "from_scratch"), load("strategies", "naive")


class BareLoop(SupervisedPlugin):
    """Trains a copy of what each experience starts with on the same batches, with an optimiser of its own."""

    def __init__(self, untrained: Any = None) -> None:
        super().__init__()
        self.starts: list[dict[str, Tensor]] = []
        self.ends: list[dict[str, Tensor]] = []

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        if strategy.clock.train_exp_epochs == 0:
            assert not strategy.optimizer.state
            self.model = copy.deepcopy(strategy.model)
            self.starts.append(copy.deepcopy(strategy.model.state_dict()))
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        self.optimizer.zero_grad()
        BCE()(self.model.head_output(strategy.mb_x), strategy.mb_y).backward()
        self.optimizer.step()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.ends.append(copy.deepcopy(strategy.model.state_dict()))
        trained = self.model.state_dict()
        assert all(torch.equal(value, trained[name]) for name, value in self.ends[-1].items())


@pytest.mark.parametrize("protocol", [{}, {"online_chunk": 7}])
def test_an_experience_is_learnt_as_if_there_had_been_no_other(
    tiny_scenario: Any, learn: Any, on_backbone: Any, protocol: dict[str, int]
) -> None:
    """Weights, batch-norm statistics, momentum: those of the untrained model when it starts."""
    loop = BareLoop()
    if protocol:
        # A chunk goes on with what its experience has learnt: only starts are compared.
        loop.before_training_epoch = lambda strategy, **kwargs: (  # type: ignore[method-assign]
            loop.starts.append(copy.deepcopy(strategy.model.state_dict()))
            if strategy.experience.is_first_subexp
            else None
        )
        loop.before_forward = loop.after_training_exp = lambda strategy, **kwargs: None  # type: ignore[method-assign]
    learn(on_backbone(FromScratch()), tiny_scenario(**protocol), extra=[loop], epochs=1 if protocol else 3)
    first, *others = loop.starts
    assert len(others) == 2
    for start in others:
        assert all(torch.equal(value, start[name]) for name, value in first.items())
    assert any(name.endswith("running_mean") for name in first)
    assert all(bool((end["backbone.0.weight"] != first["backbone.0.weight"]).any()) for end in loop.ends)


def test_a_single_experience_is_naive(tiny_scenario: Any, learn: Any) -> None:
    one, other = (learn(kind(), tiny_scenario(base=6)).state() for kind in (FromScratch, Naive))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("chunk", [None, 9])
def test_what_the_criterion_learnt_is_forgotten_and_what_it_learns_is_optimised(
    tiny_scenario: Any, learn: Any, chunk: int | None
) -> None:
    """ROLE keeps an estimate of every entry that was asked for: those of the experience alone, each of them trained."""
    scenario, counts = tiny_scenario(regime="single_positive", **({"online_chunk": chunk} if chunk else {})), []

    class Estimates(SupervisedPlugin):
        def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            optimised = {id(p) for group in strategy.optimizer.param_groups for p in group["params"]}
            estimates = list(strategy._criterion.parameters())
            assert estimates
            assert all(id(p) in optimised for p in estimates)
            if getattr(strategy.experience, "is_last_subexp", True):
                counts.append(sum(p.numel() for p in estimates))

    learn(FromScratch(), scenario, criterion=load("criteria", "role")(), extra=[Estimates()], epochs=1)
    asked: dict[int, int] = {}
    for experience in scenario.train_stream:
        labels = experience.dataset.labels
        asked[labels.first_new] = asked.get(labels.first_new, 0) + int((labels.data >= UNMARKED).sum())
    assert counts == list(asked.values())


def test_the_heads_of_a_wrapper_start_anew(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    starts: list[dict[str, Tensor]] = []

    class Wrapped:
        def plugins(self, run: Any) -> list[Any]:
            plugins = on_backbone(Naive()).plugins(run)
            run.model.wrap(load("wrappers", "pat")(), lambda: LinearHead(6))
            run.model.wrapper.grow(run.model.head.label_names)
            return [*plugins, *FromScratch().plugins(run)]

        curriculum = staticmethod(FromScratch().curriculum)

    class Starts(SupervisedPlugin):
        def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
            if strategy.clock.train_exp_epochs == 0:
                starts.append(copy.deepcopy(strategy.model.state_dict()))

    learn(Wrapped(), tiny_scenario(), extra=[Starts()], epochs=1)
    first, *others = starts
    assert any(name.startswith("wrapper.") for name in first)
    for start in others:
        assert all(torch.equal(value, start[name]) for name, value in first.items())
