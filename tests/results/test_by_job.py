"""A row a job: what the files say, the settings that differ, metrics that no run has stored."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cml_bench import CmlBenchError, export_jobs, rescore
from cml_bench.cli import main


@pytest.fixture
def runs(store: Any, change: Any, tmp_path: Path) -> Path:
    """Three jobs, of which one had another setting; one that failed; one that breaks off."""
    folder = tmp_path / "runs"
    store(folder, seed=1)
    store(folder, method="naive")
    change(store(folder, seed=2), "job", "benchmark_options", to={"epochs": "1", "augment": "true"})
    store(folder, seed=3, status="failed", error="=NaN", metrics=None)
    store(folder, seed=4).write_text("{")
    return folder


def test_a_row_says_what_the_file_says(runs: Path) -> None:
    rows = export_jobs(runs)
    done = rows[rows["status"] == "ok"]
    assert len(done) == 3
    texts = [path.read_text() for path in runs.rglob("*.json")]
    files = {result["key"]: result for result in (json.loads(text) for text in texts if text != "{")}
    for _, row in done.iterrows():
        result = files[row["key"]]
        assert [row["method"], row["seed"]] == [result["job"]["method"], result["job"]["seed"]]
        for name, value in result["metrics"]["summary"].items():
            assert row[name] == pytest.approx(np.nan if value is None else value, nan_ok=True)
        assert [row["training_seconds"], row["images_per_second"], row["stored_images"]] == [3.0, 400.0, 50]
    # epochs, which all have, is no column.
    assert "epochs" not in rows
    assert done.loc[done["augment"].notna(), ["seed", "augment"]].to_numpy().tolist() == [[2, "true"]]
    broken = rows[rows["status"] != "ok"].set_index("status")
    assert broken.loc["failed", "error"] == "=NaN"
    assert "breaks off" in broken.loc["unreadable", "error"]
    assert broken["last_map"].isna().all()


def test_nothing_to_read_is_told(store: Any, tmp_path: Path) -> None:
    store(tmp_path).write_text("{")
    assert export_jobs(tmp_path)["status"].tolist() == ["unreadable"]


def test_a_metric_that_no_run_stored_is_computed(runs: Path) -> None:
    wanted = ["cf1_macro@0.6", "last_map_minor", "seconds"]
    rows = export_jobs(runs, wanted)
    assert rows.columns.tolist()[-4:] == ["last_cf1_macro@0.6", "last_map_minor", "seconds", "error"]
    done = rows[rows["status"] == "ok"].set_index("key")
    anew = rescore(runs, ["last_cf1_macro@0.6", "last_map_minor"]).rows.set_index("key").loc[done.index]
    for name in ("last_cf1_macro@0.6", "last_map_minor"):
        np.testing.assert_allclose(done[name], anew[name])
    assert export_jobs(runs, "last_map").columns.tolist()[-2:] == ["last_map", "error"]
    for name, sentence in (
        ("accuracy", "'accuracy'"),
        ("cf1@0.6", "did you mean 'cf1_macro' or 'cf1_harmonic'?"),
        ("last_map@0.5", "mAP ranks without one: leave it out"),
    ):
        with pytest.raises(CmlBenchError, match=sentence):
            export_jobs(runs, [name])


def test_rows_of_a_figure_have_no_columns_to_choose(runs: Path, tmp_path: Path, capsys: Any) -> None:
    def run(*words: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["results", "export", str(runs), *words])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    code, out, _ = run("--by", "job", "--metric", "last_map", "--metric", "training_seconds")
    assert not code
    assert ",'=NaN" in out
    rows = pd.read_csv(io.StringIO(out))
    assert rows.columns.tolist() == [
        *("key", "status", "benchmark", "method", "augment", "class_order", "seed"),
        *("last_map", "training_seconds", "error"),
    ]
    assert rows["seed"].dropna().tolist() == [2, 1, 3, 0]
    code, _, err = run("--metric", "last_map")
    assert code
    assert "add --by job" in err
    code, _, err = run("--output", str(tmp_path / "all.xlsx"))
    assert code
    assert "all.csv" in "".join(err.split())


def test_an_option_that_is_called_like_a_column_stands_beside_it(store: Any, change: Any, tmp_path: Path) -> None:
    store(tmp_path)
    change(store(tmp_path, seed=1), "job", "benchmark_options", to={"class_order": "alphabetical"})
    rows = export_jobs(tmp_path)
    assert set(rows["class_order"]) == {"default"}
    assert sorted(rows["option class_order"].dropna()) == ["alphabetical"]
