"""The command line: thin, and slow imports only where a command needs them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cml_bench import data_commands
from cml_bench.errors import CmlBenchError

if TYPE_CHECKING:
    from cml_bench.runs.job import Job

app = typer.Typer(
    name="cml-bench",
    help="Benchmarks for continual multi-label image classification. Add --debug to see tracebacks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(data_commands.app)

DEFAULT_RESULTS = Path("results/runs")

ResultsOption = Annotated[Path, typer.Option("--results", help="Folder for result files.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="key=value for the benchmark or the training; repeat it.")
]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Jobs at once; by default one a core, or 1 with a GPU.")]
MetricsOption = Annotated[
    list[str] | None, typer.Option("--metric", help="Column of the table, e.g. last_map or cf1_macro@0.6; repeat it.")
]


class Format(str, Enum):
    """Formats of result tables."""

    terminal = "terminal"
    markdown = "markdown"
    csv = "csv"
    latex = "latex"


class CheckpointEvery(str, Enum):
    """When running jobs store their state."""

    experience = "experience"
    never = "never"


CheckpointOption = Annotated[
    CheckpointEvery,
    typer.Option("--checkpoint-every", help="What a stopped job goes on after; never makes it start anew."),
]


SaveModelsOption = Annotated[
    bool, typer.Option("--save-models", help="Keep the model after each experience beside its result, for explain.")
]


class Log(str, Enum):
    """Experiment trackers."""

    tensorboard = "tensorboard"
    wandb = "wandb"


LogOption = Annotated[
    Log | None, typer.Option("--log", help="Follow loss and metrics of running jobs; files lie beside the results.")
]


class StreamFormat(str, Enum):
    """Formats of stream descriptions."""

    terminal = "terminal"
    markdown = "markdown"
    csv = "csv"


@app.command()
def run(
    benchmark: Annotated[str, typer.Argument(help="Benchmark name or ./file.py:Class.")] = "digits",
    method: Annotated[
        list[str] | None, typer.Option(help="Strategy with options, e.g. 'er head=dlfl memory_size=500'; repeat it.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Number of seeds, or a list: 0,4,7.")] = "2",
    class_orders: Annotated[
        str, typer.Option(help="Number of class orders, or a list: default,frequency,random:5.")
    ] = "1",
    set_: SetOption = None,
    root: Annotated[str | None, typer.Option(help="Data folder; short for --set root=...")] = None,
    annotations: Annotated[str | None, typer.Option(help="Annotation folder; short for --set annotations=...")] = None,
    federated: Annotated[
        str | None, typer.Option(help="Clients and rounds: 'clients=5 rounds=3'; short for --set federated=...")
    ] = None,
    results: ResultsOption = DEFAULT_RESULTS,
    workers: WorkersOption = None,
    checkpoint_every: CheckpointOption = CheckpointEvery.experience,
    save_models: SaveModelsOption = False,
    log: LogOption = None,
) -> None:
    """Run methods on a benchmark and print the result table; without arguments, the digits benchmark.

    Runs only what has no result yet: the same command again goes on where it stopped, within a job after the last
    experience learnt.
    """
    from cml_bench.api import default_methods
    from cml_bench.runs.engines.processes import warm_up
    from cml_bench.runs.job import make_jobs, parse_class_orders, parse_seeds, with_extras

    # Workers import while this process does; with one worker nothing is forked.
    if workers != 1:
        warm_up()
    options = list(set_ or [])
    short = {"root": root, "annotations": annotations, "federated": federated}
    options += [f"{key}={value}" for key, value in short.items() if value is not None]
    methods = method or default_methods(benchmark)
    jobs = make_jobs([benchmark], methods, parse_class_orders(class_orders), parse_seeds(seeds), options)
    _execute(with_extras(jobs, save_models, log.value if log else None), results, workers, checkpoint_every)


@app.command()
def sweep(
    suite: Annotated[Path, typer.Argument(help="YAML file: benchmarks, methods, class_orders, seeds, set.")],
    set_: SetOption = None,
    results: ResultsOption = DEFAULT_RESULTS,
    workers: WorkersOption = None,
    checkpoint_every: CheckpointOption = CheckpointEvery.experience,
    save_models: SaveModelsOption = False,
    log: LogOption = None,
) -> None:
    """Run all jobs of a suite file that have no result yet, then print the tables."""
    from cml_bench.runs.job import with_extras
    from cml_bench.runs.sweep import read_suite

    jobs = with_extras(read_suite(suite, set_ or []).jobs, save_models, log.value if log else None)
    _execute(jobs, results, workers, checkpoint_every)


def _execute(jobs: Sequence[Job], results: Path, workers: int | None, checkpoint_every: CheckpointEvery) -> None:
    """Run what is missing, with live progress; print the table of these jobs and where the files are."""
    from cml_bench.api import run_jobs
    from cml_bench.report.console import make_console
    from cml_bench.report.formats import to_terminal

    console = make_console()
    try:
        table = run_jobs(jobs, results, workers, console, checkpoint_every.value)
    except KeyboardInterrupt:
        typer.echo("interrupted: finished results are kept; the same command goes on from there", err=True)
        raise typer.Exit(130) from None
    console.print(to_terminal(table, console.width))
    console.print(f"Results (JSON) and predictions (npz): {results}", markup=False)
    failed = sum(int(part.rows["failed"].sum()) for part in table.benchmarks)
    if failed:
        raise CmlBenchError(f"{failed} of {len(jobs)} jobs failed; the same command runs only these again")


@app.command()
def compare(
    results: Annotated[Path, typer.Argument(help="Folder with result files.")] = DEFAULT_RESULTS,
    format_: Annotated[Format, typer.Option("--format", help="Table format.")] = Format.terminal,
    metric: MetricsOption = None,
    output: Annotated[Path | None, typer.Option(help="File to write instead of printing.")] = None,
) -> None:
    """Print the comparison tables of a results folder, one a benchmark configuration."""
    from cml_bench.api import compare as compare_results
    from cml_bench.report import formats
    from cml_bench.report.console import make_console

    table = compare_results(results, metric)
    if format_ is Format.terminal and output is None:
        console = make_console()
        console.print(formats.to_terminal(table, console.width))
        return
    writers = {Format.markdown: formats.to_markdown, Format.csv: formats.to_csv, Format.latex: formats.to_latex}
    if format_ is Format.terminal:
        raise CmlBenchError("the terminal table cannot be written to a file: give --format markdown, csv or latex")
    text = writers[format_](table)
    if output is None:
        typer.echo(text)
    else:
        output.write_text(text, encoding="utf-8")


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
    from cml_bench.report import stream_table
    from cml_bench.report.console import make_console
    from cml_bench.report.describe import describe as describe_stream

    if plot is not None:
        from cml_bench.report.stream_plot import check_suffix

        check_suffix(plot)
    words = [*(set_ or []), *([f"root={root}"] if root is not None else [])]
    if class_order is not None:
        words.append(f"class_order={class_order}")
    description = describe_stream(benchmark, **dict(parse_pairs(words)))
    if format_ is StreamFormat.terminal:
        console = make_console()
        console.print(stream_table.to_terminal(description, console.width))
    else:
        writer = stream_table.to_csv if format_ is StreamFormat.csv else stream_table.to_markdown
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
    from cml_bench.report.explain import explain as explain_run
    from cml_bench.report.stream_plot import check_suffix

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
        typer.Argument(help="benchmarks, datasets, strategies, heads, wrappers, criteria or regimes; all by default."),
    ] = None,
    name: Annotated[str | None, typer.Argument(help="One of them, to see its options.")] = None,
) -> None:
    """List what can be named, without importing it; with a name, list its options."""
    from cml_bench.registry import KINDS, entries

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
