"""A single pass is a single pass: every strategy, on a stream in chunks, trains on each image of the stream once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from cml_bench.registry import entries
from cml_bench.runs import learn, setup
from cml_bench.testing.strategies import StrategyCase
from cml_bench.testing.toy import Toy, ToySource
from cml_bench.testing.trial import Trial, try_out

OTHERWISE = {
    "joint": "the whole stream before its first evaluation",
    "cumulative": "all experiences so far, anew with each",
    "gdumb": "its memory, and nothing of the stream",
}
"""What is trained on in place of the stream's chunks; the strategies' own tests count it."""

NOT_ALL = {
    "bic": "keeps images out of training",
    "l3a": "trains a backbone on the first experience, then solves",
    "ridge": "solves",
}
"""Why some images of the stream are never trained on."""


class Passes(SupervisedPlugin):
    """Counts, for each chunk, how often an image of the stream is in a batch; goes before all other plugins.

    On disjoint experiences a memory that is joined to the loader's batches holds images of other experiences alone, and
    one that is joined later is not seen from here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.chunks: list[tuple[set[int], Counter[int]]] = []

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Begin a chunk."""
        self.chunks.append((set(strategy.experience.dataset.sample_ids.data.tolist()), Counter()))

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Count a batch."""
        self.chunks[-1][1].update(strategy.mbatch.sample_id.tolist())


def online(spec: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Trial, Passes]:
    benchmark = Toy(assignment="disjoint", online_chunk=10)
    train, test = (source.inputs() for source in benchmark.sources() if isinstance(source, ToySource))
    scenario = benchmark.build(train_inputs=train, test_inputs=test)
    passes, original = Passes(), setup.make_learner

    def make(plan: Any, run: Any, others: list[Any]) -> Any:
        learner = original(plan, run, others)
        learner.plugins.insert(0, passes)
        return learner

    monkeypatch.setattr(learn, "make_learner", make)
    plan = StrategyCase(spec).plan
    plan = replace(plan, training=replace(plan.training, epochs=1, batch_size=4))
    return try_out(plan, scenario=scenario), passes


def with_a_memory(name: str) -> str:
    options = {"dlfl": " memory_size=20", "krt": " memory_size=20", "cuter": " sure=0.3 sure_scarce=0.2"}
    return f"{name}{options.get(name, '')}"


@pytest.mark.parametrize("name", entries("strategies"))
def test_each_image_is_trained_on_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trial, passes = online(with_a_memory(name), monkeypatch)
    assert all(torch.isfinite(logits).all() for logits in trial.logits)
    assert [logits.shape[1] for logits in trial.logits] == [2, 4, 6]
    chunks = [sorted(experience.dataset.sample_ids.data.tolist()) for experience in trial.scenario.train_stream]
    counts = [[count[row] for row in ids] for ids, (_, count) in zip(chunks, passes.chunks, strict=False)]
    once = [sorted(ids) for ids, _ in passes.chunks] == chunks and all(set(times) == {1} for times in counts)
    assert len(chunks) > 5
    if name in OTHERWISE:
        assert not once, f"{name} is no exception: {OTHERWISE[name]}"
    elif name in NOT_ALL:
        assert {times for each in counts for times in each} <= {0, 1}
        assert not once, f"{name} is no exception: {NOT_ALL[name]}"
    else:
        assert once
