"""What stands on a page: for each benchmark configuration its table, pictures, gaps and commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cml_bench.files import plain_name
from cml_bench.report.figures.files import FigureFiles
from cml_bench.report.figures.gallery import draw_all, draw_overall
from cml_bench.report.figures.glyphs import glyph
from cml_bench.report.figures.picture import Picture
from cml_bench.report.figures.section import Section
from cml_bench.report.formats.grid import Grid, make_grid
from cml_bench.report.page.reproduce import reproducing_command
from cml_bench.report.page.summary import Summary, summarize
from cml_bench.report.tables.table import BenchmarkTable

OVERALL: Final = "all_benchmarks"


@dataclass(frozen=True)
class Plate:
    """A picture on a page.

    Attributes:
        picture: What it shows.
        identity: Its anchor.
        svg: Its element.
        files: Kind to address of its files, relative to the page; empty where none are written.
    """

    picture: Picture
    identity: str
    svg: str
    files: dict[str, str]


@dataclass(frozen=True)
class Part:
    """One benchmark configuration on a page.

    Attributes:
        identity: Its anchor.
        section: Its table, jobs and runs.
        summary: Its table as a page shows it.
        glyphs: Method to its marker in the pictures.
        plates: Its pictures.
        gaps: What is missing, in sentences.
        commands: Method to the command that makes its row again.
        versions: Versions of the code that ran it.
    """

    identity: str
    section: Section
    summary: Summary
    glyphs: dict[str, str]
    plates: tuple[Plate, ...]
    gaps: tuple[str, ...]
    commands: dict[str, str]
    versions: tuple[str, ...]


@dataclass(frozen=True)
class Overall:
    """All benchmark configurations together, where there are several.

    Attributes:
        grid: Methods by benchmarks in the first metric.
        plates: The picture of average ranks, if there is one.
        gaps: Why there is none, if so.
    """

    grid: Grid
    plates: tuple[Plate, ...]
    gaps: tuple[str, ...]


def make_parts(sections: Sequence[Section], files: FigureFiles) -> list[Part]:
    """Draw and describe every section; have pictures written as files."""
    return [_part(name, section, files) for name, section in zip(_identities(sections), sections, strict=True)]


def make_overall(table: BenchmarkTable, files: FigureFiles) -> Overall:
    """Draw and describe a table of methods by benchmarks."""
    pictures, lacking = draw_overall(table)
    plates = tuple(_plate(picture, OVERALL, files) for picture in pictures)
    return Overall(make_grid(table), plates, tuple(lacking))


def _part(identity: str, section: Section, files: FigureFiles) -> Part:
    pictures, lacking = draw_all(section)
    return Part(
        identity=identity,
        section=section,
        summary=summarize(section),
        glyphs={method: glyph(look) for method, look in section.looks.items() if look.shown},
        plates=tuple(_plate(picture, identity, files) for picture in pictures),
        gaps=(*_gaps(section.table), *lacking),
        commands={
            method: reproducing_command(section.table.benchmark, section.runs_of(method)) for method in section.looks
        },
        versions=tuple(sorted({run.history.code_version for run in section.runs} - {""})),
    )


def _gaps(table: BenchmarkTable) -> list[str]:
    """Return a sentence for each method that lacks something; what all lack is said under the table."""
    return [f"{row['method']}: {row['notes']}." for row in table.rows.to_dict("records") if row["notes"]]


def _plate(picture: Picture, part: str, files: FigureFiles) -> Plate:
    identity = f"{part}-{picture.name}"
    # The page's part comes first: it leaves the SVG file done.
    svg = picture.inline(identity)
    return Plate(picture, identity, svg, files.add(part, picture))


def _identities(sections: Sequence[Section]) -> list[str]:
    """Return a name for each section that is good for an address and a folder: its benchmark, numbered if repeated."""
    names = [plain_name(section.table.benchmark) for section in sections]
    repeated = {name for name, count in Counter([OVERALL, *map(str.lower, names)]).items() if count > 1}
    return [f"{name}_{i + 1}" if name.lower() in repeated else name for i, name in enumerate(names)]
