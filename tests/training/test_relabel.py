"""What stored images are read as: pseudo-labels beside annotations, against a dictionary and against whole runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from hypothesis import given, settings
from hypothesis import strategies as st

from cml_bench.errors import CmlBenchError
from cml_bench.labels import OUT_OF_SCOPE, PRESENT
from cml_bench.memory.reservoir import ReservoirBuffer
from cml_bench.options import convert
from cml_bench.registry import load
from cml_bench.training.relabel import PseudoLabels

Naive = load("strategies", "naive")
REPLAYING = ("er", "er_ace", "mir", "er_balanced", "derpp", "dlfl")


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Says(torch.nn.Module):
    """A model that gives image r the probabilities of row r."""

    def __init__(self, probabilities: Any) -> None:
        super().__init__()
        self.logits = torch.logit(torch.as_tensor(probabilities, dtype=torch.float64))
        self.head = SimpleNamespace(label_names=names(self.logits.shape[1]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return self.logits[x[:, 0].long()]


def names(count: int) -> tuple[str, ...]:
    return tuple(f"label{i}" for i in range(count))


def replaying(plugins: Any) -> Any:
    return next(plugin for plugin in plugins if hasattr(plugin, "reader"))


def look(reader: PseudoLabels, memory: Any, probabilities: Any) -> None:
    strategy = SimpleNamespace(model=Says(probabilities), eval_mb_size=2, device="cpu")
    reader.look(strategy, memory)
    assert strategy.model.training


# -- the reader ------------------------------------------------------------------------------------------------------


def test_worked_example(tiny_dataset: Any) -> None:
    """Known entries stay, unknown ones over the threshold are found, nothing becomes absent."""
    reader, memory = PseudoLabels(0.9), tiny_dataset([3, 1], [[1, 0, -1], [-1, -2, -2]])
    assert reader(memory, names(3)).labels.data.tolist() == [[1, 0, -1], [-1, -2, -2]]
    chances = np.full((4, 3), 0.01)
    chances[3], chances[1] = [0.1, 0.99, 0.95], [0.91, 0.9, 0.2]
    look(reader, memory, chances)
    assert reader(memory, names(3)).labels.data.tolist() == [[1, 0, 1], [1, -2, -2]]
    # Labels that have come since are unknown, the memory itself is as it was, and other images are not concerned.
    assert reader(memory, names(4)).labels.data.tolist() == [[1, 0, 1, -2], [1, -2, -2, -2]]
    assert memory.labels.data.tolist() == [[1, 0, -1], [-1, -2, -2]]
    assert reader(tiny_dataset([2], [[-1, -1, -1]]), names(3)).labels.data.tolist() == [[-1, -1, -1]]


def test_what_was_found_stays_found_until_it_is_annotated(tiny_dataset: Any) -> None:
    """A later annotation is read in its place even where it contradicts; the memory merges annotations alone."""
    reader, memory = PseudoLabels(0.5), ReservoirBuffer(9, torch.Generator())
    memory.update_from_dataset(tiny_dataset([0, 1], [[-2, 1], [-2, 0]], first_new=1))
    look(reader, memory.buffer, [[0.9, 0.9], [0.9, 0.9]])
    look(reader, memory.buffer, [[0.1, 0.1], [0.1, 0.1]])
    read = reader(memory.buffer, names(2))
    assert dict(zip(read.sample_ids.data.tolist(), read.labels.data.tolist(), strict=True)) == {0: [1, 1], 1: [1, 0]}
    memory.update_from_dataset(tiny_dataset([0], [[0, -2]]))
    read = reader(memory.buffer, names(2))
    assert dict(zip(read.sample_ids.data.tolist(), read.labels.data.tolist(), strict=True)) == {0: [0, 1], 1: [1, 0]}


@settings(max_examples=60)
@given(data=st.data())
def test_reads_like_a_dictionary(tiny_dataset: Any, data: st.DataObject) -> None:
    threshold, width = 0.6, 1
    reader = PseudoLabels(threshold)
    found: dict[tuple[int, int], bool] = {}
    for _ in range(data.draw(st.integers(1, 4))):
        width = data.draw(st.integers(width, width + 2))
        rows = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=5, unique=True))
        generator = np.random.default_rng(data.draw(st.integers(0, 99)))
        narrow = data.draw(st.integers(1, width))
        states, chances = generator.integers(-2, 2, (len(rows), narrow)), generator.random((7, width))
        memory = tiny_dataset(rows, states)
        unknown = np.pad(states, ((0, 0), (0, width - narrow)), constant_values=OUT_OF_SCOPE) < 0
        found = {(r, c): hit for (r, c), hit in found.items() if r in rows}
        for i, row in enumerate(rows):
            for c in range(width):
                if unknown[i, c] and chances[row, c] > threshold:
                    found[row, c] = True
        look(reader, memory, chances)
        expected = np.pad(states, ((0, 0), (0, width - narrow)), constant_values=OUT_OF_SCOPE)
        for i, row in enumerate(rows):
            for c in range(width):
                if unknown[i, c] and found.get((row, c)):
                    expected[i, c] = PRESENT
        assert reader(memory, names(width)).labels.data.tolist() == expected.tolist()


@given(low=st.floats(0.01, 0.98), step=st.floats(0.0, 0.5))
def test_a_higher_threshold_finds_less(tiny_dataset: Any, low: float, step: float) -> None:
    chances = np.linspace(0.0213, 0.9787, 12).reshape(4, 3)
    memory, read = tiny_dataset(range(4), np.full((4, 3), -1)), []
    for threshold in (low, min(0.99, low + step)):
        reader = PseudoLabels(threshold)
        look(reader, memory, chances)
        read.append(reader(memory, names(3)).labels.data == PRESENT)
        assert int(read[-1].sum()) == int((chances > threshold).sum())
    assert bool((read[1] <= read[0]).all())


# -- the option ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*REPLAYING, "gdumb", "prs", "ocdm", "er_herding", "icarl", "krt", "bic"])
def test_is_an_option(name: str) -> None:
    kind = load("strategies", name)
    assert kind().relabel == "as_stored"
    for value in ("as_stored", "pseudo", "pseudo>0.8", "oracle"):
        assert convert(kind, {"relabel": value}, owner="x") == {"relabel": value}
    for value in ("none", "pseudo>2", "pseudo<0.5", "pseudo>", "truth"):
        with pytest.raises(CmlBenchError, match="as_stored, pseudo"):
            convert(kind, {"relabel": value}, owner="x")


# -- whole runs ------------------------------------------------------------------------------------------------------


class Judge(SupervisedPlugin):
    """Works out anew what a replaying plugin should read: what was annotated, and what the model found since."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.scores: list[torch.Tensor] = []
        self.compared = 0
        self.added = 0

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        plugin = replaying(strategy.plugins)
        if plugin.memory is None:
            return
        stored = plugin.buffer.buffer
        width = len(strategy.experience.dataset.labels.names)
        read = dict(zip(plugin.memory.sample_ids.data.tolist(), plugin.memory.labels.data.tolist(), strict=True))
        assert set(read) == set(stored.sample_ids.data.tolist())
        for row, states in zip(stored.sample_ids.data.tolist(), stored.labels.data.tolist(), strict=True):
            expected = states + [OUT_OF_SCOPE] * (width - len(states))
            for scores in self.scores:
                for c, score in enumerate(scores[row].tolist()):
                    if expected[c] < 0 and score > self.threshold:
                        expected[c] = PRESENT
                        self.added += 1
            assert read[row] == expected
            self.compared += 1

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        rows = torch.arange(40)
        strategy.model.eval()
        with torch.no_grad():
            images = strategy.experience.dataset.inputs.fetch(rows, training=False)
            self.scores.append(strategy.model(images).sigmoid())
        strategy.model.train()


