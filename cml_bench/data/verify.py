"""Is a data set on disk what it should be: label files, counts, and every image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import joblib
import numpy as np

from cml_bench.data.data_set import DataSet
from cml_bench.data.exif import is_turned
from cml_bench.data.images import read_image
from cml_bench.data.overlap import identities, shared
from cml_bench.data.table import Ids, Texts
from cml_bench.errors import CmlBenchError
from cml_bench.labels import OUT_OF_SCOPE, PRESENT, totals

IMAGES_AT_ONCE = 64
"""Images that a thread reads before it reports."""


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """What was found of a split.

    Attributes:
        split: Its name.
        checksums: Label file (relative to the root) to whether its published checksum is right.
        counts: What was counted.
        expected: What the data card says of these counts.
        never_shown: Labels that no image shows: one may be spelled as no other split spells it.
        fingerprint: Sha256 over names, ids and labels; empty if the label files cannot be read.
        ids: Public ids of the images.
        folder: Where the images should be.
        files: Image files relative to ``folder``; None if the data set has no image files.
        error: Why the label files cannot be read; empty if they can.
    """

    split: str
    checksums: dict[str, bool]
    counts: dict[str, int] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    never_shown: tuple[str, ...] = ()
    fingerprint: str = ""
    ids: Ids = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    folder: Path = Path()
    files: Texts | None = None
    error: str = ""

    @property
    def wrong_counts(self) -> list[str]:
        """Counts that are not what the data card says."""
        return [name for name, expected in self.expected.items() if self.counts.get(name) != expected]

    @property
    def faults(self) -> list[str]:
        """What is wrong, one clause each, to be read below the figures themselves."""
        wrong = [f"{file} has another checksum than published" for file, right in self.checksums.items() if not right]
        if self.error:
            return [*wrong, self.error]
        if self.wrong_counts:
            figures = f"{len(self.wrong_counts)} of {len(self.expected)} figures of {self.split}"
            wrong.append(f"{figures} not as published (marked WRONG above)")
        return wrong


@dataclass(frozen=True)
class ImageFault:
    """An image that cannot be used.

    Attributes:
        path: The file.
        reason: Why it cannot be decoded; None if it is not there.
    """

    path: Path
    reason: str | None


@dataclass(frozen=True)
class ImagesReport:
    """What was found of images, in the order in which they were named.

    Attributes:
        faults: Those that are missing or broken.
        turned: Those whose file asks to be turned before it is shown, which nobody does here.
    """

    faults: list[ImageFault]
    turned: list[Path]


def verify_labels(data: DataSet, splits: Sequence[str]) -> list[SplitReport]:
    """Check the label files of some splits: checksums and counts, as far as they are published.

    The original files are read, never a stored table; each is hashed once, whatever number of splits it serves.

    Raises:
        CmlBenchError: If there is no such split or a label file is not there.
    """
    files = {split: data.label_files(split) for split in splits}
    published = {Path(data.root, name).resolve(): name for name in data.meta.checksums}
    needed = {path.resolve() for paths in files.values() for path in paths} & set(published)
    right = {path: _is_right(path, data.meta.checksums[published[path]]) for path in sorted(needed)}
    reports = []
    for split in splits:
        own = {path.resolve() for path in files[split]} & needed
        checksums = {published[path]: right[path] for path in sorted(own)}
        try:
            reports.append(_count(data, split, checksums))
        except CmlBenchError as error:
            reports.append(SplitReport(split=split, checksums=checksums, error=str(error)))
    return reports


def verify_images(
    paths: Sequence[Path], *, workers: int | None = None, done: Callable[[int], None] = lambda count: None
) -> ImagesReport:
    """Open and decode every image once, in threads.

    Args:
        paths: Image files, each named once.
        workers: Threads; by default one a core.
        done: Told how many more images have been read, from this thread.
    """
    chunks = [paths[start : start + IMAGES_AT_ONCE] for start in range(0, len(paths), IMAGES_AT_ONCE)]
    report = ImagesReport([], [])
    pool = ThreadPoolExecutor(workers or joblib.cpu_count())
    try:
        for chunk, found in zip(chunks, pool.map(_decode, chunks), strict=True):
            report.faults.extend(found.faults)
            report.turned.extend(found.turned)
            done(len(chunk))
    finally:
        # An interrupt must not wait for what has not begun.
        pool.shutdown(cancel_futures=True)
    return report


def twice_used(reports: Sequence[SplitReport]) -> list[str]:
    """Return a sentence on each two splits that share images though one is for training and one for testing.

    Their names say so: ``train`` and ``test``, ``train2014`` and ``val2014``; ``trainval`` is made of ``val``.
    """
    known = {
        report.split: identities(report.ids, report.files, report.folder)
        for report in reports
        if report.split.startswith(("train", "test", "val"))
    }
    pairs = [
        (train, test)
        for train in known
        for test in known
        if train.startswith("train") and test.startswith(("test",) if train.startswith("trainval") else ("test", "val"))
    ]
    found = [shared(known[train], known[test], train, test) for train, test in pairs]
    return [sentence for sentence in found if sentence]


def image_paths(reports: Sequence[SplitReport]) -> list[Path]:
    """Return the image files of some splits in ascending order, each once: splits may share them."""
    named = {str(report.folder / file) for report in reports if report.files is not None for file in report.files}
    return [Path(name) for name in sorted(named)]


def _count(data: DataSet, split: str, checksums: dict[str, bool]) -> SplitReport:
    table = data.read(split)
    expected = dict(data.meta.splits.get(split, {}))
    # PRESENT is the largest of the states.
    most = table.labels.max(axis=0, initial=OUT_OF_SCOPE)
    if data.meta.n_labels is not None:
        expected["label_names"] = data.meta.n_labels
    return SplitReport(
        split=split,
        checksums=checksums,
        counts={**totals(table.labels), "label_names": len(table.label_names), **table.counts},
        expected=expected,
        never_shown=tuple(np.array(table.label_names, dtype=object)[most < PRESENT]),
        fingerprint=table.fingerprint,
        ids=table.ids,
        folder=data.image_folder(split),
        files=table.files,
    )


def _is_right(path: Path, published: str) -> bool:
    method, _, expected = published.partition(":")
    digest = hashlib.new(method, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest() == expected.lower()


def _decode(paths: Sequence[Path]) -> ImagesReport:
    report = ImagesReport([], [])
    for path in paths:
        try:
            read_image(path)
        except CmlBenchError as error:
            report.faults.append(ImageFault(path, str(error) if path.is_file() else None))
        else:
            report.turned.extend([path] if is_turned(path) else [])
    return report
