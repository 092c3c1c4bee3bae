"""Collects what is measured here into one table: each figure beside its peer or floor, and the goal of the design."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import cml_bench

Measured = Callable[..., None]

_ROWS = pytest.StashKey[list[dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--speed-csv", type=Path, help="add the figures of this run to a CSV file")
    parser.addoption("--scale", type=Path, help="folder for figures of growth: scale.csv and scale.svg")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = []


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Return a function that keeps one figure.

    Its arguments: what was measured, the figure, its unit (with the peer, where it is a ratio), and the goal as text
    such as ``<= 1.1``, empty where there is none.
    """

    def keep(what: str, figure: float, unit: str, goal: str = "") -> None:
        row = {
            "what": what,
            "figure": float(f"{figure:.3g}"),
            "unit": unit,
            "goal": goal,
            "reached": _reached(figure, goal),
        }
        request.config.stash[_ROWS].append(row)

    return keep


def _reached(figure: float, goal: str) -> str:
    if not goal:
        return ""
    sign, bound = goal.split()
    return "yes" if (figure <= float(bound) if sign == "<=" else figure >= float(bound)) else "NO"


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = pd.DataFrame(config.stash[_ROWS])
    if rows.empty:
        return
    terminalreporter.section(f"measured: {_machine()}")
    terminalreporter.write_line(rows.to_markdown(index=False))
    path = config.getoption("--speed-csv")
    if path:
        rows = rows.assign(machine=_machine())
        # A figure measured again takes the place of the one before.
        known = [pd.read_csv(path, keep_default_na=False)] if path.exists() else []
        rows = pd.concat([*known, rows]).drop_duplicates(["what", "unit", "machine"], keep="last")
        rows.to_csv(path, index=False)


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cpu = f"{len(names)} x {names[0]}" if names else platform.processor()
    if torch.cuda.is_available():
        cpu += f", {torch.cuda.get_device_name()}"
    return f"{cpu}, Python {platform.python_version()}, torch {torch.__version__}, cml_bench {cml_bench.__version__}"


MAKE = """
import sys
from pathlib import Path
import numpy as np
from cml_bench.data.table import LabelTable

n, n_labels, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
rng = np.random.default_rng(0)
labels = np.zeros((n, n_labels), dtype=np.int8)
for _ in range(3):
    labels[np.arange(n), (rng.pareto(1.0, n) * 5).astype(int) % n_labels] = 1
files = np.array([f"train/{i:012d}.jpg" for i in range(n)])
names = tuple(f"label{i}" for i in range(n_labels))
LabelTable(label_names=names, ids=np.arange(n), labels=labels, files=files).save(folder / "table.npz")
"""


@pytest.fixture
def made_table() -> str:
    """Return a program that writes ``FOLDER/table.npz``, about three labels an image; its arguments: N, C, FOLDER."""
    return MAKE
