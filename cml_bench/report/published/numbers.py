"""Published numbers: the tracked files of ``results/published``, and how a number there is called here."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import pandas as pd

from cml_bench.errors import CmlBenchError, suggest

NOT_STATED: Final = "not stated"
"""What a file says where its source is silent. It equals nothing, not even itself."""
NOT_APPLICABLE: Final = "n/a"
"""What a file says where the question does not arise: the threshold of an mAP, the buffer of joint training."""

NUMBER_COLUMNS: Final = (
    "dataset",
    "protocol",
    "setting",
    "buffer",
    "method",
    "backbone",
    "image_size",
    "pretraining",
    "unknown_label_rule",
    "metric",
    "threshold",
    "cf1",
    "value",
    "std",
    "source",
    "caveat",
)
"""Columns of the files with numbers: text as the source has it, ``value`` and ``std`` in percent points."""

_FOLDER: Final = "cml_bench.results.published"
_PROTOCOLS: Final = "protocols.csv"
_METRICS: Final = {
    "avg_mAP": "avg_map",
    "last_mAP": "last_map",
    "last_OF1": "last_of1@{threshold}",
    "last_CF1": "last_cf1_{cf1}@{threshold}",
}


@dataclass(frozen=True)
class Literature:
    """What is published.

    Attributes:
        numbers: One row a number: ``NUMBER_COLUMNS``, and ``file`` (stem of the file it stands in).
        protocols: What is known of the streams behind ``protocol``, for those that a benchmark of ours could be.
            ``data`` is the name of our data set, ``divisions`` are protocol names as streams here have them; the rest
            are options of a benchmark and the images of its two splits.
    """

    numbers: pd.DataFrame
    protocols: pd.DataFrame

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Names of our data sets that a published protocol deals."""
        return tuple(sorted(set(self.protocols["data"])))


@functools.cache
def literature() -> Literature:
    """Read the tracked files, from a checkout or an installed wheel; nothing is interpreted as missing or a number."""
    tables = {
        entry.name.removesuffix(".csv"): pd.read_csv(
            io.StringIO(entry.read_text(encoding="utf-8")), dtype=str, keep_default_na=False
        )
        for entry in sorted(files(_FOLDER).iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".csv")
    }
    protocols = tables.pop(_PROTOCOLS.removesuffix(".csv"))
    numbers = [table.assign(file=name) for name, table in tables.items()]
    return Literature(pd.concat(numbers, ignore_index=True), protocols)


def numbers_of(name: str) -> pd.DataFrame:
    """Return the published numbers of a data set, called as its file (``coco``) or as in the literature.

    Raises:
        CmlBenchError: If there are none.
    """
    numbers = literature().numbers
    found = numbers[(numbers["file"] == name) | (numbers["dataset"] == name)]
    if found.empty:
        raise CmlBenchError(f"data set {name!r} has no published numbers here; {suggest(name, set(numbers['file']))}")
    return found


def our_name(metric: str, threshold: str, cf1: str) -> str | None:
    """Return the metric of ours that a published one is, None if the source does not say enough or we have none.

    Args:
        metric: As in the files: ``last_CF1``.
        threshold: Of the decision, ``not stated`` or ``n/a``.
        cf1: ``macro`` (mean of the labels' F1), ``harmonic`` (of CP and CR), ``not stated`` or ``n/a``.
    """
    template = _METRICS.get(metric)
    if template is None or NOT_STATED in (threshold, cf1):
        return None
    return template.format(threshold=threshold, cf1=cf1)
