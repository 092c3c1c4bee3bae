"""The four states and what is built on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cml_bench.labels import (
    ABSENT,
    OUT_OF_SCOPE,
    PRESENT,
    UNMARKED,
    check_names,
    is_known,
    samples_by_label,
    widen,
)

STATES = st.sampled_from([PRESENT, ABSENT, UNMARKED, OUT_OF_SCOPE])
TABLES = arrays.arrays(np.int8, st.tuples(st.integers(0, 7), st.integers(1, 6)), elements=STATES)


def test_the_states_are_the_documented_numbers() -> None:
    assert (PRESENT, ABSENT, UNMARKED, OUT_OF_SCOPE) == (1, 0, -1, -2)


@given(TABLES)
def test_known_is_present_or_absent(labels: np.ndarray) -> None:
    expected = [[state in (PRESENT, ABSENT) for state in row] for row in labels.tolist()]
    assert is_known(labels).tolist() == expected
    assert is_known(torch.from_numpy(labels)).tolist() == expected


@given(TABLES)
def test_samples_by_label_equals_brute_force(labels: np.ndarray) -> None:
    found = samples_by_label(labels)
    assert [rows.tolist() for rows in found] == [
        [row for row in range(len(labels)) if labels[row, column] == PRESENT] for column in range(labels.shape[1])
    ]


@given(TABLES, st.integers(0, 4))
def test_widen_pads_with_out_of_scope(labels: np.ndarray, more: int) -> None:
    wide = widen(torch.from_numpy(labels), labels.shape[1] + more)
    assert wide.dtype == torch.int8
    assert wide.tolist() == [[*row, *[OUT_OF_SCOPE] * more] for row in labels.tolist()]


def test_widen_refuses_to_narrow() -> None:
    with pytest.raises(ValueError, match="labels are 3 wide but only 2 labels have been seen"):
        widen(torch.zeros(4, 3, dtype=torch.int8), 2)


def test_names_are_unique_and_not_empty() -> None:
    assert check_names(["b", "a"]) == ("b", "a")
    with pytest.raises(ValueError, match="'a' occurs twice"):
        check_names(["a", "b", "a"])
    with pytest.raises(ValueError, match="empty"):
        check_names(["a", ""])
    with pytest.raises(ValueError, match=r"'caf\\xe9' and 'cafe\\u0301' look alike and differ in their code points"):
        check_names(["caf\u00e9", "a", "cafe\u0301"])
    assert check_names(["caf\u00e9", "cafe"]) == ("caf\u00e9", "cafe")
