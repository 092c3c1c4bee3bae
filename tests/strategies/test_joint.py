"""Joint training: one row an image, whose labels, and how often it trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from cml_bench.labels import OUT_OF_SCOPE
from cml_bench.registry import load
from cml_bench.streams.dataset import MultiLabelDataset
from cml_bench.testing.strategies import StrategyCase
from cml_bench.testing.trial import try_out

Joint, Naive = load("strategies", "joint"), load("strategies", "naive")


def yielded(strategy: Any, scenario: Any) -> list[list[MultiLabelDataset]]:
    class Run:
        oracle = staticmethod(scenario.oracle)

    stream = ([experience] for experience in scenario.train_stream)
    return [[chunk.dataset for chunk in chunks] for chunks in strategy.curriculum(stream, Run())]


@pytest.mark.parametrize("labels", ["oracle", "as_annotated"])
@pytest.mark.parametrize("assignment", ["overlap", "disjoint"])
@pytest.mark.parametrize("annotation", ["current", "seen", "all"])
def test_one_row_an_image_with_the_labels_asked_for(
    tiny_scenario: Any, labels: str, assignment: str, annotation: str
) -> None:
    scenario = tiny_scenario(assignment=assignment, annotation=annotation)
    (everything,), *others = yielded(Joint(labels=labels), scenario)
    assert others == [[], []]
    part = scenario.splits["train"]
    ids = everything.sample_ids.data.tolist()
    assert ids == sorted({int(row) for rows in part.experiences for row in rows})
    expected = {}
    for row in ids:
        known = {
            c
            for t, rows in enumerate(part.experiences)
            if row in rows
            for c in range((0, *scenario.n_seen)[t] if annotation == "current" else 0, scenario.n_seen[t])
        }
        if labels == "oracle" or annotation == "all":
            known = set(range(6))
        expected[row] = [int(part.truth[row, c]) if c in known else OUT_OF_SCOPE for c in range(6)]
    assert everything.labels.data.tolist() == [expected[row] for row in ids]
    assert everything.labels.names == scenario.label_names


def test_trains_once_on_everything_and_reads_the_seen_columns(tiny_scenario: Any, learn: Any) -> None:
    scenario = tiny_scenario()
    learnt = learn(Joint(), scenario)
    assert learnt.model.head.n_labels == 6
    first, second, third = (logits[:, :2] for logits in learnt.logits)
    assert torch.equal(first, second)
    assert torch.equal(second, third)
    assert learnt.template.clock.train_exp_counter == 1


def test_single_experience_is_naive(tiny_scenario: Any, learn: Any) -> None:
    scenario = tiny_scenario(base=6)
    one, other = learn(Joint(), scenario).state(), learn(Naive(), scenario).state()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("head", ["krt", "dlfl head.freeze_old_queries=true"])
@pytest.mark.parametrize("strategy", ["joint", "gdumb memory_size=30", "from_scratch"])
def test_a_head_that_freezes_old_labels_freezes_none_that_nobody_has_trained(
    with_plugins: Any, strategy: str, head: str
) -> None:
    """It has the first experience's labels before anything begins; what a strategy then starts with has more."""
    seen: list[tuple[int, bool]] = []

    class Watcher(SupervisedPlugin):
        def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            parameters = list(strategy.model.head.parameters())
            seen.append((strategy.model.head.n_labels, all(parameter.requires_grad for parameter in parameters)))

    def trained(spec: str) -> set[tuple[int, bool]]:
        seen.clear()
        try_out(StrategyCase(f"{spec} head={head}").plan)
        return set(seen)

    with_plugins(Watcher())
    widths = {6} if strategy == "joint" else {2, 4, 6}
    assert trained(strategy) == {(width, True) for width in widths}
    assert trained("naive") == {(2, True), (4, False), (6, False)}
