"""What every format says, and that none of them takes a name for anything but a name."""

from __future__ import annotations

import csv
import io
import itertools
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cml_bench.commands.compare import format_of
from cml_bench.errors import CmlBenchError
from cml_bench.report.formats.csv import to_csv
from cml_bench.report.formats.grid import make_grid, without_parts
from cml_bench.report.formats.html import to_html
from cml_bench.report.formats.latex import to_latex
from cml_bench.report.formats.markdown import to_markdown
from cml_bench.report.formats.terminal import to_terminal
from cml_bench.report.tables.compare import compare
from cml_bench.report.tables.quantities import heading
from cml_bench.report.tables.table import ComparisonTable


def test_few_jobs_are_warned_of_under_every_table(frame_of: Any, grid_of: Any) -> None:
    table = compare(frame_of(*grid_of(2, 1, er=0.5, lwf=0.4)), ["last_map"])
    for text in (rendered(table), to_markdown(table), to_csv(table), to_latex(table), to_html(table)):
        flat = " ".join(text.replace("-{}-", "--").split())
        assert "Best last mAP: er, 10.0 above lwf over 2 pairs: cannot be told apart." in flat
        assert "2 seeds only; means" in flat


def rendered(table: ComparisonTable, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=200, record=True)
    console.print(to_terminal(table, **options))
    return console.export_text(styles=True)


def test_the_terminal_marks_best_and_second(frame_of: Any, grid_of: Any) -> None:
    table = compare(frame_of(*grid_of(2, 1, er=0.5, lwf=0.4, naive=0.3)), ["last_map"])
    text = rendered(table)
    assert re.search(r"\x1b\[1m50\.\d ± 0\.2", text)
    assert re.search(r"\x1b\[4m40\.\d ± 0\.2", text)
    assert re.search(r"\x1b\[1m50\.\d \[50\.0, 50\.\d\]", rendered(table, intervals=True))
    assert "They hold 95 % from 6 jobs on; below they are the range of the jobs: 50 % with 2 jobs." in rendered(
        table, intervals=True
    )


def test_a_narrow_terminal_says_what_it_leaves_out(frame_of: Any, grid_of: Any) -> None:
    table = compare(frame_of(*grid_of(2, 1, er=0.5, lwf=0.4)), ["last_map", "forgetting"])
    assert "Left out for lack of width: forgetting." in rendered(table, width=45)


def test_costs_that_were_asked_for_go_last(frame_of: Any, grid_of: Any) -> None:
    frame = frame_of(*grid_of(2, 1, er=0.5, lwf=0.4)).assign(peak_memory_mb=900.0, stored_images=20.0)
    shown = ["last_map", "stored_images", "forgetting", "peak_memory_mb"]
    spare = make_grid(compare(frame, shown).benchmarks[0]).spare
    assert spare == tuple(map(heading, ("stored_images", "peak_memory_mb", "forgetting")))


def test_rows_keep_the_names_that_tell_them_apart(frame_of: Any, job: Any) -> None:
    names = ["er head=linear", "er head=dlfl loss=asl", "lwf loss.gamma=1", "lwf loss.gamma=2", "er memory_size=5"]
    grid = make_grid(compare(frame_of(*(job(name, 0, 0.5) for name in names)), ["last_map"]).benchmarks[0])
    assert set(without_parts(grid).cells["method"]) == {"er", *names[2:]}
    # Two that would be "er" with the same head and criterion keep their names.
    alike = without_parts(replace(grid, cells=grid.cells.assign(head="any", loss="any"))).cells
    assert set(alike["method"]) == set(names)


def test_a_spreadsheet_takes_no_name_for_a_formula(frame_of: Any, job: Any) -> None:
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


def test_latex_escapes_every_letter(frame_of: Any, job: Any) -> None:
    table = compare(frame_of(job(NASTY, 0, 0.5), job(NASTY, 1, -0.25)), ["last_map"])
    line = next(line for line in to_latex(table).splitlines() if line.startswith("x"))
    for letter in "&%$#_{}~^|\\":
        assert letter not in re.sub(r"\\text[a-z]+\{\}|\\[&%$#_{}]|\$-\$|\$\\pm\$|\\\\$| & ", "", line), letter
    assert r"\textless{}script\textgreater{}" in line
    bad = to_latex(compare(frame_of(job("a--b", 0, -0.25)), ["last_map"]))
    assert r"a-{}-b & linear & BCE & $-$25.0" in bad


