"""The eight invariants of the design, each on the whole machinery; details are tested beside the parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cml_bench.data.digits import digits_sources
from cml_bench.labels import OUT_OF_SCOPE
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.memory.reservoir import ReservoirBuffer
from cml_bench.metrics.evaluate import evaluate
from cml_bench.metrics.predictions import Predictions
from cml_bench.models.heads.dlfl import DLFLHead
from cml_bench.models.heads.linear import LinearHead
from cml_bench.registry import load
from cml_bench.runs.plan import plan
from cml_bench.runs.results import result_path
from cml_bench.runs.run import run_and_store, run_job

METHODS = {
    "naive": {},
    "ewc": {},
    "lwf": {},
    "er": {"memory_size": 10},
    "derpp": {"memory_size": 10},
    "dlfl": {"memory_size": 10},
    "cumulative": {},
}


class Reading(Criterion):
    """BCE that notes every state it is given, and reads unknown entries only to show that they are not read."""

    meta = CriterionMeta(name="reading", title="Reading", reference="")

    def __init__(self, unknown_as: int) -> None:
        super().__init__()
        self.unknown_as = unknown_as

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        known = labels >= 0
        states = torch.where(known, labels, self.unknown_as).float()
        total = torch.nn.functional.binary_cross_entropy_with_logits(logits, states, known.float(), reduction="sum")
        return total / known.sum().clamp(min=1)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_1_what_lies_behind_an_unknown_entry_is_never_read(tiny_scenario: Any, learn: Any, method: str) -> None:
    """Poison the truth of every entry that nobody annotated: training is the same to the bit."""
    strategy = load("strategies", method)(**METHODS[method])
    scenario, head = tiny_scenario(assignment="disjoint"), "dlfl" if method == "dlfl" else "linear"
    honest = learn(strategy, scenario, head=head)
    poisoned = tiny_scenario(assignment="disjoint")
    for experience in poisoned.train_stream:
        labels = experience.dataset.labels.data
        assert (labels[:, : experience.dataset.labels.first_new] == OUT_OF_SCOPE).all()
    labels = poisoned.splits["train"].source.labels
    labels[:] = 1 - labels
    other = learn(strategy, poisoned, head=head)
    assert all(torch.equal(value, other.state()[name]) for name, value in honest.state().items())
    as_absent, as_present = (learn(strategy, scenario, head=head, criterion=Reading(fill)) for fill in (0, 1))
    assert all(torch.equal(value, as_present.state()[name]) for name, value in as_absent.state().items())


@pytest.mark.parametrize("order", ["published", "random:2"])
def test_2_seen_labels_are_a_prefix_with_their_names(tiny_scenario: Any, learn: Any, order: str) -> None:
    scenario = tiny_scenario(class_order=order, base=1, increment=2)
    learnt = learn(load("strategies", "naive")(), scenario)
    assert learnt.model.head.label_names == scenario.label_names
    for t, n in enumerate(scenario.n_seen):
        assert scenario.train_stream[t].dataset.labels.names == scenario.label_names[:n]
        assert learnt.logits[t].shape[1] == n
    columns = [scenario.splits["train"].source.label_names.index(name) for name in scenario.label_names]
    assert (scenario.splits["train"].truth == scenario.splits["train"].source.labels[:, columns]).all()


def test_3_a_memory_keeps_labels_as_annotated_by_stable_ids(tiny_scenario: Any) -> None:
    scenario = tiny_scenario()
    memory = ReservoirBuffer(100, torch.Generator().manual_seed(0))
    annotated: dict[int, dict[int, int]] = {}
    for experience in scenario.train_stream:
        dataset = experience.dataset
        batch = dataset.batch(torch.arange(len(dataset)))
        assert len(batch) == 3
        assert torch.equal(batch[0], scenario.splits["train"].inputs.table[batch.sample_id])
        for row, states in zip(batch.sample_id.tolist(), batch[1].tolist(), strict=True):
            known = {c: state for c, state in enumerate(states) if state >= 0}
            annotated.setdefault(row, {}).update(known)
        memory.post_adapt(None, experience)
    stored = memory.buffer
    for row, states in zip(stored.sample_ids.data.tolist(), stored.labels.data.tolist(), strict=True):
        assert states == [annotated[row].get(c, OUT_OF_SCOPE) for c in range(6)]


@pytest.mark.parametrize("kind", [LinearHead, DLFLHead])
def test_4_growth_never_disturbs(kind: Any) -> None:
    torch.manual_seed(0)
    head, x = kind(6).eval(), torch.randn(5, 6, 3, 3)
    head.grow(["a", "b"])
    before = {name: (parameter, parameter.detach().clone()) for name, parameter in head.named_parameters()}
    logits = head(x).logits
    head.grow(["c", "d", "e"])
    after = dict(head.named_parameters())
    for name, (parameter, value) in before.items():
        assert after[name] is parameter
        assert torch.equal(after[name], value)
    assert torch.allclose(head(x).logits[:, :2], logits, atol=1e-6)
    sizes = [sum(p.numel() for p in after.values()) - sum(v.numel() for _, v in before.values())]
    assert sizes[0] == 3 * sum(v.numel() for _, v in before.values()) // 2, "growth is not linear in labels"


def test_5_a_result_is_its_predictions(small_jobs: Any, tmp_path: Path) -> None:
    (job,) = small_jobs()
    result = run_and_store(job, tmp_path)
    stored = Predictions.load(result_path(tmp_path, job).with_suffix(".npz"))
    assert evaluate(stored)["summary"] == result["metrics"]["summary"]
    assert all(block.dtype == np.float16 for block in stored.logits)


def test_6_nothing_is_silently_dropped(small_jobs: Any, tmp_path: Path) -> None:
    """Every image is in an experience or counted out, every label without a positive listed, every failure a result."""
    (job,) = small_jobs(validation=0.1, evaluate_on="valid")
    made = run_job(job)
    record, truth = made.result["benchmark"], made.predictions.truth
    labels = digits_sources(n_train=40, n_test=40)[0].labels
    trained = set().union(*(rows.tolist() for rows in plan(job).benchmark.build().splits["train"].experiences))
    assert record["unassigned_images"]["train"] == 40 - len(trained)
    held_out = 4
    assert len(trained) == int(labels.any(axis=1).sum()) - len(truth)
    assert record["unassigned_images"]["valid"] == 40 - len(truth) >= 40 - held_out
    assert set(record["label_names"]) == set(made.result["metrics"]["per_label_ap"])
    empty = [name for c, name in enumerate(record["label_names"]) if not truth[:, c].any()]
    assert empty, "four images show all ten labels: the test shows nothing"
    assert sorted(made.result["metrics"]["per_experience"][-1]["dropped_labels"]) == sorted(empty)
    (failing,) = small_jobs(["naive lr=1e30"])
    assert run_and_store(failing, tmp_path)["status"] == "failed"
    assert result_path(tmp_path, failing).is_file()


def test_7_seeds_are_private(small_jobs: Any) -> None:
    (job,) = small_jobs()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = run_job(job).predictions
    assert torch.equal(torch.rand(3), expected)
    second = run_job(job).predictions
    assert all(np.array_equal(a, b) for a, b in zip(first.logits, second.logits, strict=True))


def test_8_core_finds_plug_ins_it_has_never_heard_of(small_jobs: Any, tmp_path: Path) -> None:
    """The static half of this invariant is tests/test_imports.py; here a strategy, a head and a loss from one file."""
    path = tmp_path / "all_new.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "from cml_bench.losses.bce import BCE\n"
        "from cml_bench.losses.criterion import CriterionMeta\n"
        "from cml_bench.models.heads.head import HeadMeta\n"
        "from cml_bench.models.heads.linear import LinearHead\n"
        "from cml_bench.training.strategy import Strategy, StrategyMeta\n"
        "@dataclass(frozen=True)\n"
        "class New(Strategy):\n"
        "    size: int = 3\n"
        "    meta = StrategyMeta(name='new', title='New', family='test')\n"
        "class NewHead(LinearHead):\n"
        "    meta = HeadMeta('new_head', 'New head', 'pooled', True, '')\n"
        "class NewLoss(BCE):\n"
        "    meta = CriterionMeta('new_loss', 'New loss', '')\n"
    )
    (job,) = small_jobs([f"{path}:New size=7 head={path}:NewHead loss={path}:NewLoss"])
    method = run_job(job).result["method"]
    assert (method["title"], method["head"], method["loss"]) == ("New", "new_head", "New loss")
    assert method["options"] == {"size": 7}
    (built_in,) = small_jobs()
    ours, theirs = run_job(job).predictions, run_job(built_in).predictions
    assert all(np.array_equal(a, b) for a, b in zip(ours.logits, theirs.logits, strict=True))
