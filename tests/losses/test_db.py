"""The distribution-balanced loss against its formula, BCE, and what a stream does to its counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.losses.assume_negative import AssumeNegative
from cml_bench.losses.db import DB
from cml_bench.testing.criteria import check_criterion


def batch(seed: int, states: tuple[int, ...] = (1, 0, -1, -2)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(states, dtype=torch.int8)[torch.randint(len(states), (6, 5), generator=generator)]
    return 4 * torch.randn(6, 5, generator=generator, dtype=torch.float64), labels


def counted(criterion: DB, present: list[int], asked: list[int]) -> DB:
    criterion.present, criterion.asked = torch.tensor(present).float(), torch.tensor(asked).float()
    return criterion


def formula(
    z: Tensor,
    y: Tensor,
    n_i: list[int],
    n: list[int],
    *,
    star: bool,
    focal: bool,
    tau: float,
    beta: float,
    mu: float,
    lam: float,
    kappa: float,
) -> float:
    """Section 3 of HP-DVAL, entry by entry."""
    top = max(a / b for a, b in zip(n_i, n, strict=True))
    total, count = 0.0, 0
    for logits, row in zip(z.tolist(), y.tolist(), strict=True):
        positives = sum(1 / n_i[j] for j, state in enumerate(row) if state == 1)
        for i, (s, state) in enumerate(zip(logits, row, strict=True)):
            if state < 0:
                continue
            count += 1
            share = 1 / n_i[i] / positives if positives else math.inf
            r = tau + 1 / (1 + math.exp(-beta * (share - mu))) if share < 60 else tau + 1
            v = kappa * math.log(n[i] / n_i[i] - 1)
            w = n_i[i] / n[i] / top if star else 1.0
            exponent = -w * (s - v) if state == 1 else lam * (s - v)
            entry = math.log1p(math.exp(exponent)) / (1 if state == 1 else lam)
            truth = 1 / (1 + math.exp(exponent))
            total += r * entry * (2 * (1 - truth) ** 2 if focal else 1)
    return total / count if count else 0.0


@given(
    seed=st.integers(0, 2**31),
    star=st.booleans(),
    focal=st.booleans(),
    lam=st.sampled_from([1.0, 2.0, 5.0]),
    kappa=st.sampled_from([0.0, 0.01, 0.7]),
    mu=st.sampled_from([0.2, 0.3]),
)
def test_against_the_formula(seed: int, star: bool, focal: bool, lam: float, kappa: float, mu: float) -> None:
    rng = np.random.default_rng(seed)
    asked = rng.integers(50, 100, 5).tolist()
    present = rng.integers(1, 49, 5).tolist()
    logits, labels = batch(seed)
    options = {"star": star, "focal": focal, "tau": 0.1, "beta": 10.0, "mu": mu, "lam": lam, "kappa": kappa}
    criterion = counted(DB(**options), present, asked)
    assert float(criterion(logits, labels)) == pytest.approx(formula(logits, labels, present, asked, **options))


def test_equal_weights_no_shift_and_unit_steepness_are_bce() -> None:
    logits, labels = batch(1)
    labels[0] = 0  # an image without positives
    criterion = counted(DB(tau=0.5, beta=0.0, kappa=0.0, lam=1.0), [3, 4, 5, 6, 7], [10] * 5)
    known = labels >= 0
    expected = F.binary_cross_entropy_with_logits(logits[known], labels[known].double())
    torch.testing.assert_close(criterion(logits, labels), expected)


def test_star_with_equal_rates_is_db() -> None:
    logits, labels = batch(2)
    plain, star = (counted(DB(star=star), [4, 8, 2, 6, 4], [10, 20, 5, 15, 10]) for star in (False, True))
    torch.testing.assert_close(star(logits, labels), plain(logits, labels))
    uneven = counted(DB(star=True), [4, 1, 1, 6, 4], [10, 20, 5, 15, 10])
    assert not torch.isclose(
        uneven(logits, labels), counted(DB(), [4, 1, 1, 6, 4], [10, 20, 5, 15, 10])(logits, labels)
    )


def test_the_default_shift_is_a_twentieth_over_lam() -> None:
    logits, labels = batch(3)
    counts = ([4, 1, 1, 6, 4], [10, 20, 5, 15, 10])
    ours, same = counted(DB(lam=5.0), *counts), counted(DB(lam=5.0, kappa=0.01), *counts)
    assert torch.equal(ours(logits, labels), same(logits, labels))


@pytest.mark.parametrize("star", [False, True])
@pytest.mark.parametrize("focal", [False, True])
@pytest.mark.parametrize(
    ("present", "asked"), [([0] * 5, [0] * 5), ([0] * 5, [9] * 5), ([9] * 5, [9] * 5), ([1] * 5, [1] * 5), ([], [])]
)
def test_degenerate_counts_and_batches_stay_finite(
    star: bool, focal: bool, present: list[int], asked: list[int]
) -> None:
    criterion = counted(DB(star=star, focal=focal), present, asked)
    for states in ((1, 0, -1, -2), (0,), (1,), (-1, -2)):
        logits, labels = batch(4, states)
        leaf = (50 * logits).requires_grad_()
        loss = criterion(leaf, labels)
        loss.backward()
        assert loss.isfinite()
        assert loss >= 0
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert (leaf.grad[labels < 0] == 0).all()
        if (labels < 0).all():
            assert loss == 0


def test_an_image_without_positives_has_the_limit_of_the_weight() -> None:
    criterion = counted(DB(kappa=0.0, lam=1.0), [5, 50], [100, 100])
    row = criterion(torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.int8))
    assert float(row) == pytest.approx(1.1 * math.log(2))


def test_a_rare_label_weighs_more_than_a_frequent_one_beside_it() -> None:
    criterion = counted(DB(kappa=0.0, lam=1.0), [90, 3], [100, 100])
    logits = torch.zeros(1, 2, requires_grad=True)
    criterion(logits, torch.ones(1, 2, dtype=torch.int8)).backward()
    assert logits.grad is not None
    frequent, rare = logits.grad[0].abs().tolist()
    assert rare > 3 * frequent


def test_counts_follow_the_stream(tiny_dataset) -> None:  # type: ignore[no-untyped-def]
    criterion = DB()
    criterion.start_experience(tiny_dataset([1, 2, 3], [[1, 0], [1, -1], [0, -1]]))
    assert criterion.present.tolist() == [2, 0]
    assert criterion.asked.tolist() == [3, 3]
    criterion.start_experience(tiny_dataset([4], [[1, 1]]))  # another chunk
    assert criterion.present.tolist() == [3, 1]
    assert criterion.asked.tolist() == [4, 4]
    criterion.start_experience(tiny_dataset([1, 5], [[-2, 0, 1], [-2, 1, 0]]))  # an experience that asks for two labels
    assert criterion.present.tolist() == [3, 1, 1]
    assert criterion.asked.tolist() == [4, 2, 2]


def test_a_criterion_around_it_passes_the_counts_on(tiny_dataset) -> None:  # type: ignore[no-untyped-def]
    around = AssumeNegative("db star=true")
    around.start_experience(tiny_dataset([1, 2], [[1, -1], [1, 1]]))
    assert isinstance(around.base, DB)
    assert around.base.present.tolist() == [2, 1]
    assert around.title == "AN (DB*)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam": 0.0}, "lam=0.0"),
        ({"lam": math.nan}, "lam=nan"),
        ({"tau": -1.0}, "tau=-1.0"),
        ({"beta": -1.0}, "beta=-1"),
    ],
)
def test_bad_options_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(CmlBenchError, match=message):
        DB(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", ["", " star=true focal=true"])
def test_it_keeps_the_rules(options: str) -> None:
    check_criterion(f"db{options}")
