"""Any metric, at any threshold, of any group of labels, from stored predictions: without training."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import pandas as pd

from cml_bench.errors import CmlBenchError, suggest
from cml_bench.metrics.decisions import DECISION_METRICS
from cml_bench.metrics.evaluate import check_predictions, decide, evaluate, summarize
from cml_bench.metrics.names import MetricName, parse_metric
from cml_bench.metrics.predictions import Predictions
from cml_bench.report.stored.label_groups import GROUPS, label_groups
from cml_bench.runs.results import read_result, result_files
from cml_bench.runs.schema import Result

By = Literal["job", "experience", "label"]
"""An option: what has a row of its own."""

_DROPPED: Final = "dropped_labels"
"""Of the whole run, it is those of the last experience."""
_WHOLE_RUN: Final = (
    *("forgetting", "forgetting_relative", "forgetting_diagonal", "forgetting_diagonal_relative"),
    *("backward_transfer", _DROPPED, "undefined_forgetting", "undefined_experiences"),
)
_DEFAULT: Final[dict[By, tuple[str, ...]]] = {
    "job": ("last_map", "avg_map", "last_cf1_macro@0.5", "last_cf1_harmonic@0.5", "last_of1@0.5", "forgetting"),
    "experience": ("map", "cf1_macro@0.5", "cf1_harmonic@0.5", "of1@0.5"),
    "label": ("last_map", "avg_map", "last_cp@0.5", "last_cr@0.5", "last_cf1_macro@0.5", "forgetting"),
}


@dataclass(frozen=True)
class Rescored:
    """Metrics that were computed anew.

    Attributes:
        rows: One row a job, or a job and experience, or a job and label. Columns ``key``, ``benchmark``, ``method``,
            ``class_order``, ``seed``; ``experience`` (from 1), or ``label`` with its ``experience``, ``group`` and
            ``train_images`` (both None where the result does not say); then the metrics: fractions or counts, NaN where
            undefined.
        metrics: Names of the metrics.
        left_out: ``path: reason`` for each job that nothing could be computed of.
    """

    rows: pd.DataFrame
    metrics: tuple[str, ...]
    left_out: tuple[str, ...]


def rescore(
    results: Path | str | Sequence[Path | str],
    metrics: Sequence[str] | str = (),
    *,
    by: By = "job",
    groups: bool = False,
    cuts: tuple[int, int] | None = None,
) -> Rescored:
    """Compute metrics from the predictions that lie beside results.

    Args:
        results: Result files or folders with result files.
        metrics: Names as in the metrics summary, with any threshold: ``avg_map``, ``last_cf1_macro@0.6``; of a group of
            labels as ``last_map_minor`` or ``last_cf1_macro_minor@0.6``. By experience the figure after it is meant,
            without ``last_``; ``dropped_labels`` is how many it lacks. By label a metric is that of the label alone:
            ``map`` its average precision, ``cp`` its precision, ``cf1_macro`` its F1. None for the usual ones.
        by: ``job``, ``experience`` or ``label``.
        groups: Give each metric for each group of labels as well.
        cuts: Training images from which a label is moderate, and from which it is major; None for the groups that the
            benchmark declares, or 200 and 900. A group's metric is the metric on the group's labels alone, on the same
            images; an experience without one of them is left out of means.

    Raises:
        CmlBenchError: If there is no result, or a name is unknown.
    """
    if by not in get_args(By):
        raise CmlBenchError(f"rescore has no rows by {by!r}: {suggest(by, get_args(By))}")
    if by == "label" and groups:
        raise CmlBenchError("rows by label have their group in a column: leave groups out")
    texts = ((metrics,) if isinstance(metrics, str) else tuple(metrics)) or _DEFAULT[by]
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    found: dict[str, None] = {}
    for path in result_files(results):
        try:
            result = read_result(path)
            if result.status != "ok":
                raise CmlBenchError(f"the job failed ({result.error})")
            predictions = _predictions(path)
            names = _names(texts, result, by, groups, cuts)
            about = _about(result)
            made = [about | row for row in _rows(predictions, result, names, by, cuts)]
        except UnknownMetricError:
            raise
        except CmlBenchError as error:
            left_out.append(f"{path}: {getattr(error, 'reason', error)}")
            continue
        rows += made
        found |= dict.fromkeys(str(name) for name in names)
    return Rescored(pd.DataFrame(rows), tuple(found), tuple(left_out))


class UnknownMetricError(CmlBenchError):
    """There is no such metric."""


def stored_metric(path: Path, name: str) -> float:
    """Return a metric of a job from the predictions beside its result file; NaN where undefined.

    Args:
        path: Result file.
        name: As ``rescore`` takes it for a job.

    Raises:
        CmlBenchError: If the name is unknown, or the result or its predictions cannot be read.
    """
    result = read_result(path)
    metric = _parse(name, _known_groups(result))
    groups = label_groups(result) if metric.group else {}
    return _of_jobs(_predictions(path), [metric], groups)[str(metric)]


def _predictions(path: Path) -> Predictions:
    predictions = Predictions.load(path.with_suffix(".npz"))
    check_predictions(predictions)
    return predictions


def _about(result: Result) -> dict[str, Any]:
    job = result.job
    return {
        "key": result.key,
        "benchmark": job.benchmark,
        "method": job.method,
        "class_order": job.class_order,
        "seed": job.seed,
    }


def _known_groups(result: Result) -> tuple[str, ...]:
    declared = result.benchmark.label_groups if result.benchmark else {}
    return tuple(dict.fromkeys([*declared, *GROUPS]))


def _names(
    texts: Iterable[str], result: Result, by: By, groups: bool, cuts: tuple[int, int] | None
) -> list[MetricName]:
    known = _known_groups(result)
    names = [_parse(text, known) for text in texts]
    for name in names:
        whole_run = name.figure in _WHOLE_RUN and name.figure != _DROPPED
        if by == "experience" and (name.span == "avg" or whole_run):
            raise UnknownMetricError(f"metric {str(name)!r} is of the whole run, not of an experience")
        if by == "label" and name.group:
            raise UnknownMetricError(f"metric {str(name)!r} is of a group; rows by label have their group in a column")
    if by == "experience":
        names = [MetricName(name.figure, None, name.threshold, name.group) for name in names]
    if groups:
        every = [None, *label_groups(result, cuts)]
        names = [
            MetricName(name.figure, name.span, name.threshold, group)
            for name in dict.fromkeys(MetricName(n.figure, n.span, n.threshold) for n in names)
            for group in every
        ]
    return names


def _parse(text: str, groups: Iterable[str]) -> MetricName:
    name = parse_metric(text, groups)
    if name.figure in _WHOLE_RUN and name.span is None and name.threshold is None:
        return name
    if name.figure == "map" and name.threshold is None:
        return MetricName("map", name.span or "last", None, name.group)
    if name.figure in DECISION_METRICS and name.threshold is not None:
        return name
    if name.figure in DECISION_METRICS:
        raise UnknownMetricError(f"metric {text!r} needs a threshold: write it as {text}@0.5")
    if name.threshold is not None and name.figure == "map":
        raise UnknownMetricError(f"metric {text!r} has a threshold, and mAP ranks without one: leave it out")
    if name.threshold is not None:
        # Either is called CF1.
        kinds = [repr(figure) for figure in DECISION_METRICS if figure.startswith(f"{name.figure}_")]
        mend = f"did you mean {' or '.join(kinds)}?" if kinds else suggest(name.figure, DECISION_METRICS)
        raise UnknownMetricError(f"metric {text!r} is unknown; {mend}")
    figures = [f"{span}_{figure}" for span in ("last", "avg") for figure in ("map", *DECISION_METRICS)]
    raise UnknownMetricError(
        f"metric {text!r} cannot be computed from predictions; {suggest(text, [*figures, *_WHOLE_RUN])}"
    )


def _rows(
    predictions: Predictions, result: Result, names: Sequence[MetricName], by: By, cuts: tuple[int, int] | None
) -> Iterator[dict[str, Any]]:
    groups = label_groups(result, cuts) if any(name.group for name in names) else {}
    if by == "job":
        yield _of_jobs(predictions, names, groups)
    elif by == "experience":
        yield from _of_experiences(predictions, names, groups)
    else:
        yield from _of_labels(predictions, result, names, cuts)


def _of_jobs(
    predictions: Predictions, names: Sequence[MetricName], groups: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    values: dict[str, float] = {}
    for group, part in _by_group(names):
        summary = _summary(_of_group(predictions, group, groups), part)
        values |= {str(name): summary[name.in_summary] for name in part}
    return {str(name): values[str(name)] for name in names}


def _of_experiences(
    predictions: Predictions, names: Sequence[MetricName], groups: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"experience": t + 1} for t in range(predictions.n_experiences)]
    for group, part in _by_group(names):
        restricted = _of_group(predictions, group, groups)
        figures = evaluate(restricted, _thresholds(part))["per_experience"]
        for row, after in zip(rows, figures, strict=True):
            after = {**after, _DROPPED: len(after[_DROPPED])}
            row.update({str(name): _number(after[name.after_experience]) for name in part})
    return [{"experience": row["experience"], **{str(name): row[str(name)] for name in names}} for row in rows]


def _of_labels(
    predictions: Predictions, result: Result, names: Sequence[MetricName], cuts: tuple[int, int] | None
) -> Iterator[dict[str, Any]]:
    counts = (result.data["train"].label_counts if result.data and "train" in result.data else None) or {}
    try:
        groups = label_groups(result, cuts)
    except CmlBenchError:
        groups = {}
    group_of = {name: group for group, listed in groups.items() for name in listed}
    arrivals = np.searchsorted(predictions.n_seen, np.arange(len(predictions.label_names)), side="right")
    for label, arrival in zip(predictions.label_names, arrivals.tolist(), strict=True):
        yield {
            "label": label,
            "experience": arrival + 1,
            "group": group_of.get(label),
            "train_images": counts.get(label),
            **_of_jobs(predictions.only([label]), names, {}),
        }


def _by_group(names: Sequence[MetricName]) -> list[tuple[str | None, list[MetricName]]]:
    ordered = sorted(names, key=lambda name: name.group or "")
    return [(group, list(part)) for group, part in itertools.groupby(ordered, key=lambda name: name.group)]


def _of_group(predictions: Predictions, group: str | None, groups: Mapping[str, Sequence[str]]) -> Predictions:
    # A benchmark that declares groups of its own may have none of this name.
    return predictions if group is None else predictions.only(groups.get(group, ()))


def _summary(predictions: Predictions, names: Sequence[MetricName]) -> dict[str, float]:
    thresholds = _thresholds(names)
    if all(name.figure in DECISION_METRICS for name in names):
        # Decisions need no ranking, which takes most of the time.
        return summarize(decide(predictions, thresholds))
    return {name: _number(value) for name, value in evaluate(predictions, thresholds)["summary"].items()}


def _thresholds(names: Sequence[MetricName]) -> list[float]:
    return sorted({name.threshold for name in names if name.threshold is not None})


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
