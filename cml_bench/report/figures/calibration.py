"""What a decision threshold does to F1, and whether probabilities mean what they say, from stored predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from cml_bench.errors import CmlBenchError
from cml_bench.labels import PRESENT, is_known
from cml_bench.metrics.decisions import DECISION_METRICS, decision_metrics
from cml_bench.metrics.evaluate import views_after
from cml_bench.metrics.predictions import Predictions
from cml_bench.metrics.retention import mean_defined
from cml_bench.report.figures.section import Run, Section

THRESHOLDS: Final = tuple(round(0.05 * i, 2) for i in range(1, 20))
BINS: Final = 10
JOBS: Final = 3
"""Jobs of a method whose predictions are read: a picture of a thousand jobs needs no thousand files."""
IMAGES: Final = 5000
"""A file with more images is the only one of its method that is read, and about so many of its images are looked at."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Decisions and probabilities after the last experience, of some jobs of the methods shown in colour.

    Attributes:
        curves: One row a method and threshold: the metrics of ``DECISION_METRICS``, means over the jobs read.
        reliability: One row a method and bin of probability (``low`` to ``high``): ``count`` of image-label pairs whose
            truth is known, ``probability`` their mean predicted one, ``observed`` the share that is present; both NaN
            in an empty bin. Pairs of all jobs read count alike.
        errors: Method to expected calibration error: mean distance of ``probability`` and ``observed`` over pairs.
        sample: In words, what was read.
    """

    curves: pd.DataFrame
    reliability: pd.DataFrame
    errors: dict[str, float]
    sample: str


def calibrate(section: Section) -> Calibration | None:
    """Read the predictions of a few jobs (``JOBS``, ``IMAGES``) of each method shown in colour; None if there are none.

    Source of reliability and expected calibration error: Guo et al. 2017, arXiv 1706.04599, with bins of equal width;
    there of the top class of an image, here of every image-label pair.
    """
    curves, reliability, errors, unread, read, step = [], [], {}, [], 0, 1
    for look in section.looks.values():
        if not look.shown:
            continue
        tables, totals = [], np.zeros((3, BINS))
        for run in _sampled(section.runs_of(look.method)):
            try:
                predictions = Predictions.load(run.path.with_suffix(".npz"))
            except CmlBenchError:
                unread.append(f"{look.name} ({run.class_order}, seed {run.seed})")
                continue
            every = -(-len(predictions.sample_ids) // IMAGES)
            cuts = (view.cut(predictions) for view in views_after(predictions, predictions.n_experiences - 1))
            views = [(logits[::every], truth[::every]) for logits, truth in cuts]
            tables.append([_decisions(views, threshold) for threshold in THRESHOLDS])
            totals += sum(binned(*view) for view in views)
            read += 1
            step = max(step, every)
            if every > 1:
                break
        if tables:
            curves.append(_curve(look.method, np.array(tables)))
            reliability.append(_reliability(look.method, totals))
            errors[look.method] = _error(totals)
    if not curves:
        return None
    sample = f"Read: {read} of {len(section.runs)} predictions files, at most {JOBS} a method of those in colour."
    if step > 1:
        sample += f" Of files with more than {IMAGES:,} images one a method was read, and every {step}th image of it."
    if unread:
        sample += f" Missing or unreadable: {', '.join(unread)}."
    return Calibration(pd.concat(curves, ignore_index=True), pd.concat(reliability, ignore_index=True), errors, sample)


def binned(logits: npt.NDArray[Any], truth: npt.NDArray[np.int8]) -> npt.NDArray[np.float64]:
    """Return (3, BINS): pairs, summed probabilities and present labels of each bin of probability.

    Args:
        logits: (N, n) scores.
        truth: (N, n) true labels; pairs that nobody knows do not count.
    """
    known = is_known(truth)
    probability = expit(logits[known].astype(np.float64))
    place = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    weights = (None, probability, truth[known] == PRESENT)
    return np.stack([np.bincount(place, weights=weight, minlength=BINS).astype(np.float64) for weight in weights])


def _sampled(runs: list[Run]) -> list[Run]:
    # The first seed on every class order before the second seed on any.
    return sorted(runs, key=lambda run: (run.seed, run.class_order))[:JOBS]


def _decisions(views: list[Any], threshold: float) -> list[float]:
    parts = [decision_metrics(logits, truth, threshold) for logits, truth in views]
    return [mean_defined(part[name] for part in parts) for name in DECISION_METRICS]


def _curve(method: str, tables: npt.NDArray[np.float64]) -> pd.DataFrame:
    """Return the mean over jobs of (jobs, thresholds, metrics)."""
    means = 100 * np.ma.masked_invalid(tables).mean(axis=0).filled(np.nan)
    frame = pd.DataFrame(means, columns=list(DECISION_METRICS))
    frame.insert(0, "threshold", THRESHOLDS)
    frame.insert(0, "method", method)
    return frame.assign(jobs=len(tables))


def _reliability(method: str, totals: npt.NDArray[np.float64]) -> pd.DataFrame:
    count, probability, present = totals
    filled = np.where(count > 0, count, np.nan)
    return pd.DataFrame(
        {
            "method": method,
            "low": np.arange(BINS) / BINS,
            "high": np.arange(1, BINS + 1) / BINS,
            "count": count.astype(np.int64),
            "probability": probability / filled,
            "observed": present / filled,
        }
    )


def _error(totals: npt.NDArray[np.float64]) -> float:
    count, probability, present = totals
    return float(np.abs(probability - present).sum() / count.sum()) if count.sum() else float("nan")
