"""Label mask training: what is told, what counts, and that nothing told is plain training."""

from __future__ import annotations

import sys
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from cml_bench.errors import CmlBenchError
from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED
from cml_bench.losses.assume_negative import AssumeNegative
from cml_bench.models.heads.ctran import CTranHead
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.model import MultiLabelModel
from cml_bench.registry import load
from cml_bench.runs.run import run_job

LabelMask = load("strategies", "label_mask")
module = sys.modules[LabelMask.__module__]
STATES = st.sampled_from([PRESENT, ABSENT, UNMARKED, OUT_OF_SCOPE])


@given(st.lists(st.lists(STATES, min_size=7, max_size=7), min_size=1, max_size=6), st.floats(0, 1), st.integers(0, 99))
def test_only_known_labels_are_told_and_no_more_than_the_share(rows: list[list[int]], share: float, seed: int) -> None:
    labels = torch.tensor(rows, dtype=torch.int8)
    told = module.draw_known(labels, share, torch.Generator().manual_seed(seed))
    assert not bool((told & (labels < 0)).any())
    most = torch.tensor([int(share * sum(state > OUT_OF_SCOPE for state in row) + 1e-9) for row in rows])
    assert bool((told.sum(dim=1) <= most).all())


def test_the_number_told_is_uniform_and_so_is_which() -> None:
    """8 labels asked for of 10: 0 to 6 of them, each number with probability 1/7, each label alike."""
    labels = torch.ones(70_000, 10, dtype=torch.int8)
    labels[:, [2, 9]] = OUT_OF_SCOPE
    told = module.draw_known(labels, 0.75, torch.Generator().manual_seed(0))
    counts = Counter(told.sum(dim=1).tolist())
    assert sorted(counts) == list(range(7))
    assert max(abs(count - 10_000) for count in counts.values()) < 500
    # The mean number is 3 of 8.
    rates = told.double().mean(dim=0)
    assert rates[[2, 9]].tolist() == [0, 0]
    assert float((rates[rates > 0] - 3 / 8).abs().max()) < 0.01


def logits_of(job: Any) -> list[Any]:
    return list(run_job(job).predictions.logits)


def test_telling_nothing_is_training_a_plain_transformer_head(small_jobs: Any) -> None:
    plain, nothing, everything = small_jobs(
        ["naive head=ctran", "label_mask known=0", "label_mask known=1"], increment=5
    )
    reference = logits_of(plain)
    assert all(np.array_equal(a, b) for a, b in zip(reference, logits_of(nothing), strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(reference, logits_of(everything), strict=True))


def test_no_tolerance_hides_nothing_and_full_tolerance_everything(small_jobs: Any) -> None:
    names = ["label_mask", "label_mask eps=0", "label_mask eps=0.5", "label_mask known=0"]
    without, none, full, nothing = (logits_of(job) for job in small_jobs(names))
    assert all(np.array_equal(a, b) for a, b in zip(without, none, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(full, nothing, strict=True))
    assert not np.array_equal(without[-1], full[-1])


class Batch:
    """What the plugin looks at of a learner."""

    def __init__(self, labels: torch.Tensor) -> None:
        torch.manual_seed(0)
        head = CTranHead(6, heads=2, dropout=0.0)
        head.grow([f"label{i}" for i in range(labels.shape[1])])
        self.model, self.mb_y, self.mb_x = MultiLabelModel(None, head), labels, torch.randn(len(labels), 6, 2, 2)
        self.second_view, self.experience = None, SimpleNamespace(is_first_subexp=True)

    def forward(self, plugin: Any) -> torch.Tensor:
        plugin.before_forward(self)
        self.states = self.model.head.states
        self.head_output = self.model.head_output(self.mb_x)
        self.raw = self.head_output.logits
        self.raw.retain_grad()
        plugin.after_forward(self)
        return self.head_output.logits


LABELS = torch.tensor([[1, 0, 1, 0], [0, 0, 1, 1], [1, -1, 0, -2], [-2, -2, 1, 0]], dtype=torch.int8)


def plugin_of(**options: Any) -> Any:
    return module.LabelMaskPlugin(LabelMask(**options), torch.Generator().manual_seed(1))


def test_the_uncertain_are_hidden_in_every_image() -> None:
    """Against the received model asked image by image; the model has moved since."""
    batch, plugin = Batch(LABELS), plugin_of(known=1.0, eps=0.05)
    plugin.before_training_exp(batch)
    with torch.no_grad():
        probabilities = torch.cat([batch.model(image[None]) for image in batch.mb_x]).sigmoid()
        for parameter in batch.model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    unsure = (probabilities >= 0.45) & (probabilities <= 0.55)
    assert unsure.any()
    assert not unsure.all()
    batch.forward(plugin)
    assert plugin.told.any()
    assert not bool((plugin.told & unsure).any())
    reference = plugin_of(known=1.0)
    Batch(LABELS).forward(reference)
    assert torch.equal(plugin.told, reference.told & ~unsure)
    assert batch.model.head.states is None
    assert torch.equal(batch.states, torch.where(plugin.told, LABELS, UNMARKED))
    plugin.after_training_iteration(batch)
    assert not hasattr(plugin, "told")


def test_the_chunks_of_an_experience_go_on_with_the_model_that_it_found() -> None:
    batch, plugin = Batch(LABELS), plugin_of(eps=0.05)
    found = {name: value.clone() for name, value in batch.model.state_dict().items()}
    for first in (True, False):
        batch.experience.is_first_subexp = first
        plugin.before_training_exp(batch)
        with torch.no_grad():
            for parameter in batch.model.parameters():
                parameter += 1
    assert all(torch.equal(value, found[name]) for name, value in plugin.received.items())


def test_told_labels_can_be_left_out_of_the_loss() -> None:
    """The gradient is that of the sum over unknown entries, over the number of all supervised ones."""
    batch, plugin = Batch(LABELS), plugin_of(known=1.0, loss_on="unknown")
    logits = batch.forward(plugin)
    known = LABELS >= 0
    (bce(logits, LABELS.float(), known.float(), reduction="sum") / known.sum()).backward()
    found = [p.grad.clone() for p in batch.model.parameters()]
    other, same = Batch(LABELS), plugin_of(known=1.0)
    logits = other.forward(same)
    assert torch.equal(same.told, plugin.told)
    assert plugin.told.any()
    counted = (known & ~plugin.told).float()
    (bce(logits, LABELS.clamp(min=0).float(), counted, reduction="sum") / known.sum()).backward()
    for mine, expected in zip(found, other.model.parameters(), strict=True):
        torch.testing.assert_close(mine, expected.grad)


def test_a_criterion_that_assumes_negatives_makes_nothing_of_told_labels() -> None:
    batch, plugin = Batch(LABELS), plugin_of(known=1.0, loss_on="unknown")
    batch.forward(plugin)
    AssumeNegative(scope="seen")(batch.head_output, LABELS).backward()
    assert torch.equal(batch.raw.grad == 0, plugin.told)


def test_a_head_that_cannot_be_told_is_refused() -> None:
    with pytest.raises(CmlBenchError, match="head=linear has no place for: take head=ctran"):
        LabelMask().build_model(None, LinearHead(6))
