"""The operating system's own conditions: small and read-only file systems, processes to kill."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cml_bench.runs.engines.processes import warm_up


class Disk:
    """A file system in memory."""

    def __init__(self, folder: Path, size: str) -> None:
        self.folder = folder
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)

    def make_read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], check=True)

    def fill(self, left: int = 0) -> Path:
        """Leave so many free bytes, rounded to pages; return the file that takes the others."""
        ballast = self.folder / "ballast"
        ballast.write_bytes(b"\0" * (self.free() - left))
        return ballast

    def free(self) -> int:
        state = os.statvfs(self.folder)
        return state.f_bavail * state.f_frsize


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Disk]]:
    """Make a file system of a size, as ``"256k"``."""
    if os.geteuid():
        pytest.skip("file systems are mounted by root only")
    disks: list[Disk] = []

    def make(size: str) -> Disk:
        try:
            disks.append(Disk(tmp_path / f"disk{len(disks)}", size))
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no tmpfs can be mounted here ({error})")
        return disks[-1]

    yield make
    for each in disks:
        subprocess.run(["umount", "-l", str(each.folder)], check=True)


@pytest.fixture(scope="session")
def server() -> Any:
    """Give the way to start processes that have imported everything already."""
    warm_up()
    return multiprocessing.get_context("forkserver")


def wait_until(condition: Callable[[], object], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """Wait for a condition."""
    return wait_until


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[..., str]:
    """Make a strategy that does something of its own when it starts, or at an event of training."""

    def make(name: str, body: str = "pass", event: str = "before_training") -> str:
        path = tmp_path / f"{name}.py"
        lines = "\n".join(f"        {line}" for line in body.splitlines())
        path.write_text(
            "from dataclasses import dataclass\n"
            "from avalanche.core import SupervisedPlugin\n"
            "from cml_bench.training.strategy import Strategy, StrategyMeta\n"
            "class Does(SupervisedPlugin):\n"
            f"    def {event}(self, strategy, **kwargs):\n{lines}\n"
            "@dataclass(frozen=True)\n"
            "class Mine(Strategy):\n"
            f"    meta = StrategyMeta(name='{name}', title='{name}', family='test')\n"
            "    def plugins(self, run):\n"
            "        return [Does()]\n"
        )
        return f"{path}:Mine"

    return make
