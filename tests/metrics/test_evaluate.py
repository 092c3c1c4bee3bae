"""The whole dictionary against scikit-learn, written out for each test rule."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import average_precision_score, f1_score

from cml_bench.errors import CmlBenchError
from cml_bench.metrics.evaluate import evaluate
from cml_bench.metrics.predictions import TEST_RULES, Predictions

N, C, N_SEEN = 80, 7, (3, 5, 7)


def make(rule: str, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    truth = (rng.random((N, C)) < 0.3).astype(np.int8)
    truth[:, 4] = 0  # a label that no test image shows
    groups = [slice(0, 3), slice(3, 5), slice(5, 7)]
    images = {
        "all_images": np.ones((3, N), dtype=bool),
        "seen_images": np.stack([truth[:, :n].any(axis=1) for n in N_SEEN]),
        "per_experience": np.stack([truth[:, group].any(axis=1) for group in groups]),
    }[rule]
    logits = tuple((2 * rng.normal(size=(N, n)) + 2 * truth[:, :n]).round(1).astype(np.float16) for n in N_SEEN)
    names = tuple(f"label {column}" for column in range(C))
    return Predictions(names, np.arange(N), truth, N_SEEN, rule, images, logits)


def sklearn_ap(predictions: Predictions, t: int, column: int, rows: Any) -> float:
    truth = predictions.truth[rows, column]
    scores = predictions.logits[t][rows, column].astype(np.float64)
    return float(average_precision_score(truth, scores)) if truth.any() else math.nan


def images_for(predictions: Predictions, t: int, column: int) -> Any:
    """The images on which a label is tested after experience t."""
    if predictions.test_rule == "per_experience":
        return predictions.test_images[next(k for k, n in enumerate(N_SEEN) if column < n)]
    return predictions.test_images[t]


@pytest.mark.parametrize("rule", TEST_RULES)
def test_ranking_figures(rule: str) -> None:
    predictions = make(rule)
    figures = evaluate(predictions)
    starts = (0, 3, 5)
    maps = []
    for t, n in enumerate(N_SEEN):
        ap = [sklearn_ap(predictions, t, column, images_for(predictions, t, column)) for column in range(n)]
        if rule == "per_experience":
            groups = [ap[starts[k] : N_SEEN[k]] for k in range(t + 1)]
            maps.append(np.mean([np.nanmean(group) for group in groups]))
            n_images = np.logical_or.reduce(predictions.test_images[: t + 1]).sum()
        else:
            maps.append(np.nanmean(ap))
            n_images = predictions.test_images[t].sum()
        after = figures["per_experience"][t]
        assert (after["n_seen"], after["n_images"]) == (n, n_images)
        assert after["map"] == pytest.approx(maps[t])
        assert after["dropped_labels"] == (["label 4"] if n > 4 else [])
        for column in range(C):
            stored = figures["per_label_ap"][f"label {column}"][t]
            assert stored is None if column >= n or column == 4 else stored == pytest.approx(ap[column])
    summary = figures["summary"]
    assert summary["last_map"] == pytest.approx(maps[-1])
    assert summary["avg_map"] == pytest.approx(np.mean(maps))
    assert (summary["dropped_labels"], summary["undefined_experiences"], summary["undefined_forgetting"]) == (1, 0, 0)


@pytest.mark.parametrize("rule", TEST_RULES)
def test_retention_is_measured_on_fixed_images(rule: str) -> None:
    predictions = make(rule)
    figures = evaluate(predictions)
    expected = np.full((3, 3), np.nan)
    for k in range(3):
        rows = predictions.test_images[k] if rule == "per_experience" else np.ones(N, dtype=bool)
        for t in range(k, 3):
            columns = range(C)[predictions.columns(k)]
            expected[k, t] = np.nanmean([sklearn_ap(predictions, t, column, rows) for column in columns])
    np.testing.assert_allclose(np.array(figures["performance"], dtype=np.float64), expected)
    best = np.array([max(expected[0, 0], expected[0, 1]), expected[1, 1]])
    first = np.array([expected[0, 0], expected[1, 1]])
    end = expected[:2, 2]
    for name, value in {
        "forgetting": best - end,
        "forgetting_relative": (best - end) / best,
        "forgetting_diagonal": first - end,
        "forgetting_diagonal_relative": (first - end) / first,
        "backward_transfer": end - first,
    }.items():
        assert figures["summary"][name] == pytest.approx(value.mean())


def test_a_growing_test_set_is_not_forgetting() -> None:
    # The same logits after each experience forget nothing, though mAP falls as images without old labels come in.
    base = make("seen_images")
    frozen = dataclasses.replace(base, logits=tuple(base.logits[-1][:, :n] for n in N_SEEN))
    figures = evaluate(frozen)
    assert figures["per_label_ap"]["label 0"][0] > figures["per_label_ap"]["label 0"][2]
    assert figures["summary"]["forgetting"] == figures["summary"]["backward_transfer"] == 0


@pytest.mark.parametrize("rule", TEST_RULES)
@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_decision_figures(rule: str, threshold: float) -> None:
    predictions = make(rule)
    figures = evaluate(predictions)
    after = []
    for t, n in enumerate(N_SEEN):
        groups = [range(3), range(3, 5), range(5, 7)][: t + 1] if rule == "per_experience" else [range(n)]
        parts = []
        for group in groups:
            rows = images_for(predictions, t, group[0])
            decided = expit(predictions.logits[t][rows].astype(np.float64)) > threshold
            labels = [column for column in group if column != 4]
            truth = predictions.truth[rows]
            parts.append(np.mean([f1_score(truth[:, c], decided[:, c], zero_division=0) for c in labels]))
        after.append(np.mean(parts))
        assert figures["per_experience"][t][f"cf1_macro@{threshold}"] == pytest.approx(after[t])
    assert figures["summary"][f"last_cf1_macro@{threshold}"] == pytest.approx(after[-1])
    assert figures["summary"][f"avg_cf1_macro@{threshold}"] == pytest.approx(np.mean(after))


@pytest.mark.parametrize("rule", TEST_RULES)
def test_undefined_is_null_counted_and_valid_json(rule: str) -> None:
    predictions = make(rule)
    truth = predictions.truth.copy()
    truth[:, :3] = 0  # no image shows a label of experience 0
    figures = evaluate(dataclasses.replace(predictions, truth=truth))
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert figures["per_experience"][0]["map"] is None
    assert figures["per_experience"][0]["cp@0.5"] is None
    assert figures["performance"][0] == [None, None, None]
    assert (figures["summary"]["undefined_experiences"], figures["summary"]["undefined_forgetting"]) == (1, 1)
    assert figures["summary"]["avg_map"] == pytest.approx(
        np.mean([figures["per_experience"][t]["map"] for t in (1, 2)])
    )


def test_any_threshold_is_a_key() -> None:
    assert "last_of1@0.65" in evaluate(make("all_images"), thresholds=(0.65,))["summary"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_rule": "some_images"}, "some_images"),
        ({"truth": np.zeros((N, C - 1), np.int8)}, r"truth have shape \(80, 6\)"),
        ({"test_images": np.ones((2, N), bool)}, "test_images"),
        ({"logits": tuple(np.zeros((N, n), np.float16) for n in (3, 5, 6))}, "logits after experience 3"),
        ({"logits": tuple(np.zeros((N, n), np.float16) for n in (3, 5))}, "2 blocks of logits for 3 experiences"),
        ({"test_images": np.ones((3, N), np.int64)}, "test_images are int64, which would be read as row numbers"),
        ({"logits": tuple(np.full((N, n), np.nan, np.float16) for n in N_SEEN)}, "NaN among the logits"),
    ],
)
def test_contradictions_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CmlBenchError, match=message):
        evaluate(dataclasses.replace(make("all_images"), **change))
