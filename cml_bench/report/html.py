"""The report of a results folder: one page that needs nothing beside it, and its pictures as files."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import jinja2
import pandas as pd
from markupsafe import Markup

import cml_bench
from cml_bench.errors import CmlBenchError
from cml_bench.report.collect import collect
from cml_bench.report.figures.picture import write
from cml_bench.report.parts import make_overall, make_parts
from cml_bench.report.section import make_section
from cml_bench.report.tables import DEFAULT_METRICS, compare

_PAGE: Final = Path(__file__).parent / "page"


def report(
    results: Path, output: Path, metrics: Sequence[str] = DEFAULT_METRICS, *, files: bool = True
) -> Path:
    """Write the report of a results folder.

    Args:
        results: Folder with result files.
        output: The page, an ``.html`` file. It needs no other file and no network.
        metrics: Columns of its tables, as ``compare`` takes them.
        files: Whether each picture is also written as PNG, SVG and PDF, and its figures as CSV, into a folder beside the
            page that is called like it with ``_files`` in place of ``.html``.

    Returns:
        The path of the page.

    Raises:
        CmlBenchError: If the folder holds no result, a metric is unknown, or a file cannot be written.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise CmlBenchError(f"{output} is no page: give a file that ends in .html")
    frame = collect(results)
    comparison = compare(frame, metrics)
    sections = [make_section(table, frame) for table in comparison.benchmarks]
    folder = output.with_name(f"{output.stem}_files") if files else None
    style, script = ((_PAGE / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    loader = jinja2.FileSystemLoader(_PAGE)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        name=results.resolve().name,
        parts=make_parts(sections, folder),
        overall=make_overall(sections, folder),
        failed=_failed(frame, results),
        unreadable=_unreadable(frame, results),
        finished=int((frame["status"] == "ok").sum()),
        version=cml_bench.__version__,
        style=Markup(style),  # noqa: S704: a file of this package, like the next
        script=Markup(script),  # noqa: S704
        # The page runs this script and no other, should ever a name come through unescaped.
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    write(output, page.encode())
    return output


def _failed(frame: pd.DataFrame, results: Path) -> list[dict[str, str]]:
    rows = frame[frame["status"] == "failed"].sort_values(["benchmark", "method", "class_order", "seed"])
    return [
        {
            "benchmark": str(row.benchmark),
            "method": str(row.method),
            "class_order": str(row.class_order),
            "seed": f"{row.seed:g}",
            "error": str(row.error),
            "file": _below(Path(str(row.path)), results),
        }
        for row in rows.itertuples()
    ]


def _unreadable(frame: pd.DataFrame, results: Path) -> list[tuple[str, str]]:
    rows = frame[frame["status"] == "unreadable"]
    return [(_below(Path(str(row.path)), results), str(row.error)) for row in rows.itertuples()]


def _below(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
