"""Every metric of a job, from its stored predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cml_bench.errors import CmlBenchError
from cml_bench.metrics.decisions import decision_metrics
from cml_bench.metrics.predictions import TEST_RULES, Predictions
from cml_bench.metrics.ranking import average_precision
from cml_bench.metrics.retention import backward_transfer, forgetting, mean_defined

THRESHOLDS = (0.5, 0.8)
"""Probabilities over which a label is said to be present, in the literature."""


@dataclass(frozen=True)
class View:
    """What is tested together: some images under the labels of some columns, after experience ``after``."""

    after: int
    rows: npt.NDArray[np.bool_]
    columns: slice

    def cut(self, predictions: Predictions) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.int8]]:
        """Return the logits and the true labels of the view, both (rows, columns)."""
        logits = predictions.logits[self.after][:, self.columns]
        truth = predictions.truth[:, self.columns]
        return (logits, truth) if self.rows.all() else (logits[self.rows], truth[self.rows])


def evaluate(predictions: Predictions, thresholds: Sequence[float] = THRESHOLDS) -> dict[str, Any]:
    """Return every metric of a job as plain data for JSON: fractions in [0, 1], counts, and None for undefined.

    Only seen labels count. A label without positives among the images tested is left out of the means and listed
    under ``dropped_labels``. What is tested after an experience is the predictions' ``test_rule``; under
    ``per_experience`` every figure is the mean over the experiences so far, each on its own images and labels.

    ``performance[k][t]`` is the mAP of experience k's labels after experience t on a **fixed** set of images: k's own
    under ``per_experience``, else all test images, because a growing test set would pass its growth off as forgetting.
    Forgetting and transfer are computed from it.

    Returns:
        ``summary``: ``last_*`` and ``avg_*`` (after the last experience; mean over experiences that define it) of
        ``map`` and of ``cp@0.5`` and the like; ``forgetting``, ``forgetting_relative``, ``forgetting_diagonal``,
        ``forgetting_diagonal_relative`` and ``backward_transfer`` (means over experiences that define them);
        ``dropped_labels``, ``undefined_forgetting`` (experiences without a relative forgetting) and
        ``undefined_experiences`` (experiences without a mAP), three counts.
        ``per_experience``: for each, ``n_seen``, ``n_images``, ``dropped_labels``, ``map``, ``cp@0.5`` ...
        ``per_label_ap``: for each label name T average precisions, None before arrival and where dropped.
        ``performance``: T x T, None where t < k and where undefined.

    Raises:
        CmlBenchError: If the predictions contradict themselves or hold NaN, or a threshold is no probability.
    """
    check_predictions(predictions)
    n_experiences, n_labels = predictions.n_experiences, len(predictions.label_names)
    label_ap = np.full((n_experiences, n_labels), np.nan)
    performance = np.full((n_experiences, n_experiences), np.nan)
    per_experience: list[dict[str, Any]] = []
    decisions = decide(predictions, thresholds)
    for t in range(n_experiences):
        label_ap[t] = _label_ap_after(predictions, t)
        fixed = label_ap[t] if _is_fixed(predictions, t) else _ap_on_all_images(predictions, t)
        for k in range(t + 1):
            performance[k, t] = mean_defined(fixed[predictions.columns(k)])
        per_experience.append(_figures(predictions, t, label_ap[t], decisions[t]))

    relative = forgetting(performance, relative=True)
    summary: dict[str, Any] = summarize([_only_metrics(figures) for figures in per_experience])
    summary |= {
        "forgetting": mean_defined(forgetting(performance)),
        "forgetting_relative": mean_defined(relative),
        "forgetting_diagonal": mean_defined(forgetting(performance, reference="diagonal")),
        "forgetting_diagonal_relative": mean_defined(forgetting(performance, reference="diagonal", relative=True)),
        "backward_transfer": mean_defined(backward_transfer(performance)),
        "dropped_labels": len(per_experience[-1]["dropped_labels"]),
        "undefined_forgetting": int(np.isnan(relative).sum()),
        "undefined_experiences": int(np.isnan([figures["map"] for figures in per_experience]).sum()),
    }
    per_label = dict(zip(predictions.label_names, label_ap.T.tolist(), strict=True))
    result: dict[str, Any] = _without_nan(
        {
            "summary": summary,
            "per_experience": per_experience,
            "per_label_ap": per_label,
            "performance": performance.tolist(),
        }
    )
    return result


def evaluate_after(predictions: Predictions, t: int) -> dict[str, float]:
    """Return the metrics after experience t alone, as ``evaluate`` has them under ``per_experience``.

    Those that are undefined are left out.
    """
    figures = _figures(predictions, t, _label_ap_after(predictions, t), _decide_after(predictions, t, THRESHOLDS))
    return {name: value for name, value in _only_metrics(figures).items() if not np.isnan(value)}


def _label_ap_after(predictions: Predictions, t: int) -> npt.NDArray[np.float64]:
    """Return the (C,) average precisions after experience t, NaN before arrival and where undefined."""
    label_ap = np.full(len(predictions.label_names), np.nan)
    for view in views_after(predictions, t):
        label_ap[view.columns] = average_precision(*view.cut(predictions))
    return label_ap


def _figures(
    predictions: Predictions, t: int, label_ap: npt.NDArray[np.float64], decisions: dict[str, float]
) -> dict[str, Any]:
    views = views_after(predictions, t)
    seen = predictions.label_names[: predictions.n_seen[t]]
    return {
        "n_seen": predictions.n_seen[t],
        "n_images": int(np.logical_or.reduce([view.rows for view in views]).sum()),
        "dropped_labels": [name for name, ap in zip(seen, label_ap, strict=False) if np.isnan(ap)],
        "map": mean_defined(mean_defined(label_ap[view.columns]) for view in views),
        **decisions,
    }


def decide(predictions: Predictions, thresholds: Sequence[float]) -> list[dict[str, float]]:
    """Return, after each experience, the decision metrics at each threshold under keys like ``cf1_macro@0.5``.

    Values are fractions in [0, 1], NaN where undefined.

    Raises:
        CmlBenchError: If a threshold is no probability between 0 and 1.
    """
    return [_decide_after(predictions, t, thresholds) for t in range(predictions.n_experiences)]


def _decide_after(predictions: Predictions, t: int, thresholds: Sequence[float]) -> dict[str, float]:
    views = [view.cut(predictions) for view in views_after(predictions, t)]
    figures: dict[str, float] = {}
    for threshold in thresholds:
        parts = [decision_metrics(logits, truth, threshold) for logits, truth in views]
        for name in parts[0]:
            figures[f"{name}@{threshold:g}"] = mean_defined(part[name] for part in parts)
    return figures


def summarize(per_experience: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return ``last_<name>`` and ``avg_<name>`` of figures given after each experience; NaN is left out of means."""
    summary = {f"last_{name}": value for name, value in per_experience[-1].items()}
    return summary | {
        f"avg_{name}": mean_defined(figures[name] for figures in per_experience) for name in per_experience[-1]
    }


