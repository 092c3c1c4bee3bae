"""What a stored thing stands for: all that a result or a checkpoint depends on and must find unchanged.

A job's key says options, code version and the code of plug-ins; results are found by it. What lies on the disk beside
is kept in the result and compared: true labels, feature vectors, the backbone's weights, other files that options name.
Pictures are none of these, since a copy that is as good has other times; their caches go by ``Source.cache_key``.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cml_bench.data.source import Source
from cml_bench.models.checkpoints import digest_of
from cml_bench.options import names_in
from cml_bench.runs.benchmark import load_sources
from cml_bench.runs.job import LOCATIONS, Job
from cml_bench.runs.plan import plan
from cml_bench.runs.schema import Result

Data = Mapping[str, Mapping[str, str | None]]
"""By split, what ``data_basis`` says."""


@dataclass(frozen=True)
class Basis:
    """What a job stands on, as it is when this is made.

    Attributes:
        key: The job's key.
        plug_in_files: What of it is code; see ``Job.plug_in_files``.
        data: What of it are labels and features.
        weights: Sha256 of the backbone's checkpoint, None without one or if it is not there.
        files: Sha256 of other files that options name, by their names there.
    """

    key: str
    plug_in_files: list[str | None]
    data: Data
    weights: str | None
    files: Mapping[str, str]

    def has_left(self, result: Result) -> bool:
        """Return whether a result stands on something else; what either does not know is taken for the same."""
        record = result.backbone
        pairs: list[tuple[str | None, str | None]] = [(self.weights, record.sha256 if record else None)]
        pairs += [(self.files.get(name), digest) for name, digest in (result.job.files or {}).items()]
        for split, now in self.data.items():
            stored = (result.data or {}).get(split)
            if stored is None or stored.fingerprint != now["fingerprint"]:
                return True
            pairs.append((now["content"], stored.content))
        return any(None not in pair and pair[0] != pair[1] for pair in pairs)

    @property
    def for_checkpoint(self) -> dict[str, str]:
        """What must be the same for a checkpoint to be of use."""
        return {
            "job": self.key,
            "data": ", ".join(" ".join([split, *filter(None, of.values())]) for split, of in self.data.items()),
            "weights": self.weights or "none",
            "files": ", ".join(f"{name} {digest}" for name, digest in self.files.items()),
        }


def basis_of(job: Job, data: Data, weights: str | None) -> Basis:
    """Return what a job stands on whose data and weights have been read."""
    return Basis(job.key, job.plug_in_files, data, weights, named_files(job))


def present_basis(job: Job, data: Data) -> Basis:
    """Return what a job would stand on if it ran now.

    Args:
        job: The job.
        data: Its ``present_data``.

    Raises:
        CmlBenchError: If the job cannot be read.
    """
    checkpoint, weights = _checkpoint(dataclasses.replace(job, class_order="default", seed=0)), None
    if checkpoint:
        # Who runs the job is told that it is not there.
        with suppress(OSError):
            weights = _known_digest(Path(checkpoint))
    return basis_of(job, data, weights)


@functools.lru_cache(maxsize=1024)
def _checkpoint(job: Job) -> str | None:
    """Return the checkpoint that a job names, or its benchmark; the same on every seed and class order."""
    return plan(job).training.checkpoint


def present_data(job: Job) -> Data:
    """Return what is on the disk of the labels and features of a job.

    Raises:
        CmlBenchError: If the job or its data cannot be read, or an image is missing that may not be.
    """
    return data_of(load_sources(plan(job).benchmark))


def data_of(sources: Sequence[Source]) -> Data:
    """Return what there is of a training and a test source."""
    return {split: data_basis(source) for split, source in zip(("train", "test"), sources, strict=True)}


def data_basis(source: Source) -> dict[str, str | None]:
    """Return what a result depends on of a split of the data, as results keep it."""
    return {"fingerprint": source.fingerprint, "content": source.content}


def named_files(job: Job) -> dict[str, str]:
    """Return the sha256 of every file that an option names, by the name: word vectors, shares of labels ...

    Data and weights are known otherwise, and code is in the key. A word without a dot or a slash is no file here: in
    the folder where one works there may be a file of any name.
    """
    found: dict[str, str] = {}
    values = [value for key, value in job.all_options if key not in LOCATIONS]
    for name in sorted({name for value in values for text in names_in(value) for name in re.split("[:,]", text)}):
        if re.search("[./]", name) and not name.endswith(".py"):
            # Also no name of a file at all, which is a ValueError.
            with suppress(OSError, ValueError):
                if Path(name).is_file():
                    found[name] = _known_digest(Path(name))
    return found


def _known_digest(path: Path) -> str:
    """Return the digest of a file, or of a folder of weights, read once while sizes and times are the same."""
    path = path.resolve()
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return _digest(path, *((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@functools.cache
def _digest(path: Path, *_: Any) -> str:
    return digest_of(path)
