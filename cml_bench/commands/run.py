"""The commands that run jobs: ``run`` and ``sweep``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from cml_bench.errors import CmlBenchError, nearest
from cml_bench.runs.events import CHECKPOINT_EVERY, DEFAULT_RESULTS

if TYPE_CHECKING:
    from cml_bench.runs.job import Job


class Log(str, Enum):
    """Experiment trackers."""

    tensorboard = "tensorboard"
    wandb = "wandb"


_SEEDS = "Number of seeds, or a list: 0,4,7 (of one: 4,)."
_CLASS_ORDERS = "Number of class orders, or a list: default,frequency,random:5."
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="key=value for the benchmark or the training; repeat it.")
]
ResultsOption = Annotated[Path, typer.Option("--results", help="Folder for result files.")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Jobs at once; by default one a core, or 1 with a GPU.")]
EngineOption = Annotated[
    str | None,
    typer.Option(
        help="Where jobs run: serial, processes, 'ray address=auto gpus=0.5' or 'slurm partition=gpu minutes=240'; by "
        "default this machine."
    ),
]
CheckpointOption = Annotated[
    str,
    typer.Option(
        "--checkpoint-every",
        help="When a job is stored, to go on from there: experience, epoch, a time such as 10min, or never.",
    ),
]
RetryOption = Annotated[bool, typer.Option("--retry-failed/--keep-failed", help="Whether failed jobs run again.")]
SaveModelsOption = Annotated[
    bool, typer.Option("--save-models", help="Keep the model after each experience beside its result, for explain.")
]
LogOption = Annotated[
    Log | None, typer.Option("--log", help="Follow loss and metrics of running jobs; files lie beside the results.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the jobs and what they would cost; run nothing.")]


class RunCommand(TyperCommand):
    """Says where words go that ``run`` does not know: options of methods and settings, values without their option."""

    allow_extra_args = ignore_unknown_options = True

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of the command line; an unknown one is a usage error."""
        super().parse_args(ctx, args)
        # The first word behind the command is taken for the benchmark.
        words = [ctx.params["benchmark"] or "", *ctx.args]
        unknown = [word.partition("=")[0] for word in words if word.startswith("-")]
        if unknown:
            near = nearest(unknown[0], [option for each in self.params for option in each.opts])
            pointer = f"did you mean {near}? If not, " if near else ""
            key = unknown[0].lstrip("-").replace("-", "_")
            ctx.fail(
                f"there is no option {unknown[0]}: {pointer}a setting of benchmark or training is written --set "
                f"{key}=VALUE, an option of a method stands in it: --method 'er {key}=VALUE'"
            )
        if setting := next((word for word in words if "=" in word and " " not in word), None):
            ctx.fail(f"{setting!r} stands alone: a setting of benchmark or training is written --set {setting}")
        if ctx.args:
            ctx.fail(
                f"{' '.join(ctx.args)!r} belongs to no option: repeat the option for each value (--method er --method "
                "naive), and quote a method with options (--method 'er memory_size=500')"
            )
        return words


