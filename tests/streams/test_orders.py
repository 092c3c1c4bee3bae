"""Class orders and the Bi-Cj division."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cml_bench.errors import CmlBenchError
from cml_bench.streams.orders import class_order, divide, protocol_name

NAMES = ["cat", "ant", "dog", "bee"]


@pytest.fixture
def source(tiny_source: Any) -> Any:
    # Positives: cat 2, ant 1, dog 2, bee 3.
    return tiny_source(np.array([[1, 0, 1, 1], [1, 1, 0, 1], [0, 0, 1, 1]]), NAMES)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("published", ("cat", "ant", "dog", "bee")),
        ("alphabetical", ("ant", "bee", "cat", "dog")),
        ("frequency", ("bee", "cat", "dog", "ant")),
        (["dog", "cat", "bee", "ant"], ("dog", "cat", "bee", "ant")),
    ],
)
def test_named_orders(source: Any, order: Any, expected: tuple[str, ...]) -> None:
    assert class_order(order, source) == expected


def test_random_orders_are_permutations_that_differ(source: Any) -> None:
    orders = {class_order(f"random:{seed}", source) for seed in range(30)}
    assert len(orders) > 10
    assert all(sorted(order) == sorted(NAMES) for order in orders)
    assert class_order("random:5", source) == class_order("random:5", source)


def test_a_random_order_is_the_same_for_good(tiny_source: Any) -> None:
    """Results bear its name alone: were it another order one day, they would be taken for one another."""
    source = tiny_source(np.ones((2, 10)), names=list("abcdefghij"))
    assert "".join(class_order("random:1", source)) == "iehabcfjgd"
    assert "".join(class_order("random:8", source)) == "ahdgjfibce"


@pytest.mark.parametrize("order", ["random", "random:", "random:-1", "published:1", "", "cat", "random:²"])
def test_unknown_orders(source: Any, order: str) -> None:
    with pytest.raises(CmlBenchError, match="is unknown"):
        class_order(order, source)


@pytest.mark.parametrize(("order", "number"), [("random:01", 1), ("random:007", 7), ("random:\u0663", 3)])
def test_a_random_order_has_one_spelling(source: Any, order: str, number: int) -> None:
    """In another one it was a run of its own, of the same stream."""
    with pytest.raises(CmlBenchError, match=f"class_order '{order}' is random:{number}: write it so"):
        class_order(order, source)
    class_order("random:0", source)


@given(n_labels=st.integers(1, 60), base=st.integers(0, 60), increment=st.integers(1, 60))
def test_division_drops_no_remainder(n_labels: int, base: int, increment: int) -> None:
    if base > n_labels:
        with pytest.raises(CmlBenchError):
            divide(n_labels, base, increment)
        return
    sizes = divide(n_labels, base, increment)
    assert sum(sizes) == n_labels
    assert min(sizes) >= 1
    later = sizes[1:] if base else sizes
    assert not base or sizes[0] == base
    assert all(size == increment for size in later[:-1])
    assert all(size <= increment for size in later)


def test_ten_labels_by_threes() -> None:
    assert divide(10, 0, 3) == (3, 3, 3, 1)
    assert divide(10, 4, 3) == (4, 3, 3)
    assert divide(10, 10, 3) == (10,)


@pytest.mark.parametrize(
    ("sizes", "name"),
    [
        ((10,) * 8, "B0-C10"),
        ((40, 10, 10, 10, 10), "B40-C10"),
        ((3, 3, 3, 1), "B0-C3"),
        ((4, 3, 2), "B4-C3"),
        ((80,), "B80"),
        ((2, 1, 3), "2+1+3"),
        ((2, 4), "B2-C4"),
    ],
)
def test_protocol_names(sizes: tuple[int, ...], name: str) -> None:
    assert protocol_name(sizes) == name


@pytest.mark.parametrize(
    ("n_labels", "base", "increment", "name"),
    [
        (10, 0, 5, "B0-C5"),
        (8, 0, 5, "B0-C5"),
        (8, 5, 5, "B0-C5"),
        (8, 5, 3, "B5-C3"),
        (6, 5, 3, "B5-C3"),
        (5, 0, 5, "B5"),
    ],
)
def test_protocols_are_named_by_what_was_asked_for(
    tiny_scenario: Any, n_labels: int, base: int, increment: int, name: str
) -> None:
    """The same settings have one name on any vocabulary, though the last experience keeps the remainder."""
    assert tiny_scenario(n_labels=n_labels, base=base, increment=increment).protocol == name
