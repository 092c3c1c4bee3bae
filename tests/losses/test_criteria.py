"""The families of criteria against published values, torch, torchvision and an independent NumPy version."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from cml_bench.errors import CmlBenchError
from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED
from cml_bench.losses.asl import ASL
from cml_bench.losses.assume_negative import AssumeNegative
from cml_bench.losses.bce import BCE
from cml_bench.losses.criterion import Criterion
from cml_bench.losses.specification import as_criterion
from cml_bench.models.heads.head import HeadOutput
from cml_bench.registry import entries

ALL = [
    BCE(),
    ASL(),
    ASL(gamma_neg=0.5, gamma_pos=0.5, detach_focal=False, reduction="sum"),
    ASL(clip=0.0),
    AssumeNegative(),
    AssumeNegative("asl reduction=sum gamma_neg=3", "seen"),
]


def batch(
    seed: int, states: tuple[int, ...] = (1, 0, -1, -2), shape: tuple[int, int] = (6, 5)
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(shape, generator=generator, dtype=torch.float64)
    labels = torch.tensor(states, dtype=torch.int8)[torch.randint(len(states), shape, generator=generator)]
    return logits, labels


def value_and_gradient(criterion: Criterion, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    loss = criterion(leaf, labels)
    loss.backward()
    assert leaf.grad is not None
    return loss.detach(), leaf.grad


def one(criterion: Criterion, logit: float, state: int) -> float:
    return float(criterion(torch.tensor([[logit]], dtype=torch.float64), torch.tensor([[state]], dtype=torch.int8)))


def test_published_values() -> None:
    assert one(BCE(), 0.0, PRESENT) == pytest.approx(math.log(2))
    assert one(BCE(), 0.0, ABSENT) == pytest.approx(math.log(2))
    assert one(ASL(), 0.0, PRESENT) == pytest.approx(math.log(2))
    assert one(ASL(), 0.0, ABSENT) == pytest.approx(0.0245, abs=5e-5)
    assert one(ASL(), -4.0, ABSENT) == 0.0  # below the clip


@given(seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_bce_is_the_mean_over_known_entries(seed: int) -> None:
    logits, labels = batch(seed)
    known = labels >= 0
    expected = F.binary_cross_entropy_with_logits(logits[known], labels[known].double()) if known.any() else 0.0
    torch.testing.assert_close(BCE()(logits, labels), torch.as_tensor(expected, dtype=torch.float64))


def test_asl_is_the_focal_loss_when_symmetric() -> None:
    logits, labels = batch(0, (1, 0))
    criterion = ASL(gamma_neg=2, gamma_pos=2, clip=0, detach_focal=False)
    loss, gradient = value_and_gradient(criterion, logits, labels)
    leaf = logits.clone().requires_grad_()
    expected = sigmoid_focal_loss(leaf, labels.double(), alpha=-1, gamma=2, reduction="mean")
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, leaf.grad)


def test_asl_without_focusing_or_clip_is_bce() -> None:
    logits, labels = batch(1)
    plain = ASL(gamma_neg=0, gamma_pos=0, clip=0)
    for ours, theirs in zip(
        value_and_gradient(plain, logits, labels), value_and_gradient(BCE(), logits, labels), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def numpy_asl(
    z: npt.NDArray[np.float64], y: npt.NDArray[np.int8], gamma_neg: float, gamma_pos: float, clip: float
) -> float:
    total = 0.0
    for logit, state in zip(z.ravel(), y.ravel(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        q = min(1.0, 1 - p + clip)
        if state == 1:
            total -= (1 - p) ** gamma_pos * math.log(p)
        elif state == 0:
            total -= (1 - q) ** gamma_neg * math.log(q)
    return total


@pytest.mark.parametrize(("gamma_neg", "gamma_pos", "clip"), [(4, 0, 0.05), (4, 1, 0.05), (2, 0.5, 0.2), (3, 1, 0)])
def test_asl_against_numpy(gamma_neg: float, gamma_pos: float, clip: float) -> None:
    logits, labels = batch(2)
    expected = numpy_asl(logits.numpy(), labels.numpy(), gamma_neg, gamma_pos, clip)
    assert float(ASL(gamma_neg, gamma_pos, clip, reduction="sum")(logits, labels)) == pytest.approx(expected)
    n_known = int((labels >= 0).sum())
    assert float(ASL(gamma_neg, gamma_pos, clip)(logits, labels)) == pytest.approx(expected / n_known)


def test_detaching_makes_the_focusing_factor_a_constant() -> None:
    # -q' f / q with f = (1 - q)^4 held fixed; z = 0, clip 0: q = 1/2, dq/dz = -1/4.
    logits, labels = torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.int8)
    _, detached = value_and_gradient(ASL(clip=0), logits, labels)
    _, full = value_and_gradient(ASL(clip=0, detach_focal=False), logits, labels)
    assert float(detached) == pytest.approx(0.5**4 * 0.25 / 0.5)
    assert float(full) == pytest.approx(0.5**4 * 0.25 / 0.5 + 4 * 0.5**3 * 0.25 * math.log(2))


@pytest.mark.parametrize("criterion", ALL, ids=repr)
@pytest.mark.parametrize("poison", [7.0, -80.0, 1e4])
def test_unknown_entries_are_never_read(criterion: Criterion, poison: float) -> None:
    logits, labels = batch(3)
    ignored = labels < 0
    if isinstance(criterion, AssumeNegative):
        ignored = labels == OUT_OF_SCOPE
        if criterion.scope == "seen":
            labels[:, :2] = OUT_OF_SCOPE
            criterion.spare = 2
            ignored = torch.zeros_like(ignored)
            ignored[:, :2] = True
    loss, gradient = value_and_gradient(criterion, logits, labels)
    poisoned_loss, poisoned_gradient = value_and_gradient(criterion, logits.masked_fill(ignored, poison), labels)
    criterion.spare = 0
    assert loss > 0
    assert torch.equal(loss, poisoned_loss)
    assert torch.equal(gradient, poisoned_gradient)
    assert (gradient[ignored] == 0).all()


@pytest.mark.parametrize("criterion", ALL, ids=repr)
def test_extreme_logits_stay_finite(criterion: Criterion) -> None:
    logits = torch.tensor([[200.0, -200.0, 0.0], [-200.0, 200.0, 0.0]])
    labels = torch.tensor([[1, 0, -1], [1, 0, -2]], dtype=torch.int8)
    loss, gradient = value_and_gradient(criterion, logits, labels)
    assert loss.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("criterion", ALL, ids=repr)
def test_a_batch_without_known_entries_costs_nothing(criterion: Criterion) -> None:
    criterion.spare = 5
    loss, gradient = value_and_gradient(criterion, *batch(4, (-1, -2)))
    criterion.spare = 0
    assert loss == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("name", entries("criteria"))
@pytest.mark.parametrize(("images", "known"), [(0, 3), (2, 0)])
def test_a_batch_without_entries_costs_nothing(name: str, images: int, known: int) -> None:
    shapes = (images, 3), (images, 8), (images, 3, 8)
    output = HeadOutput(*(torch.ones(shape, requires_grad=True) for shape in shapes))
    labels = torch.zeros(images, known, dtype=torch.int8)
    loss = as_criterion(name)(output, labels, torch.arange(images))
    loss.backward()
    assert float(loss.detach()) == 0


def test_scale_does_not_depend_on_width() -> None:
    logits, labels = batch(5, (1, 0))
    for criterion in (BCE(), ASL()):
        twice = criterion(logits.repeat(1, 2), labels.repeat(1, 2))
        torch.testing.assert_close(twice, criterion(logits, labels))


def explicit(labels: Tensor, states: tuple[int, ...], spare: int = 0) -> Tensor:
    assumed = labels.clone()
    for row in range(labels.shape[0]):
        for column in range(spare, labels.shape[1]):
            if int(labels[row, column]) in states:
                assumed[row, column] = ABSENT
    return assumed


@pytest.mark.parametrize("base", ["bce", "asl"])
@pytest.mark.parametrize(("scope", "states"), [("unmarked", (UNMARKED,)), ("seen", (UNMARKED, OUT_OF_SCOPE))])
@pytest.mark.parametrize("spare", [0, 2])
def test_assume_negative_is_the_base_on_explicit_zeros(
    base: str, scope: str, states: tuple[int, ...], spare: int
) -> None:
    logits, labels = batch(6)
    before = labels.clone()
    criterion = AssumeNegative(base, scope)  # type: ignore[arg-type]
    criterion.spare = spare
    inner = {"bce": BCE, "asl": ASL}[base]()
    torch.testing.assert_close(
        criterion(logits, labels), inner(logits, explicit(labels, states, spare)), rtol=0, atol=0
    )
    assert torch.equal(labels, before)  # the batch is left as it was


def test_options_of_a_named_base_reach_it() -> None:
    base = AssumeNegative("asl clip=0.2 detach_focal=false reduction=sum").base
    assert isinstance(base, ASL)
    assert (base.clip, base.detach_focal, base.reduction) == (0.2, False, "sum")


def test_the_title_tells_what_is_assumed() -> None:
    assert AssumeNegative("asl").title == "AN (ASL)"
    assert AssumeNegative(BCE(), "seen").title == "AN seen (BCE)"


@pytest.mark.parametrize("scope", ["unmarked", "seen"])
def test_padding_of_narrow_rows_makes_no_difference(scope: str) -> None:
    logits, labels = batch(7)
    criterion = AssumeNegative(scope=scope)  # type: ignore[arg-type]
    padded = labels.clone()
    padded[:, 3:] = OUT_OF_SCOPE
    assert torch.equal(criterion(logits, labels[:, :3]), criterion(logits, padded))


def test_labels_beyond_the_head_are_not_read() -> None:
    logits, labels = batch(8)
    for criterion in ALL:
        assert torch.equal(criterion(logits[:, :3], labels), criterion(logits[:, :3], labels[:, :3]))


def test_a_criterion_object_as_base_gets_ids_epoch_output_and_spare() -> None:
    class Recorder(BCE):
        def forward(self, *arguments: object) -> Tensor:  # type: ignore[override]
            self.arguments = arguments
            return torch.zeros(())

    base = Recorder()
    criterion = AssumeNegative(base)
    criterion.spare = 3
    logits, labels = batch(9)
    output, ids = HeadOutput(logits, pooled=logits), torch.arange(6)
    criterion(output, labels, ids, 4)
    assert base.arguments[0] is output
    assert base.arguments[2:] == (ids, 4, None)
    assert base.spare == 3


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ASL(gamma_neg=-1), "gamma_neg=-1"),
        (lambda: ASL(gamma_pos=math.nan), "gamma_pos=nan"),
        (lambda: ASL(clip=1.0), "clip=1.0"),
        (lambda: ASL(reduction="max"), "reduction='max'"),  # type: ignore[arg-type]
        (lambda: AssumeNegative("bcee"), "did you mean 'bce'"),
        (lambda: AssumeNegative(scope="all"), "scope='all'"),  # type: ignore[arg-type]
        (lambda: AssumeNegative("asl gamma=2"), "no option 'gamma'"),
        (lambda: AssumeNegative("bce clip=0.1"), "no option 'clip'"),
        (lambda: AssumeNegative("asl clip=much"), "clip='much'"),
        (lambda: AssumeNegative(""), "no criterion ''"),
    ],
)
def test_bad_options_are_named(build: object, message: str) -> None:
    with pytest.raises(CmlBenchError, match=message):
        build()  # type: ignore[operator]
