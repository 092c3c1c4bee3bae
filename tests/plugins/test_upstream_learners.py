"""Avalanche's own strategies and plugins: each runs and can be stopped, or is refused with what to take."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import avalanche.training.plugins as upstream_plugins
import avalanche.training.supervised as upstream_strategies
import numpy as np
import pytest
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import LwFPlugin
from avalanche.training.supervised import LwF, Naive
from avalanche.training.templates.base_sgd import BaseSGDTemplate

from cml_bench.errors import CmlBenchError
from cml_bench.registry import entries
from cml_bench.runs.job import make_jobs
from cml_bench.runs.plan import plan
from cml_bench.runs.run import run_job
from cml_bench.runs.upstream import _INSTEAD, refuse_unfit

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial" / "own_strategy.md"
RUN = {
    "Naive": "",
    "Cumulative": "",
    "Replay": "mem_size=20",
    "EWC": "ewc_lambda=1",
    "SynapticIntelligence": "si_lambda=1",
    "MAS": "",
    "FromScratchTraining": "",
    "ReplayPlugin": "mem_size=20",
    "EWCPlugin": "ewc_lambda=1",
    "SynapticIntelligencePlugin": "si_lambda=1",
    "MASPlugin": "",
}
NO_METHODS = {"SupervisedPlugin", "EarlyStoppingPlugin", "LRSchedulerPlugin", "TrainGeneratorAfterExpPlugin"}
"""Bases and helpers."""
LEARNERS = {
    name: (module.__name__, kind)
    for module in (upstream_strategies, upstream_plugins)
    for name, kind in vars(module).items()
    if inspect.isclass(kind) and issubclass(kind, (BaseSGDTemplate, SupervisedPlugin)) and name not in NO_METHODS
}


def job_of(method: str) -> Any:
    return make_jobs(["digits"], [method], ["default"], [0], ("n_train=60", "n_test=40", "epochs=1"))[0]


@pytest.mark.parametrize("name", RUN)
def test_these_run(name: str, tmp_path: Path) -> None:
    made = run_job(job_of(f"{LEARNERS[name][0]}:{name} {RUN[name]}"), checkpoints=tmp_path)
    assert all(np.isfinite(logits).all() for logits in made.predictions.logits)
    assert list(tmp_path.iterdir()), "nothing to go on from"
    assert f"`{name}`" in TUTORIAL.read_text(), "the tutorial says which run"


@pytest.mark.parametrize("name", sorted({*LEARNERS} - {*RUN}))
def test_the_others_are_refused_before_anything_runs(name: str) -> None:
    with pytest.raises(CmlBenchError) as caught:
        plan(job_of(f"{LEARNERS[name][0]}:{name}"))
    mend = f"the suite's {_INSTEAD[name]}" if name in _INSTEAD else "a method that 'cml-bench list strategies' names"
    assert str(caught.value) == f"Avalanche's {name} does not run on images with several labels: take {mend}"
    assert _INSTEAD.get(name, "naive") in entries("strategies")


FILE = """
from dataclasses import dataclass

from avalanche.training.plugins import LwFPlugin
from avalanche.training.supervised import Naive

from cml_bench import Strategy, StrategyMeta


def made(model, optimizer, criterion, train_mb_size, train_epochs, plugins):
    given = {"model": model, "optimizer": optimizer, "criterion": criterion, "train_mb_size": train_mb_size}
    return Naive(**given, plugins=[LwFPlugin(), *plugins])


@dataclass(frozen=True)
class Mine(Strategy):
    meta = StrategyMeta(name="mine", title="Mine", family="distillation")

    def plugins(self, run):
        return [LwFPlugin()]
"""


@pytest.mark.parametrize("name", ["made", "Mine"])
def test_a_plugin_within_is_found_too(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    with pytest.raises(CmlBenchError, match=r"Avalanche's LwFPlugin does not run .*: take the suite's lwf"):
        run_job(job_of(f"{tmp_path}/mine.py:{name}"))


def test_a_subclass_may_have_mended_it() -> None:
    for kind in (LwF, LwFPlugin):
        refuse_unfit(type("Mended", (kind,), {}))
    refuse_unfit(Naive)
