"""Rows, columns, baselines and costs of comparison tables, over jobs written by hand."""

from __future__ import annotations

import csv
import io
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

import cml_bench
from cml_bench.errors import CmlBenchError
from cml_bench.report.collect import JOB_COLUMNS
from cml_bench.report.formats import to_csv, to_latex, to_markdown, to_terminal
from cml_bench.report.grid import make_grid
from cml_bench.report.table_page import to_html
from cml_bench.report.tables import BenchmarkTable, ComparisonTable, compare


def job(method: str, seed: int, last_map: float, order: str = "default", **columns: Any) -> dict[str, Any]:
    named = dict(word.split("=", 1) for word in method.split()[1:] if "=" in word)
    return {
        "path": f"{method}-{order}-{seed}-{columns.get('benchmark')}.json",
        "status": "ok",
        "benchmark": "digits",
        "version": "1",
        "benchmark_options": "{}",
        "sources": "s",
        "data": "d",
        "title": "Digits",
        "protocol": "B0-C2",
        "method": method,
        "method_title": method.split()[0].upper(),
        "family": "bound" if method.split()[0] == "joint" else "replay",
        "head": named.get("head", "linear"),
        "loss": "BCE",
        "class_order": order,
        "seed": seed,
        "seconds": 9.0,
        "missing_images": 0,
        "last_map": last_map,
        "forgetting": 0.5 - last_map,
        **dict.fromkeys(("avg_map", "last_cf1_macro@0.5", "last_cf1_harmonic@0.5", "last_of1@0.5"), last_map),
        **columns,
    }


def frame_of(*jobs: dict[str, Any]) -> pd.DataFrame:
    frame = pd.DataFrame(list(jobs))
    return frame.reindex(columns=list(dict.fromkeys([*JOB_COLUMNS, *frame.columns])))


def grid_of(seeds: int, orders: int, /, benchmark: str = "digits", **methods: float) -> list[dict[str, Any]]:
    """Return jobs whose figures differ from job to job, and between methods by about what is given."""
    names = ["default", *(f"random:{i}" for i in range(1, orders))]
    jobs = []
    for place, (method, level) in enumerate(methods.items()):
        for (i, order), seed in itertools.product(enumerate(names), range(seeds)):
            noise = 0.01 * i + 0.003 * seed + 0.0001 * ((7 * seed + 3 * i + place) % 5)
            title = {} if benchmark == "digits" else {"title": benchmark.title()}
            jobs.append(job(method.replace("__", " "), seed, level + noise, order, benchmark=benchmark, **title))
    return jobs


def one(frame: pd.DataFrame, *metrics: str, **options: Any) -> BenchmarkTable:
    (table,) = compare(frame, metrics or ("last_map", "forgetting"), **options).benchmarks
    return table


def test_intervals_are_those_of_the_statistics() -> None:
    rows = one(frame_of(*grid_of(3, 3, er=0.5))).rows
    values = [each["last_map"] for each in grid_of(3, 3, er=0.5)]
    assert rows.loc[0, "last_map_level"] == 0.95
    assert min(values) < rows.loc[0, "last_map_low"] < np.mean(values) < rows.loc[0, "last_map_high"] < max(values)
    few = one(frame_of(*grid_of(3, 1, er=0.5))).rows
    assert few.loc[0, ["last_map_low", "last_map_high", "last_map_level"]].tolist() == [0.5, 0.5064, 0.75]


def test_a_baseline_is_compared_over_pairs() -> None:
    jobs = grid_of(3, 3, er=0.5, good=0.6, same=0.5, part=0.3)
    jobs = [each for each in jobs if each["method"] != "part" or each["class_order"] == "default"]
    table = one(frame_of(*jobs), baseline="er")
    values = {
        method: {(each["class_order"], each["seed"]): each["last_map"] for each in jobs if each["method"] == method}
        for method in ("er", "good", "same", "part")
    }
    assert table.baseline == "er"
    found = table.differences
    assert found is not None
    for method in ("good", "same", "part"):
        pairs = [(value, values["er"][block]) for block, value in values[method].items()]
        differences = np.subtract(*np.transpose(pairs)).round(12)
        assert found.loc[method, "difference"] == pytest.approx(differences.mean())
        assert found.loc[method, "p"] == pytest.approx(stats.wilcoxon(differences).pvalue)
    assert found["n"].to_dict() == {"good": 9, "part": 3, "same": 9}
    cells = make_grid(table).cells.set_index("method")
    assert cells.loc["er", "last mAP vs er"] == "baseline"
    assert re.fullmatch(r"\+10\.0 \[10\.0, 10\.\d\]", cells.loc["good", "last mAP vs er"])
    assert cells.loc["good", "p (Holm)"] == "0.012"  # 3 x 2 / 2^9
    assert "Holm-corrected for 3 comparisons." in table.notes[-1]
    assert "with 95 % or 75 % interval" in table.notes[-1]


