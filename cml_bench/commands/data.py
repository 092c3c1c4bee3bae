"""The commands ``cml-bench data ...``: what data sets there are, and whether the one on disk is whole."""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cml_bench.commands.formats import TableFormat
from cml_bench.errors import CmlBenchError, some

if TYPE_CHECKING:
    from cml_bench.data.data_set import DataSet
    from cml_bench.data.verify import ImageFault, SplitReport

app = typer.Typer(name="data", help="List data sets, check them on disk, prepare them for use.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="Data set name or ./file.py:Class.")]
RootOption = Annotated[str, typer.Option(help="Folder that holds the data set.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="key=value for the data set; repeat it.")]
SplitOption = Annotated[
    list[str] | None, typer.Option("--split", help="Split; repeat it. By default all whose label files are there.")
]


@app.command(name="list")
def list_() -> None:
    """List all data sets, without importing them."""
    from cml_bench.commands.console import make_console
    from cml_bench.report.listing import data_set_table

    make_console().print(data_set_table())


@app.command()
def info(name: NameArgument) -> None:
    """Tell all that is declared of a data set.

    Its splits and terms, where to get it and where to put it, its options.
    """
    from cml_bench.report.listing import option_lines

    kind = _kind(name)
    card = kind.meta
    typer.echo(f"{card.title} ({card.name}), version {card.version}\n\n{inspect.getdoc(kind)}\n")
    labels = "depends on the options or the files" if card.n_labels is None else card.n_labels
    for title, value in (("labels", labels), ("licence", card.licence), ("home page", card.homepage)):
        if value:
            typer.echo(f"{title}: {value}")
    typer.echo(f"cite: {card.citation}")
    typer.echo("\nsplits:")
    for split, counts in card.splits.items():
        typer.echo(f"  {split}: {_figures(counts) or 'no published figures'}")
    if not card.splits:
        typer.echo("  depend on the files")
    typer.echo("\nhow to get it:")
    for line in inspect.cleandoc(card.download).splitlines():
        typer.echo(f"  {line}")
    typer.echo("\nchecksums of label files:")
    for file, checksum in card.checksums.items():
        typer.echo(f"  {file}  {checksum}")
    if not card.checksums:
        typer.echo("  none published")
    typer.echo("\noptions (--set key=value):")
    for line in option_lines(kind):
        typer.echo(line)


@app.command()
def verify(
    name: NameArgument,
    root: RootOption,
    set_: SetOption = None,
    split: SplitOption = None,
    labels_only: Annotated[bool, typer.Option("--labels-only", help="Do not look at the images.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that decode images; by default one a core.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File for the list of all missing and broken images.")] = None,
) -> None:
    """Check a data set on disk.

    Checksums, counts, and every image opened and decoded once.
    """
    from cml_bench.commands.console import check_output, make_console, put_out
    from cml_bench.data.verify import ImagesReport, image_paths, twice_used, verify_images, verify_labels

    if output is not None and labels_only:
        raise CmlBenchError(f"--output {output} lists images, and --labels-only looks at none: leave one of them out")
    data = _data_set(name, root, set_)
    if output is not None:
        check_output(output)
    reports = verify_labels(data, _splits(data, split))
    for report in reports:
        _show(report)
    # Splits may share a label file.
    wrong = list(dict.fromkeys(fault for report in reports for fault in report.faults))
    paths, images = [] if labels_only else image_paths(reports), ImagesReport([], [])
    if paths:
        from rich.progress import Progress

        console, start = make_console(), time.perf_counter()
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task("images", total=len(paths))
            images = verify_images(paths, workers=workers, done=lambda count: progress.advance(bar, count))
        missing, broken = (sum(_kind_of(fault) == kind for fault in images.faults) for kind in ("missing", "broken"))
        typer.echo(
            f"images: {len(paths):,} listed, {len(paths) - len(images.faults):,} decoded, {missing:,} missing, "
            f"{broken:,} broken in {time.perf_counter() - start:.1f} s"
        )
        wrong += _image_faults(images.faults, Path(root))
        if images.turned:
            names = some([_within(path, Path(root)) for path in images.turned])
            typer.echo(
                f"images that ask to be turned (EXIF orientation): {len(images.turned):,} ({names}); they are read as "
                "they are stored: turn the files where that is sideways"
            )
    elif not labels_only:
        typer.echo("images: the data set has no image files")
    if output is not None:
        put_out("".join(f"{_kind_of(fault)}\t{fault.path}\n" for fault in images.faults), output)
    warned = twice_used(reports)
    for sentence in warned:
        typer.echo(f"warning: {sentence}")
    if wrong:
        changed = f" (the published figures are those of default options; given: {', '.join(set_)})" if set_ else ""
        raise CmlBenchError(f"{data.meta.title} in {root} is not as it should be: {'; '.join(wrong)}{changed}")
    typer.echo("all else is well" if warned else "all is well")


@app.command()
def prepare(name: NameArgument, root: RootOption, set_: SetOption = None, split: SplitOption = None) -> None:
    """Read the label files once and store them as tables.

    Every later run reads these in their place.
    """
    from cml_bench.labels import totals

    data = _data_set(name, root, set_)
    for each in _splits(data, split):
        path = data.table_path(each)
        before = path.stat().st_mtime_ns if path.is_file() else None
        start = time.perf_counter()
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            table = data.table(each)
        seconds = time.perf_counter() - start
        if not path.is_file():
            reason = notes[-1].message if notes else f"{path} was not written"
            raise CmlBenchError(f"{reason}; make the folder writable or set CML_BENCH_CACHE to another")
        for note in notes:
            typer.echo(f"note: {note.message}", err=True)
        state = "there already" if path.stat().st_mtime_ns == before else "stored"
        typer.echo(
            f"{each}: {state}, {_figures({**totals(table.labels), **table.counts})}\n"
            f"  {path} ({path.stat().st_size / 1e6:.1f} MB, {seconds:.2f} s), fingerprint {table.fingerprint[:16]}"
        )


@app.command()
def drift(
    name: NameArgument,
    root: RootOption,
    split: Annotated[
        list[str] | None,
        typer.Option("--split", help="Snapshot, as coco/google_mic/20-10-28; repeat it. By default all."),
    ] = None,
    format_: Annotated[TableFormat, typer.Option("--format", help="Table format.")] = TableFormat.terminal,
    output: Annotated[Path | None, typer.Option(help="File for the list of all unanswered images.")] = None,
) -> None:
    """Tell how the answers of commercial services changed.

    Of the data set hapi, between dates, and how right they are.
    """
    from cml_bench.commands.console import check_output, make_console, put_out
    from cml_bench.data.sets.hapi import HAPI
    from cml_bench.report.drift import formats
    from cml_bench.report.drift.drift import drift as find_drift

    data = _data_set(name, root, None)
    if not isinstance(data, HAPI):
        raise CmlBenchError(f"data set {name} has no dated answers of services: drift is for hapi")
    if output is not None:
        check_output(output)
    found = find_drift(data, split or [each for each in _splits(data, None) if "/" in each])
    if output is not None:
        lines = (f"{each}\t{id_}\n" for each, ids in found.missing.items() for id_ in ids)
        put_out("".join(lines), output)
    if format_ is TableFormat.terminal:
        make_console().print(formats.to_terminal(found))
    else:
        typer.echo((formats.to_csv if format_ is TableFormat.csv else formats.to_markdown)(found))


def _kind(name: str) -> type[DataSet]:
    from cml_bench.data.data_set import DataSet
    from cml_bench.registry import load

    kind = load("datasets", name)
    if not (inspect.isclass(kind) and issubclass(kind, DataSet)):
        raise CmlBenchError(f"{name!r} is no data set: give a subclass of cml_bench.DataSet")
    return kind


def _data_set(name: str, root: str, words: Sequence[str] | None) -> DataSet:
    from cml_bench.options import convert, parse_pairs

    kind = _kind(name)
    options = dict(parse_pairs([f"root={root}", *(words or [])]))
    return kind(**convert(kind, options, owner=f"data set {name}", written="--set {}=VALUE".format))


def _splits(data: DataSet, given: Sequence[str] | None) -> list[str]:
    """Return the splits that are asked for, or those whose label files are there; names those that are not."""
    if given:
        return list(dict.fromkeys(given))
    absent: dict[str, CmlBenchError] = {}
    for split in data.splits:
        try:
            data.label_files(split)
        except CmlBenchError as error:
            absent[split] = error
    if len(absent) == len(data.splits):
        raise next(iter(absent.values()), CmlBenchError(f"{data.root} holds no split of {data.meta.title}"))
    for split, reason in absent.items():
        typer.echo(f"{split}: not there ({reason})")
    return [split for split in data.splits if split not in absent]


def _show(report: SplitReport) -> None:
    """Print what was found of a split."""
    typer.echo(f"{report.split}:")
    for file, right in report.checksums.items():
        typer.echo(f"  {file}: checksum {'right' if right else 'WRONG'}")
    if report.error:
        typer.echo(f"  cannot be read: {report.error}")
        return
    for name in dict.fromkeys((*report.counts, *report.expected)):
        found, expected = report.counts.get(name), report.expected.get(name)
        of = "" if expected is None else f" / {expected:,}" + "  WRONG" * (name in report.wrong_counts)
        typer.echo(f"  {name.replace('_', ' ')}: {'-' if found is None else f'{found:,}'}{of}")
    if report.never_shown:
        names = ", ".join(report.never_shown[:10]) + ", ..." * (len(report.never_shown) > 10)
        typer.echo(f"  labels that no image shows: {len(report.never_shown)} ({names})")
    typer.echo(f"  fingerprint: {report.fingerprint}")


def _image_faults(faults: Sequence[ImageFault], root: Path) -> list[str]:
    """Return a clause on missing images and one on broken ones, each with the first names."""
    clauses = []
    for kind in ("missing", "broken"):
        names = [str(_within(fault.path, root)) for fault in faults if _kind_of(fault) == kind]
        if names:
            first = "first: " * (len(names) > 3) + ", ".join(names[:3])
            clauses.append(f"{len(names):,} {'image' if len(names) == 1 else 'images'} {kind} ({first})")
    return clauses


def _kind_of(fault: ImageFault) -> str:
    return "missing" if fault.reason is None else "broken"


def _within(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path


def _figures(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())
