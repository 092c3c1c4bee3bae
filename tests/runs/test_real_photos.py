"""The main job on real photos, as the reference table runs it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cml_bench.runs.job import make_jobs
from cml_bench.runs.run import run_job

DATA = Path(os.environ.get("CML_BENCH_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
PHOTOS, WEIGHTS = DATA / "coco18", DATA / "weights" / "mobilenetv2_100.tf_in1k.safetensors"


@pytest.mark.slow
@pytest.mark.skipif(
    not (PHOTOS.is_dir() and WEIGHTS.is_file()),
    reason=f"real data not there: {PHOTOS} and {WEIGHTS} (set CML_BENCH_TEST_DATA)",
)
def test_the_unknown_label_rule_moves_naive_as_in_the_reference_table() -> None:
    """Features of 8,000 photos take minutes the first time. The table has 52.3 and 32.5 over three seeds."""
    options = [
        *(f"root={PHOTOS}", f"checkpoint={WEIGHTS}", "backbone=mobilenetv2_100", "image_size=224", "frozen=true"),
        *("increment=3", "epochs=10", "batch_size=128", "lr=0.004", "weight_decay=0.1", "schedule=cosine"),
    ]
    methods = ["naive", "naive loss=assume_negative loss.scope=seen"]
    known, assumed = (run_job(job) for job in make_jobs(["split_coco"], methods, ["default"], [0], options))
    assert known.result["data"]["train"]["counts"]["labels"] == 10_007
    assert known.result["data"]["test"]["counts"]["images"] == 1_500
    assert known.result["backbone"]["pretraining"] == "ImageNet-1k"
    assert known.result["metrics"]["summary"]["last_map"] == pytest.approx(0.523, abs=0.01)
    assert assumed.result["metrics"]["summary"]["last_map"] == pytest.approx(0.325, abs=0.01)
