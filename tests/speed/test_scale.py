"""How time and memory grow with a data set: build a stream, train an experience, choose exemplars, evaluate.

Run with ``pytest tests/speed/test_scale.py --scale FOLDER``, which keeps the figures and draws them. Labels are made,
features are a stand-in for cached ones. Each size runs in a process of its own, whose peak memory is its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

SERIES = [(n, 80) for n in (10_000, 30_000, 100_000, 300_000, 1_000_000)]
NAMED = {"COCO": (82_081, 80), "NUS-WIDE": (161_789, 81), "OpenImages": (1_000_000, 500)}
STAGES = Path(__file__).with_name("scale_stages.py")


def measure(n: int, n_labels: int, folder: Path, make: str) -> pd.DataFrame:
    """Return one row a stage: seconds, and the most megabytes held by its end."""
    subprocess.run([sys.executable, "-c", make, str(n), str(n_labels), str(folder)], check=True)
    command = [sys.executable, str(STAGES), str(n), str(n_labels), str(folder)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    frame = pd.DataFrame.from_dict(told["stages"], orient="index").rename_axis("stage").reset_index()
    return frame.assign(images=n, labels=n_labels, first_experience=told["images"])


def test_nothing_grows_faster_than_the_data(
    measured: Any, made_table: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Exponents of time in images, from 100,000 to 1,000,000 of them; 1 is linear."""
    sizes = sorted({*SERIES, *NAMED.values()})
    frame = pd.concat([measure(*size, tmp_path, made_table) for size in sizes], ignore_index=True)
    series = frame[frame["labels"] == 80].pivot_table(index="images", columns="stage", values=["seconds", "megabytes"])
    for stage in frame["stage"].unique():
        few, many = series.loc[100_000, ("seconds", stage)], series.loc[1_000_000, ("seconds", stage)]
        measured(f"growth of {stage} with images", float(np.log10(many / few)), "exponent of time", "<= 1.1")
    held = series["megabytes"].max(axis=1)
    measured(
        "growth of peak memory with images", float(np.log10(held[1_000_000] / held[100_000])), "exponent", "<= 1.1"
    )
    for name, (n, n_labels) in NAMED.items():
        one = frame[(frame["images"] == n) & (frame["labels"] == n_labels)]
        measured(f"{name}, {n:,} x {n_labels}, all stages", one["seconds"].sum(), "s")
        measured(f"{name}, {n:,} x {n_labels}, all stages", one["megabytes"].max(), "MB")
    folder = pytestconfig.getoption("--scale")
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        frame.round(4).to_csv(folder / "scale.csv", index=False)
        draw(frame).savefig(folder / "scale.svg")


def draw(frame: pd.DataFrame) -> Any:
    """Seconds a stage and peak memory against images, both logarithmic; a line is 80 labels."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    line, named = frame[frame["labels"] == 80], frame[frame["images"] == 1_000_000]
    for stage, colour in zip(frame["stage"].unique(), plt.get_cmap("tab10").colors, strict=False):
        one = line[line["stage"] == stage]
        left.plot(one["images"], one["seconds"], marker="o", markersize=3, color=colour, label=stage)
        wide = named[(named["stage"] == stage) & (named["labels"] == 500)]
        left.plot(wide["images"], wide["seconds"], marker="x", color=colour, linestyle="none")
    peaks = frame.groupby(["labels", "images"])["megabytes"].max()
    right.plot(peaks[80].index, peaks[80], marker="o", markersize=3, color="black", label="80 labels")
    right.plot([1_000_000], [peaks[500].max()], marker="x", color="black", linestyle="none", label="500 labels")
    for axes, title in ((left, "seconds"), (right, "peak memory, MB")):
        axes.set(xscale="log", yscale="log", xlabel="images", title=title)
        lowest, (first, last) = axes.get_ylim()[0], (line["images"].min(), line["images"].max())
        axes.plot([first, last], [lowest, lowest * last / first], color="grey", linestyle=":", label="linear")
        axes.legend(fontsize=7)
    return figure