def test_a_baseline_that_cannot_be_tested_says_so() -> None:
    table = one(frame_of(*grid_of(2, 2, er=0.5, a=0.6, b=0.7)), baseline="er")
    assert table.notes[-1].endswith("No p can reach 0.05 with 4 pairs: that takes 7, as --seeds 3 --class-orders 3.")
    apart = one(frame_of(job("er", 0, 0.5), job("a", 1, 0.6)), baseline="er")
    assert apart.notes[-1] == "No job of another row has the seed and class order of one of er: nothing to compare."


def test_baselines_are_found_by_name() -> None:
    frame = frame_of(*grid_of(2, 1, **{"er__memory_size=5": 0.5, "lwf": 0.4, "er__head=dlfl": 0.6}))
    assert one(frame, baseline="lwf").baseline == "lwf"
    assert one(frame, baseline="er head=dlfl").baseline == "er head=dlfl"
    with pytest.raises(CmlBenchError, match="baseline 'er' is several rows: name one in full, as 'er head=dlfl' or"):
        one(frame, baseline="er")
    with pytest.raises(CmlBenchError, match="baseline 'lfw' is in no table; did you mean 'lwf'"):
        one(frame, baseline="lfw")
    with pytest.raises(CmlBenchError, match="make method the rows"):
        compare(frame, rows="benchmark", columns="method", baseline="lwf")
    two = frame_of(*grid_of(2, 1, er=0.5, lwf=0.4), *grid_of(2, 1, "voc", lwf=0.4, naive=0.3))
    here, there = compare(two, baseline="er").benchmarks
    assert (here.baseline, there.baseline) == ("er", None)
    assert there.notes[-1] == "No job of the baseline er here."


def test_heads_are_compared_where_all_else_is_the_same() -> None:
    jobs = grid_of(
        3, 2, **{"er": 0.5, "er__head=dlfl": 0.6, "lwf": 0.3, "lwf__head=dlfl": 0.4, "krt__head=krt": 0.9, "joint": 0.8}
    )
    table = one(frame_of(*jobs), rows="head")
    assert table.rows["head"].tolist() == ["dlfl", "linear"]
    assert table.rows["n"].tolist() == [12, 12]
    means = {
        head: np.mean([each["last_map"] for each in jobs if each["method"] in methods])
        for head, methods in {"linear": ("er", "lwf"), "dlfl": ("er head=dlfl", "lwf head=dlfl")}.items()
    }
    assert table.rows.set_index("head")["last_map_mean"].to_dict() == pytest.approx(means)
    assert table.notes[1:] == (
        "Each head is averaged over strategy (er, lwf), class order (default, random:1).",
        "Left out, for only one head has them: joint, krt head=krt.",
    )
    assert table.notes[0].startswith("Best last mAP: dlfl, 10.0 above linear (95 % interval 10.0 to 10.0 over 12 pairs")
    assert table.notes[0].endswith(": real.")


def test_strategies_by_heads() -> None:
    jobs = grid_of(
        3, 2, **{"er__size=5": 0.5, "er__head=dlfl__size=5": 0.6, "lwf": 0.3, "lwf__head=dlfl": 0.2, "joint": 0.8}
    )
    table = one(frame_of(*jobs), "last_map", rows="strategy", columns="head")
    assert [column.heading for column in table.columns] == ["dlfl", "linear"]
    assert table.heading.startswith("last mAP by strategy and head: Digits, B0-C2")
    grid = make_grid(table)
    cells = grid.cells.set_index("strategy")
    assert cells.loc["joint", "dlfl"] == "-"
    assert cells.loc["er size=5", "linear"].startswith("50.8 ± 0.6")
    marks = grid.marks.set_index(grid.cells["strategy"])
    assert marks.loc[["er size=5", "joint", "lwf"], "linear"].tolist() == ["best", "", ""]
    assert cells.loc["joint", "notes"] == "incomplete: 6 of 12 jobs"


