"""``precision=bf16`` and ``compile=true`` in a run: nearly the same predictions, float32 parameters and checkpoints."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from cml_bench.errors import CmlBenchError
from cml_bench.runs.check import check_jobs
from cml_bench.runs.job import Job
from cml_bench.runs.plan import plan
from cml_bench.runs.run import run_job
from cml_bench.runs.setup import make_backbone, make_model
from cml_bench.streams.dataset import MultiLabelDataset

VIT = {
    "backbone": "vit_tiny_patch16_224",
    "backbone_options": json.dumps([["depth", 5], ["embed_dim", 24], ["num_heads", 2], ["patch_size", 8]]),
    "lr": "1e-3",
}
"""A small ViT: batch norm on a first batch magnifies rounding, layer norm does not."""


def logits(job: Job, **given: Any) -> Any:
    return np.concatenate([block.astype(np.float32).ravel() for block in run_job(job, **given).predictions.logits])


def difference(job: Job, other: Job) -> float:
    """Root mean square difference of two jobs' logits, in standard deviations of the first's."""
    first, second = logits(job), logits(other)
    return float(np.sqrt(np.square(first - second).mean()) / first.std())


@pytest.mark.parametrize(
    "method",
    [
        *(
            "naive head=dlfl",
            "dlfl memory_size=20",
            "ewc fisher_samples=8",
            "er_herding memory_size=20",
            "l2p",
            "ridge",
        ),
        *(
            pytest.param(method, marks=pytest.mark.slow)
            for method in ("naive", "lwf", "feature_distillation", "podnet")
        ),
        *(pytest.param(f"{name} memory_size=20", marks=pytest.mark.slow) for name in ("bic", "mir")),
    ],
)
def test_bf16_is_float32_but_for_rounding(small_jobs: Any, method: str) -> None:
    """bfloat16 keeps 8 bits: differences of a percent are rounding, a step left out or taken twice is more."""
    (exact,), (rounded,) = small_jobs([method], **VIT), small_jobs([method], **VIT, precision="bf16")
    assert 0 < difference(exact, rounded) < 0.1


@pytest.mark.parametrize("head", ["linear", "dlfl"])
def test_the_trunk_computes_in_bf16_and_all_that_is_kept_is_float32(small_jobs: Any, head: str) -> None:
    (job,) = small_jobs([f"naive head={head}"], precision="bf16")
    resolved = plan(job)
    sources = resolved.benchmark.sources()
    model = make_model(resolved, make_backbone(resolved, sources))
    seen: list[torch.dtype] = []
    for module in model.backbone.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    model.head.grow(("a", "b"))
    output = model.head_output(torch.zeros(4, 3, 32, 32))
    features = model.backbone(torch.zeros(4, 3, 32, 32))
    assert set(seen) == {torch.bfloat16}
    assert {part.dtype for part in (output.logits, output.pooled, features)} == {torch.float32}
    output.logits.sum().backward()
    trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
    assert trained
    assert {part.dtype for parameter in trained for part in (parameter, parameter.grad)} == {torch.float32}


def test_checkpoints_go_on_to_the_bit(small_jobs: Any, tmp_path: Path) -> None:
    (job,) = small_jobs(["er memory_size=20"], precision="bf16", increment=4)
    whole = logits(job, checkpoints=tmp_path / "a")
    newest, *_ = sorted((tmp_path / "a").glob("*.safetensors"), reverse=True)
    (tmp_path / "b").mkdir()
    os.link(newest, tmp_path / "b" / newest.name)
    notes: list[str] = []
    resumed = logits(job, checkpoints=tmp_path / "b", report=lambda event: notes.append(event.message))
    assert any("goes on after" in note for note in notes)
    assert np.array_equal(whole, resumed)


def test_evaluation_batches_have_a_size_of_their_own(small_jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[bool, int]] = []
    whole = MultiLabelDataset.batch

    def batch(self: MultiLabelDataset, indices: Any) -> Any:
        sizes.append((self.group == "train", len(indices)))
        return whole(self, indices)

    monkeypatch.setattr(MultiLabelDataset, "batch", batch)
    (job,), (other,) = small_jobs(batch_size=16, eval_batch_size=7), small_jobs(batch_size=16)
    first = logits(job)
    assert max(size for training, size in sizes if training) == 16
    assert max(size for training, size in sizes if not training) == 7
    # An image's logits do not depend on its neighbours, but for the order of sums in a matrix product.
    assert np.allclose(first, logits(other), atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["er memory_size=20", "feature_distillation", "ewc fisher_samples=8"])
def test_a_compiled_backbone_learns_the_same(small_jobs: Any, tmp_path: Path, method: str) -> None:
    shallow = {**VIT, "backbone_options": VIT["backbone_options"].replace('"depth", 5', '"depth", 1')}
    (plain,), (compiled,) = small_jobs([method], **shallow), small_jobs([method], **shallow, compile="true")
    torch.compiler.reset()
    counters.clear()
    made = logits(compiled, checkpoints=tmp_path)
    assert counters["stats"]["unique_graphs"] > 0
    assert np.allclose(logits(plain), made, atol=2e-2)
    assert list(tmp_path.glob("*.safetensors"))


def test_what_cannot_be(small_jobs: Any) -> None:
    with pytest.raises(CmlBenchError, match="precision='fp16' of training cannot be used"):
        plan(*small_jobs(precision="fp16"))
    with pytest.raises(CmlBenchError, match="compile=true compiles the backbone, which frozen=true runs once"):
        plan(*small_jobs(compile="true", frozen="true"))
    with pytest.raises(CmlBenchError, match="eval_batch_size=0 must be at least 1"):
        plan(*small_jobs(eval_batch_size=0))
    with pytest.raises(CmlBenchError, match="compile=true is about a backbone that trains as a whole, and with 'l2p'"):
        check_jobs(small_jobs(["l2p"], **VIT, compile="true"))
