"""The command line's ``describe``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cml_bench.commands.formats import TableFormat


def describe(
    benchmark: Annotated[str, typer.Argument(help="Benchmark name or ./file.py:Class.")],
    root: Annotated[str | None, typer.Option(help="Data folder; short for --set root=...")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value for the benchmark; repeat it.")] = None,
    class_order: Annotated[str | None, typer.Option(help="Order of labels, e.g. random:1.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture to draw: a .png, .pdf or .svg file.")] = None,
    format_: Annotated[TableFormat, typer.Option("--format", help="Table format.")] = TableFormat.terminal,
) -> None:
    """Show what a benchmark's stream holds, experience by experience.

    Label files suffice, images need not be there.
    """
    from cml_bench.commands.console import make_console
    from cml_bench.options import parse_pairs
    from cml_bench.report.picture_file import check_suffix
    from cml_bench.report.stream import formats
    from cml_bench.report.stream.describe import describe as describe_stream

    if plot is not None:
        check_suffix(plot)
    words = [*(set_ or []), *([f"root={root}"] if root is not None else [])]
    if class_order is not None:
        words.append(f"class_order={class_order}")
    description = describe_stream(benchmark, **dict(parse_pairs(words)))
    if format_ is TableFormat.terminal:
        console = make_console()
        console.print(formats.to_terminal(description, console.width))
    else:
        writer = formats.to_csv if format_ is TableFormat.csv else formats.to_markdown
        typer.echo(writer(description))
    if plot is not None:
        description.plot(plot)