def test_losses_with_the_same_title_are_told_apart_by_their_options() -> None:
    jobs = grid_of(1, 1, **{"er": 0.1, "er__loss=an__loss.scope=seen": 0.2, "er__loss=an__loss.scope=unmarked": 0.3})
    for each in jobs[1:]:
        each["loss"] = "AN"
    rows = one(frame_of(*jobs), rows="loss").rows
    assert sorted(rows["loss"]) == ["AN scope=seen", "AN scope=unmarked", "BCE"]


def test_benchmarks_side_by_side() -> None:
    frame = frame_of(*grid_of(3, 2, er=0.5, lwf=0.4, naive=0.3), *grid_of(3, 2, "voc", er=0.8, lwf=0.7))
    table = one(frame, "last_map", columns="benchmark")
    assert (table.benchmark, table.data) == ("", None)
    assert [column.heading for column in table.columns] == ["Digits, B0-C2", "Voc, B0-C2"]
    cells = make_grid(table).cells.set_index("method")
    assert cells.loc["naive", "Voc, B0-C2"] == "-"
    assert cells.loc["naive", "notes"] == "incomplete: 6 of 12 jobs"
    # Two are whole, so they are compared pair by pair.
    assert table.notes[0].startswith("Best last mAP: er, 10.0 above lwf (95 % interval")
    assert table.notes[0].endswith("Not compared, for lack of jobs: naive.")
    turned = one(frame, "last_map", rows="benchmark", columns="method")
    assert turned.verdict == table.verdict
    grid = make_grid(turned)
    assert grid.cells["benchmark"].tolist() == ["Digits, B0-C2", "Voc, B0-C2"]
    assert grid.marks["er"].tolist() == ["best", "best"]
    assert grid.marks[["lwf", "naive"]].to_numpy().tolist() == [["", ""], ["", ""]]


def test_ranks_stand_under_three_methods_on_several_benchmarks() -> None:
    frame = frame_of(*grid_of(6, 1, er=0.5, lwf=0.4, naive=0.3), *grid_of(6, 1, "voc", er=0.8, lwf=0.7, naive=0.2))
    table = one(frame, "last_map", columns="benchmark")
    assert table.notes[0].startswith("Best average rank of last mAP: er (1, next lwf 2) over 12 blocks, Friedman p < 0")


def test_versions_of_a_benchmark_are_columns_of_their_own() -> None:
    jobs = [*grid_of(2, 1, er=0.5), *({**each, "version": "2"} for each in grid_of(2, 1, er=0.7))]
    table = one(frame_of(*jobs), "last_map", columns="benchmark")
    assert [column.heading for column in table.columns] == [
        "Digits, B0-C2, version 1, data d",
        "Digits, B0-C2, version 2, data d",
    ]


def test_several_benchmarks_and_what_they_lack_are_named() -> None:
    frame = frame_of(*grid_of(2, 1, er=0.5, lwf=0.4), *grid_of(2, 1, "voc", er=0.8))
    assert compare(frame).notes == (
        "2 benchmarks, one table each: --columns benchmark puts them side by side.",
        "No job on Voc, B0-C2: lwf.",
    )
    assert compare(frame, columns="benchmark").notes == ("No job on Voc, B0-C2: lwf.",)
    assert compare(frame_of(*grid_of(2, 1, er=0.5))).notes == ()


def test_conditions_are_not_ranked() -> None:
    table = one(frame_of(*grid_of(3, 2, er=0.5, lwf=0.4)), rows="class_order")
    assert table.verdict is None
    assert table.rows["class_order"].tolist() == ["default", "random:1"]
    assert not make_grid(table).marks.to_numpy().any()
    assert table.notes == ("Each class order is averaged over method (er, lwf).",)


def test_bounds_lead_nothing() -> None:
    table = one(frame_of(*grid_of(3, 2, joint=0.9, er=0.5, lwf=0.4)))
    assert table.competitors == ("er", "lwf")
    assert table.verdict is not None
    assert table.verdict.best == "er"
    assert table.notes[1] == "Bounds, not ranked: joint."
    marks = make_grid(table).marks
    assert marks["last mAP"].tolist() == ["", "best", ""], "of two, none is the second"


