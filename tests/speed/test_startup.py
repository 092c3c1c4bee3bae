"""How long one waits before anything happens, and for the run without arguments.

Run with ``pytest tests/speed``: the figures come as one table at the end. Nothing fails on a clock.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import pytest

CLI = [sys.executable, "-m", "cml_bench.cli"]
COMMANDS = {
    "cml-bench --help": ([*CLI, "--help"], "<= 0.3"),
    "cml-bench list": ([*CLI, "list"], "<= 0.6"),
    "import torch": ([sys.executable, "-c", "import torch"], ""),
    "import avalanche": ([sys.executable, "-c", "import avalanche.training"], ""),
}


def seconds(command: list[str], folder: Path) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return time.perf_counter() - start


@pytest.mark.parametrize("what", COMMANDS)
def test_waiting_for_a_command(measured: Any, tmp_path: Path, what: str) -> None:
    command, goal = COMMANDS[what]
    measured(what, median([seconds(command, tmp_path) for _ in range(6)][1:]), "s", goal)


def test_the_run_without_arguments(measured: Any, tmp_path: Path) -> None:
    """Nine methods with two seeds on digits, from an empty folder to the table; then the page that it tells of."""
    measured("cml-bench run, no arguments", seconds([*CLI, "run"], tmp_path), "s", "<= 90")
    measured("cml-bench report of that run", seconds([*CLI, "report", "results/runs"], tmp_path), "s")
