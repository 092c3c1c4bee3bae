"""KRT: the token loss, what stays frozen, pseudo-labels under replay, and when it is naive."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from cml_bench.labels import OUT_OF_SCOPE
from cml_bench.memory.herding import HerdingMemory
from cml_bench.models.heads.head import HeadOutput
from cml_bench.models.heads.krt import KRTHead
from cml_bench.registry import load
from cml_bench.testing.strategies import StrategyCase
from cml_bench.testing.toy import Toy, ToySource
from cml_bench.testing.trial import Trial, try_out

KRT, Naive = load("strategies", "krt"), load("strategies", "naive")
token_distance = load("strategies", "cml_bench.strategies.krt:token_distance")


def toy(**options: Any) -> Any:
    benchmark = Toy(**options)
    train, test = (source.inputs() for source in benchmark.sources() if isinstance(source, ToySource))
    return benchmark.build(train_inputs=train, test_inputs=test)


def same(one: Trial, other: Trial) -> bool:
    first, second = one.learner.model.state_dict(), other.learner.model.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def output(features: Tensor) -> HeadOutput:
    return HeadOutput(features.sum(-1), features.mean(1), features)


def test_worked_example() -> None:
    now, before = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0, 1.0]]])
    assert float(token_distance(output(now), output(before), [1])) == pytest.approx(0.2929, abs=1e-4)
    pooled = HeadOutput(now[0], now[0]), HeadOutput(before[0], before[0])
    assert float(token_distance(*pooled, [1])) == pytest.approx(0.2929, abs=1e-4)


def test_each_experience_counts_once() -> None:
    """With KRT's head it is one minus the cosine of the joined tokens e_s, not of label features."""
    generator = torch.Generator().manual_seed(0)
    now, before = (torch.randn(5, 3, 4, generator=generator) for _ in range(2))
    sizes, owner = [4, 1, 2], [0, 0, 0, 0, 1, 2, 2]
    expected = sum(
        1 - float(a.flatten() @ b.flatten() / (a.norm() * b.norm())) for a, b in zip(now, before, strict=True)
    )
    new = torch.randn(5, 2, 4, generator=generator)
    found = token_distance(output(torch.cat([now[:, owner], new], dim=1)), output(before[:, owner]), sizes)
    assert float(found) == pytest.approx(expected / 5, abs=1e-5)


class Watcher(SupervisedPlugin):
    """Notes how far old tokens are from where they were, and which parameters an experience moved."""

    def __init__(self) -> None:
        super().__init__()
        self.distances: list[float] = []
        self.start: dict[str, Tensor] = {}
        self.moved: list[set[str]] = []

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.start = {name: value.detach().clone() for name, value in strategy.model.named_parameters()}

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        plugin = strategy.plugins[0]
        if plugin.n_old:
            self.distances.append(float(token_distance(strategy.head_output, plugin.taught, plugin.sizes)))

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.moved.append(
            {name for name, value in strategy.model.named_parameters() if value.ne(self.start[name]).any()}
        )


def trial(spec: str, *extra: SupervisedPlugin, **options: Any) -> Trial:
    """A run with more plugins at the end of the list."""
    from unittest.mock import patch

    from cml_bench.runs import setup

    original = setup.make_learner

    def make(plan: Any, run: Any, others: list[SupervisedPlugin]) -> Any:
        return original(plan, run, [*others, *extra])

    with patch("cml_bench.runs.learn.make_learner", make):
        return try_out(StrategyCase(spec).plan, scenario=toy(**options))


def test_old_tokens_and_classifiers_stay_bit_for_bit() -> None:
    watcher = Watcher()
    found = trial("krt head.width=16 weight_decay=0.1 lr=0.003", watcher)
    assert isinstance(found.learner.model.head, KRTHead)
    shared = {"head.transfer", "head.position", "head.project.weight", "head.query.weight", "backbone.weight"}
    for t, moved in enumerate(watcher.moved):
        assert shared <= moved
        assert {f"head.retention.{t}", f"head.classifiers.{t}.1.weight"} <= moved
        for past in range(t):
            owned = (f"head.retention.{past}", f"head.classifiers.{past}.")
            assert not [name for name in moved if name.startswith(owned)]


