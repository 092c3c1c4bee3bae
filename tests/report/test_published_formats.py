"""Every format shows every published number with its source and what keeps it apart, and escapes names."""

from __future__ import annotations

import io
import re
from html import unescape
from html.parser import HTMLParser

import pandas as pd
import pytest
from rich.console import Console

from cml_bench.report.published_formats import overview, to_frame, to_html, to_latex, to_markdown, to_terminal
from cml_bench.report.published_rows import Block, PublishedPart, catalogue

NASTY = "<b>R&D_100%</b> | [bold]x"
ROWS = pd.DataFrame(
    {"method": ["er", NASTY], "buffer": ["", "20/class"], "last mAP": ["55.0 ± 7.1", "54.0"], "source": ["ours", "1"]}
).assign(caveats=["", "a"])
PART = PublishedPart(
    heading="MS-COCO 2014, B0-C10",
    summary="2 published numbers.",
    ours=("er: backbone tresnet_m",),
    ranked=(Block("B0-C10, offline", (), ROWS),),
    apart=(Block("B0-C10, online", ("pretraining: ours none, theirs DINO",), ROWS[1:]),),
    remarks=("Known of it.",),
    sources=("A & B, Table 1",),
    caveats=("read second-hand",),
    numbers=pd.DataFrame({"value": ["54.0"], "source": ["A & B, Table 1"], "differs": ["one\ntwo"]}),
)


class Cells(HTMLParser):
    """The texts of a page's table cells, as a browser shows them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "td":
            self.inside = True
            self.found.append("")
        elif self.inside:
            raise AssertionError(f"<{tag}> in a cell")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "td"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[-1] += data


def terminal(*parts: PublishedPart, width: int = 200) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(to_terminal(parts))
    return console.export_text()


def test_terminal_shows_names_as_they_are() -> None:
    text = terminal(PART)
    assert NASTY in text
    assert "Ranked with ours: B0-C10, offline" in text
    assert "Not ranked: B0-C10, online\n  differs in pretraining: ours none, theirs DINO\n" in text
    assert "Sources\n  1  A & B, Table 1\n" in text
    assert "Caveats\n  a  read second-hand\n" in text
    assert "  theirs: Known of it.\n" in text


def test_a_narrow_terminal_keeps_figures_whole() -> None:
    assert "55.0 ± 7.1" in terminal(PART, width=45)


def test_markdown_has_a_table_a_block_and_escapes_its_signs() -> None:
    text = to_markdown([PART])
    assert text.startswith("### Published: MS-COCO 2014, B0-C10\n")
    assert "#### Not ranked: B0-C10, online\n\n- differs in pretraining: ours none, theirs DINO\n" in text
    (row, again) = re.findall(r"^\| *\\<b>R&D\\_100%\\</b> \\\| \[bold\]x .*$", text, re.MULTILINE)
    assert row.split(" | ")[2].strip() == again.split(" | ")[2].strip() == "54.0"


def test_latex_escapes_names_and_prints_what_differs() -> None:
    text = to_latex([PART])
    assert r"R\&D\_100\%" in text
    assert r"55.0 $\pm$ 7.1" in text
    assert r"differs in pretraining: ours none, theirs DINO \\" in text
    assert r"1  A \& B, Table 1 \\" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}")
    assert text.count(r"\toprule") == 2


def test_html_escapes_names() -> None:
    text = to_html([PART])
    cells = Cells()
    cells.feed(text)
    assert cells.found == ["er", "", "55.0 ± 7.1", "ours", "", *(NASTY, "20/class", "54.0", "1", "a") * 2]
    assert "<b>R" not in text
    assert "<li>1  A &amp; B, Table 1</li>" in text


def test_the_overview_counts_every_number() -> None:
    console = Console(width=300, file=io.StringIO(), record=True)
    console.print(overview())
    lines = console.export_text().splitlines()
    counts = [int(match[1]) for line in lines if (match := re.search(r" {2,}(\d+) {2,}", line))]
    assert (len(counts), sum(counts)) == (9, 616)
    assert any("nuswide" in line and "MOCL 8 tasks (online); static" in line for line in lines)
    assert any("emotic" in line and "Track A (8 tasks, 26 classes)" in line for line in lines)


def test_the_sheet_has_a_row_a_number() -> None:
    frame = to_frame([PART, PART])
    assert list(frame["value"]) == ["54.0", "54.0"]
    assert list(frame["differs"]) == ["one | two", "one | two"]
    assert set(frame["beside"]) == {"MS-COCO 2014, B0-C10"}


@pytest.mark.parametrize("name", ["coco", "voc", "nuswide", "emotic"])
def test_every_format_has_every_number_and_every_source(name: str) -> None:
    part = catalogue(name)
    texts = [terminal(part, width=1000), to_markdown([part]), to_latex([part]), unescape(to_html([part]))]
    for row in part.numbers.itertuples():
        for text in texts:
            assert re.search(rf"(?<![\d.]){re.escape(row.value)}(?![\d.])", text)
    for text in texts:
        plain = text.replace("\\", "")
        assert all(source.replace("_", "") in plain.replace("_", "") for source in part.sources)
