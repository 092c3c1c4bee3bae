"""What holds for every criterion on weak labels, over random four-state tables, alone and in streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from cml_bench.errors import CmlBenchError
from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED, widen
from cml_bench.losses.criterion import Criterion
from cml_bench.losses.specification import as_criterion
from cml_bench.models.heads.head import HeadOutput
from cml_bench.registry import load
from cml_bench.runs.run import run_job

NAMES = [
    "focal",
    "focal gamma=2.5",
    "hill",
    "hill gamma=0.5 reduction=sum",
    "splc",
    "splc gamma=0.5",
    "clml",
    "clml+hill",
    "clml reduction=sum least=0 base=bce",
    "an",
    "an_ls",
    "wan",
    "epr",
    "epr k=2.5",
    "role",
    "role k=2.5",
    "em",
    "em_apl",
    "pairwise_ranking",
    "rlsep",
]
KNOWN_ONLY = ("focal", "focal gamma=2.5", "rlsep", "clml reduction=sum least=0 base=bce")
"""These read nothing of an open entry, at least in the first epoch."""

STATES = st.sampled_from([PRESENT, ABSENT, UNMARKED, OUT_OF_SCOPE])
TABLES = arrays.arrays(np.int8, st.tuples(st.integers(1, 7), st.integers(1, 6)), elements=STATES)
every_criterion = pytest.mark.parametrize("name", NAMES)


def ready(name: str, labels: Tensor, tiny_dataset: Any) -> Criterion:
    """A criterion that has met the images with ids 0, 1, 2 ..."""
    torch.manual_seed(0)
    criterion = as_criterion(name)
    criterion.start_experience(tiny_dataset(range(len(labels)), labels))
    return criterion


def judged(
    criterion: Criterion, logits: Tensor, labels: Tensor, epoch: int = 1, ids: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients in logits and features; the features are a fixed function of the row."""
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(16, 9, generator=generator, dtype=logits.dtype)
    ids = torch.arange(len(logits)) if ids is None else ids
    z, x = logits.clone().requires_grad_(), features[ids].requires_grad_()
    loss = criterion(HeadOutput(z, x), labels, ids, epoch)
    loss.backward()
    return loss.detach(), z.grad if z.grad is not None else torch.zeros_like(z), x.grad if x.grad is not None else x * 0


