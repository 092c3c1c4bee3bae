"""The command line's ``list``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cml_bench.options import arguments


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
    """List what can be named; of a name, its options.

    Nothing is imported for it.
    """
    from cml_bench.errors import CmlBenchError, suggest
    from cml_bench.registry import KINDS, entries

    if kind == "published":
        _show_published(name)
        return
    if kind and name:
        _show_plugin(kind, name)
        return
    if kind in ("benchmarks", "datasets"):
        from cml_bench.commands.console import make_console
        from cml_bench.report import listing

        make_console().print(listing.benchmark_table() if kind == "benchmarks" else listing.data_set_table())
        return
    if kind and kind not in KINDS and (homes := [each for each in KINDS if kind in entries(each)]):
        raise CmlBenchError(f"{kind!r} is one of the {homes[0]}: write cml-bench list {homes[0]} {kind}")
    if kind and kind not in KINDS:
        raise CmlBenchError(f"there is no kind of plug-in {kind!r}: {suggest(kind, [*KINDS, 'published'])}")
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

    from cml_bench.commands.console import make_console
    from cml_bench.report.formats.published import grids, overview
    from cml_bench.report.formats.terminal import show_grids
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
    for base in inspect.getmro(target)[1:] if inspect.isclass(target) else ():
        # Options that it has from there.
        _, found, inherited = (inspect.getdoc(base) or "").partition("\nAttributes:\n")
        if found and inspect.get_annotations(base).keys() & arguments(target).keys():
            typer.echo(f"\nAs any {base.__name__}:\n{inherited.rstrip()}")
    parts: list[tuple[str, Any, dict[str, Any]]] = [("options", target, {})]
    if kind == "benchmarks":
        from cml_bench.training.config import TrainingConfig

        typer.echo(f"\n{inspect.getdoc(TrainingConfig)}")
        parts.append(("training settings", TrainingConfig, vars(target.training)))
    for title, owner, values in parts:
        lines = list(option_lines(owner, values))
        typer.echo(f"\n{title}:{'' if lines else ' none of its own'}")
        for line in lines:
            typer.echo(line)
