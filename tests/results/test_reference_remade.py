"""Rows of the reference tables are made again by their suite files: a table that the code has left behind is found."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cml_bench.runs.job import Job
from cml_bench.runs.run import run_job
from cml_bench.runs.sweep import read_suite

REFERENCE = Path(__file__).resolve().parents[2] / "results" / "reference"
DATA = Path(os.environ.get("CML_BENCH_TEST_DATA", REFERENCE.parents[2] / "shared" / "data"))
PHOTOS = (f"root={DATA / 'coco18'}", f"checkpoint={DATA / 'weights' / 'mobilenetv2_100.tf_in1k.safetensors'}")
FEATURES = (f"root={DATA / 'features'}",)
NAIVE = "naive head=linear loss=assume_negative loss.scope=seen"
FROZEN, TRAINED = 0.01, 0.06
"""How far last mAPs may lie apart between kinds of CPU, whose sums round otherwise: little on given features."""
ROWS = [
    ("coco18/table.csv", "suite.yaml", PHOTOS, "er head=linear memory_size=500", FROZEN),
    ("coco18_orders/table.csv", "suite.yaml", PHOTOS, NAIVE, FROZEN),
    ("coco18_search/table.csv", "suite.yaml", PHOTOS, NAIVE, FROZEN),
    ("coco18_protocols/jobs.csv", "suite.yaml", PHOTOS, NAIVE, FROZEN),
    ("coco18_heads/jobs.csv", "suite.yaml", PHOTOS, NAIVE.replace("linear", "dlfl"), FROZEN),
    ("coco18_losses/jobs.csv", "stream_full.yaml", PHOTOS, "naive head=linear loss=an lr=0.004", FROZEN),
    ("corel5k/jobs.csv", "suite.yaml", FEATURES, NAIVE, FROZEN),
    ("corel5k/heads.csv", "heads.yaml", FEATURES, NAIVE.replace("linear", "dlfl"), FROZEN),
    ("digits/table.csv", "suite.yaml", (), "naive head=linear", TRAINED),
    ("digits_grid/jobs.csv", "full.yaml", (), NAIVE, TRAINED),
    ("heads_losses/table.csv", "suite.yaml", (), "naive head=linear loss=an", TRAINED),
    ("heads_losses/coco18.csv", "coco18.yaml", PHOTOS, "naive head=linear loss=an", FROZEN),
    ("online_long_tail/table.csv", "suite.yaml", PHOTOS, "er head=linear memory_size=200", FROZEN),
    ("online_long_tail/crops.csv", "crops.yaml", PHOTOS, NAIVE, TRAINED),
]


def jobs_of(row: pd.Series[Any], suite: Path, places: tuple[str, ...]) -> list[Job]:
    """The jobs of a suite that a row of its table stands for: one, or those that its mean is over."""
    if "benchmark_options" in row:
        given = json.loads(row["benchmark_options"])
    else:
        given = {name: str(row[name]) for name in ("annotation", "assignment", "base") if name in row}
    one = {name: row[name] for name in ("class_order", "seed") if name in row}
    return [
        job
        for job in read_suite(suite, places).jobs
        if job.method == row["method"]
        and given.items() <= dict(job.options).items()
        and all(getattr(job, name) == value for name, value in one.items())
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("table", "suite", "places", "method", "near"), ROWS, ids=[row[0] for row in ROWS])
def test_a_row_is_made_again(table: str, suite: str, places: tuple[str, ...], method: str, near: float) -> None:
    """Features of 8,000 photos take minutes the first time."""
    missing = [place.partition("=")[2] for place in places if not Path(place.partition("=")[2]).exists()]
    if missing:
        pytest.skip(f"real data not there: {', '.join(missing)} (set CML_BENCH_TEST_DATA)")
    rows = pd.read_csv(REFERENCE / table)
    row = rows[rows["method"] == method].iloc[0]
    jobs = jobs_of(row, (REFERENCE / table).with_name(suite), places)
    assert len(jobs) == row.get("n", 1)
    found = np.mean([run_job(job).result["metrics"]["summary"]["last_map"] for job in jobs])
    assert found == pytest.approx(row["last_map_mean" if "last_map_mean" in row else "last_map"], abs=near)