def drawn(shape: tuple[int, ...], seed: int, scale: float = 4.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@every_criterion
@given(table=TABLES, seed=st.integers(0, 2**31), spare=st.integers(0, 3), epoch=st.integers(0, 2))
@settings(max_examples=25)
def test_what_is_not_judged_is_not_read(
    tiny_dataset: Any, name: str, table: Any, seed: int, spare: int, epoch: int
) -> None:
    labels = torch.from_numpy(table)
    logits, poison = drawn(labels.shape, seed), drawn(labels.shape, seed + 1, 30)
    criterion = ready(name, labels, tiny_dataset)
    criterion.spare = spare
    ignored = labels == OUT_OF_SCOPE
    ignored[:, :spare] |= labels[:, :spare] == UNMARKED
    if name in KNOWN_ONLY and epoch == 0:
        ignored |= labels == UNMARKED
    loss, gradient, pull = judged(criterion, logits, labels, epoch)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert pull.isfinite().all()
    assert (gradient[ignored] == 0).all()
    again = judged(criterion, torch.where(ignored, poison, logits), labels, epoch)
    assert torch.equal(loss, again[0])
    assert torch.equal(gradient, again[1])
    assert torch.equal(pull, again[2])
    if bool((labels == OUT_OF_SCOPE).all()):
        assert loss == 0


@every_criterion
@given(table=TABLES, seed=st.integers(0, 2**31), data=st.data())
@settings(max_examples=15)
def test_order_of_images_and_labels_does_not_matter(
    tiny_dataset: Any, name: str, table: Any, seed: int, data: st.DataObject
) -> None:
    labels = torch.from_numpy(table)
    logits = drawn(labels.shape, seed)
    rows = torch.tensor(data.draw(st.permutations(range(len(labels)))))
    columns = torch.arange(labels.shape[1])
    if "role" not in name:  # its estimates belong to columns
        columns = torch.tensor(data.draw(st.permutations(range(labels.shape[1]))))
    criterion = ready(name, labels, tiny_dataset)
    loss, gradient, _ = judged(criterion, logits, labels)
    moved, other, _ = judged(criterion, logits[rows][:, columns], labels[rows][:, columns], ids=rows)
    torch.testing.assert_close(moved, loss)
    torch.testing.assert_close(other, gradient[rows][:, columns])


@every_criterion
def test_images_that_nobody_was_asked_about_change_nothing(tiny_dataset: Any, name: str) -> None:
    labels = torch.tensor([[1, -1, 0, -1], [-1, 1, -1, -2], [0, -1, -1, 1]], dtype=torch.int8)
    more = torch.cat([labels, torch.full((2, 4), OUT_OF_SCOPE, dtype=torch.int8)])
    logits = drawn((5, 4), 0, 1)
    criterion = ready(name, more, tiny_dataset)
    for epoch in (0, 1):
        few = judged(criterion, logits[:3], labels, epoch)
        many = judged(criterion, logits, more, epoch)
        torch.testing.assert_close(many[0], few[0])
        torch.testing.assert_close(many[1][:3], few[1])


@every_criterion
def test_narrow_rows_are_padded_ones(tiny_dataset: Any, name: str) -> None:
    narrow = torch.tensor([[1, -1], [-1, 0]], dtype=torch.int8)
    wide, logits = widen(narrow, 4), drawn((2, 4), 1, 1)
    criterion = ready(name, wide, tiny_dataset)
    torch.testing.assert_close(judged(criterion, logits, narrow)[0], judged(criterion, logits, wide)[0])


@every_criterion
def test_extreme_logits_stay_finite(tiny_dataset: Any, name: str) -> None:
    labels = torch.tensor([[1, 0, -1], [1, 0, -1], [-2, -1, 1]], dtype=torch.int8)
    logits = torch.tensor([[200.0, -200.0, 200.0], [-200.0, 200.0, -200.0], [0.0, 1e4, -1e4]])
    for epoch in (0, 1):
        loss, gradient, pull = judged(ready(name, labels, tiny_dataset), logits, labels, epoch)
        assert loss.isfinite()
        assert gradient.isfinite().all()
        assert pull.isfinite().all()


@pytest.mark.parametrize("name", [*NAMES, "bce", "asl", "assume_negative", "clml+asl"])
def test_what_is_declared_of_open_entries_holds(tiny_dataset: Any, name: str) -> None:
    """Only a criterion that declares it gets anything from open entries, in any epoch."""
    labels = torch.tensor([[1, -1, -1], [-1, 1, -1], [1, -1, 1], [-1, -1, 1]], dtype=torch.int8)
    criterion, pulled = ready(name, labels, tiny_dataset), torch.zeros(())
    for epoch in (0, 1):
        pulled = pulled + judged(criterion, drawn((4, 3), epoch, 1), labels, epoch)[1][labels == UNMARKED].abs().sum()
    assert bool(pulled > 0) == any(part.meta.open for part in criterion.with_bases)


@every_criterion
def test_the_batch_is_left_as_it_was(tiny_dataset: Any, name: str) -> None:
    labels = torch.tensor([[1, -1, -1], [-1, 1, 0]], dtype=torch.int8)
    before, logits = labels.clone(), drawn((2, 3), 2)
    same = logits.clone()
    judged(ready(name, labels, tiny_dataset), logits, labels)
    assert torch.equal(labels, before)
    assert torch.equal(logits, same)


def test_what_needs_more_than_logits_says_so() -> None:
    labels, logits = torch.ones((1, 1), dtype=torch.int8), torch.zeros(1, 1)
    for name in ("splc", "clml", "role", "em_apl"):
        with pytest.raises(CmlBenchError, match="reads more than logits"):
            as_criterion(name)(logits, labels)
    for name in ("role", "em_apl"):
        with pytest.raises(CmlBenchError, match=f"loss={name} keeps .* by sample id"):
            as_criterion(name)(HeadOutput(logits, logits), labels)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("focal gamma=0.5", "focal: gamma=0.5 must be 0 or at least 1"),
        ("focal alpha=1.5", "focal: alpha=1.5 must be from 0 to 1, or -1"),
        ("hill height=0.5", "hill: height=0.5 must be at least 1"),
        ("hill gamma=-1", "hill: gamma=-1.0 must be 0 or more"),
        ("splc tau=2", "splc: tau=2.0 must be from 0 to 1"),
        ("clml tau=nan", "clml: tau=nan must be from 0 to 1"),
        ("clml least=-1", "clml: least=-1.0 must be 0 or more"),
        ("clml weight=-1", "clml: weight=-1.0 must be 0 or more"),
        ("clml+bcee", "did you mean 'bce'"),
        ("an_ls smoothing=0.7", "an_ls: smoothing=0.7 must be from 0 to 0.5"),
        ("epr k=0", "epr: k=0.0 must be positive"),
        ("role k=-2", "role: k=-2.0 must be positive"),
        ("em alpha=-1", "em: alpha=-1.0 must be 0 or more"),
        ("em_apl alpha=-1", "em_apl: alpha=-1.0 must be 0 or more"),
        ("em_apl beta=-1", "em_apl: beta=-1.0 must be 0 or more"),
        ("em_apl warm_up=1", "em_apl: warm_up=1.0 must be at least 0 and below 1"),
        ("em_apl share=1.1", "em_apl: share=1.1 must be from 0 to 1"),
    ],
)
def test_bad_options_are_named(text: str, message: str) -> None:
    with pytest.raises(CmlBenchError, match=message):
        as_criterion(text)


