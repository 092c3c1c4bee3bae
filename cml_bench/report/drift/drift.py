"""Drift of commercial services: how what they say of the same images changed from date to date, and how right it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cml_bench.data.sets.hapi import HAPI
from cml_bench.data.table import LabelTable
from cml_bench.errors import CmlBenchError
from cml_bench.labels import PRESENT
from cml_bench.metrics.decisions import decision_metrics
from cml_bench.metrics.ranking import average_precision
from cml_bench.regimes.hapi import plain_name

ALL, MEAN = "(all)", "(mean over labels)"
"""What stands in the place of a label: counts and ratios of all image-label pairs, and means over labels."""

_COUNTS = ("kept", "added", "removed")
Said = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class DriftReport:
    """What became of the answers of one or more services.

    Attributes:
        rows: One row for each service, date and label, and before these ``(all)`` and ``(mean over labels)``. Against
            the truth, on ``images`` that have both: ``positives``, ``said``, ``precision``, ``recall``, ``f1`` and
            ``ap``, the average precision of a yes or no. Against the service's date before, on ``compared`` images that
            have both: positives ``kept``, ``added`` and ``removed``, and ``agreement``, the kept ones among all three
            (1 where neither date says the label). NaN where undefined: the first date has none before it, a name that
            is no label has no truth, a label without positives no precision and the like; means leave NaN out.
        snapshots: One row for each service and date: ``images``; ``unanswered``, images of the truth without an answer;
            ``without_truth``, answers on other images; ``repeated_names``, which count once; ``names_without_label``
            and how often they were said, ``answers_without_label``.
        missing: Split to the ids of its unanswered images.
    """

    rows: pd.DataFrame
    snapshots: pd.DataFrame
    missing: dict[str, tuple[str, ...]]


def drift(data: HAPI, splits: Sequence[str]) -> DriftReport:
    """Compare snapshots with the truth of their data set and with the date before.

    Names are matched without regard to case, blanks and punctuation.

    Args:
        data: HAPI on disk.
        splits: Snapshots, ``coco/google_mic/20-10-28``; those of a service are compared in the order of their dates.

    Raises:
        CmlBenchError: If a split is no snapshot or cannot be read.
    """
    rows: list[dict[str, Any]] = []
    snapshots: list[dict[str, Any]] = []
    missing: dict[str, tuple[str, ...]] = {}
    for split in splits:
        if split.count("/") != 2:
            raise CmlBenchError(f"{split!r} is no snapshot of a service: give data set/service/date")
    for service, dates in groupby(sorted(set(splits)), key=lambda split: split.rpartition("/")[0]):
        truth = data.table(service.partition("/")[0])
        tables = {split: data.table(split) for split in dates}
        names = _vocabulary([truth, *tables.values()])
        true = _said(truth, names)
        known = {plain_name(name) for name in truth.label_names}
        labels = np.array([plain in known for plain in names])
        before: tuple[pd.Index[Any], Said] | None = None
        for split, table in tables.items():
            ids, said = pd.Index(table.ids), _said(table, names)
            where = ids.get_indexer(pd.Index(truth.ids))
            missing[split] = tuple(truth.ids[where < 0].tolist())
            told = {"service": service, "date": split.rpartition("/")[2]}
            snapshots.append(
                {
                    **told,
                    "images": len(ids),
                    "unanswered": len(missing[split]),
                    "without_truth": len(ids) - int((where >= 0).sum()),
                    "repeated_names": table.counts["repeated_names"],
                    "names_without_label": int((said.any(axis=0) & ~labels).sum()),
                    "answers_without_label": int(said[:, ~labels].sum()),
                }
            )
            right = _against_truth(said[where[where >= 0]], true[where >= 0], labels)
            changed = _against_before(said, ids, before)
            frame = pd.concat([right, changed], axis=1)
            frame.insert(0, "label", [ALL, MEAN, *names.values()])
            rows += [{**told, **{str(name): value for name, value in row.items()}} for row in frame.to_dict("records")]
            before = ids, said
    return DriftReport(pd.DataFrame(rows), pd.DataFrame(snapshots), missing)


def _vocabulary(tables: Sequence[LabelTable]) -> dict[str, str]:
    """Return plain names and how they are first spelt: those of the truth, then what services say besides."""
    names: dict[str, str] = {}
    for table in tables:
        for name in table.label_names:
            names.setdefault(plain_name(name), name)
    return names


def _said(table: LabelTable, names: dict[str, str]) -> Said:
    """Return the (N, L) mask of what a table says, by plain name."""
    column = {plain: number for number, plain in enumerate(names)}
    said = np.zeros((len(table.ids), len(names)), dtype=np.bool_)
    for name, present in zip(table.label_names, (table.labels == PRESENT).T, strict=True):
        said[:, column[plain_name(name)]] |= present
    return said


def _against_truth(said: Said, true: Said, labels: Said) -> pd.DataFrame:
    """Return rows for all pairs, for the mean over labels, and for each of L names, of (N, L) answers and truth."""
    truth, scores = true[:, labels].astype(np.int8), np.where(said[:, labels], 1.0, -1.0)
    by_label = {
        "images": len(said),
        "positives": true.sum(axis=0),
        "said": said.sum(axis=0),
        **{name: np.full(len(labels), np.nan) for name in ("precision", "recall", "f1", "ap")},
    }
    for number, column in enumerate(np.flatnonzero(labels)):
        each = decision_metrics(scores[:, [number]], truth[:, [number]], 0.5)
        for name, metric in (("precision", "op"), ("recall", "or"), ("f1", "of1")):
            by_label[name][column] = each[metric]
    by_label["ap"][labels] = average_precision(scores, truth)
    overall = decision_metrics(scores, truth, 0.5)
    frame = pd.DataFrame({**by_label, "positives": np.where(labels, by_label["positives"], np.nan)})
    everything = {
        "images": len(said),
        "positives": int(truth.sum()),
        "said": int(said.sum()),
        "precision": overall["op"],
        "recall": overall["or"],
        "f1": overall["of1"],
        "ap": average_precision(scores.reshape(-1, 1), truth.reshape(-1, 1))[0],
    }
    mean = {"images": len(said), **frame[["precision", "recall", "f1", "ap"]].mean().to_dict()}
    return pd.concat([pd.DataFrame([everything, mean]), frame], ignore_index=True)


def _against_before(said: Said, ids: pd.Index[Any], before: tuple[pd.Index[Any], Said] | None) -> pd.DataFrame:
    """Return rows as ``_against_truth`` of what changed on the images that both dates answer."""
    if before is None:
        return pd.DataFrame(np.nan, index=range(said.shape[1] + 2), columns=["compared", *_COUNTS, "agreement"])
    where = before[0].get_indexer(ids)
    now, then = said[where >= 0], before[1][where[where >= 0]]
    frame = pd.DataFrame(
        {"kept": (now & then).sum(axis=0), "added": (now & ~then).sum(axis=0), "removed": (then & ~now).sum(axis=0)}
    )
    frame = pd.concat([pd.DataFrame([frame.sum().to_dict(), dict.fromkeys(_COUNTS, np.nan)]), frame], ignore_index=True)
    spoken = frame[list(_COUNTS)].sum(axis=1)
    frame["agreement"] = (frame["kept"] / spoken).where(spoken > 0, 1.0)
    # A name that neither date says agrees with nothing.
    frame.loc[1, "agreement"] = frame["agreement"][2:].where(spoken[2:] > 0).mean() if spoken[0] else 1.0
    frame.insert(0, "compared", len(now))
    return frame
