"""The command line's ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cml_bench.commands.selection import BenchmarkOption, MethodOption, RunsArgument
from cml_bench.runs.events import DEFAULT_RESULTS


def report(
    results: RunsArgument = None,
    benchmark: BenchmarkOption = None,
    method: MethodOption = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write.")] = Path("report.html"),
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of the tables, e.g. last_map or cf1_macro@0.6; repeat it. Verdicts are on the first."
        ),
    ] = None,
    figures: Annotated[
        bool,
        typer.Option(help="Also write each figure as PNG, SVG, PDF and CSV into a folder beside the page."),
    ] = True,
) -> None:
    """Write one page with tables and figures.

    It needs no other file and no network.
    """
    from cml_bench import api
    from cml_bench.report.page.write import figures_folder

    page = api.write_report(
        results or [DEFAULT_RESULTS],
        output,
        metrics=metric,
        figures=figures,
        benchmarks=benchmark or (),
        methods=method or (),
    )
    typer.echo(f"page: {page}")
    if figures:
        typer.echo(f"figures: {figures_folder(page)}")
