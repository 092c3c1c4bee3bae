"""The command line: thin, and slow imports only where a command needs them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from cml_bench import compare_command, data_commands, report_command, results_commands, run_commands
from cml_bench.errors import CmlBenchError

app = typer.Typer(
    name="cml-bench",
    help="Benchmarks for continual multi-label image classification. Add --debug to see tracebacks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(run_commands.run)
app.command()(run_commands.sweep)
app.command()(compare_command.compare)
app.command()(report_command.report)
app.add_typer(data_commands.app)
app.add_typer(results_commands.app)


class StreamFormat(str, Enum):
    """Formats of stream descriptions."""

    terminal = "terminal"
    markdown = "markdown"
    csv = "csv"


@app.command()
def describe(
    benchmark: Annotated[str, typer.Argument(help="Benchmark name or ./file.py:Class.")],
    root: Annotated[str | None, typer.Option(help="Data folder; short for --set root=...")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value for the benchmark; repeat it.")] = None,
    class_order: Annotated[str | None, typer.Option(help="Order of labels, e.g. random:1.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture to draw: a .png, .pdf or .svg file.")] = None,
    format_: Annotated[StreamFormat, typer.Option("--format", help="Table format.")] = StreamFormat.terminal,
) -> None:
    """Show what a benchmark's stream holds, experience by experience; label files suffice, images need not be there."""
    from cml_bench.options import parse_pairs
    from cml_bench.report.console import make_console
    from cml_bench.report.stream import table
    from cml_bench.report.stream.describe import describe as describe_stream

    if plot is not None:
        from cml_bench.report.stream.plot import check_suffix

        check_suffix(plot)
    words = [*(set_ or []), *([f"root={root}"] if root is not None else [])]
    if class_order is not None:
        words.append(f"class_order={class_order}")
    description = describe_stream(benchmark, **dict(parse_pairs(words)))
    if format_ is StreamFormat.terminal:
        console = make_console()
        console.print(table.to_terminal(description, console.width))
    else:
        writer = table.to_csv if format_ is StreamFormat.csv else table.to_markdown
        typer.echo(writer(description))
    if plot is not None:
        description.plot(plot)


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(help="Result (.json) of a job run with --save-models, or a results folder.")],
    image: Annotated[str, typer.Option(help="Image file, or the id or file name of an image of the data set.")],
    labels: Annotated[
        str | None, typer.Option(help="Labels, as cat,dog; by default those that the image shows.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(help="Experiences, as 1,3,6, or all; by default when the labels came, and the last.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Picture to draw: a .png, .pdf or .svg file.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Where data or weights lie now: root=..., checkpoint=...; repeat it."),
    ] = None,
) -> None:
    """Draw where each label looks in an image, after its experience and after later ones."""
    from cml_bench.report.explanation.explain import explain as explain_run
    from cml_bench.report.stream.plot import check_suffix

    output = output or Path(f"explain_{Path(image).stem}.png")
    check_suffix(output)
    explanation = explain_run(
        run,
        image,
        labels=labels.split(",") if labels else None,
        after=None if after is None else after if after == "all" else after.split(","),
        options=set_,
    )
    explanation.draw(output)
    typer.echo(explanation.table().to_string(index=False))
    typer.echo(f"picture: {output}")


@app.command(name="list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="benchmarks, datasets, strategies, heads, wrappers, criteria or regimes (all by default); published "
            "for the numbers of the literature."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(help="One of them, to see its options; of published, a data set, to see its numbers."),
    ] = None,
) -> None:
    """List what can be named, without importing it; with a name, list its options."""
    from cml_bench.registry import KINDS, entries

    if kind == "published":
        _show_published(name)
        return
    if kind and name:
        _show_plugin(kind, name)
        return
    if kind in ("benchmarks", "datasets"):
        from cml_bench.report import listing
        from cml_bench.report.console import make_console

        make_console().print(listing.benchmark_table() if kind == "benchmarks" else listing.data_set_table())
        return
    for each in [kind] if kind else KINDS:
        found = entries(each)
        typer.echo(f"{each}:")
        width = max((len(name) for name in found), default=0)
        for name, entry in found.items():
            origin = "" if entry.origin == "built-in" else f" [{entry.origin}]"
            typer.echo(f"  {name:<{width}}  {entry.summary}{origin}")


def _show_published(name: str | None) -> None:
    """Print the published numbers of a data set, or how many there are of each."""
    from rich.console import Group

    from cml_bench.report.console import make_console
    from cml_bench.report.formats.published import grids, overview
    from cml_bench.report.formats.tables import show_grids
    from cml_bench.report.published.rows import catalogue

    console = make_console()
    if name is None:
        console.print(overview())
        return
    part = catalogue(name)
    console.print(*part.summary, "", Group(*show_grids(grids(part), console.width)), sep="\n", markup=False)


def _show_plugin(kind: str, name: str) -> None:
    """Print the docstring and the options of one plug-in; of a benchmark, the training settings as well."""
    import inspect

    from cml_bench.registry import load
    from cml_bench.report.listing import option_lines

    target = load(kind, name)
    typer.echo(inspect.getdoc(target) or "")
    parts: list[tuple[str, Any, dict[str, Any]]] = [("options", target, {})]
    if kind == "benchmarks":
        from cml_bench.runs.benchmark import Benchmark
        from cml_bench.training.config import TrainingConfig

        typer.echo(f"\n{inspect.getdoc(Benchmark)}\n\n{inspect.getdoc(TrainingConfig)}")
        parts.append(("training settings", TrainingConfig, vars(target.training)))
    for title, owner, values in parts:
        typer.echo(f"\n{title}:")
        for line in option_lines(owner, values):
            typer.echo(line)


@app.command()
def check(
    subject: Annotated[
        str,
        typer.Argument(
            help="Strategy name, ./file.py:Class or module:Class, with options; or head:NAME, criterion:NAME, "
            "benchmark:NAME (a path may stand in the name's place)."
        ),
    ],
) -> None:
    """Check that a plug-in keeps the rules of the suite.

    A strategy learns, repeats, keeps within its memory and looks at nothing it may not see; a head grows without
    disturbing; a criterion keeps to what was asked; a benchmark deals what it declares.
    """
    from cml_bench.testing import check as check_plugin

    outcomes = check_plugin(subject, raise_on_failure=False)
    width = max(len(outcome.name) for outcome in outcomes)
    for outcome in outcomes:
        typer.echo(f"{outcome.status:<7} {outcome.name:<{width}}  {outcome.detail}")
    failed = [outcome.name for outcome in outcomes if outcome.status == "failed"]
    if failed:
        raise CmlBenchError(f"{subject} fails {len(failed)} of {len(outcomes)} checks: {', '.join(failed)}")


def run_benchmark(name: str) -> None:
    """Be the command line of one benchmark: what ``python benchmarks/<name>.py`` calls."""
    main(["run", name, *sys.argv[1:]])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; bad input ends in one sentence (a traceback only with ``--debug``) and exit status 1."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    usual = warnings.formatwarning
    # A user's warning is one line; where in our code it was raised is nothing to them.
    warnings.formatwarning = lambda message, *_args, **_kwargs: f"cml-bench: warning: {message}\n"
    try:
        app(args=words, standalone_mode=True)
    except CmlBenchError as error:
        if debug:
            raise
        typer.secho(f"cml-bench: {error}", fg="red", err=True)
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        typer.secho(
            f"cml-bench: {type(error).__name__}: {error} (run with --debug for the traceback)", fg="red", err=True
        )
        sys.exit(1)
    finally:
        warnings.formatwarning = usual


if __name__ == "__main__":
    main()
