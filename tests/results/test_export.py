"""The long table holds every stored figure once; lists, pages and commands show them."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

import cml_bench
from cml_bench.cli import main
from cml_bench.report.stored.export import COLUMNS, export_results
from cml_bench.report.stored.terminal import find_result, list_results, list_to_terminal, page


def rendered(shown: Any) -> str:
    console = Console(file=io.StringIO(), width=250)
    console.print(shown)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_every_figure_once(store: Any, tmp_path: Path) -> None:
    path = store(tmp_path)
    stored = json.loads(path.read_text())
    metrics = stored["metrics"]
    rows = export_results(path)
    assert list(rows.columns) == list(COLUMNS)
    assert not rows.duplicated(["experience", "label", "metric"]).any()
    assert set(rows["key"]) == {stored["key"]}
    whole = rows[rows["experience"].isna()].set_index("metric")["value"]
    for name, value in metrics["summary"].items():
        assert whole[name] == pytest.approx(math.nan if value is None else value, nan_ok=True)
    assert whole[["training_seconds", "stored_images", "trainable_parameters"]].tolist() == [3.0, 50, 600]
    for t, after in enumerate(metrics["per_experience"], start=1):
        of = rows[(rows["experience"] == t) & rows["label"].isna()].set_index("metric")["value"]
        expected = {**after, "dropped_labels": len(after["dropped_labels"])}
        assert of.to_dict() == pytest.approx(expected, nan_ok=True)
    ap = rows[rows["metric"] == "ap"]
    # 3 labels are seen three times, 2 twice, 2 once.
    assert len(ap) == 3 * 3 + 2 * 2 + 2
    for row in ap.itertuples():
        value = metrics["per_label_ap"][row.label][row.experience - 1]
        assert row.value == pytest.approx(math.nan if value is None else value, nan_ok=True)


def test_failures_and_broken_files_are_rows(store: Any, tmp_path: Path) -> None:
    store(tmp_path, status="failed", error="NaN loss", metrics=None)
    broken = store(tmp_path, seed=1)
    broken.write_text("{")
    rows = export_results(tmp_path).set_index("status")
    assert rows.loc["failed", "error"] == "NaN loss"
    assert rows.loc["unreadable", "key"] == str(broken)
    assert list_results(tmp_path)["status"].tolist() in (["failed", "unreadable"], ["unreadable", "failed"])
    text = rendered(list_to_terminal(list_results(tmp_path)))
    assert "NaN loss" in text
    assert "it breaks off" in text


def test_a_line_says_which_settings_tell_its_job_apart(store: Any, change: Any, tmp_path: Path) -> None:
    alike = rendered(list_to_terminal(list_results(store(tmp_path))))
    assert "settings" not in alike
    for seed, options in enumerate(
        ({"increment": "2", "epochs": "3"}, {"increment": "2"}, {"increment": "2", "lr": "1"})
    ):
        change(store(tmp_path, seed=seed), "job", "benchmark_options", to=options)
    store(tmp_path, seed=3).write_text("{")
    rows = list_results(tmp_path).set_index("seed")["settings"]
    assert rows.loc[[0, 1, 2]].tolist() == ["epochs=3", "", "lr=1"]
    text = rendered(list_to_terminal(list_results(tmp_path)))
    assert [word in text for word in ("settings", "epochs=3", "increment")] == [True, True, False]


def test_a_page_says_what_is_stored(store: Any, change: Any, tmp_path: Path) -> None:
    path = store(tmp_path)
    change(path, "missing", to=["lost.jpg"])
    change(path, "method", "title", to="[bold]ER[/bold]")
    text = rendered(page(path))
    stored = json.loads(path.read_text())
    for part in (stored["key"], "[bold]ER[/bold]", "memory_size=50", "50 stored images", "label 4", "lost.jpg", "1000"):
        assert part in text
    ap = stored["metrics"]["per_label_ap"]["label 0"][1]
    assert f"{100 * ap:.1f}" in next(line for line in text.splitlines() if "label 0" in line)
    assert "NaN loss" in rendered(page(store(tmp_path, seed=1, status="failed", error="NaN loss", metrics=None)))


def test_a_result_is_found_by_path_or_key(store: Any, tmp_path: Path) -> None:
    path, other = store(tmp_path), store(tmp_path, seed=1)
    key = json.loads(path.read_text())["key"]
    assert find_result(str(path), tmp_path) == find_result(key[:6], tmp_path) == path
    other.unlink()
    assert find_result(str(tmp_path), tmp_path) == path
    store(tmp_path, seed=1)
    for given, sentence in (
        (str(tmp_path), "is 2 results"),
        ("ffff0000aaaa", "no result in"),
        ("no/where.json", "does not exist"),
    ):
        with pytest.raises(cml_bench.CmlBenchError, match=sentence):
            find_result(given, tmp_path)


def run(capsys: Any, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["results", *words])
    code = ended.value.code
    captured = capsys.readouterr()
    return (code if isinstance(code, int) else int(bool(code))), captured.out, captured.err


def test_commands(store: Any, change: Any, tmp_path: Path, capsys: Any) -> None:
    runs = str(tmp_path / "runs")
    path = store(tmp_path / "runs")
    assert path.stem.rpartition("__")[2] in run(capsys, "list", runs)[1]
    assert "label 0" in run(capsys, "show", str(path))[1]
    assert run(capsys, "verify", runs) == (0, "all is well with 1 results\n", "")
    code, out, _ = run(capsys, "rescore", runs, "--metric", "last_map", "--groups", "--format", "csv")
    rows = pd.read_csv(io.StringIO(out))
    assert code == 0
    assert list(rows.columns[-4:]) == ["last_map", "last_map_major", "last_map_moderate", "last_map_minor"]
    assert rows["last_map"][0] == pytest.approx(json.loads(path.read_text())["metrics"]["summary"]["last_map"])
    assert "| label 0" in run(capsys, "rescore", runs, "--by", "label", "--format", "markdown")[1]
    assert "major" in run(capsys, "rescore", runs, "--groups", "--cuts", "6,1000")[1]
    counted = run(capsys, "rescore", runs, "--by", "experience", "--metric", "dropped_labels", "--format", "markdown")[
        1
    ]
    assert [line.split("|")[-2].strip() for line in counted.strip().splitlines()[2:]] == ["0", "1", "1"]
    target = tmp_path / "long.csv"
    assert run(capsys, "export", runs, "--output", str(target))[0] == 0
    assert len(pd.read_csv(target)) == len(export_results(runs))
    assert "1 results copied" in run(capsys, "merge", runs, "--into", str(tmp_path / "all"))[1]
    change(path, "metrics", "summary", "last_map", to=0.9)
    code, out, err = run(capsys, "verify", runs)
    assert code == 1
    assert "metrics.summary.last_map: 0.9 against" in out
    assert "1 problems in 1 results" in err
    path.with_suffix(".npz").unlink()
    code, _, err = run(capsys, "rescore", runs)
    assert code == 1
    assert "left out" in err
    assert "1 of those copied came without predictions" in run(capsys, "merge", runs, "--into", str(tmp_path / "b"))[1]
    assert run(capsys, "export", runs, "--output", str(tmp_path))[0] == 1


def test_a_spreadsheet_takes_no_label_for_a_formula(store: Any, predictions: Any, tmp_path: Path, capsys: Any) -> None:
    names = ("=2+2", *(f"label {i}" for i in range(1, 7)))
    path = store(tmp_path, status="failed", error="=1+1", metrics=None)
    assert ",'=1+1" in run(capsys, "export", str(path))[1]
    store(tmp_path, made=dataclasses.replace(predictions(), label_names=names))
    assert ",'=2+2," in run(capsys, "rescore", str(path), "--by", "label", "--format", "csv")[1]


def test_calls_are_where_users_look() -> None:
    for name in ("read_result", "list_results", "verify_results", "rescore", "export_results", "merge_results"):
        assert callable(getattr(cml_bench, name))
        assert name in cml_bench.__all__
