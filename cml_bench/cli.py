"""The command line: its commands, and how any of them ends."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

import cml_bench
from cml_bench.commands import check, compare, data, describe, explain, listing, report, results, run
from cml_bench.errors import CmlBenchError

app = typer.Typer(
    name="cml-bench",
    help="Benchmarks for continual multi-label image classification. Add --debug to see tracebacks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Boxes cut names of options short where the terminal is narrow.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command(cls=run.RunCommand)(run.run)
for command in (run.sweep, compare.compare, report.report, describe.describe, explain.explain):
    app.command()(command)
app.command(name="list")(listing.list_)
app.command()(check.check)
app.add_typer(data.app)
app.add_typer(results.app)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"cml-bench {cml_bench.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_say_version)
    ] = False,
) -> None:
    pass


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