def run(
    benchmark: Annotated[str, typer.Argument(help="Benchmark name or ./file.py:Class.")] = "digits",
    method: Annotated[
        list[str] | None, typer.Option(help="Strategy with options, e.g. 'er head=dlfl memory_size=500'; repeat it.")
    ] = None,
    seeds: Annotated[str, typer.Option(help=_SEEDS)] = "2",
    class_orders: Annotated[str, typer.Option(help=_CLASS_ORDERS)] = "1",
    set_: SetOption = None,
    root: Annotated[str | None, typer.Option(help="Data folder; short for --set root=...")] = None,
    annotations: Annotated[str | None, typer.Option(help="Annotation folder; short for --set annotations=...")] = None,
    federated: Annotated[
        str | None, typer.Option(help="Clients and rounds: 'clients=5 rounds=3'; short for --set federated=...")
    ] = None,
    results: ResultsOption = DEFAULT_RESULTS,
    workers: WorkersOption = None,
    engine: EngineOption = None,
    checkpoint_every: CheckpointOption = CHECKPOINT_EVERY,
    retry_failed: RetryOption = True,
    save_models: SaveModelsOption = False,
    log: LogOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Run methods on a benchmark and print the result table.

    Without arguments, on the digits benchmark.

    Runs only what has no result yet: the same command again goes on where it stopped, also in the middle of a job.
    """
    from cml_bench.api import default_methods
    from cml_bench.runs.engines.processes import warm_up
    from cml_bench.runs.job import make_jobs, parse_class_orders, parse_seeds, with_extras

    # Workers import while this process does; with one worker nothing is forked.
    if workers != 1 and engine in (None, "processes") and not dry_run:
        warm_up()
    options = list(set_ or [])
    short = {"root": root, "annotations": annotations, "federated": federated}
    options += [f"{key}={value}" for key, value in short.items() if value is not None]
    methods = method or default_methods(benchmark)
    jobs = make_jobs([benchmark], methods, parse_class_orders(class_orders), parse_seeds(seeds), options)
    jobs = with_extras(jobs, save_models, log.value if log else None)
    _execute(jobs, results, workers, engine, checkpoint_every, retry_failed, dry_run)


def sweep(
    suite: Annotated[Path, typer.Argument(help="YAML file: benchmarks, methods, class_orders, seeds, set, vary.")],
    seeds: Annotated[str | None, typer.Option(help=f"In place of the suite's. {_SEEDS}")] = None,
    class_orders: Annotated[str | None, typer.Option(help=f"In place of the suite's. {_CLASS_ORDERS}")] = None,
    set_: SetOption = None,
    results: ResultsOption = DEFAULT_RESULTS,
    workers: WorkersOption = None,
    engine: EngineOption = None,
    checkpoint_every: CheckpointOption = CHECKPOINT_EVERY,
    retry_failed: RetryOption = True,
    save_models: SaveModelsOption = False,
    log: LogOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Run the jobs of a suite file and print the tables.

    Those that have a result are not run again.
    """
    from cml_bench.commands.console import make_console
    from cml_bench.runs.job import with_extras
    from cml_bench.runs.sweep import read_suite

    read = read_suite(suite, set_ or [], seeds=seeds, class_orders=class_orders)
    make_console().print(read.title, markup=False, style="bold")
    jobs = with_extras(read.jobs, save_models, log.value if log else None)
    _execute(jobs, results, workers, engine, checkpoint_every, retry_failed, dry_run)


def _execute(
    jobs: Sequence[Job],
    results: Path,
    workers: int | None,
    engine: str | None,
    checkpoint_every: str,
    retry_failed: bool,
    dry_run: bool,
) -> None:
    """Run what is missing, with live progress; print the table of these jobs and where the files are."""
    from cml_bench.api import run_jobs
    from cml_bench.commands.console import check_folder, make_console
    from cml_bench.report import forecast
    from cml_bench.report.formats.terminal import to_terminal
    from cml_bench.runs.stopping import Terminated, terminable

    check_folder(results)
    console = make_console()
    if dry_run:
        from cml_bench.runs.engines.engine import parse_engine

        # A plan that cannot be carried out is none.
        where = parse_engine(engine or "serial")
        for warning in where.check(jobs):
            console.print(f"warning: {warning}", markup=False, style="yellow")
        if engine is not None:
            console.print(where.place(workers), markup=False)
        console.print(forecast.to_terminal(forecast.forecast(jobs, results, retry_failed), workers))
        return
    try:
        with terminable():
            table = run_jobs(
                jobs,
                results,
                workers=workers,
                engine=engine,
                console=console,
                checkpoint_every=checkpoint_every,
                retry_failed=retry_failed,
            )
    except KeyboardInterrupt as stop:
        typer.echo("interrupted: finished results are kept; the same command goes on from there", err=True)
        raise typer.Exit(143 if isinstance(stop, Terminated) else 130) from None
    console.print(to_terminal(table, console.width))
    console.print(f"Results (JSON) and predictions (npz): {results}", markup=False)
    page = shlex.join(["cml-bench", "report", str(results), "-o", "report.html"])
    console.print(f"One page with tables and figures: {page}", markup=False, soft_wrap=True)
    failed = sum(int(part.rows["failed"].sum()) for part in table.benchmarks)
    if failed:
        raise CmlBenchError(f"{failed} of {len(jobs)} jobs failed; the same command runs only these again")
