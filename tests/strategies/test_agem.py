"""A-GEM: the projection, where its reference comes from, and what upstream does with few samples."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import AGEMPlugin as UpstreamAGEM
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cml_bench.losses.criterion import Criterion
from cml_bench.registry import load
from cml_bench.runs.run import run_job

AGEM, Naive = load("strategies", "agem"), load("strategies", "naive")
without = load("strategies", "cml_bench.strategies.agem:without")
AGEMPlugin = load("strategies", "cml_bench.strategies.agem:AGEMPlugin")


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_worked_example() -> None:
    assert without(torch.tensor([1.0, -1.0]), torch.tensor([0.0, 1.0])).tolist() == [1.0, 0.0]


VECTOR = st.lists(st.floats(-10, 10, width=16), min_size=4, max_size=4)


@settings(max_examples=80, deadline=None)
@given(gradient=VECTOR, reference=VECTOR)
def test_nothing_is_left_along_the_reference(gradient: list[float], reference: list[float]) -> None:
    g, r = torch.tensor(gradient), torch.tensor(reference)
    if float(r @ r) > 1e-3:
        found = without(g, r)
        assert abs(float(found @ r)) < 1e-4 * (1 + float(g.norm() * r.norm()))
        across = g.double() - (g.double() @ r.double()) / (r.double() @ r.double()) * r.double()
        assert torch.allclose(found.double(), across, atol=1e-4)


class Steps(SupervisedPlugin):
    """Notes, of each step, the task's gradient, the reference that the plugin took, and what it made of them."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, list[int]]] = []
        self.corrected, self.left = 0, 0

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        plugin = next(p for p in strategy.plugins if type(p).__name__ == "AGEMPlugin")
        original, experience = type(plugin).gradient_on, strategy.clock.train_exp_counter

        def watched(strategy: Any, batches: Any) -> Any:
            batches = list(batches)
            self.rows += [(experience, batch.sample_id.tolist()) for batch in batches]
            self.reference = original(plugin, strategy, batches)
            return self.reference

        plugin.gradient_on = watched

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        gradients = torch.autograd.grad(strategy.criterion(), list(strategy.model.parameters()), retain_graph=True)
        self.task, self.reference = torch.cat([g.flatten() for g in gradients]), None

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        found = torch.cat([p.grad.flatten() for p in strategy.model.parameters()])
        if self.reference is None or float(self.task @ self.reference) >= 0:
            assert torch.equal(found, self.task)
            self.left += 1
        else:
            assert float(found @ self.reference) >= -1e-6
            assert float(found.norm()) <= float(self.task.norm())
            self.corrected += 1


def test_a_correction_leaves_parameters_without_a_gradient_alone() -> None:
    """Weight decay and momentum would move them, in corrected steps only."""
    model = torch.nn.ModuleDict({"used": torch.nn.Linear(2, 1), "unused": torch.nn.Linear(2, 1)})
    model["used"](torch.ones(1, 2)).sum().backward()

    class Contradicted(AGEMPlugin):  # type: ignore[misc, valid-type]
        def references(self, strategy: Any) -> list[torch.Tensor]:
            return [torch.tensor([-1.0, 0, 0, 0, 0, 0])]

    plugin = Contradicted(None, None, torch.Generator())
    plugin.past = [None]
    plugin.after_backward(SimpleNamespace(model=model))
    assert [p.grad.tolist() for p in model["used"].parameters()] == [[[0.0, 1.0]], [1.0]]
    assert all(p.grad is None for p in model["unused"].parameters())


@pytest.mark.parametrize(("batch", "expected"), [(None, 8), (3, 3), (100, 20)])
def test_each_step_draws_from_past_experiences(
    tiny_scenario: Any, learn: Any, on_backbone: Any, batch: int | None, expected: int
) -> None:
    watcher, scenario = Steps(), tiny_scenario(n=80, assignment="disjoint")
    learn(on_backbone(AGEM(memory_size=20, replay_batch_size=batch)), scenario, extra=[watcher], lr=0.05)
    assert watcher.corrected
    assert watcher.left
    experiences = [set(rows.tolist()) for rows in scenario.splits["train"].experiences]
    assert {t for t, _ in watcher.rows} == {1, 2}
    for t, rows in watcher.rows:
        stored = min(20, len(set().union(*experiences[:t])))
        assert len(rows) == len(set(rows)) == min(expected, stored)
        assert set(rows) <= set().union(*experiences[:t])
    if expected < 20:
        assert len({tuple(rows) for _, rows in watcher.rows}) > 10


def test_empty_memory_and_a_single_experience_are_naive(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    parts, whole = tiny_scenario(), tiny_scenario(base=6)
    for around in (lambda strategy: strategy, on_backbone):
        assert same(learn(around(AGEM(memory_size=0)), parts), learn(around(Naive()), parts))
        assert same(learn(around(AGEM()), whole), learn(around(Naive()), whole))
    assert not same(learn(on_backbone(AGEM()), parts), learn(on_backbone(Naive()), parts))


@pytest.mark.filterwarnings("ignore")
def test_upstream_cannot_have_more_experiences_than_samples(tiny_scenario: Any) -> None:
    """Why the suite has its own: if this ever changes upstream, this test says so."""
    upstream = UpstreamAGEM(patterns_per_experience=5, sample_size=2)
    datasets = [experience.dataset for experience in tiny_scenario().train_stream]
    for count, dataset in enumerate(datasets, start=1):
        upstream.update_memory(dataset)
        if count < 3:
            assert len(upstream.sample_from_memory()[0]) == 2
    with pytest.raises(ValueError, match="batch_size"):
        upstream.sample_from_memory()


@pytest.mark.parametrize("name", ["agem", "gem", "derpp", "mir", "er_ace"])
def test_what_a_memory_says_is_of_the_loss_of_the_epoch(
    small_jobs: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Some criteria change from epoch to epoch; two gradients of two losses have no angle worth looking at."""
    told, forward = [], Criterion.forward

    def heard(
        self: Criterion, output: Any, labels: Tensor, ids: Any = None, epoch: int = 0, view: Any = None
    ) -> Tensor:
        told.append(epoch)
        return forward(self, output, labels, ids, epoch, view)

    monkeypatch.setattr(Criterion, "forward", heard)
    (job,) = small_jobs([f"{name} memory_size=20"], epochs=2)
    run_job(job)
    assert told.count(0) == told.count(1) > 0
