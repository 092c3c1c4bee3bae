"""Result files: one JSON and one predictions file a job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cml_bench.errors import CmlBenchError
from cml_bench.files import replace_file
from cml_bench.runs.job import Job

SCHEMA_VERSION = 1


def result_path(results: Path, job: Job) -> Path:
    """Return where a job's JSON lies; its predictions lie beside it, with suffix ``.npz``."""
    # with_suffix would take a dot inside the name for a suffix.
    path = results / job.slug
    return path.with_name(f"{path.name}.json")


def snapshot_path(result: Path, experience: int) -> Path:
    """Return where the model after an experience lies: in a folder beside the result file, with suffix ``.models``."""
    return result.with_suffix(".models") / f"experience_{experience + 1:02d}.safetensors"


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


def is_done(results: Path, job: Job) -> bool:
    """Return whether a job has a complete result, models included if they are to be kept.

    A failed or unreadable one does not count and runs again.
    """
    path = result_path(results, job)
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["status"] != "ok":
            return False
        files = [path.with_suffix(".npz")]
        if job.save_models:
            files += [snapshot_path(path, experience) for experience in range(len(result["benchmark"]["n_seen"]))]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return all(file.is_file() for file in files)