def test_equal_figures_are_marked_alike() -> None:
    jobs = [
        job(method, seed, level)
        for method, level in zip("abcd", (0.9, 0.90001, 0.8, 0.8), strict=True)
        for seed in (0, 1)
    ]
    table = one(frame_of(*jobs))
    assert make_grid(table).marks["last mAP"].tolist() == ["best", "best", "", ""]
    jobs = [
        job(method, seed, level) for method, level in zip("abcd", (0.9, 0.8, 0.8, 0.7), strict=True) for seed in (0, 1)
    ]
    assert make_grid(one(frame_of(*jobs))).marks["last mAP"].tolist() == ["best", "second", "second", ""]
    assert make_grid(one(frame_of(*jobs))).marks["forgetting"].tolist() == ["best", "second", "second", ""]


@settings(max_examples=30, deadline=None)
@given(levels=st.lists(st.integers(0, 3), min_size=3, max_size=6))
def test_marks_are_competition_ranks(levels: list[int]) -> None:
    jobs = [job(f"m{i}", seed, level / 10) for i, level in enumerate(levels) for seed in (0, 1)]
    table = one(frame_of(*jobs), "last_map")
    marks = dict(zip(table.rows["method"], make_grid(table).marks["last mAP"], strict=True))
    for i, level in enumerate(levels):
        better = sum(other > level for other in levels)
        assert marks[f"m{i}"] == {0: "best", 1: "second"}.get(better, "")


def test_sorting() -> None:
    jobs = [
        job(method, seed, level, seconds=cost)
        for method, level, cost in (("b", 0.9, 1), ("a", 0.5, 2), ("c", 0.7, 0))
        for seed in (0, 1)
    ]
    frame = frame_of(*jobs)

    def order(*metrics: str, **options: Any) -> str:
        return "".join(one(frame, *metrics, **options).rows["method"])

    assert order() == "bca"
    assert order("forgetting") == "bca"
    assert order(sort="seconds") == "cba"
    assert order(sort="method") == "abc"
    with pytest.raises(CmlBenchError, match="sort='secnods' is no column of the table; did you mean 'seconds'"):
        order(sort="secnods")


def test_rows_that_only_have_easy_columns_are_not_lifted() -> None:
    frame = frame_of(*grid_of(2, 1, er=0.3, lwf=0.2), *grid_of(2, 1, "voc", er=0.9, lwf=0.8, easy=0.7))
    assert one(frame, "last_map", columns="benchmark").rows["method"].tolist() == ["er", "lwf", "easy"]


def test_costs_are_columns() -> None:
    costs = {
        "training_seconds": 61.25,
        "peak_memory_mb": 1234.5,
        "stored_images": 2000.0,
        "trainable_parameters": 25557032.0,
    }
    jobs = [job("er", seed, 0.5, **{**costs, "training_seconds": 61.25 + seed}) for seed in (0, 1)]
    cells = make_grid(one(frame_of(*jobs), cost=True)).cells
    assert cells.loc[0, ["training seconds", "peak MB", "stored images", "trainable parameters"]].tolist() == [
        "61.8 ± 0.7",
        "1,234",
        "2,000",
        "25,557,032",
    ]
    grid = make_grid(one(frame_of(*jobs), "stored_images"))
    assert grid.cells["stored images"].tolist() == ["2,000"]
    old = [job("er", seed, 0.5, peak_memory_mb=5.0) for seed in (0, 1)]
    assert "stored images" not in make_grid(one(frame_of(*old), cost=True)).cells, "results that did not measure it"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rows": "seed"}, "rows='seed' cannot be rows of a table: use one of method, strategy"),
        ({"columns": "seed"}, "columns='seed' cannot be columns"),
        ({"rows": "head", "columns": "head"}, "rows=head and columns=head say the same twice"),
        ({"columns": "strategy"}, "rows=method and columns=strategy say the same twice"),
    ],
)
def test_impossible_tables(options: dict[str, str], told: str) -> None:
    with pytest.raises(CmlBenchError, match=told):
        compare(frame_of(*grid_of(2, 1, er=0.5)), **options)


def test_few_jobs_are_warned_of_under_every_table() -> None:
    table = compare(frame_of(*grid_of(2, 1, er=0.5, lwf=0.4)), ["last_map"])
    for text in (rendered(table), to_markdown(table), to_csv(table), to_latex(table), to_html(table)):
        flat = " ".join(text.replace("-{}-", "--").split())
        assert "Best last mAP: er, 10.0 above lwf over 2 pairs: cannot be told apart." in flat
        assert "Warning: 2 seeds only" in flat


def rendered(table: ComparisonTable, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=200, record=True)
    console.print(to_terminal(table, **options))
    return console.export_text(styles=True)


