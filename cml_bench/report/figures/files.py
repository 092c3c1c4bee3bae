"""The files of a report: each is put in place in one step, pictures on another core while the next ones are drawn."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cml_bench.errors import CmlBenchError
from cml_bench.files import replace_file
from cml_bench.report.figures.picture import Picture

FORMATS: Final = ("png", "svg", "pdf", "csv")


class FigureFiles:
    """Writes each picture into a folder in every format; a context, at whose end all files are there.

    Args:
        folder: Where they go, in a folder a part of the page; None for nowhere.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        # Forked: a fresh interpreter would need longer for its imports than for the files, and would run a caller's
        # script again that has no main guard.
        self._writer = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
        self._written: list[Future[None]] = []

    def __enter__(self) -> FigureFiles:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._writer.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for written in self._written:
                written.result()

    def add(self, part: str, picture: Picture) -> dict[str, str]:
        """Have the files of a picture written; return the address of each, relative to the page, by its kind.

        Raises:
            CmlBenchError: At the end of the context, if a file cannot be written.
        """
        if self.folder is None:
            return {}
        paths = {kind: self.folder / part / f"{picture.name}.{kind}" for kind in FORMATS}
        self._written.append(self._writer.submit(_write, picture, paths))
        return {kind: quote(f"{self.folder.name}/{part}/{path.name}") for kind, path in paths.items()}


def _write(picture: Picture, paths: dict[str, Path]) -> None:
    for kind, path in paths.items():
        write(path, picture.rendered(kind))


def write(path: Path, content: bytes) -> None:
    """Write a file of a report aside and put it in place in one step.

    Raises:
        CmlBenchError: If the folder cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda file: file.write(content))
    except OSError as error:
        raise CmlBenchError(f"{path} cannot be written ({error.strerror}): free space or name another file") from None
