"""Experience replay: when memory rows come in, with which labels, and when it is naive."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from cml_bench.labels import OUT_OF_SCOPE
from cml_bench.registry import load

ER, Naive = load("strategies", "er"), load("strategies", "naive")


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Rows(SupervisedPlugin):
    """Collects every trained row: experience, id, labels."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, int, tuple[int, ...]]] = []
        self.sizes: list[tuple[int, int]] = []

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        t = strategy.clock.train_exp_counter
        self.sizes.append((t, len(strategy.mb_x)))
        ids, labels = strategy.mb_sample_id.tolist(), strategy.mb_y.tolist()
        self.rows += [(t, row, tuple(states)) for row, states in zip(ids, labels, strict=True)]


def test_single_experience_and_empty_memory_are_naive(tiny_scenario: Any, learn: Any) -> None:
    whole, parts = tiny_scenario(base=6), tiny_scenario()
    assert same(learn(ER(), whole), learn(Naive(), whole))
    assert same(learn(ER(memory_size=0), parts), learn(Naive(), parts))
    assert not same(learn(ER(), parts), learn(Naive(), parts))


@pytest.mark.parametrize("relabel", ["as_stored", "oracle"])
def test_memory_rows_carry_the_labels_of_their_time(tiny_scenario: Any, learn: Any, relabel: str) -> None:
    scenario = tiny_scenario(assignment="disjoint")
    watcher = Rows()
    learn(ER(memory_size=100, relabel=relabel), scenario, extra=[watcher], epochs=15)
    truth, experiences = scenario.splits["train"].truth, scenario.splits["train"].experiences
    annotated = [{int(row): t for row in rows} for t, rows in enumerate(experiences)]
    home = {row: t for rows in annotated for row, t in rows.items()}
    rehearsed = [(t, row, labels) for t, row, labels in watcher.rows if home[row] < t]
    assert {row for t, row, _ in rehearsed if t == 2} == set(annotated[0]) | set(annotated[1])
    for t, row, labels in rehearsed:
        low, high = ((0, *scenario.n_seen)[home[row]], scenario.n_seen[home[row]])
        stored = [int(truth[row, c]) if low <= c < high else OUT_OF_SCOPE for c in range(scenario.n_seen[t])]
        oracle = [OUT_OF_SCOPE] * low + truth[row, low : scenario.n_seen[t]].tolist()
        assert list(labels) == (oracle if relabel == "oracle" else stored)


@pytest.mark.parametrize(("replay", "expected"), [(None, 8), (3, 3), (100, 20)])
def test_memory_rows_a_step(tiny_scenario: Any, learn: Any, replay: int | None, expected: int) -> None:
    watcher, scenario = Rows(), tiny_scenario()
    learn(ER(memory_size=20, replay_batch_size=replay), scenario, extra=[watcher], epochs=1)
    for t in (1, 2):
        count = len(scenario.train_stream[t].dataset)
        stored = min(20, len(set().union(*(rows.tolist() for rows in scenario.splits["train"].experiences[:t]))))
        full = [8] * (count // 8) + ([count % 8] if count % 8 else [])
        assert [size for when, size in watcher.sizes if when == t] == [n + min(expected, stored) for n in full]
    assert max(size for when, size in watcher.sizes if when == 0) == 8


def test_replay_forgets_less(tiny_scenario: Any, learn: Any) -> None:
    """Where the criterion pushes old labels down, rehearsed positives hold them up."""
    from cml_bench.losses.assume_negative import AssumeNegative

    scenario = tiny_scenario(n=80)
    fall = []
    for strategy in (Naive(), ER(relabel="oracle")):
        learnt = learn(strategy, scenario, epochs=8, criterion=AssumeNegative("bce", "seen"))
        truth = torch.from_numpy(scenario.splits["test"].truth[scenario.splits["test"].rows, :2]) == 1
        fall.append(float((learnt.logits[2][:, :2] - learnt.logits[0])[truth].mean()))
    assert fall[1] > fall[0] + 0.5


@pytest.mark.parametrize("batch", [3, 6])
def test_a_step_of_an_online_stream(tiny_scenario: Any, learn: Any, batch: int) -> None:
    """Each batch meets all that came before it, in the same chunk too, with labels as annotated by then."""
    watcher = Rows()
    strategy = ER(memory_size=1000, replay_batch_size=1000)
    learn(strategy, tiny_scenario(online_chunk=6), extra=[watcher], epochs=1, batch_size=batch)
    rows, annotated = iter(watcher.rows), dict[int, list[int]]()
    for experience in tiny_scenario(online_chunk=6).train_stream:
        width, left = len(experience.dataset.labels.names), len(experience.dataset)
        truth = dict(
            zip(experience.dataset.sample_ids.data.tolist(), experience.dataset.labels.data.tolist(), strict=True)
        )
        while left:
            fresh = [next(rows) for _ in range(min(batch, left))]
            memory = [next(rows) for _ in annotated]
            left -= len(fresh)
            assert {row: list(states) for _, row, states in memory} == {
                row: states + [OUT_OF_SCOPE] * (width - len(states)) for row, states in annotated.items()
            }
            for _, row, states in fresh:
                assert list(states) == truth[row]
                old = annotated.get(row, [])
                old = old + [OUT_OF_SCOPE] * (width - len(old))
                annotated[row] = [max(pair) for pair in zip(states, old, strict=True)]
    assert next(rows, None) is None


def test_sizes_of_all_that_keep_a_reservoir(tiny_scenario: Any, learn: Any) -> None:
    kinds = [load("strategies", name)(memory_size="2/label") for name in ("er", "er_ace", "mir", "der", "derpp")]
    dlfl = load("strategies", "dlfl")(memory_size="2/label", selection="reservoir")
    for strategy, place in (*((kind, 0) for kind in kinds), (dlfl, 1)):
        for protocol in ({}, {"online_chunk": 6}):
            buffer = learn(strategy, tiny_scenario(**protocol), epochs=1).plugins[place].buffer
            assert buffer.max_size == len(buffer.buffer) == 12
