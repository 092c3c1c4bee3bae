"""The commands ``cml-bench results ...``: look at stored results, check them, score them anew, move them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from cml_bench.commands.formats import TableFormat
from cml_bench.errors import CmlBenchError
from cml_bench.runs.events import DEFAULT_RESULTS

app = typer.Typer(name="results", help="List results, check, rescore, export and merge them.", no_args_is_help=True)


class By(str, Enum):
    """What has a row of its own where metrics are computed anew."""

    job = "job"
    experience = "experience"
    label = "label"


class Row(str, Enum):
    """What has a row of its own in an exported table."""

    figure = "figure"
    job = "job"


RunsArgument = Annotated[
    list[Path] | None,
    typer.Argument(help="Result files, or folders that hold some.", show_default=str(DEFAULT_RESULTS)),
]
OutputOption = Annotated[Path | None, typer.Option(help="File to write instead of printing.")]


@app.command(name="list")
def list_(runs: RunsArgument = None) -> None:
    """Show one line a job.

    Status, benchmark, method, class order, seed, last mAP, and when it was done.
    """
    from cml_bench.commands.console import make_console
    from cml_bench.report.stored.terminal import list_results, list_to_terminal

    make_console().print(list_to_terminal(list_results(runs or [DEFAULT_RESULTS])))


@app.command()
def show(
    one: Annotated[str, typer.Argument(metavar="RESULT", help="Result file (.json), or the first digits of its key.")],
    results: Annotated[Path, typer.Option("--results", help="Folder where keys are looked for.")] = DEFAULT_RESULTS,
) -> None:
    """Show all that one result says.

    Job, method, environment, cost, metrics per experience, AP per label.
    """
    from cml_bench.commands.console import make_console
    from cml_bench.report.stored.terminal import find_result, page

    make_console().print(page(find_result(one, results)))


@app.command()
def verify(runs: RunsArgument = None) -> None:
    """Check that results are what they say.

    Schema, checksum of predictions, metrics, key.
    """
    from cml_bench.report.stored.verify import verify_results

    found = verify_results(runs or [DEFAULT_RESULTS])
    for line in _summed_up((*found.unchecked, *found.problems)):
        typer.echo(line)
    if found.problems:
        raise CmlBenchError(f"{len(found.problems)} problems in {found.files} results")
    typer.echo(f"all is well with {found.files} results")


def _summed_up(lines: Sequence[str]) -> Iterator[str]:
    """Yield ``path: sentence`` lines; of a sentence that is said of many files, three and how many more there are."""
    said: dict[str, list[str]] = {}
    for line in lines:
        said.setdefault(line.partition(": ")[2], []).append(line)
    for sentence, of in said.items():
        yield from of[:3]
        if len(of) > 3:
            yield f"and {len(of) - 3} more: {sentence}"


@app.command()
def rescore(
    runs: RunsArgument = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            help="As last_map, cf1_macro@0.6, last_map_minor, forgetting; repeat it. By default the usual ones.",
        ),
    ] = None,
    by: Annotated[By, typer.Option(help="What has a row: job, experience or label.")] = By.job,
    groups: Annotated[
        bool, typer.Option("--groups", help="Each metric also for major, moderate and minor labels.")
    ] = False,
    cuts: Annotated[
        str | None,
        typer.Option(
            help="Training images from which a label is moderate, and major: 200,900 unless lists are published."
        ),
    ] = None,
    format_: Annotated[TableFormat, typer.Option("--format", help="Table format.")] = TableFormat.terminal,
    output: OutputOption = None,
) -> None:
    """Compute any metric from stored predictions.

    At any threshold, of any group of labels, without training.

    Values are x 100 in the terminal and in Markdown, fractions in CSV.
    """
    from cml_bench.commands.console import make_console, put_out
    from cml_bench.report.formats import rescored
    from cml_bench.report.stored.label_groups import parse_cuts
    from cml_bench.report.stored.rescore import rescore as rescore_results

    found = rescore_results(
        runs or [DEFAULT_RESULTS], metric or (), by=by.value, groups=groups, cuts=parse_cuts(cuts) if cuts else None
    )
    if format_ is TableFormat.terminal and output is None:
        make_console().print(rescored.to_terminal(found))
    else:
        put_out((rescored.to_csv if format_ is TableFormat.csv else rescored.to_markdown)(found), output)
    for line in found.left_out:
        typer.echo(f"left out: {line}", err=True)
    if found.left_out:
        raise CmlBenchError(f"{len(found.left_out)} results could not be scored")


@app.command()
def export(
    runs: RunsArgument = None,
    by: Annotated[Row, typer.Option(help="What has a row: every figure, or a job.")] = Row.figure,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="With --by job, a figure to show, or a cost; repeat it. By default all."),
    ] = None,
    output: OutputOption = None,
) -> None:
    """Write results as CSV.

    A row a figure (job, experience, label, metric, value), or with --by job a row a job.
    """
    from cml_bench.commands.console import put_out
    from cml_bench.report.formats.csv_text import csv_text
    from cml_bench.report.stored.export import export_results
    from cml_bench.report.tables.by_job import export_jobs

    where = runs or [DEFAULT_RESULTS]
    if output and output.suffix.lower() not in ("", ".csv", ".txt"):
        raise CmlBenchError(f"{output} would hold CSV under another name: call it {output.with_suffix('.csv')}")
    if by is Row.figure and metric:
        raise CmlBenchError(f"--metric {metric[0]} chooses columns, which a row a figure has not: add --by job")
    put_out(csv_text(export_results(where) if by is Row.figure else export_jobs(where, metric or ())), output)


@app.command()
def merge(
    sources: Annotated[list[Path], typer.Argument(help="Folders with results, of other machines say.")],
    into: Annotated[Path, typer.Option("--into", help="Folder to copy them to.")],
) -> None:
    """Join results in one folder.

    All of them or none; the same job counts once, nothing is overwritten but failures by results.
    """
    from cml_bench.runs.merge import merge_results

    done = merge_results(sources, into)
    typer.echo(f"{done.added} results copied to {into}, {done.present} there already")
    if done.mended:
        typer.echo(f"{done.mended} of these had failed and are done now")
    if done.supplied:
        typer.echo(f"predictions added to {done.supplied} that had none")
    if done.without_predictions:
        typer.echo(
            f"{done.without_predictions} of those copied came without predictions: tables show them, but metrics "
            "cannot be computed anew"
        )
    for folder in done.unfinished:
        typer.echo(f"not finished, left where it is: {folder}")
