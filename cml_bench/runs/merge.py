"""Results of several machines in one folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cml_bench.errors import CmlBenchError
from cml_bench.runs.differences import conflict
from cml_bench.runs.results import checkpoint_folder, predictions_digest, read_result, result_files
from cml_bench.runs.schema import Result

_BESIDE = (".npz", ".models", ".log")
"""What may lie beside a result file and goes where it goes."""


@dataclass(frozen=True)
class Merged:
    """What a merge did.

    Attributes:
        added: Jobs that were copied.
        present: Jobs that were there already, or came twice.
        unfinished: Checkpoints of jobs without a result, which stay where they are.
        supplied: Jobs among those present whose predictions were missing and are there now.
        without_predictions: Jobs among those added that came without predictions.
        mended: Jobs among those present that had failed and are done now.
    """

    added: int
    present: int
    unfinished: tuple[Path, ...]
    supplied: int = 0
    without_predictions: int = 0
    mended: int = 0


def merge_results(sources: Sequence[Path | str], into: Path | str) -> Merged:
    """Copy the results of some folders into one; all of them, or none.

    A job that comes twice counts once. Two runs of it may differ in when and where they ran and what they took; of one
    that failed and one that did not, the latter counts. Nothing else is overwritten: everything is looked at before the
    first file is copied, and copied aside before the first is put in place.

    A result whose predictions are not there (those of a paper or a repository often lie elsewhere) is a result all the
    same; they are added as soon as a folder has them.

    Args:
        sources: Folders with result files, or result files.
        into: Folder to copy to; made if it does not exist.

    Raises:
        CmlBenchError: If jobs have two different results (all are named), a result cannot be read, its predictions are
            damaged, its place is taken, or the folder cannot be written.
    """
    into = Path(into)
    known = {read_result(path).key: path for path in (result_files(into) if _holds_results(into) else ())}
    places = dict(known)
    planned: dict[Path, Path] = {}
    supplied: dict[Path, Path] = {}
    without = set()
    present, unfinished, mended = 0, [], set()
    conflicts = []
    for source in map(Path, sources):
        for path in result_files(source):
            if path.resolve().is_relative_to(into.resolve()):
                raise CmlBenchError(f"{path} lies in {into} already: merge other folders into it")
            _refuse_links(path)
            result = read_result(path)
            _check_predictions(path, result)
            predictions = path.with_suffix(".npz")
            if result.key in known:
                present += 1
                place, before = places[result.key], read_result(known[result.key])
                if result.status == "failed":
                    continue
                if before.status == "failed":
                    if place not in planned:
                        mended.add(place)
                    known[result.key], planned[place] = path, path
                    if not predictions.exists():
                        without.add(place.with_suffix(".npz"))
                    continue
                found = conflict(before, result) or _other_predictions(known[result.key], path)
                if found:
                    conflicts.append(f"{known[result.key]} and {path} ({found})")
                elif predictions.exists() and not known[result.key].with_suffix(".npz").exists():
                    supplied.setdefault(place.with_suffix(".npz"), predictions)
                continue
            known[result.key] = path
            target = into / (path.relative_to(source) if source.is_dir() else Path(path.parent.name, path.name))
            if target in planned or any(target.with_suffix(suffix).exists() for suffix in (".json", *_BESIDE)):
                raise CmlBenchError(
                    f"{path} cannot be copied to {target}, where another job lies: rename one of the two"
                )
            places[result.key], planned[target] = target, path
            if result.status == "ok" and not predictions.exists():
                without.add(target.with_suffix(".npz"))
        unfinished += _unfinished(source)
    if conflicts:
        raise CmlBenchError(
            f"these have the same key and another content: {'; '.join(conflicts)}: delete one of each two; nothing was "
            "merged"
        )
    # The result itself comes last: who finds it finds the rest.
    beside = {
        target.with_suffix(suffix): path.with_suffix(suffix) for target, path in planned.items() for suffix in _BESIDE
    }
    _copy({**beside, **supplied, **planned}, into)
    return Merged(
        len(planned) - len(mended),
        present,
        tuple(unfinished),
        len(supplied.keys() - without),
        len(without - supplied.keys()),
        len(mended),
    )


def _holds_results(folder: Path) -> bool:
    return folder.is_dir() and any(folder.rglob("*.json"))


def _refuse_links(path: Path) -> None:
    """Refuse symbolic links: what they lead to, a private file perhaps, would be copied into a shared folder."""
    for origin in (path, *(path.with_suffix(suffix) for suffix in _BESIDE)):
        for found in (origin, *(origin.rglob("*") if origin.is_dir() and not origin.is_symlink() else ())):
            if found.is_symlink():
                raise CmlBenchError(f"{found} is a symbolic link: put the file itself there; nothing was merged")


def _check_predictions(path: Path, result: Result) -> None:
    predictions = path.with_suffix(".npz")
    if result.status != "ok" or result.predictions is None or not predictions.exists():
        return
    if predictions_digest(predictions) != result.predictions.sha256:
        raise CmlBenchError(f"the predictions of {path} have another checksum than the stored one: copy the file again")


def _other_predictions(one: Path, other: Path) -> str | None:
    """Return that the predictions of two results differ, None if they do not or are not both there."""
    both = [path.with_suffix(".npz") for path in (one, other)]
    differ = all(path.exists() for path in both) and predictions_digest(both[0]) != predictions_digest(both[1])
    return "the predictions differ" if differ else None


def _unfinished(source: Path) -> list[Path]:
    """Return the checkpoint folders below a folder whose jobs have no result."""
    return [
        folder
        for folder in (sorted(source.rglob(checkpoint_folder(Path("*.json")).name)) if source.is_dir() else ())
        if not folder.with_suffix(".json").exists()
    ]


def _copy(planned: dict[Path, Path], into: Path) -> None:
    """Copy files and folders, as far as they are there, aside, then put them in place; on failure undo everything.

    Args:
        planned: Where each is to lie, and where it lies; put in place in this order.
        into: The folder.
    """
    aside = into / f".merge-{os.getpid()}.part"
    placed: list[Path] = []
    replaced: list[tuple[Path, Path]] = []
    made = [folder for folder in (into, *into.parents) if not folder.exists()]
    try:
        aside.mkdir(parents=True)
        moves: list[tuple[Path, Path]] = []
        for target, origin in planned.items():
            if origin.exists():
                copy = aside / f"{len(moves)}.part"
                (shutil.copytree if origin.is_dir() else shutil.copy2)(origin, copy)
                moves.append((copy, target))
        for copy, target in moves:
            made += [folder for folder in target.parents if not folder.exists()]
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                before = copy.with_suffix(".before")
                target.rename(before)
                replaced.append((before, target))
            copy.rename(target)
            placed.append(target)
    except BaseException as error:
        for target in placed:
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        for before, target in replaced:
            before.rename(target)
        shutil.rmtree(aside, ignore_errors=True)
        for folder in sorted(made, key=lambda folder: len(folder.parts), reverse=True):
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise CmlBenchError(
                f"{error.filename or into} cannot be copied to {into} ({error.strerror}): free space or name another "
                "folder; nothing was merged"
            ) from None
        raise
    shutil.rmtree(aside, ignore_errors=True)
