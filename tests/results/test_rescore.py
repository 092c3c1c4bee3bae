"""Groups, thresholds, labels and experiences against scikit-learn on the columns alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import average_precision_score, f1_score, precision_score

from cml_bench import compare
from cml_bench.errors import CmlBenchError
from cml_bench.metrics.names import MetricName, parse_metric
from cml_bench.metrics.predictions import TEST_RULES, Predictions
from cml_bench.report.stored.label_groups import label_groups, parse_cuts
from cml_bench.report.stored.rescore import rescore, stored_metric
from cml_bench.runs.results import read_result

GROUPS = {"major": [0, 1], "moderate": [2, 3, 6], "minor": [4, 5]}
STARTS, ENDS = (0, 3, 5), (3, 5, 7)


def parts_after(predictions: Predictions, t: int, columns: list[int]) -> list[tuple[Any, Any]]:
    """Truth and logits of what is tested together after an experience: for per_experience one part an experience."""
    spans = [(0, ENDS[t])]
    images = [predictions.test_images[t]]
    if predictions.test_rule == "per_experience":
        spans = list(zip(STARTS, ENDS, strict=True))[: t + 1]
        images = list(predictions.test_images[: t + 1])
    found = []
    for (start, end), rows in zip(spans, images, strict=True):
        own = [column for column in columns if start <= column < end]
        found.append((predictions.truth[rows][:, own], predictions.logits[t][rows][:, own].astype(np.float64)))
    return found


def mean_ap(truth: Any, logits: Any) -> float:
    shown = [c for c in range(truth.shape[1]) if truth[:, c].any()]
    return np.mean([average_precision_score(truth[:, c], logits[:, c]) for c in shown]) if shown else math.nan


def macro_f1(truth: Any, logits: Any, threshold: float) -> float:
    decided = expit(logits) > threshold
    shown = [c for c in range(truth.shape[1]) if truth[:, c].any()]
    return np.mean([f1_score(truth[:, c], decided[:, c], zero_division=0) for c in shown]) if shown else math.nan


def mean(values: list[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


@pytest.mark.parametrize("rule", TEST_RULES)
def test_a_group_is_scored_on_its_labels_alone(store: Any, predictions: Any, tmp_path: Path, rule: str) -> None:
    made = predictions(rule)
    store(tmp_path, made=made)
    found = rescore(tmp_path, ["last_map", "avg_map", "last_cf1_macro@0.6"], groups=True)
    assert not found.left_out
    assert len(found.metrics) == 12
    row = found.rows.iloc[0]
    for group, columns in {"": list(range(7)), **GROUPS}.items():
        maps = [mean([mean_ap(*part) for part in parts_after(made, t, columns)]) for t in range(3)]
        f1 = mean([macro_f1(*part, 0.6) for part in parts_after(made, 2, columns)])
        end = f"_{group}" if group else ""
        assert row[f"last_map{end}"] == pytest.approx(maps[-1], nan_ok=True)
        assert row[f"avg_map{end}"] == pytest.approx(mean(maps), nan_ok=True)
        assert row[f"last_cf1_macro{end}@0.6"] == pytest.approx(f1, nan_ok=True)
        assert stored_metric(Path(next(tmp_path.rglob("*.json"))), f"last_map{end}") == pytest.approx(maps[-1])


@pytest.mark.parametrize("rule", TEST_RULES)
def test_after_each_experience(store: Any, predictions: Any, tmp_path: Path, rule: str) -> None:
    made = predictions(rule)
    store(tmp_path, made=made)
    rows = rescore(tmp_path, ["map", "cf1_macro@0.7", "dropped_labels"], by="experience", groups=True).rows
    assert rows["experience"].tolist() == [1, 2, 3]
    for t in range(3):
        dropped = [int((~truth.any(axis=0)).sum()) for truth, _ in parts_after(made, t, list(range(7)))]
        assert rows["dropped_labels"][t] == sum(dropped)
        for group, columns in GROUPS.items():
            maps = mean([mean_ap(*part) for part in parts_after(made, t, columns)])
            f1 = mean([macro_f1(*part, 0.7) for part in parts_after(made, t, columns)])
            assert rows[f"map_{group}"][t] == pytest.approx(maps, nan_ok=True)
            assert rows[f"cf1_macro_{group}@0.7"][t] == pytest.approx(f1, nan_ok=True)
    # Minor labels come last: before, there is nothing to be right about.
    assert math.isnan(rows["map_minor"][0])


@pytest.mark.parametrize("rule", TEST_RULES)
def test_by_label(store: Any, predictions: Any, tmp_path: Path, rule: str) -> None:
    made = predictions(rule)
    path = store(tmp_path, made=made)
    rows = rescore(tmp_path, ["last_map", "last_cp@0.5", "forgetting"], by="label").rows.set_index("label")
    stored = read_result(path).metrics
    assert stored is not None
    for column, name in enumerate(made.label_names):
        row = rows.loc[name]
        arrival = next(t for t, end in enumerate(ENDS) if column < end)
        assert row["experience"] == arrival + 1
        assert column in GROUPS[row["group"]]
        ap = stored.per_label_ap[name][-1]
        assert row["last_map"] == pytest.approx(math.nan if ap is None else ap, nan_ok=True)
        truth, logits = next(part for part in parts_after(made, 2, [column]) if part[0].shape[1])
        expected = math.nan
        if truth.any():
            expected = precision_score(truth[:, 0], expit(logits[:, 0]) > 0.5, zero_division=0)
        assert row["last_cp@0.5"] == pytest.approx(expected, nan_ok=True)
    # Of one label: the best before the end, minus the end; on the same images each time.
    everyone = made.test_images[0] if rule == "per_experience" else np.ones(len(made.truth), dtype=bool)
    aps = [average_precision_score(made.truth[everyone, 0], block[everyone, 0]) for block in made.logits]
    assert rows["forgetting"].iloc[0] == pytest.approx(max(aps[:2]) - aps[2])
    assert rows["train_images"].tolist() == [1000, 900, 899, 200, 199, 5, 300]


def test_what_is_stored_comes_out_again(store: Any, tmp_path: Path) -> None:
    path = store(tmp_path)
    stored = read_result(path).metrics
    assert stored is not None
    names = [name for name in stored.summary if name not in ("dropped_labels",)]
    row = rescore(path, names).rows.iloc[0]
    expected = {name: math.nan if stored.summary[name] is None else stored.summary[name] for name in names}
    assert {name: row[name] for name in names} == pytest.approx(expected, nan_ok=True)


def test_compare_takes_groups(store: Any, tmp_path: Path) -> None:
    paths = [store(tmp_path, seed=seed) for seed in range(2)]
    (table,) = compare(tmp_path, ["last_map_minor", "cf1_macro_major@0.55"]).benchmarks
    values = [stored_metric(path, "last_map_minor") for path in paths]
    assert table.rows["last_map_minor_mean"][0] == pytest.approx(np.mean(values))
    assert not math.isnan(table.rows["last_cf1_macro_major@0.55_mean"][0])


def test_compare_takes_groups_that_a_benchmark_declares(store: Any, change: Any, tmp_path: Path) -> None:
    path = store(tmp_path)
    change(path, "benchmark", "label_groups", to={"rare_ones": ["label 5"]})
    other = store(tmp_path, seed=1)
    change(other, "benchmark", "title", to="Without groups")
    change(other, "benchmark", "version", to=9)
    expected = rescore(path, ["last_map_rare_ones"]).rows["last_map_rare_ones"][0]
    tables = compare(tmp_path, ["last_map_rare_ones"], sort="last_map_rare_ones").benchmarks
    means = [table.rows["last_map_rare_ones_mean"][0] for table in tables]
    assert means == pytest.approx([expected, math.nan], nan_ok=True)


def test_declared_groups_come_before_frequency(store: Any, change: Any, tmp_path: Path) -> None:
    path = store(tmp_path)
    change(path, "benchmark", "label_groups", to={"minor": ["label 0", "not here"], "rare_ones": ["label 5"]})
    result = read_result(path)
    assert label_groups(result) == {"minor": ["label 0"], "rare_ones": ["label 5"]}
    assert label_groups(result, (6, 1000)) == {
        "major": ["label 0"],
        "moderate": [f"label {i}" for i in (1, 2, 3, 4, 6)],
        "minor": ["label 5"],
    }
    rows = rescore(path, ["last_map_rare_ones", "last_map_major"]).rows
    assert rows["last_map_rare_ones"][0] == pytest.approx(stored_metric(path, "last_map_rare_ones"))
    assert math.isnan(rows["last_map_major"][0]), "a benchmark with groups of its own has no other"


def test_nothing_is_left_out_silently(store: Any, change: Any, tmp_path: Path) -> None:
    store(tmp_path)
    store(tmp_path, seed=1, status="failed", error="NaN loss", metrics=None)
    store(tmp_path, seed=2).with_suffix(".npz").unlink()
    store(tmp_path, seed=3).write_text("{")
    found = rescore(tmp_path)
    assert found.rows["seed"].tolist() == [0]
    assert len(found.left_out) == 3
    for reason in ("the job failed (NaN loss)", "does not exist; run the job again", "it breaks off at line 1"):
        assert sum(reason in line for line in found.left_out) == 1
    old = store(tmp_path / "old", seed=4)
    change(old, "data", "train", "label_counts", to=None)
    (line,) = rescore(old, ["last_map_minor"]).left_out
    assert "does not say how often labels were trained" in line


@pytest.mark.parametrize(
    ("metric", "by", "sentence"),
    [
        ("last_mapp", "job", "metric 'last_mapp' cannot be computed from predictions; did you mean 'last_map'"),
        ("cf1_macro", "job", "needs a threshold: write it as cf1_macro@0.5"),
        ("cf1_mcro@0.5", "job", "did you mean 'cf1_macro'"),
        ("last_cf1_macro@1.5", "job", "cannot be computed"),
        ("forgetting", "experience", "of the whole run"),
        ("avg_map", "experience", "of the whole run"),
        ("last_map_minor", "label", "rows by label have their group in a column"),
        ("last_map", "epoch", "rescore has no rows by 'epoch'"),
    ],
)
def test_names_that_mean_nothing(store: Any, tmp_path: Path, metric: str, by: Any, sentence: str) -> None:
    store(tmp_path)
    with pytest.raises(CmlBenchError, match=sentence.replace("(", r"\(")):
        rescore(tmp_path, [metric], by=by)


@pytest.mark.parametrize("text", ["", "1", "900,200", "a,b", "1,2,3", "-1,5"])
def test_cuts_that_are_none(text: str) -> None:
    with pytest.raises(CmlBenchError, match="write them as 200,900"):
        parse_cuts(text)


def test_names_are_read_and_written() -> None:
    groups = ("minor", "major")
    for text in ("last_map", "avg_cf1_macro_minor@0.6", "forgetting", "forgetting_relative_major", "map", "x Y"):
        assert str(parse_metric(text, groups)) == text
    assert parse_metric("cf1_macro@.50") == MetricName("cf1_macro", "last", 0.5, None)
    assert parse_metric("last_map_minor") == MetricName("map_minor", "last")
    assert parse_metric("last_map_minor", groups) == MetricName("map", "last", None, "minor")