def test_printed_tables_of_several_benchmarks_are_told_apart(frame_of: Any, grid_of: Any, job: Any) -> None:
    nasty = [job("er", seed, 0.5, title="50 % of_a\n\nset", data="x&y") for seed in (0, 1)]
    table = compare(frame_of(*nasty, *grid_of(2, 1, "voc", er=0.8)), ["last_map"])
    printed = "\n".join(line for line in to_latex(table).splitlines() if not line.startswith("%"))
    for part, above in zip(table.benchmarks, printed.split(r"\begin{tabular}"), strict=False):
        heading = " ".join(part.heading.split())
        for letter in "%_&":
            heading = heading.replace(letter, f"\\{letter}")
        assert f"\\textbf{{{heading}}}\\par" in above.splitlines()[-2]
    # A blank line would end the paragraph within an argument.
    assert all(line.count("{") == line.count("}") for line in printed.splitlines() if r"\textbf{5" in line)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("around", ["%s", r"\begin{table}\centering\caption{Ours.}%s\end{table}"])
def test_latex_compiles_in_a_text_and_in_a_float(frame_of: Any, grid_of: Any, tmp_path: Path, around: str) -> None:
    table = compare(frame_of(*grid_of(2, 1, er=0.5, lwf=0.4), *grid_of(2, 1, "v_o%c", er=0.8)), ["last_map"])
    (tmp_path / "table.tex").write_text(to_latex(table))
    packages = r"\documentclass{article}\usepackage{booktabs,graphicx}"
    body = around % r"\input{table.tex}"
    (tmp_path / "paper.tex").write_text(f"{packages}\\begin{{document}}{body}\\end{{document}}")
    made = subprocess.run(
        ["pdflatex", "-halt-on-error", "paper.tex"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout[-2000:]


@pytest.mark.parametrize("name", ["[one]", "*one", "[one] two"])
def test_latex_takes_no_name_for_an_argument(frame_of: Any, job: Any, name: str) -> None:
    """After the end of a row, or a rule, a bracket or a star would be theirs."""
    lines = to_latex(compare(frame_of(job(name, 0, 0.5), job("b", 0, 0.4)), ["last_map"])).splitlines()
    (line,) = (line for line in lines if name[1:] in line and "&" in line)
    assert line.startswith(f"{{{name[0]}}}{name[1:]} & ")


def test_notes_in_latex_are_for_readers_of_a_paper(frame_of: Any, grid_of: Any) -> None:
    few = frame_of(*grid_of(2, 1, **{"er": 0.5, "./a--b.py:C": 0.6}), *grid_of(2, 1, "voc", er=0.5, naive=0.4))
    table = compare(few, ["last_map"], baseline="er")
    text = to_latex(table)
    notes = [note for part in table.benchmarks for note in part.notes] + list(table.notes)
    assert sum(" --" in note for note in notes) >= 7
    assert not re.search(r" -(?:\{\})?-", text)
    for told in (
        "over 2 pairs: cannot be told apart. A test needs 6 pairs.\\par",
        "footnotesize 2 seeds only; means and deviations of so few say little.\\par",
        "No p can reach 0.05 with 2 pairs: that takes 6.\\par",
        "2 benchmarks or settings of one, a table each.\\par",
        "./a-{}-b.py:C",
    ):
        assert told in text


def test_no_format_hides_that_a_mean_is_over_other_jobs(frame_of: Any, grid_of: Any) -> None:
    table = compare(frame_of(*grid_of(2, 1, lucky=0.9), *grid_of(2, 3, er=0.5)), ["last_map"])
    for text in (rendered(table), to_markdown(table), to_csv(table), to_latex(table), to_html(table)):
        flat = " ".join(text.split())
        assert "incomplete: 2 of 6 jobs" in flat
        assert "Means over other jobs than the rest compare little: lucky (2 of 6 jobs)." in flat
        assert ("--class-orders random:1,random:2 completes them." in flat) == (text != to_latex(table))


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


def test_html_escapes_names_and_needs_nothing_else(frame_of: Any, job: Any) -> None:
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


def test_markdown_shows_names_as_they_are(frame_of: Any, job: Any) -> None:
    table = compare(
        frame_of(job("a|b", 0, 0.5), job("a|b", 1, 0.5), job("<i>", 0, 0.4), job("<i>", 1, 0.4)), ["last_map"]
    )
    text = to_markdown(table)
    assert "`a\\|b`" in text
    assert "above &lt;i&gt; over 2 pairs" in text
    assert "<i>" not in text.replace("`<i>`", "")


def test_markdown_shows_columns_and_parts_as_they_are(frame_of: Any, job: Any) -> None:
    heads = ("a|<b>", "*c*")
    jobs = [job(f"er head={i}", seed, 0.5 - 0.1 * i, head=head) for i, head in enumerate(heads) for seed in (0, 1)]
    for options in ({}, {"rows": "benchmark", "columns": "head"}, {"rows": "head"}):
        text = to_markdown(compare(frame_of(*jobs), ["last_map"], **options))
        assert "a\\|&lt;b&gt;" in text
        assert r"\*c\*" in text
        table = [re.sub(r"\\\|", "", line) for line in text.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in table}) == 1, "every line has the same cells"
    ticks = [job("a`b|c", seed, 0.5) for seed in (0, 1)]
    assert "`` a`b\\|c ``" in to_markdown(compare(frame_of(*ticks), ["last_map"]))


def test_the_sheet_says_what_is_said_about_all_tables(frame_of: Any, grid_of: Any) -> None:
    table = compare(frame_of(*grid_of(2, 1, er=0.5, lwf=0.4), *grid_of(2, 1, "voc", er=0.8)), ["last_map"])
    remarks = [row["remarks"] for row in csv.DictReader(io.StringIO(to_csv(table)))]
    assert len(remarks) == 3
    assert all(remark.endswith("No job on Voc, B0-C2: lwf.") for remark in remarks)


def test_a_sheet_says_which_metric_its_tables_are_about(frame_of: Any, grid_of: Any) -> None:
    frame = frame_of(*grid_of(2, 1, er=0.5, lwf=0.4), *grid_of(2, 1, "voc", er=0.8, lwf=0.7))
    rows = list(csv.DictReader(io.StringIO(to_csv(compare(frame, ["last_map", "forgetting"], columns="benchmark")))))
    assert [row["metric"] for row in rows] == ["last_map", "last_map", "forgetting", "forgetting"]
    assert "metric" not in to_csv(compare(frame, ["last_map"])).partition("\n")[0].split(",")


@pytest.mark.parametrize(
    ("name", "format_"), [("a.tex", "latex"), ("a.MD", "markdown"), ("a.csv", "csv"), ("a.html", "html")]
)
def test_the_name_of_a_file_says_its_format(name: str, format_: str) -> None:
    assert format_of(Path(name)).value == format_


def test_a_name_that_says_none() -> None:
    with pytest.raises(CmlBenchError, match=r"--output a.txt names no format: end it in \.md, \.csv"):
        format_of(Path("a.txt"))


def test_a_figure_that_is_undefined_in_a_hard_job_is_marked_nowhere(one: Any, frame_of: Any, grid_of: Any) -> None:
    jobs = grid_of(4, 1, er=0.6, lwf=0.5, naive=0.4)
    jobs[3] = {**jobs[3], "last_map": float("nan")}
    table = one(frame_of(*jobs), "last_map", "forgetting")
    marks = make_grid(table).marks.set_axis(table.rows["method"])
    assert marks["last mAP"].to_dict() == {"er": "", "lwf": "best", "naive": ""}
    assert marks.loc["er", "forgetting"] == "best"


def test_marks_are_of_figures_as_printed(one: Any, frame_of: Any, job: Any) -> None:
    figures = {"er": 0.9965, "lwf": 0.9961, "naive": 0.5}
    table = one(frame_of(*(job(name, seed, value) for name, value in figures.items() for seed in (0, 1))), "last_map")
    grid = make_grid(table)
    printed = dict(zip(grid.cells["method"], grid.cells["last mAP"].str.split().str[0], strict=True))
    best = max(printed.values(), key=float)
    assert [*grid.cells["method"][grid.marks["last mAP"] == "best"]] == [
        name for name, text in printed.items() if text == best
    ]
    assert printed == {"er": f"{99.65:.1f}", "lwf": f"{99.61:.1f}", "naive": "50.0"}


def test_latex_makes_no_dash_of_hyphens(frame_of: Any, job: Any) -> None:
    assert r"./a-{}-{}-b.py:C" in to_latex(compare(frame_of(job("./a---b.py:C", 0, 0.5))))
