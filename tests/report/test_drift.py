"""Drift of services: against sets of answers, scikit-learn, and snapshots that are alike."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from cml_bench import cli
from cml_bench.data.sets.hapi import HAPI
from cml_bench.errors import CmlBenchError
from cml_bench.report.drift.drift import ALL, MEAN, drift

Answers = Mapping[str, list[str]]
NAMES = ("bird", "dining table", "tvmonitor")
DATES = ("20-10-28", "21-03-01", "22-05-23")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))


def write(root: Path, truth: Answers, snapshots: Mapping[str, Answers]) -> HAPI:
    """An archive with one service of pascal."""
    folder = root / "tasks/mic/pascal/google_mic"
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["task,dataset,api,date", *(f"mic,pascal,google_mic,{date}" for date in snapshots)]
    (root / "tasks/meta.csv").write_text("\n".join(lines) + "\n")
    content: list[Any] = [{"example_id": key, "true_label": names} for key, names in truth.items()]
    (root / "tasks/mic/pascal/labels.json").write_text(json.dumps(content))
    for date, answers in snapshots.items():
        content = [{"example_id": key, "predicted_label": names, "confidence": 1} for key, names in answers.items()]
        (folder / f"{date}.json").write_text(json.dumps(content))
    return HAPI(root=str(root))


def report_on(root: Path, truth: Answers, *snapshots: Answers) -> Any:
    dates = dict(zip(DATES, snapshots, strict=False))
    return drift(write(root, truth, dates), [f"pascal/google_mic/{date}" for date in dates])


TRUTH = {"a": ["bird"], "b": ["dining table", "bird"], "c": ["tvmonitor"], "d": [], "e": ["tvmonitor"]}
ANSWERS = {"a": ["bird", "bird"], "b": ["bird"], "c": ["Dining_Table", "unicorn"], "d": [], "z": ["bird"]}


def test_snapshots_that_are_alike_have_no_drift(tmp_path: Path) -> None:
    """Whatever the order of their images, and however often they repeat a name."""
    other = {key: list(dict.fromkeys(names)) for key, names in reversed(ANSWERS.items())}
    rows = report_on(tmp_path, TRUTH, ANSWERS, other).rows
    first, second = (rows[rows["date"] == date].reset_index(drop=True) for date in DATES[:2])
    assert first[["compared", "kept", "added", "removed", "agreement"]].isna().all(axis=None)
    assert (second[second["label"] != MEAN][["added", "removed"]] == 0).all(axis=None)
    assert (second["agreement"] == 1).all()
    assert (second["compared"] == 5).all()
    quality = ["images", "positives", "said", "precision", "recall", "f1", "ap"]
    pd.testing.assert_frame_equal(first[quality], second[quality])


def test_what_is_missing_is_counted_and_listed(tmp_path: Path) -> None:
    report = report_on(tmp_path, TRUTH, ANSWERS)
    assert report.missing == {"pascal/google_mic/20-10-28": ("e",)}
    (row,) = report.snapshots.to_dict("records")
    assert row == {
        "service": "pascal/google_mic",
        "date": "20-10-28",
        "images": 5,
        "unanswered": 1,
        "without_truth": 1,
        "repeated_names": 1,
        "names_without_label": 1,
        "answers_without_label": 1,
    }


LISTS = st.dictionaries(
    st.sampled_from("abcdefgh"), st.lists(st.sampled_from([*NAMES, "unicorn"]), max_size=4), min_size=1
)
COMMON = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@COMMON
@given(LISTS, LISTS)
def test_changes_are_differences_of_sets(tmp_path_factory: Any, before: Answers, after: Answers) -> None:
    rows = report_on(tmp_path_factory.mktemp("hapi"), TRUTH, before, after).rows
    second = rows[rows["date"] == DATES[1]].set_index("label")
    both = set(before) & set(after)
    then, now = ({(key, name) for key in both for name in said[key]} for said in (before, after))
    for label in (ALL, *second.index[2:]):
        one, two = ({pair for pair in pairs if label in (ALL, pair[1])} for pairs in (then, now))
        found = second.loc[label]
        assert (found["kept"], found["added"], found["removed"]) == (len(one & two), len(two - one), len(one - two))
        assert found["agreement"] == pytest.approx(len(one & two) / len(one | two) if one | two else 1.0)
        assert found["compared"] == len(both)
    spoken = {name for _, name in then | now}
    expected = np.mean([second.loc[name, "agreement"] for name in spoken]) if spoken else 1.0
    assert second.loc[MEAN, "agreement"] == pytest.approx(expected)


@COMMON
@given(LISTS)
def test_quality_against_scikit_learn(tmp_path_factory: Any, answers: Answers) -> None:
    rows = report_on(tmp_path_factory.mktemp("hapi"), TRUTH, answers).rows.set_index("label")
    common = [key for key in TRUTH if key in answers]
    assert (rows["images"] == len(common)).all()
    if not common:
        return
    true, said = (np.array([[name in of[key] for name in NAMES] for key in common]) for of in (TRUTH, answers))
    means = []
    for column, name in enumerate(NAMES):
        if not true[:, column].any():
            assert rows.loc[name, ["precision", "recall", "f1", "ap"]].isna().all()
            continue
        scored = precision_recall_fscore_support(true[:, column], said[:, column], average="binary", zero_division=0)
        expected = [*scored[:3], average_precision_score(true[:, column], said[:, column])]
        assert rows.loc[name, ["precision", "recall", "f1", "ap"]].tolist() == pytest.approx(expected)
        means.append(expected)
    if means:
        assert rows.loc[MEAN, ["precision", "recall", "f1", "ap"]].tolist() == pytest.approx(np.mean(means, axis=0))
        pooled = precision_recall_fscore_support(true.ravel(), said.ravel(), average="binary", zero_division=0)[:3]
        expected = [*pooled, average_precision_score(true.ravel(), said.ravel())]
        assert rows.loc[ALL, ["precision", "recall", "f1", "ap"]].tolist() == pytest.approx(expected)
    assert rows.loc[ALL, "positives"] == true.sum()


def test_only_snapshots_can_drift(tmp_path: Path) -> None:
    data = write(tmp_path, TRUTH, {DATES[0]: ANSWERS})
    with pytest.raises(CmlBenchError, match="'pascal' is no snapshot of a service: give data set/service/date"):
        drift(data, ["pascal"])


def call(capsys: Any, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_the_command(tmp_path: Path, capsys: Any) -> None:
    write(tmp_path, TRUTH, {DATES[0]: ANSWERS, DATES[1]: {**ANSWERS, "d": ["bird"]}})
    listed = tmp_path / "missing.txt"
    words = ("data", "drift", "hapi", "--root", tmp_path)
    code, out, _ = call(capsys, *words, "--output", listed)
    assert code == 0
    assert "images of the truth without an answer: 1 (e)" in " ".join(out.split())
    assert listed.read_text() == "".join(f"pascal/google_mic/{date}\te\n" for date in DATES[:2])
    code, out, _ = call(capsys, *words, "--format", "csv")
    table = pd.read_csv(io.StringIO(out))
    assert table[table["label"] == "bird"]["added"].tolist()[1] == 1
    code, out, _ = call(capsys, *words, "--format", "markdown", "--split", f"pascal/google_mic/{DATES[1]}")
    assert code == 0
    assert DATES[0] not in out
    code, _, err = call(capsys, "data", "drift", "flair", "--root", tmp_path)
    assert (code, "drift is for hapi" in err) == (1, True)
