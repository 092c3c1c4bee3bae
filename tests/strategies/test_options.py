"""Options reach what they are options of: weights the loss, in proportion, and the rest the plugin that uses it."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from avalanche.core import SupervisedPlugin

from cml_bench.labels import is_known
from cml_bench.registry import entries, load
from cml_bench.testing.strategies import StrategyCase
from cml_bench.testing.trial import try_out

WEIGHTS: dict[tuple[str, str], str] = {
    ("agcn", "distillation_weight"): "agcn head.hidden=16 graph_weight=0",
    ("agcn", "graph_weight"): "agcn head.hidden=16 distillation_weight=0",
    ("coda_prompt", "orthogonality"): "coda_prompt",
    ("csc", "alpha"): "csc entropy_weight=0",
    ("csc", "entropy_weight"): "csc",
    ("cuter", "low_rank"): "cuter",
    ("der", "alpha"): "der memory_size=20",
    ("derpp", "alpha"): "derpp memory_size=20 beta=0",
    ("derpp", "beta"): "derpp memory_size=20 alpha=0",
    ("dlfl", "feature_weight"): "dlfl logit_weight=0",
    ("dlfl", "logit_weight"): "dlfl feature_weight=0",
    ("dualprompt", "key_weight"): "dualprompt",
    ("ewc", "ewc_lambda"): "ewc",
    ("ewc_online", "ewc_lambda"): "ewc_online",
    ("feature_distillation", "weight"): "feature_distillation",
    ("krt", "token_weight"): "krt head.width=16",
    ("l2p", "key_weight"): "l2p",
    ("lwf", "alpha"): "lwf",
    ("mas", "mas_lambda"): "mas",
    ("podnet", "flat_weight"): "podnet spatial_weight=0",
    ("podnet", "spatial_weight"): "podnet flat_weight=0",
    ("rwalk", "rwalk_lambda"): "rwalk",
    ("si", "c"): "si",
}
"""Each weight of a term of the loss, and a method in which no other term depends on it."""

REACHED: dict[tuple[str, str], tuple[str, str, Any]] = {
    ("dlfl", "feature_weight beside logit_weight"): ("dlfl feature_weight=2 logit_weight=5", "feature_weight", 2.0),
    ("ewc", "fisher"): ("ewc fisher=empirical", "empirical", True),
    ("ewc", "fisher by default"): ("ewc", "empirical", False),
    ("ewc", "fisher_samples"): ("ewc fisher_samples=7", "samples", 7),
    ("ewc_online", "fisher"): ("ewc_online fisher=empirical", "empirical", True),
    ("ewc_online", "fisher by default"): ("ewc_online", "empirical", False),
    ("ewc_online", "fisher_samples"): ("ewc_online fisher_samples=7", "samples", 7),
    ("krt", "below"): ("krt head.width=16 below=unknown", "below", -math.inf),
    ("krt", "below by default"): ("krt head.width=16", "below", math.inf),
    ("krt", "kappa"): ("krt head.width=16 kappa=0.7", "count.kappa", 0.7),
    ("mas", "alpha"): ("mas alpha=0.3", "alpha", 0.3),
    ("mas", "importance_samples"): ("mas importance_samples=7", "samples", 7),
    ("podnet", "spatial_weight beside flat_weight"): (
        "podnet spatial_weight=2 flat_weight=5",
        "spatial_weight",
        2.0,
    ),
    ("rwalk", "alpha"): ("rwalk alpha=0.3", "alpha", 0.3),
    ("pseudo_label", "kappa"): ("pseudo_label rule=dynamic_count kappa=0.7", "count.kappa", 0.7),
    ("pseudo_label", "low"): ("pseudo_label low=0.1", "below", 0.1),
}
"""Options that are handed on: the method, where its plugin holds the value, and that value."""

IN_NO_STEP = {("kar", "balance"), ("l3a", "ridge"), ("ridge", "penalty")}
"""Weights of what is solved or ranked, which tests of these strategies set."""


class Steps(SupervisedPlugin):
    """The losses of the first two steps of the first two experiences, and what else somebody wants of each.

    Attributes:
        losses: Experience and step to the loss.
        seen: Experience and step to what ``look`` returned.
    """

    def __init__(self, look: Callable[[Any], float] | None = None) -> None:
        super().__init__()
        self.look = look
        self.losses: dict[tuple[int, int], float] = {}
        self.seen: dict[tuple[int, int], float] = {}

    def after_backward(self, strategy: Any, **kwargs: Any) -> None:
        place = (strategy.clock.train_exp_counter, strategy.clock.train_exp_iterations)
        if max(place) < 2:
            self.losses[place] = float(strategy.loss.detach())
            if self.look:
                self.seen[place] = self.look(strategy)


@pytest.fixture
def steps(with_plugins: Any) -> Callable[..., Steps]:
    """Watch the steps of a run on the toy stream."""

    def watch(spec: str, look: Callable[[Any], float] | None = None) -> Steps:
        watcher = Steps(look)
        with_plugins(watcher)
        try_out(StrategyCase(spec).plan)
        return watcher

    return watch


@pytest.mark.parametrize(("strategy", "option"), WEIGHTS)
def test_the_loss_is_in_proportion_to_a_weight(steps: Any, strategy: str, option: str) -> None:
    """At the first step at which the term is there: until then all weights gave the same model."""
    without, half, whole = (steps(f"{WEIGHTS[strategy, option]} {option}={weight}").losses for weight in (0, 0.5, 1))
    place = next(place for place in without if abs(half[place] - without[place]) > 1e-7)
    assert whole[place] - without[place] == pytest.approx(2 * (half[place] - without[place]), rel=1e-2)


def test_every_weight_is_looked_at() -> None:
    for name in entries("strategies"):
        told = re.findall(r"^ +(\w+): Weight of", inspect.getdoc(load("strategies", name)) or "", re.MULTILINE)
        for option in told:
            assert (name, option) in {*WEIGHTS, *REACHED, *IN_NO_STEP}, f"{name} {option}"


@pytest.mark.parametrize(("strategy", "option"), REACHED)
def test_an_option_is_handed_on(strategy: str, option: str) -> None:
    spec, place, value = REACHED[strategy, option]
    holders = [
        plugin
        for plugin in try_out(StrategyCase(spec).plan).learner.plugins
        if hasattr(plugin, place.partition(".")[0])
    ]
    found: Any = holders[0]
    for attribute in place.split("."):
        found = getattr(found, attribute)
    assert found == value


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_temperature_of_lwf(steps: Any, temperature: float) -> None:
    """The term of the loss is the divergence of softened probabilities, by the formula."""

    def term(strategy: Any) -> float:
        plugin = next(each for each in strategy.plugins if type(each).__name__ == "LwFPlugin")
        if not plugin.n_old:
            return 0.0
        old = slice(plugin.n_old)
        before = torch.sigmoid(plugin.teach(strategy.mb_x).logits / temperature).double()
        now = torch.sigmoid(strategy.mb_output[:, old].detach() / temperature).double()
        divergence = before * (before / now).log() + (1 - before) * ((1 - before) / (1 - now)).log()
        return float(temperature**2 * divergence[~is_known(strategy.mb_y[:, old])].mean())

    found, naive = steps(f"lwf temperature={temperature}", term), steps("naive")
    place = (1, 1)
    assert found.seen[place] > 1e-5
    assert found.losses[place] - naive.losses[place] == pytest.approx(found.seen[place], rel=1e-2)


def test_mir_adds_the_loss_of_what_it_chose(steps: Any) -> None:
    """One forward pass of the stream's batch and one of the chosen rows, weighing the same."""
    replayed: list[float] = []
    kind = load("strategies", "cml_bench.strategies.mir:MIRPlugin")
    original = kind.loss

    def watched(self: Any, strategy: Any, batch: Any) -> Any:
        loss = original(self, strategy, batch)
        replayed.append(float(loss.detach()))
        return loss

    with patch.object(kind, "loss", watched):
        found = steps("mir memory_size=20 replay_batch_size=5")
    assert found.losses[1, 0] == pytest.approx(steps("naive").losses[1, 0] + replayed[0], rel=1e-5)
