"""What a benchmark costs before the first image is seen: from a stored label table to a stream.

Run with ``pytest tests/speed``. Each size runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SIZES = {"COCO": (82_081, 80), "NUS-WIDE": (161_789, 81), "a million": (1_000_000, 500)}

SCRIPT = """
import json, sys, time
from pathlib import Path
import numpy as np
from cml_bench.data.image_files import ImageFiles
from cml_bench.data.table import LabelTable
from cml_bench.runs.cost import peak_resident_mb
from cml_bench.streams.builder import label_incremental_benchmark

n, n_labels, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
before = peak_resident_mb()
start = time.perf_counter()
table = LabelTable.load(folder / "table.npz")
loaded = time.perf_counter()
sources = [ImageFiles(table, folder, name="made", split=split, missing="ignore") for split in ("train", "test")]
scenario = label_incremental_benchmark(*sources, class_order="random:1", increment=n_labels // 10)
built = time.perf_counter()
print(json.dumps({"load": loaded - start, "build": built - loaded, "megabytes": peak_resident_mb() - before,
                  "images": sum(len(experience.dataset) for experience in scenario.train_stream)}))
"""


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", SIZES)
def test_a_stream_from_a_stored_table(
    benchmark: Any, measured: Any, made_table: str, tmp_path: Path, name: str
) -> None:
    n, n_labels = SIZES[name]
    run(made_table, n, n_labels, tmp_path)
    made = benchmark.pedantic(lambda: json.loads(run(SCRIPT, n, n_labels, tmp_path)), rounds=1)
    what = f"a stream from a stored table of {n:,} x {n_labels}"
    coco = name == "COCO"
    measured(what, made["load"] + made["build"], "s", "<= 1" if coco else "")
    # Two sources share one table of n x labels bytes.
    measured(what, made["megabytes"] - n * n_labels / 2**20, "MB above its table", "<= 100" if coco else "")
