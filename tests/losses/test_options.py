"""Options of criteria reach the loss: with another value it is another number."""

from __future__ import annotations

import pytest
import torch

from cml_bench.testing.verdict import CriterionCase, made_up_dataset, made_up_labels


@pytest.mark.parametrize(
    ("base", "option", "value"),
    [
        ("kmcl", "temperature", 0.5),
        ("probmcl", "temperature", 0.5),
        ("sadcl", "temperature", 0.5),
        ("sadcl", "projection", 3),
        ("clml change_epoch=0", "tau", 0.3),
        ("clml", "change_epoch", 0),
        ("em_apl", "alpha", 0.7),
        ("em", "alpha", 0.7),
        ("c_gmvae", "coefficient", 2.0),
        ("mulcon start=0", "temperature", 0.7),
        ("mulcon start=0", "projection", 3),
        ("similarity_dissimilarity", "temperature", 0.7),
        ("similarity_dissimilarity", "projection", 3),
    ],
)
def test_an_option_changes_the_loss(base: str, option: str, value: float) -> None:
    data = made_up_dataset(made_up_labels())
    losses = []
    for spec in (base, f"{base} {option}={value}"):
        case = CriterionCase(spec)
        losses.append(case.judge(case.prepared(data), data).loss)
    assert not torch.isclose(*losses)
