"""``device=cuda``: a GPU says what a CPU says, stops and goes on, shares itself, and tells what it held."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cml_bench.registry import entries, load
from cml_bench.runs.events import Event
from cml_bench.runs.isolation import isolated
from cml_bench.runs.job import Job
from cml_bench.runs.results import result_files
from cml_bench.runs.run import run_job
from cml_bench.runs.sweep import execute

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

Jobs = Callable[..., list[Job]]

VIT = {
    "backbone": "vit_tiny_patch16_224",
    "backbone_options": json.dumps([["depth", 5], ["embed_dim", 24], ["num_heads", 2], ["patch_size", 8]]),
    "lr": "1e-3",
}
"""Layer norm does not magnify rounding, as batch norm does on a first batch."""

ROUNDING = 0.05
"""Standard deviations of logits: sums come in another order, or hold bfloat16."""

NO_DROPOUT = "head.dropout=0"
"""A GPU draws what to drop from a generator of its own."""


def spec(strategy: str) -> str:
    has_memory = any(field.name == "memory_size" for field in fields(load("strategies", strategy)))
    words = [strategy, "memory_size=10" if has_memory else "", NO_DROPOUT if strategy == "label_mask" else ""]
    return " ".join(filter(None, words))


METHODS = [
    *(spec(strategy) for strategy in entries("strategies")),
    *("naive head=dlfl", "dlfl memory_size=10 head=dlfl", f"naive head=query2label {NO_DROPOUT}"),
    *("naive wrap=pat", "naive frozen"),
]


@pytest.fixture(autouse=True)
def whole_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions in TF32, as cuDNN makes them, differ a thousand times as much from a CPU's (0.1 and 0.0001)."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def joined(blocks: Iterable[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    return np.concatenate([block.astype(np.float32).ravel() for block in blocks])


def logits(job: Job, **given: Any) -> np.ndarray[Any, Any]:
    return joined(run_job(job, **given).predictions.logits)


def difference(one: np.ndarray[Any, Any], two: np.ndarray[Any, Any]) -> float:
    """Root mean square difference of logits, in standard deviations of the first ones."""
    return float(np.sqrt(np.square(one - two).mean()) / one.std())


def pair(small_jobs: Jobs, method: str, **options: Any) -> list[Job]:
    """Return a job on the CPU and the same on the GPU."""
    if method.endswith(" frozen"):
        method, options = method.removesuffix(" frozen"), {**options, "frozen": "true", "augment": "false"}
    return [small_jobs([method], **{**VIT, **options}, device=device)[0] for device in ("cpu", "cuda")]


@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_says_what_a_cpu_says(small_jobs: Jobs, method: str) -> None:
    on_cpu, on_gpu = pair(small_jobs, method)
    made = run_job(on_gpu)
    assert difference(logits(on_cpu), joined(made.predictions.logits)) < ROUNDING
    peaks = made.result["cost"]["peak_gpu_memory_mb"]
    assert min(peaks[phase] for phase in ("training", "evaluation")) > 0


@pytest.mark.parametrize(
    "options", [{"precision": "bf16"}, {"compile": "true"}, {"precision": "bf16", "compile": "true"}]
)
def test_what_makes_it_fast_is_rounding(small_jobs: Jobs, options: dict[str, str]) -> None:
    plain, fast = pair(small_jobs, "naive head=dlfl")[1], pair(small_jobs, "naive head=dlfl", **options)[1]
    assert difference(logits(plain), logits(fast)) < 2 * ROUNDING


def test_stored_pixels_are_cut_on_the_gpu_as_on_a_cpu(small_jobs: Jobs) -> None:
    on_cpu, on_gpu = pair(small_jobs, "er memory_size=10", cache="pixels", augment="true")
    assert difference(logits(on_cpu), logits(on_gpu)) < ROUNDING


@pytest.mark.parametrize(
    "method", ["er memory_size=10 head=dlfl", "derpp memory_size=10 store=pixels", "ewc fisher_samples=8", "podnet"]
)
def test_a_job_that_is_stopped_goes_on(small_jobs: Jobs, tmp_path: Path, method: str) -> None:
    job = pair(small_jobs, method, epochs=2)[1]
    notes: list[str] = []

    class Stopped(BaseException):
        pass

    def report(event: Event) -> None:
        notes.append(event.message)
        if event.kind == "epoch" and event.experience == 1:
            raise Stopped

    with pytest.raises(Stopped):
        run_job(job, checkpoints=tmp_path, report=report)
    notes.clear()
    resumed = logits(job, checkpoints=tmp_path, report=lambda event: notes.append(event.message))
    assert any(note.startswith("goes on after experience 1") for note in notes)
    # Which of equal sums is taken first is the GPU's to say, every time anew.
    assert difference(logits(job), resumed) < 0.01


def test_jobs_share_a_gpu(small_jobs: Jobs, tmp_path: Path) -> None:
    jobs = [
        *small_jobs(["naive", "er memory_size=10"], **VIT, device="cuda"),
        *small_jobs(["naive"], seeds=[1], **VIT, device="cuda"),
    ]
    execute(jobs, tmp_path, workers=2, report=lambda event: None)
    results = [json.loads(path.read_text()) for path in result_files(tmp_path)]
    assert [result["status"] for result in results] == ["ok"] * len(jobs)


def test_the_generator_of_a_gpu_is_put_back() -> None:
    torch.cuda.manual_seed(3)
    state = torch.cuda.get_rng_state()
    with isolated(0, 1):
        torch.rand(3, device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), state)


def test_two_processes_take_means_over_whole_batches(small_jobs: Jobs, tmp_path: Path) -> None:
    environments = pytest.importorskip(
        "lightning_fabric.plugins.environments.lightning", reason="devices need the extra 'distributed'"
    )
    methods = ["naive", "er memory_size=10 head=dlfl"]
    # A resnet, whose batch norm would not say the same of halves; steps small enough not to magnify rounding.
    jobs = small_jobs(methods, device="cuda", lr="1e-3", batch_size="10", epochs="2")
    torch.save(jobs, tmp_path / "jobs.pt")
    program, port = Path(__file__).with_name("share_one_gpu.py"), environments.find_free_network_port()
    arguments = [str(port), str(tmp_path)]
    processes = [subprocess.Popen([sys.executable, program, str(rank), *arguments]) for rank in range(2)]
    assert [process.wait(300) for process in processes] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    for job, one, two in zip(jobs, first, second, strict=True):
        assert all(np.array_equal(*blocks) for blocks in zip(one, two, strict=True))
        assert difference(logits(job), joined(one)) < ROUNDING