@pytest.mark.parametrize("name", ["focal", "hill", "splc", "clml"])
def test_bad_reductions_are_named(name: str) -> None:
    with pytest.raises(CmlBenchError, match=f"{name}: reduction='max' must be 'mean' or 'sum'"):
        load("criteria", name)(reduction="max")


# -- in streams ------------------------------------------------------------------------------------------------------


@every_criterion
@pytest.mark.parametrize(
    "strategy",
    [
        *("naive", "er memory_size=10"),
        *(pytest.param(strategy, marks=pytest.mark.slow) for strategy in ("lwf", "cumulative")),
    ],
)
def test_streams_are_learnt(tiny_scenario: Any, learn: Any, name: str, strategy: str) -> None:
    stem, *options = strategy.split()
    build = load("strategies", stem)
    method = build(**{key: int(value) for key, value in (option.split("=") for option in options)})
    scenario = tiny_scenario(regime="single_positive")
    learnt = learn(method, scenario, epochs=3, lr=0.01, criterion=as_criterion(name))
    assert [logits.shape[1] for logits in learnt.logits] == [2, 4, 6]
    assert all(torch.isfinite(logits).all() for logits in learnt.logits)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["role loss.k=1.6", "em loss.alpha=0.2", "em_apl loss.alpha=0.2"])
def test_digits_are_learnt_from_single_positives_with_replay(small_jobs: Any, loss: str) -> None:
    """Chance is the mean share of positives, 0.245."""
    options = {"n_train": 600, "n_test": 300, "increment": 5, "epochs": 8, "regime": "single_positive"}
    (job,) = small_jobs([f"er memory_size=300 loss={loss}"], **options)
    made = run_job(job)
    assert all(np.isfinite(logits).all() for logits in made.predictions.logits)
    assert made.result["metrics"]["summary"]["last_map"] > 0.32
