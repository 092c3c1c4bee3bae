"""What counts as one figure, and who can be compared, against brute force; and that rows and verdicts agree on it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cml_bench.report.formats.grid import make_grid
from cml_bench.report.statistics.estimates import estimate
from cml_bench.report.statistics.rivals import fair_part
from cml_bench.report.statistics.units import one_an_order

figures = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 20).map(float) | st.just(math.nan)), min_size=1, max_size=30
)


@given(figures)
def test_seeds_are_averaged_where_there_are_six_orders(jobs: list[tuple[str, float]]) -> None:
    orders, values = zip(*jobs, strict=True)
    found = one_an_order(values, orders)
    if len(set(orders)) < 6:
        np.testing.assert_array_equal(found, values)
    else:
        np.testing.assert_allclose(found, pd.Series(values).groupby(list(orders)).mean())


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=6))
def test_what_is_compared_is_whole_and_as_much_as_can_be(there: list[list[bool]]) -> None:
    blocks = pd.DataFrame(there, columns=list("abcd")).astype(float).replace(0.0, math.nan)
    shared, absent = fair_part(blocks)
    assert shared.notna().all(axis=None)
    assert sorted([*shared.columns, *absent]) == list("abcd")
    some = [name for name in blocks if blocks[name].notna().any()]
    in_all = [row for row in blocks.index if blocks.loc[row, some].notna().all()]
    if len(some) > 1 and in_all:
        assert shared.shape[1] > 1
    # Nobody is left out who has all that the others are compared on.
    for name in absent:
        assert shared.empty or blocks.loc[shared.index, name].isna().any()


def test_neither_a_job_more_nor_a_method_with_few_jobs_takes_a_comparison() -> None:
    whole = [1.0] * 4
    blocks = pd.DataFrame({"er": [*whole, math.nan], "lwf": [*whole, math.nan], "more": [1.0] * 5, "few": math.nan})
    blocks.loc[0, "few"] = 1.0
    shared, absent = fair_part(blocks)
    assert (list(shared.index), list(shared), absent) == ([0, 1, 2, 3], ["er", "lwf", "more"], ("few",))


def test_rows_and_verdict_weigh_class_orders_alike(one: Any, frame_of: Any, grid_of: Any) -> None:
    """Three seeds on three orders, on which one leads, and a seed on three more, on which the other does."""
    jobs = [
        {**each, "last_map": each["last_map"] + 0.02}
        if (each["method"] == "er") == (each["class_order"] in ("default", "random:1", "random:2"))
        else each
        for each in grid_of(3, 6, er=0.5, lwf=0.51)
        if each["seed"] == 0 or each["class_order"] in ("default", "random:1", "random:2")
    ]
    table = one(frame_of(*jobs), "last_map")
    rows = table.rows.set_index("method")
    for method in ("er", "lwf"):
        own = [each for each in jobs if each["method"] == method]
        means = pd.DataFrame(own).groupby("class_order")["last_map"].mean()
        expected = estimate(means)
        assert rows.loc[method, ["last_map_mean", "last_map_low", "last_map_high"]].tolist() == pytest.approx(
            [expected.mean, expected.low, expected.high]
        )
        assert rows.loc[method, "last_map_std"] == pytest.approx(expected.deviation)
        assert rows.loc[method, ["n", "last_map_n"]].tolist() == [12, 12]
    gap = 100 * (rows.loc["lwf", "last_map_mean"] - rows.loc["er", "last_map_mean"])
    assert f"Best last mAP: lwf, {gap:.1f} above er" in table.notes[0]
    marks = make_grid(table).marks["last mAP"]
    assert marks[table.rows["method"] == "lwf"].tolist() == ["best"]
    assert any(
        note.startswith("Means, deviations and intervals of rows with 6 class orders or more") for note in table.notes
    )


def test_intervals_of_a_table_say_of_what_they_speak(frame_of: Any, grid_of: Any, one: Any) -> None:
    told = "Intervals speak of other seeds on"
    few, many = (one(frame_of(*grid_of(3, orders, er=0.5, lwf=0.4))) for orders in (3, 6))
    assert f"{told} these 3 class orders, not of another order." in make_grid(few, intervals=True).notes
    assert not any(told in note for note in make_grid(many, intervals=True).notes)


def test_a_cell_of_one_order_is_over_seeds(one: Any, frame_of: Any, grid_of: Any) -> None:
    frame = frame_of(*grid_of(3, 8, er=0.5, lwf=0.4))
    table = one(frame, "last_map", columns="class_order")
    assert not any("are over these, each by the mean" in note for note in table.notes)
    cell = table.rows.set_index("method").loc["er"]
    assert cell["default_n"] == 3
    assert cell["default_level"] == 0.75


def test_no_interval_is_spoken_of_where_there_is_none(one: Any, frame_of: Any, grid_of: Any) -> None:
    grid = make_grid(one(frame_of(*grid_of(1, 1, er=0.5, lwf=0.4))), intervals=True)
    assert not any("Intervals" in note for note in grid.notes)