def test_the_first_token_loss_is_nothing() -> None:
    """The model starts the second experience as its teacher; the loss grows from 0."""
    watcher = Watcher()
    trial("krt head.width=16 lr=0.003 token_weight=1", watcher)
    assert watcher.distances[0] == pytest.approx(0.0, abs=1e-5)
    assert max(watcher.distances) > 1e-3


def test_a_large_weight_holds_the_tokens() -> None:
    free, held = Watcher(), Watcher()
    trial("krt head.width=16 lr=0.003 token_weight=0", free)
    trial("krt head.width=16 lr=0.003 token_weight=100", held)
    assert sum(held.distances) < 0.5 * sum(free.distances)


@pytest.mark.parametrize("n_old", [2, 4])
def test_weight_of_the_token_loss(n_old: int) -> None:
    """lambda sqrt(C_t / n_t) times the distance, on top of what the criterion gave."""
    plugin = load("strategies", "cml_bench.strategies.krt:KRTPlugin")(3.0, "zero", "estimated")
    plugin.teacher = torch.nn.Module()
    plugin.teacher.head = torch.nn.Module()
    plugin.teacher.head.n_labels = n_old
    plugin.sizes = [2] * (n_old // 2)
    features = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(1))
    plugin.taught = output(2 * features[:, :n_old] + 1)

    class Step:
        mbatch = [None, None]
        head_output = output(features)
        loss = torch.tensor(0.25)

    step = Step()
    plugin.before_backward(step)
    distance = float(token_distance(step.head_output, plugin.taught, plugin.sizes))
    assert float(step.loss) == pytest.approx(0.25 + 3 * math.sqrt(6 / (6 - n_old)) * distance)


def test_single_experience_is_naive() -> None:
    assert same(trial("krt head.width=16", increment=6), trial("naive head=krt head.width=16", increment=6))
    assert not same(trial("krt head.width=16"), trial("naive head=krt head.width=16"))


def test_no_pseudo_label_and_no_weight_is_naive(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = "krt head.width=16 below=unknown token_weight=0"
    assert not same(trial(spec), trial("naive head=krt head.width=16"))
    monkeypatch.setattr("cml_bench.training.pseudo_labels.count_threshold", lambda *arguments: 1.0)
    assert same(trial(spec), trial("naive head=krt head.width=16"))


@pytest.mark.parametrize("relabel", ["as_stored", "oracle"])
def test_krt_r_remembers(tiny_scenario: Any, learn: Any, relabel: str) -> None:
    class Known(SupervisedPlugin):
        def __init__(self) -> None:
            super().__init__()
            self.seen: dict[int, list[Tensor]] = {}

        def after_backward(self, strategy: Any, **kwargs: Any) -> None:
            width = strategy.mb_y.shape[1]
            self.seen.setdefault(width, []).append(strategy.mb_y.clone())

    watcher = Known()
    learnt = learn(KRT(memory_size=12, relabel=relabel), tiny_scenario(), extra=[watcher])
    krt, replay = learnt.plugins
    assert isinstance(replay.buffer, HerdingMemory)
    assert 0 < len(replay.buffer.buffer) <= 12
    old_known = torch.cat([rows[:, :2] for rows in watcher.seen[6]]) != OUT_OF_SCOPE
    assert bool(old_known.any()), "memory rows are in the batch"
    assert krt.sizes == [2, 2, 2]
    new_unknown = torch.cat([rows[:, 4:] for rows in watcher.seen[6]]) == OUT_OF_SCOPE
    assert bool(new_unknown.any()) == (relabel == "as_stored")


@pytest.mark.parametrize("head", ["linear", "dlfl"])
def test_other_heads_are_held_where_they_were(tiny_scenario: Any, learn: Any, head: str) -> None:
    scenario, moved = tiny_scenario(), []
    for weight in (0.0, 5.0):
        learnt = learn(KRT(token_weight=weight, below="unknown"), scenario, head=head, epochs=4)
        moved.append(learnt.state())
    # Frozen features do not move; label features do, by their queries.
    unlike = [name for name in moved[0] if not torch.equal(moved[0][name], moved[1][name])]
    assert bool(unlike) == (head == "dlfl")
