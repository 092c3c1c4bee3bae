"""Federated training: who the clients are, and how often they meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError, suggest
from cml_bench.options import convert, parse_pairs, split_words
from cml_bench.streams.dealing import Rows


@dataclass(frozen=True)
class Federation:
    """Clients train on their own images, and a server averages their models after each round.

    In each experience there are ``rounds`` rounds. In a round the drawn clients get the server's model, train it for
    the ``epochs`` of the training settings, and give it back; the server's model becomes their mean, weighted by their
    images (FedAvg, McMahan et al. 2017, arXiv 1602.05629). With ``mu`` each loss is kept near the received model
    (FedProx, Li et al. 2020, arXiv 1812.06127): ``mu / 2 ||w - w_received||^2``.

    Attributes:
        clients: A number of clients, who share the training images equally and at random, or the name of a group of the
            source, ``user`` say: then everyone who has images is a client.
        rounds: Rounds of each experience.
        per_round: Clients drawn for each round, from those who have images; None for all.
        mu: Weight of FedProx's proximal term; 0 for FedAvg.
        lag: Client i is ``i mod (lag + 1)`` experiences behind (inferred): with 0 all learn the same labels at the same
            time; with 1 every second client still learns what the others learnt an experience ago, and ends without the
            last one. Labels arrive in one order for all, since the columns of the head do.
        optimizer: Whether a client's optimiser state (moments, momentum) is ``kept`` from round to round, or ``fresh``
            in each, as FedLGT's.
    """

    clients: str
    rounds: PositiveInt
    per_round: PositiveInt | None = None
    mu: NonNegativeFloat = 0.0
    lag: NonNegativeInt = 0
    optimizer: Literal["kept", "fresh"] = "kept"


def parse_federation(text: str) -> Federation:
    """Parse ``"clients=5 rounds=3 mu=0.01"``.

    Raises:
        CmlBenchError: If an option is unknown, missing or out of range.
    """
    options = dict(parse_pairs(split_words(text)))
    return Federation(**convert(Federation, options, owner=f"federated={text!r}"))


def deal_clients(federation: Federation, source: Source, rows: Rows, seed: int) -> list[Rows]:
    """Return the ascending rows of each client, a partition of ``rows``.

    An image that occurs in several experiences is one client's in all of them. Groups come in the order of their names.

    Args:
        federation: The settings.
        source: The training images.
        rows: Rows that are dealt.
        seed: Draws equal parts.

    Raises:
        CmlBenchError: If there is no such group, or there are more clients than images.
    """
    if federation.clients.isdecimal():
        count = int(federation.clients)
        if not 1 <= count <= len(rows):
            raise CmlBenchError(f"clients={count} cannot share {len(rows)} images: give 1 to {len(rows)}")
        return [np.sort(part) for part in np.array_split(np.random.default_rng([seed, 4]).permutation(rows), count)]
    members = source.groups.get(federation.clients)
    if members is None:
        known = ", ".join(source.groups) or "none"
        raise CmlBenchError(
            f"clients={federation.clients!r} is neither a number nor a group of {source.name} (groups: {known}): "
            + (suggest(federation.clients, source.groups) if source.groups else "give a number, as clients=5")
        )
    _, owner = np.unique(members[rows], return_inverse=True)
    order = np.argsort(owner, kind="stable")
    return np.split(rows[order], np.cumsum(np.bincount(owner))[:-1])