def views_after(predictions: Predictions, t: int) -> list[View]:
    """Return what is tested after experience t under the predictions' test rule."""
    if predictions.test_rule == "per_experience":
        return [View(t, predictions.test_images[k], predictions.columns(k)) for k in range(t + 1)]
    return [View(t, predictions.test_images[t], slice(0, predictions.n_seen[t]))]


def _is_fixed(predictions: Predictions, t: int) -> bool:
    return predictions.test_rule == "per_experience" or bool(predictions.test_images[t].all())


def _ap_on_all_images(predictions: Predictions, t: int) -> npt.NDArray[np.float64]:
    return average_precision(predictions.logits[t], predictions.truth[:, : predictions.n_seen[t]])


def _only_metrics(figures: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if name == "map" or "@" in name}


def _without_nan(value: Any) -> Any:
    """Replace NaN, which JSON does not know, by None throughout."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def check_predictions(predictions: Predictions) -> None:
    """Raise CmlBenchError unless shapes agree, labels arrive in order and every logit is a number."""
    if predictions.test_rule not in TEST_RULES:
        raise CmlBenchError(f"test rule {predictions.test_rule!r} is unknown; use one of {', '.join(TEST_RULES)}")
    ascending = (0, *predictions.n_seen, len(predictions.label_names))
    if not predictions.n_seen or list(ascending) != sorted(ascending):
        raise CmlBenchError(
            f"predictions: {list(predictions.n_seen)} labels seen of {len(predictions.label_names)} make no stream; "
            "run the job again"
        )
    if len(predictions.logits) != len(predictions.n_seen):
        raise CmlBenchError(
            f"predictions: {len(predictions.logits)} blocks of logits for {len(predictions.n_seen)} experiences: give "
            "one for each"
        )
    if predictions.test_images.dtype != np.bool_:
        raise CmlBenchError(
            f"predictions: test_images are {predictions.test_images.dtype}, which would be read as row numbers: give "
            "booleans"
        )
    n_images = len(predictions.sample_ids)
    shapes: dict[str, tuple[npt.NDArray[Any], tuple[int, int]]] = {
        "truth": (predictions.truth, (n_images, len(predictions.label_names))),
        "test_images": (predictions.test_images, (predictions.n_experiences, n_images)),
    }
    for t, (block, width) in enumerate(zip(predictions.logits, predictions.n_seen, strict=True), start=1):
        shapes[f"logits after experience {t}"] = (block, (n_images, width))
    for name, (array, shape) in shapes.items():
        if array.shape != shape:
            raise CmlBenchError(f"predictions: {name} have shape {array.shape}, not {shape}; run the job again")
    for t, block in enumerate(predictions.logits, start=1):
        if np.isnan(block).any():
            raise CmlBenchError(f"predictions: NaN among the logits after experience {t}; the training diverged")
