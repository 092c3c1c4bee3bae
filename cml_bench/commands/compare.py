"""The command line's ``compare``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from cml_bench.commands.selection import BenchmarkOption, MethodOption, RunsArgument
from cml_bench.errors import CmlBenchError
from cml_bench.runs.events import DEFAULT_RESULTS


class Format(str, Enum):
    """Formats of result tables."""

    terminal = "terminal"
    markdown = "markdown"
    csv = "csv"
    latex = "latex"
    html = "html"


_SUFFIXES = {".md": Format.markdown, ".csv": Format.csv, ".tex": Format.latex, ".html": Format.html}


def format_of(output: Path) -> Format:
    """Return the format that a file's name asks for.

    Raises:
        CmlBenchError: If it asks for none.
    """
    try:
        return _SUFFIXES[output.suffix.lower()]
    except KeyError:
        raise CmlBenchError(
            f"--output {output} names no format: end it in {', '.join(_SUFFIXES)}, or give --format"
        ) from None


class Rows(str, Enum):
    """What a row may be."""

    method = "method"
    strategy = "strategy"
    head = "head"
    loss = "loss"
    benchmark = "benchmark"
    class_order = "class_order"


class Columns(str, Enum):
    """What a column may be."""

    metric = "metric"
    method = "method"
    strategy = "strategy"
    head = "head"
    loss = "loss"
    benchmark = "benchmark"
    class_order = "class_order"


def compare(
    results: RunsArgument = None,
    benchmark: BenchmarkOption = None,
    method: MethodOption = None,
    rows: Annotated[Rows, typer.Option(help="What a row is.")] = Rows.method,
    columns: Annotated[
        Columns, typer.Option(help="What a column is; all but metric make one table a metric.")
    ] = Columns.metric,
    metric: Annotated[
        list[str] | None, typer.Option(help="Figure to show, e.g. last_map, cf1_macro@0.6, stored_images; repeat it.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Row that all others are tested against in the first metric.")
    ] = None,
    sort: Annotated[str | None, typer.Option(help="Column to sort by; the first metric by default.")] = None,
    cost: Annotated[
        bool,
        typer.Option(
            "--cost", help="Also training seconds, images/s, peak memory, stored images, trainable parameters."
        ),
    ] = False,
    intervals: Annotated[
        bool, typer.Option("--intervals", help="Intervals of the means in place of standard deviations.")
    ] = False,
    published: Annotated[
        bool, typer.Option("--published", help="Also what is published on the data set and protocol, with its sources.")
    ] = False,
    format_: Annotated[
        Format, typer.Option("--format", help="Table format; with --output it follows from the file's name.")
    ] = Format.terminal,
    output: Annotated[Path | None, typer.Option(help="File to write instead of printing.")] = None,
) -> None:
    """Compare results: a table a benchmark.

    What differs beyond chance is said under it.
    """
    from cml_bench import api
    from cml_bench.commands.console import make_console, put_out
    from cml_bench.report.formats import csv, html, latex, markdown, terminal

    table = api.compare(
        results or [DEFAULT_RESULTS],
        metric,
        rows=rows.value,
        columns=columns.value,
        baseline=baseline,
        sort=sort,
        cost=cost,
        published=published,
        benchmarks=benchmark or (),
        methods=method or (),
    )
    if format_ is Format.terminal and output is not None:
        format_ = format_of(output)
    if format_ is Format.terminal:
        console = make_console()
        console.print(terminal.to_terminal(table, console.width, intervals=intervals))
        return
    if format_ is Format.csv:
        # A sheet has both deviations and intervals.
        text = csv.to_csv(table)
    else:
        writers = {Format.markdown: markdown.to_markdown, Format.latex: latex.to_latex, Format.html: html.to_html}
        text = writers[format_](table, intervals=intervals)
    put_out(text, output)
