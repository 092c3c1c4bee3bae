"""How good predictions are for a user: metrics of one user's images, averaged over users."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cml_bench.labels import LabelArray
from cml_bench.metrics.decisions import decision_metrics
from cml_bench.metrics.evaluate import summarize, views_after
from cml_bench.metrics.predictions import Predictions
from cml_bench.metrics.ranking import average_precision
from cml_bench.metrics.retention import mean_defined

THRESHOLD = 0.5


def per_user(predictions: Predictions, users: npt.NDArray[Any]) -> dict[str, Any]:
    """Return the metrics that FedLGT (arXiv 2312.07165) averages over users.

    Of each user's tested images: ``user_map`` (C-AP: the mean over labels that have positives among them),
    ``user_overall_ap`` (O-AP: one ranking of all their image-label pairs), ``user_cf1_harmonic@0.5`` and
    ``user_of1@0.5``. A user whose images show no tested label defines none of them and is left out of the means.

    Args:
        predictions: Stored predictions.
        users: (N,) user of each image.

    Returns:
        ``summary``: ``last_`` and ``avg_`` of each, fractions or None. ``users``: number of users after the last
        experience, and how many of them define no metric.
    """
    after: list[dict[str, float]] = []
    for t in range(predictions.n_experiences):
        views, tested, defined = [], set(), set()
        for view in views_after(predictions, t):
            logits, truth = view.cut(predictions)
            found = {user: _of_user(logits[rows], truth[rows]) for user, rows in _by_user(users[view.rows])}
            views.append({name: mean_defined(figures[name] for figures in found.values()) for name in _NAMES})
            tested |= set(found)
            defined |= {user for user, figures in found.items() if not math.isnan(figures["user_map"])}
        after.append({name: mean_defined(figures[name] for figures in views) for name in _NAMES})
    summary = {name: None if math.isnan(value) else value for name, value in summarize(after).items()}
    return {"summary": summary, "users": {"tested": len(tested), "undefined": len(tested - defined)}}


_NAMES = ("user_map", "user_overall_ap", f"user_cf1_harmonic@{THRESHOLD:g}", f"user_of1@{THRESHOLD:g}")


def _of_user(logits: npt.NDArray[np.float16], truth: LabelArray) -> dict[str, float]:
    decisions = decision_metrics(logits, truth, THRESHOLD)
    values = (
        mean_defined(average_precision(logits, truth)),
        float(average_precision(logits.reshape(-1, 1), truth.reshape(-1, 1))[0]),
        decisions["cf1_harmonic"],
        decisions["of1"],
    )
    return dict(zip(_NAMES, values, strict=True))


def _by_user(users: npt.NDArray[Any]) -> Iterator[tuple[Any, npt.NDArray[np.intp]]]:
    """Yield each user with the ascending positions of the user's images."""
    names, owner = np.unique(users, return_inverse=True)
    order = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner, minlength=len(names)))
    for name, end, count in zip(names.tolist(), ends, np.diff(ends, prepend=0), strict=True):
        yield name, order[end - count : end]