@pytest.mark.parametrize("name", REPLAYING)
def test_a_run_reads_what_the_model_found(tiny_scenario: Any, learn: Any, name: str) -> None:
    scenario = tiny_scenario(assignment="disjoint")
    judge = Judge(0.6)
    strategy = load("strategies", name)(relabel="pseudo>0.6", memory_size=2000)
    learnt = learn(strategy, scenario, extra=[judge], epochs=2)
    assert judge.compared == 40
    assert judge.added > 5
    truth = scenario.splits["train"].truth
    stored = replaying(learnt.plugins).buffer.buffer
    known = stored.labels.data.numpy() >= 0
    rows = stored.sample_ids.data.numpy()
    assert (stored.labels.data.numpy()[known] == truth[rows, :6][known]).all(), "the memory holds annotations alone"


@pytest.mark.parametrize("name", [*REPLAYING, "gdumb"])
def test_an_online_stream_is_looked_at_when_an_experience_ends(tiny_scenario: Any, learn: Any, name: str) -> None:
    looks: list[int] = []

    class Looks(SupervisedPlugin):
        def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            reader = replaying(strategy.plugins).reader
            looks.append(reader.found.shape[1])

    strategy = load("strategies", name)(relabel="pseudo", memory_size=2000)
    learn(strategy, tiny_scenario(online_chunk=6), extra=[Looks()], epochs=1)
    last = [bool(e.is_last_subexp) for e in tiny_scenario(online_chunk=6).train_stream]
    widths, expected = 0, []
    for ends in last:
        widths += 2 * ends
        expected.append(widths)
    assert looks == expected


@pytest.mark.parametrize("name", REPLAYING)
def test_looking_leaves_no_trace(tiny_scenario: Any, learn: Any, name: str) -> None:
    """In a single experience, and where nothing is over the threshold, the run is the same bit for bit."""
    kind, whole, parts = load("strategies", name), tiny_scenario(base=6), tiny_scenario()
    assert same(learn(kind(relabel="pseudo", memory_size=2000), whole), learn(Naive(), whole))
    sure, plain = (learn(kind(relabel=r, memory_size=2000), parts) for r in ("pseudo>0.99999999", "as_stored"))
    assert same(sure, plain)
    assert not same(learn(kind(relabel="pseudo>0.5", memory_size=2000), parts), plain)
    assert same(*(learn(kind(relabel=r, memory_size=0), parts) for r in ("pseudo>0.5", "as_stored")))
