"""Result files: one JSON and one predictions file a job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cml_bench.data.json_files import parse_json
from cml_bench.errors import CmlBenchError
from cml_bench.files import read_plain, replace_file
from cml_bench.runs.job import Job
from cml_bench.runs.schema import SCHEMA_VERSION, UPGRADES, Result

_FOLDERS = (".models", ".log", ".ckpt", ".part")
"""Suffixes of folders beside results, which may hold JSON files that are none."""


class ResultError(CmlBenchError):
    """A file is no result.

    Attributes:
        reason: Why not, without the file's name.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"result {path} cannot be read: {reason}")
        self.reason = reason


class NewerResultError(ResultError):
    """A file is the result of a newer version of cml_bench."""


class _NewerVersionError(ValueError):
    """A schema version is not known yet."""


def result_path(results: Path, job: Job) -> Path:
    """Return where a job's JSON lies; its predictions lie beside it, with suffix ``.npz``."""
    # with_suffix would take a dot inside the name for a suffix.
    path = results / job.slug
    return path.with_name(f"{path.name}.json")


def snapshot_path(result: Path, experience: int) -> Path:
    """Return where the model after an experience lies: in a folder beside the result file, with suffix ``.models``."""
    return result.with_suffix(".models") / f"experience_{experience + 1:02d}.safetensors"


def checkpoint_folder(result: Path) -> Path:
    """Return where the checkpoints of the job with a result file lie: beside it, with suffix ``.ckpt``."""
    return result.with_suffix(".ckpt")


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write a result aside and put it in place in one step, so that a reader never sees half of it.

    Raises:
        CmlBenchError: If the disk is full or the folder cannot be written.
    """
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise CmlBenchError(
            f"result {path} cannot be written ({error.strerror}): free space or name another --results"
        ) from None


def read_result(path: Path | str) -> Result:
    """Read a result file of this or an older schema version; the older one is upgraded in memory.

    Raises:
        ResultError: If the file cannot be read, was written by halves, or is no result.
        NewerResultError: If its version is newer.
    """
    path = Path(path)
    try:
        return parse_result(read_plain(path))
    except OSError as error:
        reason = f"{error.strerror}: give the path of a result file (.json)"
    except _NewerVersionError as error:
        raise NewerResultError(path, str(error)) from None
    except ValueError as error:
        reason = str(error)
    raise ResultError(path, reason)


def result_files(results: Path | str | Sequence[Path | str]) -> list[Path]:
    """Return the result files that are named, and those below folders that are named, each once.

    Raises:
        CmlBenchError: If a path does not exist, or there is no result file.
    """
    given = [results] if isinstance(results, (str, Path)) else list(results)
    found: dict[Path, None] = {}
    for each in map(Path, given):
        if not each.exists():
            raise CmlBenchError(f"{each} does not exist; name a result file or a folder that a run has written")
        if each.is_file() and each.suffix != ".json":
            raise CmlBenchError(f"{each} is no result file (*.json); name one, or a folder that a run has written")
        below = sorted(path for path in each.rglob("*.json") if not _is_beside(path, each)) if each.is_dir() else [each]
        if not below:
            read = each / "README.md"
            there = f"; {read} says what it holds instead" if read.is_file() else ""
            raise CmlBenchError(f"results folder {each} holds no result file (*.json); run a benchmark first{there}")
        found |= dict.fromkeys(below)
    return list(found)


def _is_beside(path: Path, folder: Path) -> bool:
    """Return whether a file lies in a folder that belongs to a result, such as the log of an experiment tracker."""
    return any(parent.suffix in _FOLDERS for parent in path.relative_to(folder).parents)


def parse_result(content: bytes) -> Result:
    """Return the result that a file's content says.

    Raises:
        ValueError: If it says none.
    """
    try:
        tree = parse_json(content)
    except json.JSONDecodeError as error:
        is_half = error.pos >= len(error.doc.rstrip()) - 1 or not content.rstrip().endswith(b"}")
        what = "it breaks off" if is_half else "it is no JSON"
        raise ValueError(f"{what} at line {error.lineno} ({error.msg}): delete it and run the job again") from None
    except UnicodeDecodeError:
        raise ValueError("it is no UTF-8 text: delete it and run the job again") from None
    except RecursionError:
        raise ValueError("it is nested too deeply for a result") from None
    if not isinstance(tree, dict):
        raise ValueError("it holds no fields")
    if "schema_version" not in tree:
        raise ValueError("field 'schema_version' is missing")
    version = tree["schema_version"]
    if type(version) is not int or version < 1:
        raise ValueError(f"schema version {version!r:.40} is none")
    if version > SCHEMA_VERSION:
        raise _NewerVersionError(
            f"it has schema version {version}, and this version of cml_bench knows versions up to {SCHEMA_VERSION}: "
            "upgrade cml_bench"
        )
    for older in range(version, SCHEMA_VERSION):
        UPGRADES[older](tree)
    try:
        return Result.model_validate({**tree, "schema_version": SCHEMA_VERSION})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field, reason = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        raise ValueError(f"field {field!r} is missing")
    raise ValueError(f"field {field!r:.200}: {reason[:1].lower()}{reason[1:]}" if field else reason)


def predictions_digest(path: Path) -> str:
    """Return the sha256 of a predictions file.

    Raises:
        CmlBenchError: If it cannot be read.
    """
    try:
        return hashlib.sha256(read_plain(path)).hexdigest()
    except OSError as error:
        raise CmlBenchError(f"predictions file {path} cannot be read ({error.strerror}): run the job again") from None


def kept_result(results: Path, job: Job) -> Result | None:
    """Return a job's result if it is complete, models included if they are to be kept, or says that the job failed.

    One that cannot be read, or lacks a file beside it, does not count.

    Raises:
        NewerResultError: If it is of a newer version of cml_bench, which must not be written over.
    """
    path = result_path(results, job)
    try:
        result = read_result(path)
    except NewerResultError:
        raise
    except ResultError:
        return None
    if result.status == "failed":
        return result
    files = [path.with_suffix(".npz")]
    if job.save_models and result.benchmark is not None:
        files += [snapshot_path(path, experience) for experience in range(len(result.benchmark.n_seen))]
    return result if all(file.is_file() for file in files) else None


def is_done(results: Path, job: Job) -> bool:
    """Return whether a job has a complete result; see ``kept_result``."""
    result = kept_result(results, job)
    return result is not None and result.status == "ok"
