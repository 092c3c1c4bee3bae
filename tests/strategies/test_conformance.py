"""Every built-in strategy passes the public conformance kit."""

from __future__ import annotations

import functools
from dataclasses import fields

import pytest

from cml_bench.registry import entries, load
from cml_bench.testing import CHECKS, CheckOutcome, check_strategy

METHODS = (*entries("strategies"), "dlfl memory_size=20")
GATE = {
    *("agcn", "cuter", "derpp", "dlfl", "dlfl memory_size=20", "dualprompt", "er", "ewc", "gdumb", "icarl", "joint"),
    *("krt", "l3a", "label_mask", "lwf", "mile", "naive", "prs", "pseudo_label"),
}
"""Every family, every kind of memory and of teacher; what only the others would notice waits for a release."""
EXEMPT = {
    "joint": {"unknown_entries_unread", "future_labels", "grows_once_per_experience"},
    "cuter": {"memory_within_budget"},
    "kar": {"memory_labels_as_stored"},
    "label_mask": {"global_rng_untouched", "both_heads"},
}
"""Checks that a strategy may be exempt from: bounds, a budget in pixels, relabelling by design, a head of its own."""


@functools.cache
def outcomes(method: str) -> dict[str, CheckOutcome]:
    return {outcome.name: outcome for outcome in check_strategy(method, raise_on_failure=False)}


MARKS = {method: [] if method in GATE else [pytest.mark.slow] for method in METHODS}
CASES = [
    pytest.param(method, check, id=f"{method}:{check}", marks=MARKS[method]) for method in METHODS for check in CHECKS
]


@pytest.mark.parametrize(("method", "check"), CASES)
def test_conforms(method: str, check: str) -> None:
    outcome = outcomes(method)[check]
    if outcome.status == "skipped":
        pytest.skip(outcome.detail)
    assert outcome.status == ("exempt" if check in EXEMPT.get(method, ()) else "passed"), outcome.detail
    assert outcome.detail


@pytest.mark.parametrize("method", [pytest.param(method, marks=MARKS[method]) for method in METHODS])
def test_only_a_memory_can_be_missing(method: str) -> None:
    skipped = {name for name, outcome in outcomes(method).items() if outcome.status == "skipped"}
    assert skipped <= {"memory_within_budget", "memory_labels_as_stored"}
    has_memory = any(field.name == "memory_size" for field in fields(load("strategies", method.split()[0])))
    assert bool(skipped) != has_memory
