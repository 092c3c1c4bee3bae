"""Seeds are private: the process is left as it was, and inside everything is seeded."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from cml_bench.runs.cost import CostMeter
from cml_bench.runs.isolation import isolated


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002


def test_inside_everything_follows_the_seed() -> None:
    found = []
    for seed in (3, 3, 4):
        with isolated(seed, 1):
            found.append(draws())
    assert found[0] == found[1]
    assert all(a != b for a, b in zip(found[0], found[2], strict=True))


@pytest.mark.parametrize("fails", [False, True])
def test_outside_nothing_has_happened(fails: bool) -> None:
    threads = torch.get_num_threads()
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    expected = draws()
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    try:
        with isolated(2**40 + 5, threads + 1):
            assert torch.get_num_threads() == threads + 1
            draws()
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert draws() == expected
    assert torch.get_num_threads() == threads


def test_costs_add_up_by_phase_and_survive_failure() -> None:
    meter = CostMeter()
    with meter.phase("training"):
        held = np.ones(40 * 2**20 // 8)
    first = meter.seconds["training"]
    with pytest.raises(RuntimeError), meter.phase("training"):
        raise RuntimeError
    assert meter.seconds["training"] > first > 0
    assert meter.peak_memory_mb["training"] > held.nbytes / 2**20


def test_a_phase_goes_on_after_one_within_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint within an experience is no part of training, and what follows it is."""
    now = 0.0
    monkeypatch.setattr("cml_bench.runs.cost.time.perf_counter", lambda: now)
    meter = CostMeter()
    with meter.phase("training"):
        now += 2
        with meter.phase("checkpoint"):
            now += 1
        now += 4
    assert meter.seconds == {"training": 6, "checkpoint": 1}


def test_the_gpu_that_is_asked_is_the_jobs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is at hand: what torch would be asked is written down in its place."""
    asked: list[object] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", asked.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: asked.append(device) or 3 * 2**20)
    for device, expected, questions in (("cpu", {}, []), ("cuda:1", {"training": 3.0}, [torch.device("cuda:1")] * 2)):
        asked.clear()
        meter = CostMeter(device)
        with meter.phase("training"):
            pass
        assert meter.peak_gpu_memory_mb == expected
        assert asked == questions
        assert meter.peak_memory_mb["training"] > 10
