"""Metrics by user, against scikit-learn user by user."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from cml_bench.metrics.evaluate import evaluate
from cml_bench.metrics.per_user import per_user
from cml_bench.metrics.predictions import Predictions

N, N_SEEN = 60, (2, 5)


def make(rule: str, n_users: int = 7) -> tuple[Predictions, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = (rng.random((N, 5)) < 0.3).astype(np.int8)
    users = np.array([f"user{number}" for number in rng.integers(0, n_users, N)])
    truth[users == "user3"] = 0
    images = {
        "all_images": np.ones((2, N), dtype=bool),
        "seen_images": np.stack([truth[:, :n].any(axis=1) for n in N_SEEN]),
        "per_experience": np.stack([truth[:, :2].any(axis=1), truth[:, 2:].any(axis=1)]),
    }[rule]
    logits = tuple((rng.normal(size=(N, n)) + truth[:, :n]).round(1).astype(np.float16) for n in N_SEEN)
    return Predictions(tuple("abcde"), np.arange(N), truth, N_SEEN, rule, images, logits), users


def by_hand(truth: np.ndarray, scores: np.ndarray) -> list[float]:
    if not truth.any():
        return [math.nan] * 4
    shown = [column for column in range(truth.shape[1]) if truth[:, column].any()]
    ap = np.mean([average_precision_score(truth[:, column], scores[:, column]) for column in shown])
    overall = average_precision_score(truth.ravel(), scores.ravel())
    decided = scores > 0
    precision = np.mean([(decided & (truth == 1))[:, c].sum() / max(1, decided[:, c].sum()) for c in shown])
    recall = np.mean([(decided & (truth == 1))[:, c].sum() / truth[:, c].sum() for c in shown])
    harmonic = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return [ap, overall, harmonic, f1_score(truth.ravel(), decided.ravel(), zero_division=0)]


@pytest.mark.parametrize("rule", ["all_images", "seen_images", "per_experience"])
def test_against_scikit_learn(rule: str) -> None:
    predictions, users = make(rule)
    found = per_user(predictions, users)
    expected = []
    for t, n in enumerate(N_SEEN):
        groups = [(0, 2), (2, 5)][: t + 1] if rule == "per_experience" else [(0, n)]
        views = []
        for k, (low, high) in enumerate(groups):
            rows = predictions.test_images[k if rule == "per_experience" else t]
            figures = [
                by_hand(predictions.truth[own, low:high], predictions.logits[t][own, low:high].astype(np.float64))
                for own in (rows & (users == user) for user in np.unique(users))
                if own.any()
            ]
            views.append(np.nanmean(figures, axis=0))
        expected.append(np.mean(views, axis=0))
    names = ("user_map", "user_overall_ap", "user_cf1_harmonic@0.5", "user_of1@0.5")
    for name, last, average in zip(names, expected[-1], np.mean(expected, axis=0), strict=True):
        assert found["summary"][f"last_{name}"] == pytest.approx(last)
        assert found["summary"][f"avg_{name}"] == pytest.approx(average)
    # Only all_images tests the user whose images show nothing.
    shows_nothing = rule == "all_images"
    assert found["users"] == {"tested": 6 + shows_nothing, "undefined": int(shows_nothing)}
    json.dumps(found, allow_nan=False)


def test_one_user_is_everyone() -> None:
    predictions, _ = make("all_images")
    summary, whole = per_user(predictions, np.array(["me"] * N))["summary"], evaluate(predictions)["summary"]
    for own, common in (("map", "map"), ("cf1_harmonic@0.5", "cf1_harmonic@0.5"), ("of1@0.5", "of1@0.5")):
        assert summary[f"last_user_{own}"] == pytest.approx(whole[f"last_{common}"])
        assert summary[f"avg_user_{own}"] == pytest.approx(whole[f"avg_{common}"])


def test_nobody_shows_a_label() -> None:
    predictions, users = make("all_images")
    predictions.truth[:] = 0
    found = per_user(predictions, users)
    assert set(found["summary"].values()) == {None}
    assert found["users"] == {"tested": 7, "undefined": 7}
