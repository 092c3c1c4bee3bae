"""The page as text: everything is there, nothing runs that a name says, and each command makes its row again."""

from __future__ import annotations

import html
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import cml_bench
from cml_bench.cli import app
from cml_bench.errors import CmlBenchError
from cml_bench.report.figures.files import FORMATS
from cml_bench.report.figures.section import make_section
from cml_bench.report.page.reproduce import reproducing_command
from cml_bench.report.page.write import figures_folder
from cml_bench.report.stored.collect import collect
from cml_bench.report.stored.history import read_history
from cml_bench.report.stored.rescore import rescore
from cml_bench.report.tables.compare import compare
from cml_bench.runs.job import parse_class_orders, parse_seeds

METHODS = ("joint", "er memory_size=200", "dlfl", "naive")
Write = Callable[..., Path]


def text_of(page: Path) -> str:
    """Return what a reader sees, tags and pictures left out."""
    body = re.sub(r"<(svg|style|script)\b.*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def cells(page: Path, method: str) -> list[str]:
    """Return the cells of a method's row in the summary table."""
    (row,) = re.findall(rf'<tr>\s*<th scope="row" data-value="{method}">(.*?)</tr>', page.read_text(), re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in re.findall(r"<td.*?>(.*?)</td>", row)]


@pytest.fixture(scope="module")
def page(stored_runs: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return cml_bench.write_report(stored_runs(folder / "runs", METHODS), folder / "report.html")


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave pictures out where they do not matter: they take most of the time."""
    monkeypatch.setattr("cml_bench.report.page.parts.draw_all", lambda section: ([], []))


def test_a_row_is_mean_deviation_and_interval(page: Path) -> None:
    jobs = collect(page.parent / "runs")
    figures = 100 * jobs.loc[jobs["method"] == "naive", "last_map"]
    found = re.fullmatch(r"([\d.]+) ± ([\d.]+) ([\d.]+) to ([\d.]+)", cells(page, "naive")[2])
    assert found is not None
    mean, deviation, low, high = map(float, found.groups())
    assert mean == pytest.approx(figures.mean(), abs=0.051)
    assert deviation == pytest.approx(np.std(figures, ddof=1), abs=0.051)
    assert low < mean < high


def test_the_verdict_stands_on_the_page(page: Path) -> None:
    (table,) = compare(collect(page.parent / "runs")).benchmarks
    assert table.verdict is not None
    assert str(table.verdict) in text_of(page)
    assert "Bounds, not ranked: joint." in text_of(page)


def test_figures_lie_beside_the_page_and_are_linked(page: Path) -> None:
    links = re.findall(r'<a href="(report_files/[^"]+)"', page.read_text())
    assert len(links) == 8 * len(FORMATS)
    assert {page.parent / link for link in links} == set(figures_folder(page).rglob("*.*"))


def test_the_page_of_the_manual_names_every_figure(page: Path) -> None:
    manual = (Path(__file__).resolve().parents[2] / "docs" / "how_to" / "report.md").read_text(encoding="utf-8")
    named = {
        name for line in manual.splitlines() if line.startswith("|") for name in re.findall(r"`([a-z0-9_]+)`", line)
    }
    drawn = {path.stem for path in figures_folder(page).rglob("*.png")}
    assert named - {"joint"} == drawn | {"cost_trainable_parameters"}


def test_the_same_results_give_the_same_bytes(page: Path, tmp_path: Path) -> None:
    again = cml_bench.write_report(page.parent / "runs", tmp_path / "other.html", figures=False)
    without = [re.sub(r'<span class="files">.*?</span>', "", each.read_text()) for each in (page, again)]
    assert without[0] == without[1]
    assert not figures_folder(again).exists()


def test_nothing_on_the_page_points_elsewhere(page: Path) -> None:
    content = page.read_text()
    addresses = re.findall(r'(?:src|href)="([^"]*)"', content)
    assert {address.split(":")[0].split("/")[0][:1] for address in addresses} <= {"#", "r", "d"}
    assert not re.findall(r"@import|url\((?!#)", content)
    # Only names of XML, which nobody fetches.
    assert set(re.findall(r"https?://[\w./]+", content)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_where_data_lay_on_a_machine_stays_there(page: Path) -> None:
    assert "/secret/place" not in page.read_text()


def test_a_command_makes_the_same_jobs_again(page: Path) -> None:
    frame = collect(page.parent / "runs")
    section = make_section(compare(frame).benchmarks[0], frame)
    words = shlex.split(reproducing_command("digits", section.runs_of("er memory_size=200")))
    assert words[:3] == ["cml-bench", "run", "digits"]
    options = list(zip(words[3::2], words[4::2], strict=True))
    assert ("--method", "er memory_size=200") in options
    assert ("--set", "increment=2") in options
    assert ("--set", "root=PATH_TO_ROOT") in options
    given = dict(options)
    jobs = {
        (order, seed) for order in parse_class_orders(given["--class-orders"]) for seed in parse_seeds(given["--seeds"])
    }
    assert jobs == {(run.class_order, run.seed) for run in section.runs}


@pytest.mark.parametrize("seeds", [(0,), (3,), (0, 2), (0, 1, 2)])
def test_seeds_and_orders_read_back(stored_runs: Write, tmp_path: Path, seeds: tuple[int, ...]) -> None:
    frame = collect(stored_runs(tmp_path, ("it's odd",), seeds=seeds, orders=("random:5",)))
    section = make_section(compare(frame).benchmarks[0], frame)
    words = shlex.split(reproducing_command("digits", section.runs))
    assert parse_seeds(words[words.index("--seeds") + 1]) == list(seeds)
    assert parse_class_orders(words[words.index("--class-orders") + 1]) == ["random:5"]
    assert words[words.index("--method") + 1] == "it's odd"


def test_everything_missing_is_listed(stored_runs: Write, as_failed: Any, tmp_path: Path) -> None:
    folder = stored_runs(tmp_path / "runs", METHODS)
    path = folder / "digits_2_1_2.json"
    path.write_text(json.dumps(as_failed(json.loads(path.read_text()), "the loss became NaN after 3 steps")))
    (folder / "digits_3_0_0.json").write_text('{"schema_version": 2, "st')
    (folder / "digits_1_0_0.npz").unlink()
    text = text_of(cml_bench.write_report(folder, tmp_path / "r.html", figures=False))
    assert "22 finished jobs, 1 failed, 1 unreadable file" in text
    assert "the loss became NaN after 3 steps" in text
    assert "dlfl: incomplete: 5 of 6 jobs; 1 failed." in text
    assert "digits_3_0_0.json: " in text
    assert "delete it and run the job again" in text
    assert "Missing or unreadable: er (default, seed 0)" in text


@pytest.mark.slow
def test_each_benchmark_has_its_section_and_all_have_one_together(stored_runs: Write, tmp_path: Path) -> None:
    folder = stored_runs(tmp_path / "runs", METHODS, benchmarks=("digits", "voc"), seeds=(0, 1))
    page = cml_bench.write_report(folder, tmp_path / "r.html")
    assert re.findall(r'<section id="([^"]+)"', page.read_text()) == ["all_benchmarks", "digits", "voc"]
    assert {path.name for path in figures_folder(page).iterdir()} == {"all_benchmarks", "digits", "voc"}
    assert "8 blocks" in text_of(page)
    assert len(set(ids := re.findall(r'\bid="([^"]+)"', page.read_text()))) == len(ids)


@pytest.mark.usefixtures("without_pictures")
def test_two_configurations_of_a_benchmark_do_not_share_addresses(stored_runs: Write, tmp_path: Path) -> None:
    stored_runs(tmp_path / "runs" / "a", METHODS, seeds=(0,))
    stored_runs(
        tmp_path / "runs" / "b",
        METHODS,
        seeds=(0,),
        change=lambda d: d["job"]["benchmark_options"].update(increment="3"),
    )
    page = cml_bench.write_report(tmp_path / "runs", tmp_path / "r.html", figures=False)
    assert re.findall(r'<section id="(digits[^"]*)"', page.read_text()) == ["digits_1", "digits_2"]


@pytest.mark.usefixtures("without_pictures")
def test_groups_of_labels_are_those_of_rescoring(stored_runs: Write, tmp_path: Path) -> None:
    groups = {"major": ["a", "d"], "minor": ["b", "c", "e", "f"]}
    folder = stored_runs(tmp_path / "runs", METHODS, change=lambda d: d["benchmark"].update(label_groups=groups))
    page = cml_bench.write_report(folder, tmp_path / "r.html", figures=False)
    assert (
        '<select class="group-filter"><option>all</option><option>major</option><option>minor</option>'
        in page.read_text()
    )
    scored = rescore(folder, ["last_map_minor", "avg_map_minor"]).rows
    for name, path in (("last_map_minor", -1), ("avg_map_minor", slice(None))):
        expected = scored[scored["method"] == "naive"][name].to_numpy()
        files = sorted(folder.glob("digits_3_*.json"))
        own = [np.nanmean(read_history(file).group_map(groups["minor"])[path]) for file in files]
        np.testing.assert_allclose(sorted(own), sorted(expected))


def test_one_job_makes_a_page(stored_runs: Write, tmp_path: Path) -> None:
    page = cml_bench.write_report(stored_runs(tmp_path, ("er",), seeds=(0,), orders=("default",)), tmp_path / "r.html")
    assert cells(page, "er")[2].count("±") == 0
    assert "One job a method: no bands." in text_of(page)


def test_only_failures_and_only_broken_files_still_make_a_page(
    stored_runs: Write, as_failed: Any, tmp_path: Path
) -> None:
    folder = stored_runs(tmp_path / "runs", ("er",), seeds=(0,), orders=("default",))
    path = folder / "digits_0_0_0.json"
    path.write_text(json.dumps(as_failed(json.loads(path.read_text()), "no disk")))
    text = text_of(cml_bench.write_report(folder, tmp_path / "r.html"))
    assert "0 finished jobs, 1 failed" in text
    assert "no disk" in text
    path.write_text("{")
    assert "1 unreadable file" in text_of(cml_bench.write_report(folder, tmp_path / "r.html"))


@pytest.mark.usefixtures("without_pictures")
def test_several_folders_and_a_metric_by_the_command_line(page: Path, stored_runs: Write, tmp_path: Path) -> None:
    other = stored_runs(tmp_path / "more", ("lwf",))
    output = tmp_path / "out.html"
    words = [str(page.parent / "runs"), str(other), "-o", str(output), "--metric", "of1@0.5", "--no-figures"]
    done = CliRunner().invoke(app, ["report", *words])
    assert done.exit_code == 0, done.output
    assert done.output == f"page: {output}\n"
    assert "30 finished jobs" in text_of(output)
    assert "Best last OF1 @0.5" in text_of(output)
    assert cells(output, "lwf")


def test_bad_input_ends_in_a_sentence(page: Path, tmp_path: Path) -> None:
    runs = page.parent / "runs"
    with pytest.raises(CmlBenchError, match=r"ends in \.html"):
        cml_bench.write_report(runs, tmp_path / "report.pdf")
    with pytest.raises(CmlBenchError, match="did you mean 'last_map'"):
        cml_bench.write_report(runs, tmp_path / "report.html", metrics=["last_mpa"])
    (tmp_path / "file").write_text("")
    with pytest.raises(CmlBenchError, match="cannot be written"):
        cml_bench.write_report(runs, tmp_path / "file" / "report.html", figures=False)


def test_a_row_is_made_again_with_its_jobs_and_no_others(drawing_section: Any) -> None:
    """Two seeds on one class order and one on another are two commands: their product would be a job more."""

    def lose_one(document: dict[str, Any]) -> None:
        if (document["job"]["class_order"], document["job"]["seed"]) == ("random:1", 1):
            document["job"]["method"] = "lwf"

    section = drawing_section(("er",), seeds=(0, 1), orders=("default", "random:1"), change=lose_one)
    runs = section.runs_of("er")
    named = []
    for command in reproducing_command("digits", runs).split(" && "):
        words = shlex.split(command)
        orders, seeds = (words[words.index(option) + 1] for option in ("--class-orders", "--seeds"))
        named += [(order, seed) for order in parse_class_orders(orders) for seed in parse_seeds(seeds)]
    assert sorted(named) == sorted((run.class_order, run.seed) for run in runs)
    assert len(named) == 3
