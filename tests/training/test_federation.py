"""Federations as they are written, and how images are dealt to clients."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cml_bench.errors import CmlBenchError
from cml_bench.training.federation import Federation, deal_clients, parse_federation
from cml_bench.training.rounds import LearntLabels, ProximalPlugin


def test_what_is_written_is_read() -> None:
    written = "clients=user rounds=3 per_round=2 mu=0.01 lag=1 optimizer=fresh"
    assert parse_federation(written) == Federation("user", 3, 2, 0.01, 1, "fresh")
    assert parse_federation("clients=5 rounds=1") == Federation("5", 1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("clients=5", "federated='clients=5' needs option 'rounds': add rounds=VALUE"),
        ("rounds=5", "needs option 'clients'"),
        ("clients=5 rounds=0", "option rounds='0' of federated="),
        ("clients=5 rounds=2 mu=-1", "option mu='-1'"),
        ("clients=5 round=2", "has no option 'round': did you mean 'rounds'"),
        ("clients=5 rounds=2 optimizer=keep", "option optimizer='keep'"),
        ("five", "'five' is no option: write key=value"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, sentence: str) -> None:
    with pytest.raises(CmlBenchError) as caught:
        parse_federation(text)
    assert sentence in str(caught.value)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 5))
def test_equal_parts(tiny_source: Any, n: int, count: int, seed: int) -> None:
    source = tiny_source(np.zeros((40, 2)))
    rows = np.sort(np.random.default_rng(seed).permutation(40)[:n])
    federation = Federation(str(count), 1)
    if count > n:
        with pytest.raises(CmlBenchError, match=f"clients={count} cannot share {n} images: give 1 to {n}"):
            deal_clients(federation, source, rows, seed)
        return
    parts = deal_clients(federation, source, rows, seed)
    assert len(parts) == count
    assert np.array_equal(np.sort(np.concatenate(parts)), rows)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all(np.array_equal(part, np.sort(part)) for part in parts)
    again = deal_clients(federation, source, rows, seed)
    assert all(np.array_equal(one, two) for one, two in zip(parts, again, strict=True))


def test_another_seed_deals_otherwise(tiny_source: Any) -> None:
    source, rows = tiny_source(np.zeros((40, 2))), np.arange(40)
    first, second = (deal_clients(Federation("2", 1), source, rows, seed)[0] for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_a_group_makes_clients_of_its_members(tiny_source: Any) -> None:
    source = tiny_source(np.zeros((6, 2)))
    source.groups = {"user": np.array(["b", "a", "b", "c", "a", "b"])}
    parts = deal_clients(Federation("user", 1), source, np.array([0, 1, 2, 4]), 0)
    assert [part.tolist() for part in parts] == [[1, 4], [0, 2]]
    with pytest.raises(
        CmlBenchError, match=r"neither a number nor a group of tiny \(groups: user\): did you mean 'user'"
    ):
        deal_clients(Federation("usr", 1), source, np.arange(6), 0)
    source.groups = {}
    with pytest.raises(CmlBenchError, match=r"\(groups: none\): give a number, as clients=5"):
        deal_clients(Federation("user", 1), source, np.arange(6), 0)


def test_the_proximal_term_pulls_back() -> None:
    """Its gradient is mu (w - w_received); frozen parameters do not count."""

    class Learner:
        model = nn.Linear(3, 2)
        loss = torch.zeros(())

    learner, plugin = Learner(), ProximalPlugin(0.4)
    received = {name: torch.randn_like(p) for name, p in learner.model.named_parameters()}
    learner.model.bias.requires_grad_(False)
    plugin.start_round(learner, received)
    plugin.before_backward(learner)
    learner.loss.backward()
    weight = learner.model.weight
    torch.testing.assert_close(weight.grad, 0.4 * (weight.detach() - received["weight"]))
    expected = 0.2 * (weight - received["weight"]).square().sum()
    torch.testing.assert_close(learner.loss.detach(), expected.detach())


def test_labels_of_rehearsed_images_count_as_learnt() -> None:
    """A client that replays rows of old labels has a say in them."""
    learnt = LearntLabels()
    learnt.start(torch.tensor([[-2, -2, 1]]), 3)
    learnt.before_backward(SimpleNamespace(mb_y=torch.tensor([[-1, -2, -2]])))
    assert learnt.labels.tolist() == [True, False, True]
