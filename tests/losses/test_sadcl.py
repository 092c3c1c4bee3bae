"""SADCL's loss against its formula in loops, and what the release's defects would have done."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.losses.asl import ASL
from cml_bench.losses.contrast import label_contrast
from cml_bench.losses.sadcl import SADCL, prototype_contrast
from cml_bench.models.heads.head import HeadOutput
from cml_bench.registry import load


def draw(seed: int, states: tuple[int, ...] = (1, 0, -1, -2)) -> tuple[HeadOutput, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    output = HeadOutput(
        torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True),
        torch.randn(6, 8, generator=generator, dtype=torch.float64),
        torch.randn(6, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True),
    )
    return output, torch.tensor(states, dtype=torch.int8)[torch.randint(len(states), (6, 4), generator=generator)]


@given(seed=st.integers(0, 2**31))
def test_prototype_contrast_against_loops(seed: int) -> None:
    output, labels = draw(seed)
    generator = torch.Generator().manual_seed(seed)
    assert output.label_features is not None
    features = F.normalize(output.label_features.detach(), dim=2)
    prototypes = F.normalize(torch.randn(4, 5, generator=generator, dtype=torch.float64), dim=1)
    total, present = 0.0, 0
    for c in range(4):
        near = {i: math.exp(float(features[i, c] @ prototypes[c]) / 0.2) for i in range(6) if int(labels[i, c]) >= 0}
        with_label = [i for i in near if int(labels[i, c]) == 1]
        if with_label:
            total -= math.log(sum(near[i] for i in with_label) / sum(near.values()))
            present += len(with_label)
    expected = total / max(1, present)
    assert float(prototype_contrast(features, prototypes, labels, 0.2)) == pytest.approx(expected, abs=1e-12)


def test_the_whole_is_the_sum_of_its_parts() -> None:
    output, labels = draw(1)
    criterion = SADCL("asl gamma_neg=0", weight=0.4, pull=3.0)
    loss = criterion(output, labels)
    assert criterion.projector is not None
    assert output.label_features is not None
    features = criterion.projector(output.label_features)
    prototypes = criterion.projector(criterion.prototypes[0])
    pulled = prototype_contrast(features, prototypes, labels, 0.2)
    expected = ASL(gamma_neg=0)(output.logits, labels) + 0.4 * (label_contrast(features, labels, 0.2) + 3 * pulled)
    torch.testing.assert_close(loss, expected)
    assert features.shape[2] == 2  # half of 5


@given(
    seed=st.integers(0, 2**31),
    states=st.sampled_from([(1, 0, -1, -2), (0, -1, -2), (1,), (0,), (-2,), (-1, -2), (1, 0)]),
)
def test_rows_and_labels_without_positives_stay_finite(seed: int, states: tuple[int, ...]) -> None:
    output, labels = draw(seed, states)
    assert output.label_features is not None
    loss = SADCL()(output, labels)
    loss.backward()
    assert loss.isfinite()
    assert output.label_features.grad is not None
    assert output.label_features.grad.isfinite().all()
    assert (output.label_features.grad[labels < 0] == 0).all()


def test_a_second_growth_adds_a_block_and_old_prototypes_stay() -> None:
    output, labels = draw(2)
    criterion = SADCL()
    criterion(output.narrowed(3), labels)
    old = criterion.prototypes[0]
    kept = old.detach().clone()
    criterion(output, labels)
    assert criterion.prototypes[0] is old
    assert torch.equal(old, kept)
    assert [len(block) for block in criterion.prototypes] == [3, 1]
    assert criterion.prototypes[1].dtype is torch.float64


def test_images_and_labels_in_another_order() -> None:
    output, labels = draw(3)
    criterion = SADCL()
    loss = criterion(output, labels)
    rows, columns = torch.randperm(6), torch.randperm(4)
    assert output.label_features is not None
    mixed = HeadOutput(output.logits[rows][:, columns], output.pooled[rows], output.label_features[rows][:, columns])
    with torch.no_grad():
        criterion.prototypes[0].copy_(criterion.prototypes[0][columns].clone())
    torch.testing.assert_close(criterion(mixed, labels[rows][:, columns]), loss)


def test_it_trains_through_a_stream(tiny_scenario: Any, learn: Any) -> None:
    criterion = SADCL()
    learn(load("strategies", "naive")(), tiny_scenario(), head="dlfl", criterion=criterion)
    assert [len(block) for block in criterion.prototypes] == [2, 2, 2]
    assert all(block.grad is None or block.grad.isfinite().all() for block in criterion.prototypes)


@pytest.mark.parametrize("options", [{"pull": -1.0}, {"temperature": 0.0}, {"projection": 0}])
def test_bad_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(CmlBenchError, match=f"sadcl: {next(iter(options))}="):
        SADCL(**options)
