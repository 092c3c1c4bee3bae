"""The report: one page that needs nothing beside it, and its figures as files."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import jinja2
import pandas as pd

import cml_bench
from cml_bench.errors import CmlBenchError
from cml_bench.report.figures.files import FigureFiles, write
from cml_bench.report.figures.section import Section, make_section
from cml_bench.report.page.parts import Overall, make_overall, make_parts
from cml_bench.report.stored.label_groups import CUTS
from cml_bench.report.tables.compare import compare, with_versions
from cml_bench.report.tables.repeats import without_mended
from cml_bench.report.tables.same_methods import by_shortest_name

_PAGE: Final = Path(__file__).parent / "template"


def write_page(
    frame: pd.DataFrame, output: Path, metrics: Sequence[str] | None = None, *, figures: bool = True
) -> Path:
    """Write the report of some results.

    Args:
        frame: What ``collect`` returned; the result files that it names must still be there.
        output: The page, an ``.html`` file. It needs no other file and no network.
        metrics: Columns of its tables, as ``compare`` takes them; verdicts and ranks are about the first.
        figures: Whether each figure is also written into ``figures_folder`` as PNG, SVG and PDF, and its data as CSV.

    Returns:
        The path of the page.

    Raises:
        CmlBenchError: If a metric is unknown, or a file cannot be written.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise CmlBenchError(f"{output} is no page: give a file that ends in .html")
    frame = by_shortest_name(frame)
    comparison = compare(frame, metrics, cost=True)
    sections = [make_section(table, frame) for table in comparison.benchmarks]
    with FigureFiles(figures_folder(output) if figures else None) as files:
        parts = make_parts(sections, files)
        several = sum(bool(section.runs) for section in sections) > 1
        overall = _overall(frame, metrics, files) if several else None
    style, script = ((_PAGE / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    loader = jinja2.FileSystemLoader(_PAGE)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        title=_title(sections),
        parts=parts,
        overall=overall,
        notes=comparison.notes,
        cuts=CUTS,
        failed=_failed(frame),
        unreadable=comparison.unreadable,
        finished=int((frame["status"] == "ok").sum()),
        version=cml_bench.__version__,
        style=style,
        script=script,
        # The page runs this script and no other, should ever a name come through unescaped.
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    write(output, page.encode())
    return output


def figures_folder(page: Path) -> Path:
    """Return where the figures of a page lie: beside it, called like it with ``_files`` in place of ``.html``."""
    return page.with_name(f"{page.stem}_files")


def _title(sections: Sequence[Section]) -> str:
    if len(sections) == 1:
        return f"Results on {sections[0].table.heading.partition(',')[0]}"
    return f"Results on {len(sections)} benchmarks" if sections else "Results"


def _overall(frame: pd.DataFrame, metrics: Sequence[str] | None, files: FigureFiles) -> Overall:
    first = metrics[:1] if metrics else None
    return make_overall(compare(frame, first, columns="benchmark").benchmarks[0], files)


def _failed(frame: pd.DataFrame) -> list[dict[str, str]]:
    jobs = without_mended(with_versions(frame[frame["status"] != "unreadable"].reset_index(drop=True)))
    rows = jobs[jobs["status"] == "failed"].sort_values(["benchmark", "method", "class_order", "seed"])
    return [
        {
            "benchmark": str(row.benchmark),
            "method": str(row.method),
            "class_order": str(row.class_order),
            "seed": f"{row.seed:.0f}",
            "error": str(row.error),
            "file": str(row.path),
        }
        for row in rows.itertuples()
    ]