def test_the_terminal_marks_best_and_second() -> None:
    table = compare(frame_of(*grid_of(2, 1, er=0.5, lwf=0.4, naive=0.3)), ["last_map"])
    text = rendered(table)
    assert re.search(r"\x1b\[1m50\.\d ± 0\.2", text)
    assert re.search(r"\x1b\[4m40\.\d ± 0\.2", text)
    assert re.search(r"\x1b\[1m50\.\d \[50\.0, 50\.\d\]", rendered(table, intervals=True))
    assert "Intervals hold 95 % from 6 jobs on; below they are the range of the jobs: 50 % with 2 jobs." in rendered(
        table, intervals=True
    )


def test_a_narrow_terminal_says_what_it_leaves_out() -> None:
    table = compare(frame_of(*grid_of(2, 1, er=0.5, lwf=0.4)), ["last_map", "forgetting"])
    assert "Left out for lack of width: forgetting." in rendered(table, width=45)


def test_a_spreadsheet_takes_no_name_for_a_formula() -> None:
    names = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\tx", "plain=1"]
    jobs = [job(name, seed, 0.5 - 0.1 * i, protocol="=1+1") for i, name in enumerate(names) for seed in (0, 1)]
    for options in (
        {},
        {"columns": "class_order"},
        {"rows": "class_order", "columns": "method"},
        {"columns": "benchmark"},
    ):
        text = to_csv(compare(frame_of(*jobs), ["last_map"], **options))
        sheet = list(csv.reader(io.StringIO(text)))
        assert len(sheet) > 1
        for cell in itertools.chain(*sheet):
            assert not cell.startswith(("=", "+", "@", "\t", "\r"))
            assert not cell.startswith("-") or float(cell) < 0
    assert "'=cmd|" in text
    assert "plain=1" in text


NASTY = "x<script>alert(1)</script>&\"'_%$#{}~^\\ *b* `c` [d](e) | $5$ <b>"


def test_latex_escapes_every_letter() -> None:
    table = compare(frame_of(job(NASTY, 0, 0.5), job(NASTY, 1, -0.25)), ["last_map"])
    line = next(line for line in to_latex(table).splitlines() if line.startswith("x"))
    for letter in "&%$#_{}~^\\":
        assert letter not in re.sub(r"\\text[a-z]+\{\}|\\[&%$#_{}]|\$-\$|\$\\pm\$|\\\\$| & ", "", line), letter
    assert r"\textless{}script\textgreater{}" in line
    bad = to_latex(compare(frame_of(job("a--b", 0, -0.25)), ["last_map"]))
    assert r"a-{}-b & linear & BCE & $-$25.0" in bad


class Page(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_html_escapes_names_and_needs_nothing_else() -> None:
    jobs = [
        job(name, seed, level, title="<img src=x onerror=alert(1)>")
        for name, level in ((NASTY, 0.5), ("er", 0.4), ("lwf", 0.3))
        for seed in (0, 1)
    ]
    page = Page()
    page.feed(to_html(compare(frame_of(*jobs), ["last_map"])))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img", "b", "link", "iframe"}
    assert not any(name in ("src", "href", "onerror") for _, attributes in page.tags for name in attributes)
    assert NASTY in page.texts
    classes = [attributes.get("class") for tag, attributes in page.tags if tag == "td"]
    assert (classes.count("best"), classes.count("second")) == (1, 1)


def test_markdown_shows_names_as_they_are() -> None:
    table = compare(
        frame_of(job("a|b", 0, 0.5), job("a|b", 1, 0.5), job("<i>", 0, 0.4), job("<i>", 1, 0.4)), ["last_map"]
    )
    text = to_markdown(table)
    assert "`a\\|b`" in text
    assert "above &lt;i&gt; over 2 pairs" in text
    assert "<i>" not in text.replace("`<i>`", "")


def test_the_python_call_takes_several_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = {"a": frame_of(*grid_of(1, 1, er=0.5)), "b": frame_of(*grid_of(1, 1, lwf=0.4))}
    frames["all"] = pd.concat([frames["a"], frames["b"]])
    monkeypatch.setattr("cml_bench.report.collect.collect", lambda folder: frames[folder.name])
    monkeypatch.chdir(tmp_path)
    (table,) = cml_bench.compare(["a", Path("b"), "all"]).benchmarks
    assert table.rows["method"].tolist() == ["er", "lwf"]
    assert table.rows["duplicates"].tolist() == [0, 0]
    (table,) = cml_bench.compare("a", ["forgetting"], rows="head").benchmarks
    assert table.rows["head"].tolist() == ["linear"]
