"""How long ten methods with three seeds take on 8,000 photos whose features are cached.

Run with ``pytest tests/speed``: the figures come as one table at the end. Nothing fails on a clock.
Needs the photos and weights in ``CML_BENCH_TEST_DATA``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

METHODS = (
    "naive",
    "joint",
    "cumulative",
    "er memory_size=500",
    "er_herding memory_size=500",
    "derpp memory_size=500",
    "lwf",
    "ewc",
    "l3a",
    "dlfl head=linear memory_size=500 loss=assume_negative loss.scope=seen",
)
SETTINGS = "increment=3 frozen=true augment=false image_size=224 epochs=10 batch_size=128 lr=0.004 schedule=cosine"


def test_ten_methods_three_seeds(measured: Any, tmp_path: Path) -> None:
    data = Path(os.environ.get("CML_BENCH_TEST_DATA", Path(__file__).parents[3] / "shared/data"))
    weights = data / "weights/mobilenetv2_100.tf_in1k.safetensors"
    if not weights.exists() or not (data / "coco18").exists():
        pytest.skip(f"coco18 or MobileNetV2's weights are missing in {data}; set CML_BENCH_TEST_DATA")
    chosen = f"root={data / 'coco18'} checkpoint={weights} backbone=mobilenetv2_100 {SETTINGS}"
    command = [sys.executable, "-m", "cml_bench.cli", "run", "split_coco", "--results", str(tmp_path)]
    command += [part for setting in chosen.split() for part in ("--set", setting)]

    def run(seeds: str, methods: tuple[str, ...]) -> float:
        start = time.perf_counter()
        named = [part for method in methods for part in ("--method", method)]
        done = subprocess.run([*command, *named, "--seeds", seeds], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return time.perf_counter() - start

    run("1", ("naive",))  # stores the features
    measured("10 methods x 3 seeds on 8,000 photos, features cached", run("3", METHODS) / 60, "min", "<= 10")
