"""MulCon's loss: its stages, its views, the projector that the optimiser must get in time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.losses.auxiliary import first_look
from cml_bench.losses.bce import BCE
from cml_bench.losses.contrast import label_contrast
from cml_bench.losses.mulcon import MulCon
from cml_bench.losses.similarity_dissimilarity import SimilarityDissimilarity
from cml_bench.models.heads.head import HeadOutput
from cml_bench.registry import load

Naive = load("strategies", "naive")


def said(seed: int = 0, images: int = 5, labels: int = 3) -> HeadOutput:
    generator = torch.Generator().manual_seed(seed)
    return HeadOutput(
        torch.randn(images, labels, generator=generator, requires_grad=True),
        torch.randn(images, 8, generator=generator, requires_grad=True),
        torch.randn(images, labels, 6, generator=generator, requires_grad=True),
    )


LABELS = torch.tensor([[1, 0, 1], [1, 1, -1], [0, 1, -2], [-2, -2, 1], [0, 0, 0]], dtype=torch.int8)


def test_the_first_stage_is_the_base() -> None:
    output = said()
    criterion = MulCon(start=2)
    for epoch in (0, 1):
        assert torch.equal(criterion(output, LABELS, None, epoch), BCE()(output.logits, LABELS))
    assert criterion(output, LABELS, None, 2) > BCE()(output.logits, LABELS)


def test_the_second_stage_adds_the_contrast_of_both_views() -> None:
    one, two = said(0), said(1)
    criterion = MulCon(weight=0.7, temperature=0.3, start=0)
    loss = criterion(one, LABELS, None, 0, two)
    assert criterion.projector is not None
    assert one.label_features is not None
    assert two.label_features is not None
    first, second = criterion.projector.layers[0], criterion.projector.layers[2]
    both = torch.cat([one.label_features, two.label_features])
    projected = F.normalize(second(F.relu(first(both))), dim=2)
    added = label_contrast(projected, torch.cat([LABELS, LABELS]), 0.3)
    base = (BCE()(one.logits, LABELS) + BCE()(two.logits, LABELS)) / 2
    torch.testing.assert_close(loss, base + 0.7 * added)
    torch.testing.assert_close(loss, criterion(two, LABELS, None, 0, one))


def test_a_companion_is_compared_with_the_second_view_of_itself() -> None:
    one, two, beside, beside_two = (said(seed) for seed in range(4))
    criterion = MulCon(weight=0.7, start=0)
    together = criterion(one._replace(companion=beside), LABELS, None, 0, two._replace(companion=beside_two))
    apart = criterion(one, LABELS, None, 0, two) + criterion(beside, LABELS, None, 0, beside_two)
    torch.testing.assert_close(together, apart)


def test_narrow_rows_and_narrow_heads() -> None:
    output = said()
    criterion = MulCon(start=0)
    wide = torch.cat([LABELS, torch.full((5, 2), 1, dtype=torch.int8)], dim=1)
    torch.testing.assert_close(criterion(output, wide), criterion(output, LABELS))
    padded = LABELS.clone()
    padded[:, 2:] = -2
    torch.testing.assert_close(criterion(output, LABELS[:, :2]), criterion(output, padded))


def test_a_base_reaches_over_columns_that_rows_lack() -> None:
    output, narrow = said(), LABELS[:, :2]
    criterion = MulCon("assume_negative scope=seen", weight=0.0)
    expected = BCE()(output.logits, F.pad(narrow.clamp(min=0), (0, 1)))
    torch.testing.assert_close(criterion(output, narrow), expected)
    criterion.spare = 3
    torch.testing.assert_close(criterion(output, narrow), BCE()(output.logits[:, :2], narrow))


def test_what_is_not_present_gets_no_gradient_from_the_contrast() -> None:
    output = said()
    assert output.label_features is not None
    # With an unlucky projector, every unit of it may be off for a feature.
    torch.manual_seed(0)
    criterion = MulCon(start=0)
    criterion(output, LABELS).backward()
    assert output.label_features.grad is not None
    moved = output.label_features.grad.abs().sum(2) > 0
    assert not moved[LABELS != 1].any()
    assert moved[0, 0]


def test_the_optimiser_trains_the_projector_and_keeps_it(tiny_scenario: Any, learn: Any) -> None:
    criterion, seen = MulCon(start=0), list[list[tuple[int, Tensor]]]()

    class Look(SupervisedPlugin):
        def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            optimised = {id(p) for group in strategy.optimizer.param_groups for p in group["params"]}
            own = list(criterion.parameters())
            assert own
            assert all(id(p) in optimised for p in own)
            seen.append([(id(p), p.detach().clone()) for p in own])

    extra = [Look()]
    learn(Naive(), tiny_scenario(), head="dlfl", criterion=criterion, extra=extra, schedule="one_cycle")
    assert len(seen) == 3
    for (one, before), (other, after) in zip(seen[0], seen[2], strict=True):
        assert one == other
        assert not torch.equal(before, after)


def test_a_look_at_one_image_leaves_no_trace(tiny_scenario: Any, learn: Any) -> None:
    scenario = tiny_scenario()
    model = learn(Naive(), scenario, head="dlfl").model
    model.train()
    model.backbone.eval()
    before, state = [m.training for m in model.modules()], torch.get_rng_state()
    output = first_look(model, scenario.train_stream[0].dataset)
    assert output.logits.shape == (1, 6)
    assert not output.logits.requires_grad
    assert [m.training for m in model.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)


def test_an_experience_that_would_never_contrast_is_refused(tiny_scenario: Any, learn: Any) -> None:
    with pytest.raises(CmlBenchError, match="from epoch 2 on, but experiences have epochs=2"):
        learn(Naive(), tiny_scenario(), head="dlfl", criterion=MulCon(start=2))


def test_titles_name_what_the_term_stands_beside() -> None:
    assert MulCon().title == "MulCon (BCE)"
    assert MulCon("assume_negative").title == "MulCon (AN (BCE))"
    assert SimilarityDissimilarity("asl").title == "Similarity-Dissimilarity (ASL)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "weight=-1.0"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"projection": 0}, "projection=0"),
        ({"start": -1}, "start=-1"),
        ({"base": "bcee"}, "did you mean 'bce'"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CmlBenchError, match=message):
        MulCon(**options)


def test_bare_logits_are_refused() -> None:
    with pytest.raises(CmlBenchError, match="reads more than logits"):
        MulCon(start=0)(said().logits, LABELS)
