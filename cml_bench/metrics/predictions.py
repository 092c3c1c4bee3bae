"""Stored predictions: the result of a job, from which every metric is computed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cml_bench.errors import CmlBenchError
from cml_bench.files import replace_file
from cml_bench.labels import OUT_OF_SCOPE, PRESENT, LabelArray, check_names
from cml_bench.npz import read_npz

TEST_RULES = ("seen_images", "all_images", "per_experience")
"""Which images are tested after experience t.

``seen_images``: those showing a seen label (the test set grows). ``all_images``: all of them. ``per_experience``: each
experience has its own images and its own labels, and the figure after t is the mean over experiences up to t.
"""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits of the whole test set after each of T experiences.

    Attributes:
        label_names: C names in arrival order.
        sample_ids: (N,) public ids of the test images.
        truth: (N, C) int8 true labels; negative where nobody knows.
        n_seen: (T,) number of labels seen after each experience; labels of experience t are
            ``n_seen[t-1]:n_seen[t]``.
        test_rule: One of ``TEST_RULES``.
        test_images: (T, N) bool, the images of each test experience.
        logits: T arrays, (N, n_seen[t]) float16.
    """

    label_names: tuple[str, ...]
    sample_ids: npt.NDArray[Any]
    truth: LabelArray
    n_seen: tuple[int, ...]
    test_rule: str
    test_images: npt.NDArray[np.bool_]
    logits: tuple[npt.NDArray[np.float16], ...]

    @property
    def n_experiences(self) -> int:
        """Number of experiences T."""
        return len(self.n_seen)

    def columns(self, experience: int) -> slice:
        """Return the columns of the labels that arrived with an experience."""
        return slice(self.n_seen[experience - 1] if experience else 0, self.n_seen[experience])

    def only(self, names: Collection[str]) -> Predictions:
        """Return what is predicted of some labels, on the same images.

        An experience that brings none of them stays, with no new column.
        """
        kept = np.array([name in names for name in self.label_names], dtype=bool)
        return replace(
            self,
            label_names=tuple(name for name in self.label_names if name in names),
            truth=self.truth[:, kept],
            n_seen=tuple(int(np.count_nonzero(kept[:seen])) for seen in self.n_seen),
            logits=tuple(block[:, kept[: block.shape[1]]] for block in self.logits),
        )

    def save(self, path: Path) -> None:
        """Write one ``.npz`` file; the same predictions give the same bytes. Written aside, then put in place.

        Raises:
            CmlBenchError: If the disk is full or the folder cannot be written.
        """
        arrays: dict[str, Any] = {
            "label_names": np.array(self.label_names, dtype=np.str_),
            "sample_ids": self.sample_ids,
            "truth": self.truth,
            "n_seen": np.array(self.n_seen, dtype=np.int64),
            "test_rule": np.array(self.test_rule, dtype=np.str_),
            "test_images": self.test_images,
        }
        arrays.update({f"logits_{t}": block for t, block in enumerate(self.logits)})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, lambda file: np.savez_compressed(file, **arrays))
        except OSError as error:
            raise CmlBenchError(
                f"predictions {path} cannot be written ({error.strerror}): free space or name another folder"
            ) from None

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what ``save`` wrote; executes nothing that the file holds.

        Raises:
            CmlBenchError: If the file is missing, truncated or not a predictions file.
        """
        try:
            stored = read_npz(path)
            _check(stored)
            n_seen = tuple(int(n) for n in stored["n_seen"])
            return cls(
                label_names=check_names([str(name) for name in stored["label_names"]]),
                sample_ids=stored["sample_ids"],
                truth=stored["truth"],
                n_seen=n_seen,
                test_rule=str(stored["test_rule"]),
                test_images=stored["test_images"],
                logits=tuple(stored[f"logits_{t}"] for t in range(len(n_seen))),
            )
        except FileNotFoundError:
            raise CmlBenchError(f"predictions file {path} does not exist; run the job again") from None
        except (OSError, ValueError) as error:
            raise CmlBenchError(f"predictions file {path} cannot be read ({error}); delete it and run again") from None


def _check(stored: Mapping[str, npt.NDArray[Any]]) -> None:
    """Raise ValueError unless arrays are those that ``save`` writes, and fit together."""
    found = {name: np.shape(stored.get(name, ())) for name in ("label_names", "sample_ids", "n_seen")}
    for name, shape in found.items():
        if len(shape) != 1 or not shape[0]:
            raise ValueError(f"{name} is no list")
    (c,), (n,), (t,) = found.values()
    n_seen = stored["n_seen"]
    if n_seen.dtype.kind not in "iu" or (n_seen[1:] < n_seen[:-1]).any() or n_seen[0] < 0 or n_seen[-1] > c:
        raise ValueError(f"n_seen says {n_seen.tolist()!r:.80} of {c} labels")
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        "label_names": ("U", (c,)),
        "sample_ids": ("iuU", (n,)),
        "truth": ("i", (n, c)),
        "test_rule": ("U", ()),
        "test_images": ("b", (t, n)),
        **{f"logits_{place}": ("f", (n, int(seen))) for place, seen in enumerate(n_seen)},
    }
    for name, (kinds, shape) in expected.items():
        array = stored.get(name)
        if array is None:
            raise ValueError(f"{name} is missing")
        if array.dtype.kind not in kinds or array.shape != shape:
            raise ValueError(f"{name} is {array.shape} of {array.dtype}, not {shape} of kind {kinds}")
        if name.startswith("logits_") and (array.dtype != np.float16 or np.isnan(array).any()):
            raise ValueError(f"{name} holds NaN, or {array.dtype} in place of float16")
    truth, ids = stored["truth"], stored["sample_ids"]
    if truth.dtype != np.int8 or ((truth < OUT_OF_SCOPE) | (truth > PRESENT)).any():
        raise ValueError(f"truth says {truth.min()} to {truth.max()} as {truth.dtype}, no states of labels as int8")
    listed, times = np.unique(ids, return_counts=True)
    if len(listed) < n:
        raise ValueError(f"sample_ids names {listed[times > 1][0]!s:.60} twice")
    if str(stored["test_rule"]) not in TEST_RULES:
        raise ValueError(f"test_rule is {str(stored['test_rule'])!r:.60}, none of {', '.join(TEST_RULES)}")
