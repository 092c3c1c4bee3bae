"""What the command line does, as Python calls."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cml_bench.errors import CmlBenchError
from cml_bench.options import as_text
from cml_bench.runs.events import CHECKPOINT_EVERY, DEFAULT_RESULTS, CheckpointEvery, Log
from cml_bench.runs.job import Job, make_jobs, parse_class_orders, parse_seeds, with_extras
from cml_bench.runs.results import result_path
from cml_bench.runs.sweep import execute, read_suite

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from cml_bench.report.tables.table import ComparisonTable


def run(
    benchmark: str = "digits",
    methods: Sequence[str] | str | None = None,
    *,
    seeds: int | Iterable[int] = 2,
    class_orders: int | str | Iterable[str] = 1,
    results: Path | str = DEFAULT_RESULTS,
    workers: int | None = 1,
    engine: str | None = None,
    checkpoint_every: CheckpointEvery = CHECKPOINT_EVERY,
    retry_failed: bool = True,
    save_models: bool = False,
    log: Log | None = None,
    console: Console | None = None,
    **options: object,
) -> ComparisonTable:
    """Run methods on a benchmark, as far as they have no result yet, and return their table.

    Args:
        benchmark: Name or ``./file.py:Class``.
        methods: Method specifications, or one, as ``"er head=dlfl memory_size=500"``; None for the benchmark's default
            ones.
        seeds: Number of seeds, or the seeds.
        class_orders: Number of class orders, or one, or several (``"default"``, ``"frequency"``, ``"random:5"`` ...).
        results: Folder for result files.
        workers: Jobs at once; None for one a core, or 1 with a GPU. More than one start processes, so a script must
            call this under ``if __name__ == "__main__"``.
        engine: Where jobs run, as in ``"ray address=auto gpus=0.5"`` or ``"slurm partition=gpu"``; None for this
            machine.
        checkpoint_every: When a job is stored, so that it goes on from there with the same predictions to the bit:
            after each ``experience``, in addition after each ``epoch`` or at the first step after a time such as
            ``10min``; ``never`` for jobs that start anew.
        retry_failed: Whether jobs run again that have failed before.
        save_models: Keep the model after each experience beside its result, for ``explain``.
        log: ``tensorboard`` or ``wandb``, to follow loss and metrics of running jobs; files lie beside the results.
        console: Where to show progress; None for nowhere.
        **options: Options of the benchmark and training settings; ``federated="clients=5 rounds=3"`` for clients in
            place of one learner.

    Raises:
        CmlBenchError: If the input is bad, or jobs failed; finished results are kept.
    """
    jobs = make_jobs(
        [benchmark],
        default_methods(benchmark) if methods is None else _names(methods),
        parse_class_orders(_listed(class_orders)),
        parse_seeds(_listed(seeds)),
        [f"{key}={as_text(value)}" for key, value in options.items()],
    )
    return run_jobs(
        with_extras(jobs, save_models, log),
        Path(results),
        workers=workers,
        engine=engine,
        console=console,
        checkpoint_every=checkpoint_every,
        retry_failed=retry_failed,
    )


def sweep(
    suite: Path | str,
    *,
    seeds: int | Iterable[int] | None = None,
    class_orders: int | str | Iterable[str] | None = None,
    results: Path | str = DEFAULT_RESULTS,
    workers: int | None = 1,
    engine: str | None = None,
    checkpoint_every: CheckpointEvery = CHECKPOINT_EVERY,
    retry_failed: bool = True,
    save_models: bool = False,
    log: Log | None = None,
    console: Console | None = None,
    **options: object,
) -> ComparisonTable:
    """Run all jobs of a suite file that have no result yet and return their tables; see ``run`` for the rest.

    Seeds, class orders and options that are given win over those of the file.
    """
    read = read_suite(
        Path(suite),
        [f"{key}={as_text(value)}" for key, value in options.items()],
        seeds=None if seeds is None else _listed(seeds),
        class_orders=None if class_orders is None else _listed(class_orders),
    )
    jobs = with_extras(read.jobs, save_models, log)
    return run_jobs(
        jobs,
        Path(results),
        workers=workers,
        engine=engine,
        console=console,
        checkpoint_every=checkpoint_every,
        retry_failed=retry_failed,
    )


def compare(
    results: Path | str | Iterable[Path | str] = DEFAULT_RESULTS,
    metrics: Sequence[str] | str | None = None,
    *,
    rows: str = "method",
    columns: str = "metric",
    baseline: str | None = None,
    sort: str | None = None,
    cost: bool = False,
    published: bool = False,
    benchmarks: Sequence[str] | str = (),
    methods: Sequence[str] | str = (),
) -> ComparisonTable:
    """Return the comparison tables of one or more results folders; see ``cml_bench.report.tables.compare.compare``.

    Args:
        results: Folder or folders; a file in several of them counts once.
        metrics: Metrics and costs to show; None for the usual ones.
        rows: ``method``, ``strategy``, ``head``, ``loss``, ``benchmark`` or ``class_order``.
        columns: ``metric`` for one table a benchmark configuration; else one of the above, for one table a metric.
        baseline: Row that all others are tested against in the first metric, on the same seeds and class orders. A
            method stays in the table whatever ``methods`` says.
        sort: Column to sort by; None for the first metric.
        cost: Whether to add training seconds, peak memory, stored images and trainable parameters.
        published: Whether to set the numbers of the literature beside each table; see
            ``cml_bench.report.tables.beside``.
        benchmarks: Benchmarks to show; none for all.
        methods: Methods to show, each by words that it must have (``"er head=dlfl"``: any ``er`` with that head);
            none for all.

    Raises:
        CmlBenchError: If a folder holds no results, a name is unknown, or published numbers are asked for beside
            anything but rows of methods and columns of metrics.
    """
    from cml_bench.report.tables.beside import with_published
    from cml_bench.report.tables.compare import compare as compare_frame

    if published and (rows, columns) != ("method", "metric"):
        raise CmlBenchError("published rows are methods and their columns metrics: leave rows and columns as they are")
    frame = _collected(results, benchmarks, methods, baseline)
    table = compare_frame(
        frame,
        None if metrics is None else _names(metrics),
        rows=rows,
        columns=columns,
        baseline=baseline,
        sort=sort,
        cost=cost,
    )
    return with_published(table, frame) if published else table


def write_report(
    results: Path | str | Iterable[Path | str] = DEFAULT_RESULTS,
    output: Path | str = "report.html",
    *,
    metrics: Sequence[str] | str | None = None,
    figures: bool = True,
    benchmarks: Sequence[str] | str = (),
    methods: Sequence[str] | str = (),
) -> Path:
    """Write the report of one or more results folders, one page that needs no network, and return its path.

    Args:
        results: Folder or folders; a file in several of them counts once.
        output: The page, an ``.html`` file.
        metrics: Columns of its tables; None for the usual ones. Verdicts and ranks are about the first.
        figures: Whether each figure is also written as PNG, SVG and PDF, and its data as CSV, into a folder beside the
            page (``report_files`` beside ``report.html``).
        benchmarks: Benchmarks to show, as for ``compare``.
        methods: Methods to show, as for ``compare``.

    Raises:
        CmlBenchError: If a folder holds no results, a name is unknown, or a file cannot be written.
    """
    from cml_bench.report.page.write import write_page

    shown = None if metrics is None else _names(metrics)
    return write_page(_collected(results, benchmarks, methods), Path(output), shown, figures=figures)


def default_methods(benchmark: str) -> Sequence[str]:
    """Return the methods that a benchmark runs when the user names none."""
    from cml_bench.runs.benchmark import load_benchmark

    return load_benchmark(benchmark).meta.methods


def run_jobs(
    jobs: Sequence[Job],
    results: Path,
    *,
    workers: int | None = None,
    engine: str | None = None,
    console: Console | None = None,
    checkpoint_every: CheckpointEvery = CHECKPOINT_EVERY,
    retry_failed: bool = True,
) -> ComparisonTable:
    """Run the jobs that have no result yet and return the table of all of them.

    A finished job counts as not run if its data, its weights or other files that it names have changed since.

    Raises:
        CmlBenchError: If the input is bad, or a result is of a newer version of cml_bench (nothing has run then).
    """
    from rich.console import Console

    from cml_bench.progress import SweepProgress
    from cml_bench.report.stored.collect import collect
    from cml_bench.report.tables.compare import compare as compare_frame
    from cml_bench.runs.benchmark import load_sources
    from cml_bench.runs.checkpoint import remove_leftovers
    from cml_bench.runs.freshness import judge

    console = console or Console(quiet=True)
    # In a notebook, what an earlier call has read may have changed on the disk.
    load_sources.cache_clear()
    judged = judge(jobs, results)
    if judged.doubt:
        console.print(f"the data of finished jobs cannot be looked at ({judged.doubt})", markup=False, style="yellow")
    if changed := len(judged.having("changed")):
        console.print(f"The data have changed since {_jobs(changed)} ran; running again.", style="yellow")
    for job in judged.having("done"):
        remove_leftovers(result_path(results, job))
    missing = judged.to_run(retry_failed)
    if len(missing) < len(jobs):
        console.print(f"{len(jobs) - len(missing)} of {_jobs(len(jobs))} done already; {len(missing)} left.")
    if missing:
        with SweepProgress(missing, console) as progress:
            execute(
                missing, results, workers=workers, report=progress, engine=engine, checkpoint_every=checkpoint_every
            )
    frame = collect(results)
    own = {str(result_path(results, job)) for job in jobs}
    return compare_frame(frame[frame["path"].astype(str).isin(own)])


def _collected(
    results: Path | str | Iterable[Path | str],
    benchmarks: Sequence[str] | str,
    methods: Sequence[str] | str,
    baseline: str | None = None,
) -> pd.DataFrame:
    """Return the jobs of one or more results folders; a file in several of them counts once."""
    import pandas as pd

    from cml_bench.report.stored.collect import collect, without_conflicts
    from cml_bench.report.tables.chosen import chosen
    from cml_bench.report.tables.same_methods import by_shortest_name

    folders = [results] if isinstance(results, (str, Path)) else list(results)
    if not folders:
        raise CmlBenchError("no results folder is given: name at least one")
    frame = pd.concat([collect(Path(folder)) for folder in folders], ignore_index=True)
    if len(folders) > 1:
        frame = without_conflicts(frame[~frame["path"].map(os.path.realpath).duplicated()])
    return chosen(by_shortest_name(frame), _names(benchmarks), _names(methods), baseline)


def _names(given: Sequence[str] | str) -> Sequence[str]:
    return [given] if isinstance(given, str) else given


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


def _listed(value: int | Iterable[object]) -> str:
    # Not isinstance of int: NumPy's numbers are none.
    if not isinstance(value, Iterable):
        return str(value)
    # A list of one keeps its comma, or it would read as a count; a text is one name, not its letters.
    return f"{value}," if isinstance(value, str) else ",".join(map(str, value)) + ","
