"""What a run costs: seconds and peak memory by phase, images trained on, and what the learner holds."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from avalanche.core import SupervisedPlugin

from cml_bench.runs.footprint import Footprint

_MIB = 1024.0


class CostMeter:
    """Adds up wall-clock seconds and keeps the peak memory of named phases; one within another is no part of that.

    Args:
        device: What the job computes on.

    Attributes:
        seconds: Phase to seconds.
        peak_memory_mb: Phase to MiB, the resident set of the process.
        peak_gpu_memory_mb: Phase to MiB, the most that torch held of the job's GPU; empty on a CPU.
        images: Images of all training batches, as often as they came; those of a memory where they are joined to the
            batch, not draws of their own.
        epochs: Epochs trained, those of chunks and of all clients each for itself; see ``tested``.
        footprint: The most that the learner held.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.seconds: dict[str, float] = {}
        self.peak_memory_mb: dict[str, float] = {}
        self.peak_gpu_memory_mb: dict[str, float] = {}
        self.images = 0
        self.epochs = 0
        self._tested = 0
        self.footprint = Footprint()
        # A GPU that the job does not use is not asked: that alone would take hundreds of megabytes of it.
        self._gpu = torch.device(device) if torch.device(device).type == "cuda" else None
        self._phase: str | None = None
        self._began = 0.0

    def store(self) -> dict[str, Any]:
        """Return what was measured as JSON-ready data."""
        return {
            "seconds": self.seconds,
            "peak_memory_mb": self.peak_memory_mb,
            "peak_gpu_memory_mb": self.peak_gpu_memory_mb,
            "images": self.images,
            "epochs": self.epochs,
            "tested": self._tested,
            "footprint": asdict(self.footprint),
        }

    def add(self, stored: dict[str, Any]) -> None:
        """Add what was measured before the job was interrupted."""
        for phase, seconds in stored["seconds"].items():
            self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
        for phase, peak in stored["peak_memory_mb"].items():
            _raise(self.peak_memory_mb, phase, peak)
        for phase, peak in stored["peak_gpu_memory_mb"].items():
            _raise(self.peak_gpu_memory_mb, phase, peak)
        self.images += stored["images"]
        self.epochs += stored["epochs"]
        self._tested = max(self._tested, stored["tested"])
        self.footprint.raise_to(**stored["footprint"])

    def tested(self) -> int:
        """Return the epochs trained before a test; one that follows on another without training counts as one more.

        So the figures after each experience have a place of their own, also those of a learner that has trained before.
        """
        self.epochs = self._tested = max(self.epochs, self._tested + 1)
        return self.epochs

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
            _raise(self.peak_memory_mb, self._phase, peak_resident_mb())
            if self._gpu is not None:
                _raise(self.peak_gpu_memory_mb, self._phase, torch.cuda.max_memory_allocated(self._gpu) / _MIB**2)
        if phase is not None:
            # Linux resets the high-water mark of a process that writes 5 here; elsewhere the peak is that of the whole
            # process.
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
            if self._gpu is not None:
                torch.cuda.reset_peak_memory_stats(self._gpu)
        self._phase, self._began = phase, now


class ImageCounter(SupervisedPlugin):
    """Counts the images of training batches; every learner of Avalanche has these."""

    def __init__(self, meter: CostMeter) -> None:
        super().__init__()
        self.meter = meter

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Count one batch."""
        self.meter.images += len(strategy.mb_x)


def _raise(peaks: dict[str, float], phase: str, value: float) -> None:
    peaks[phase] = max(value, peaks.get(phase, 0.0))


def peak_resident_mb() -> float:
    """Return the most megabytes (of 1024 x 1024 bytes) that this process has held.

    ``ru_maxrss`` is the last resort: a program that a large process starts begins with the peak of that one.
    """
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / _MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB
