"""What a run costs: seconds and peak memory by phase, and what the learner holds."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cml_bench.runs.footprint import Footprint

_MIB = 1024.0


class CostMeter:
    """Adds up wall-clock seconds and keeps the peak memory of named phases; one within another is no part of that.

    Attributes:
        seconds: Phase to seconds.
        peak_memory_mb: Phase to MiB: the resident set of the process; on a GPU also ``<phase>_gpu``, torch's peak.
        footprint: The most that the learner held.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak_memory_mb: dict[str, float] = {}
        self.footprint = Footprint()
        self._phase: str | None = None
        self._began = 0.0

    def store(self) -> dict[str, Any]:
        """Return what was measured as JSON-ready data."""
        return {
            "seconds": self.seconds,
            "peak_memory_mb": self.peak_memory_mb,
            "footprint": asdict(self.footprint),
        }

    def add(self, stored: dict[str, Any]) -> None:
        """Add what was measured before the job was interrupted."""
        for phase, seconds in stored["seconds"].items():
            self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
        for phase, peak in stored["peak_memory_mb"].items():
            self._keep(phase, peak)
        self.footprint.raise_to(**stored["footprint"])

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure one stretch of a phase."""
        outer = self._phase
        self._change(name)
        try:
            yield
        finally:
            self._change(outer)

    def _change(self, phase: str | None) -> None:
        now = time.perf_counter()
        if self._phase is not None:
            self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._began
            self._keep(self._phase, _peak_resident_mb())
            if torch.cuda.is_available():
                self._keep(f"{self._phase}_gpu", torch.cuda.max_memory_allocated() / _MIB**2)
        if phase is not None:
            _reset_peaks()
        self._phase, self._began = phase, now

    def _keep(self, name: str, value: float) -> None:
        self.peak_memory_mb[name] = max(value, self.peak_memory_mb.get(name, 0.0))


def _reset_peaks() -> None:
    # Linux resets the high-water mark of a process that writes 5 here; elsewhere the peak is that of the whole process.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_resident_mb() -> float:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / _MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB
