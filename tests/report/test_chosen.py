"""Some of the results: which jobs a reader's words stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import cml_bench
from cml_bench.errors import CmlBenchError
from cml_bench.report.stored.collect import collect
from cml_bench.report.tables.chosen import chosen
from cml_bench.report.tables.same_methods import by_shortest_name

METHODS = ("naive", "er", "er head=dlfl memory_size=2000", "er head=dlfl memory_size=50", "er_herding head=dlfl")


@pytest.fixture
def runs(stored_runs: Any, tmp_path: Path) -> Path:
    folder: Path = stored_runs(tmp_path / "runs", METHODS, benchmarks=("digits", "voc_b0_c4"), seeds=(0, 1))
    (folder / "broken.json").write_text("{")
    return folder


@pytest.mark.parametrize(
    ("methods", "found"),
    [
        ((), METHODS),
        (("er",), METHODS[1:4]),
        (("head=dlfl er",), METHODS[2:4]),
        (("er memory_size=50", "naive"), (METHODS[0], METHODS[3])),
        # As the job was called, though a table leaves the default out.
        (("memory_size=2000",), METHODS[2:3]),
    ],
)
def test_a_method_is_chosen_by_words_that_it_has(runs: Path, methods: tuple[str, ...], found: tuple[str, ...]) -> None:
    frame = chosen(by_shortest_name(collect(runs)), ["digits"], methods)
    assert set(frame["named"].dropna()) == set(found)
    assert set(frame["benchmark"].dropna()) == {"digits"}
    # Nobody can say of what it is the result.
    assert list(frame["status"]).count("unreadable") == 1


@pytest.mark.parametrize(
    ("methods", "baseline", "found"),
    [
        ("er memory_size=50", "naive", {"naive", "er head=dlfl memory_size=50"}),
        ("naive", "er head=dlfl memory_size=2000", {"naive", "er head=dlfl memory_size=2000"}),
        # One of those chosen is it already, and no other comes beside it.
        ("memory_size=50", "er", {"er head=dlfl memory_size=50"}),
        ("naive", "er_herding", {"naive", "er_herding head=dlfl"}),
    ],
)
def test_a_baseline_stays_whatever_is_chosen(runs: Path, methods: str, baseline: str, found: set[str]) -> None:
    tables = cml_bench.compare(runs, "last_map", baseline=baseline, methods=methods).benchmarks
    assert len(tables) == 2
    for table in tables:
        assert set(table.rows["method"]) == found
        assert table.baseline is not None
        assert table.baseline.split()[0] == baseline.split()[0]


def test_a_baseline_that_is_no_method_chooses_nothing(runs: Path) -> None:
    (table,) = cml_bench.compare(
        runs, "last_map", rows="head", baseline="linear", benchmarks="digits", methods=("er memory_size=50", "naive")
    ).benchmarks
    assert table.baseline == "linear"


@pytest.mark.parametrize(
    ("benchmarks", "methods", "told"),
    [
        (["digit"], [], "no result is of benchmark 'digit': did you mean 'digits'?"),
        ([], ["err"], "no result is of a method with 'err': did you mean 'er'?"),
        ([], ["naive", "naive head=dlfl"], "no result is of a method with 'naive head=dlfl': leave out some of its"),
        # On the benchmark that is shown, that is.
        (["digits"], ["er memory_size=51"], "did you mean 'memory_size=50'?"),
    ],
)
def test_what_no_job_has_is_an_error(runs: Path, benchmarks: list[str], methods: list[str], told: str) -> None:
    with pytest.raises(CmlBenchError) as caught:
        chosen(by_shortest_name(collect(runs)), benchmarks, methods)
    assert told in str(caught.value)


def test_tables_and_reports_are_of_what_is_chosen(runs: Path, tmp_path: Path) -> None:
    (table,) = cml_bench.compare(runs, benchmarks="digits", methods="er head=dlfl").benchmarks
    assert set(table.rows["method"]) == set(METHODS[2:4])
    whole, part = (
        cml_bench.write_report(runs, tmp_path / "page.html", figures=False, methods=methods).read_text()
        for methods in ((), "naive")
    )
    assert [("er_herding" in page, "naive" in page) for page in (whole, part)] == [(True, True), (False, True)]
