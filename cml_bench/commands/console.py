"""Where tables go: the terminal, a pipe or a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console

from cml_bench.errors import CmlBenchError


def make_console() -> Console:
    """Return a console; one that writes to a file or a pipe does not wrap tables at 80 columns."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def put_out(text: str, output: Path | None) -> None:
    """Write a text into a file, or print it where there is none.

    Raises:
        CmlBenchError: If the file cannot be written.
    """
    if output is None:
        typer.echo(text, nl=not text.endswith("\n"))
        return
    with _to_be_written(output):
        output.write_text(text, encoding="utf-8")


def check_output(output: Path) -> None:
    """Find out before minutes of work that a file cannot be written, and leave none: empty, it would say "nothing".

    Raises:
        CmlBenchError: If it cannot.
    """
    there = output.exists()
    with _to_be_written(output), output.open("a"):
        pass
    if not there:
        output.unlink()


def check_folder(folder: Path) -> None:
    """Find out that a folder cannot be one of results, without making it.

    One that is there may be read without being written, where nothing is left to run.

    Raises:
        CmlBenchError: If it, or what it would lie in, is a file, or it is not there and cannot be made.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise CmlBenchError(
            f"results folder {folder} cannot be made, as {there} is a file: name a folder with --results"
        )
    if there != folder.absolute() and not os.access(there, os.W_OK):
        raise CmlBenchError(
            f"results folder {folder} cannot be written (no permission in {there}): name a folder with --results"
        )


@contextmanager
def _to_be_written(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CmlBenchError(
            f"{output} cannot be written ({error.strerror}): name a file in a folder that exists"
        ) from None
