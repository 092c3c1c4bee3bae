"""Whoever is asked to end twice."""

from __future__ import annotations

import subprocess
import sys

import pytest

TWICE = """
import signal, sys, time
from cml_bench.runs.stopping import Terminated, terminable

try:
    with terminable():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            time.sleep(float(sys.argv[1]))
            signal.raise_signal(signal.SIGTERM)
except Terminated:
    sys.exit(143)
"""


@pytest.mark.parametrize(("pause", "status"), [("0", 143), ("1.2", -15)])
def test_two_signals_at_once_are_one_request_and_a_later_one_ends_the_process(pause: str, status: int) -> None:
    """Timeout sends one to its command and another to the group that the command is in."""
    assert subprocess.run([sys.executable, "-c", TWICE, pause], check=False).returncode == status
