"""Jobs as products of class orders and seeds, which is how commands name them."""

from __future__ import annotations

from collections.abc import Collection
from itertools import product

from cml_bench.runs.job import class_orders_text, seeds_text


def grids(jobs: Collection[tuple[str, int]], beside: Collection[tuple[str, int]] = ()) -> list[tuple[str, str]]:
    """Return class orders and seeds, as options name them, whose products are some jobs.

    Args:
        jobs: Class order and seed of each.
        beside: Others that may be among them where that makes it one product.
    """
    orders, seeds = ({*values} for values in zip(*jobs, strict=True))
    if {*product(orders, seeds)} <= {*jobs, *beside}:
        return [(class_orders_text(orders), seeds_text(seeds))]
    seeds_of: dict[str, set[int]] = {}
    for order, seed in jobs:
        seeds_of.setdefault(order, set()).add(seed)
    orders_of: dict[tuple[int, ...], list[str]] = {}
    for order, own in seeds_of.items():
        orders_of.setdefault(tuple(sorted(own)), []).append(order)
    return [(class_orders_text(alike), seeds_text(own)) for own, alike in sorted(orders_of.items())]
