"""What came to the same under two names is one: a class order, or a setting that was named at its default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import cml_bench
from cml_bench.report.tables.compare import compare


def test_an_order_under_two_names_is_no_second_pair(tmp_path: Path) -> None:
    few = {"n_train": 60, "n_test": 60, "epochs": 1}
    cml_bench.run(
        "digits", ["naive"], seeds=1, class_orders=["default", "published", "random:1"], results=tmp_path, **few
    )
    cml_bench.run("digits", ["naive"], seeds=1, results=tmp_path, increment=2, **few)
    (table,) = cml_bench.compare(tmp_path).benchmarks
    assert table.rows["n"].tolist() == [2]
    assert len(list(tmp_path.rglob("*.json"))) == 4


@pytest.fixture
def named(job: Any) -> Any:
    """Return a job that was given some settings, and came to some."""

    def make(method: str, given: dict[str, Any], came_to: dict[str, Any], **more: Any) -> dict[str, Any]:
        settings = {key: json.dumps(came_to.get(key)) for key in ("benchmark_settings", "training")}
        more = {"strategy_options": "{}", "parts": "[]", **settings, **more}
        return dict(job(method, more.pop("seed", 0), 0.5, benchmark_options=json.dumps(given), **more))

    return make


def configurations(frame: Any) -> list[list[str]]:
    """Return the methods of each table."""
    return [sorted(table.rows["method"]) for table in compare(frame, ["last_map"]).benchmarks]


def test_a_default_that_was_named_makes_no_second_table(named: Any, frame_of: Any) -> None:
    usual, other = {"training": {"epochs": 3}}, {"training": {"epochs": 5}}
    jobs = [
        *(named("naive", {}, usual), named("naive", {"epochs": "3"}, usual), named("er", {"epochs": "3"}, usual)),
        *(named("naive", {"epochs": "5"}, other), named("lwf", {"epochs": "5"}, other)),
    ]
    assert sorted(configurations(frame_of(*jobs))) == [["er", "naive"], ["lwf", "naive"]]
    # Without a method that was run under both, nobody can say that they are one.
    assert sorted(configurations(frame_of(jobs[0], jobs[2]))) == [["er"], ["naive"]]


def test_a_method_with_its_own_setting_says_nothing_of_it(named: Any, frame_of: Any) -> None:
    slow = {"training": {"lr": 0.1}}
    own = [named("er lr=0.1", {}, slow), named("er lr=0.1", {"lr": "0.5"}, slow)]
    apart = [named("naive", {}, {"training": {"lr": 0.2}}), named("lwf", {"lr": "0.5"}, {"training": {"lr": 0.5}})]
    assert len(configurations(frame_of(*own, *apart))) == 2


def test_one_method_that_differs_keeps_settings_apart(named: Any, frame_of: Any) -> None:
    one, other = {"benchmark_settings": {"base": 0}}, {"benchmark_settings": {"base": 4}}
    jobs = [named("naive", {}, one), named("naive", {"base": "4"}, other), named("er", {}, one)]
    assert len(configurations(frame_of(*jobs, named("er", {"base": "4"}, one)))) == 2
