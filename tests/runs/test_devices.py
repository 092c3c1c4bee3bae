"""``devices=2``: two processes that share a job say what one says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.multiprocessing import start_processes

from cml_bench.errors import CmlBenchError
from cml_bench.models.divided import align, divided, is_first, read_share, whole
from cml_bench.runs import run as runner
from cml_bench.runs.check import check_jobs
from cml_bench.runs.devices import meet
from cml_bench.runs.events import Event
from cml_bench.runs.job import Job
from cml_bench.runs.plan import plan
from cml_bench.runs.results import result_files
from cml_bench.runs.run import run_and_store, run_job
from cml_bench.training.config import TrainingConfig

environments = pytest.importorskip(
    "lightning_fabric.plugins.environments.lightning", reason="devices need the extra 'distributed'"
)

VIT = {
    "backbone": "vit_tiny_patch16_224",
    "backbone_options": json.dumps([["depth", 2], ["embed_dim", 24], ["num_heads", 2], ["patch_size", 8]]),
    "lr": "1e-3",
    "epochs": "2",
    "n_train": "37",
    "batch_size": "9",
}
"""A ViT has no batch norm; 37 images in batches of 9 leave batches that are odd, and one smaller than two."""

METHODS = ["naive", "er memory_size=10", "lwf", "prs memory_size=10", "dlfl memory_size=10"]
MORE = [
    *("dlfl", "ewc fisher_samples=8", "gem memory_size=10", "agem memory_size=10", "mir memory_size=10"),
    *("er_herding memory_size=10", "feature_distillation", "podnet", "cuter memory_size=10", "naive head=query2label"),
    *("derpp memory_size=10 store=pixels", "from_scratch", "naive wrap=pat", "linear_probe"),
    "avalanche.training.supervised:Naive",
]
VARIANTS: list[dict[str, str]] = [
    {"augment": "true", "flip": "false"},
    {"precision": "bf16"},
    {"optimizer": "sgd", "weight_decay": "0.1"},
    {"online_chunk": "8", "epochs": "1", "schedule": "constant"},
]


class Watch:
    """What a process sees of a job that its result does not tell."""

    def __init__(self) -> None:
        self.memories: list[list[int]] = []
        self.images = 0
        self._look = runner.look_at_memories
        runner.look_at_memories = self._see
        self._hook = nn.modules.module.register_module_forward_pre_hook(self._count)

    def _see(self, learners: Any) -> dict[str, int]:
        from cml_bench.runs.footprint import memories

        self.memories += [memory.buffer.sample_ids.data.tolist() for memory in memories(learners)]
        return self._look(learners)

    def _count(self, module: nn.Module, inputs: Any) -> None:
        if isinstance(module, nn.Conv2d):
            self.images += len(inputs[0])

    def close(self) -> None:
        runner.look_at_memories = self._look
        self._hook.remove()


def seen(job: Job) -> dict[str, Any]:
    watch = Watch()
    try:
        made = run_job(job)
    finally:
        watch.close()
    return {
        "logits": [block.astype(np.float32) for block in made.predictions.logits],
        "ids": made.predictions.sample_ids.tolist(),
        "metrics": made.result["metrics"]["summary"],
        "held": made.result["cost"]["memory"]["images"],
        "memories": watch.memories,
        "images": watch.images,
    }


def take_part(rank: int, jobs: list[Job], port: int, folder: Path) -> None:
    with divided(meet(rank, TrainingConfig(devices=2), port)):
        torch.save([seen(job) for job in jobs], folder / f"{rank}.pt")


def shared(jobs: list[Job], folder: Path) -> tuple[list[Any], list[Any]]:
    """Run jobs in two processes; return what each saw. Forked ones, which need not import anything."""
    start_processes(take_part, (jobs, environments.find_free_network_port(), folder), nprocs=2, start_method="fork")
    first, second = (torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2))
    return first, second


def test_two_processes_say_what_one_says(small_jobs: Any, tmp_path: Path) -> None:
    same(small_jobs(METHODS, **VIT), tmp_path)


@pytest.mark.slow
def test_whatever_the_method(small_jobs: Any, tmp_path: Path) -> None:
    varied = [small_jobs(["er memory_size=10"], **{**VIT, **more}) for more in VARIANTS]
    same(sum(varied, small_jobs(MORE, **VIT)), tmp_path)


def same(jobs: list[Job], folder: Path) -> None:
    alone = [seen(job) for job in jobs]
    for job, one, first, second in zip(jobs, alone, *shared(jobs, folder), strict=True):
        name = f"{job.method} {dict(job.options)}"
        assert first["ids"] == one["ids"], name
        tolerance = 0.05 if "bf16" in name else 2e-3
        for expected, given, other in zip(one["logits"], first["logits"], second["logits"], strict=True):
            assert np.array_equal(given, other), name
            assert np.allclose(given, expected, atol=tolerance), (name, np.abs(given - expected).max())
        if "bf16" not in name:
            assert first["metrics"] == pytest.approx(one["metrics"], abs=1e-3), name
        # A budget is that of the job, not of each process, and the same images are held.
        assert first["memories"] == second["memories"] == one["memories"], name
        assert first["held"] == second["held"] == one["held"], name
        # Every image is read by one process; what only some transforms of torch can read, by both.
        together = first["images"] + second["images"]
        assert first["images"] < one["images"] <= together, name
        if not job.method.startswith("ewc"):
            assert together <= 1.1 * one["images"], name


def stop_and_go_on(rank: int, job: Job, port: int, folder: Path) -> None:
    with divided(meet(rank, TrainingConfig(devices=2), port)):
        whole_run = run_job(job, checkpoints=folder / "whole").predictions.logits
        align()
        if is_first():
            newest = max((folder / "whole").glob("*.safetensors"))
            (folder / "stopped").mkdir()
            os.link(newest, folder / "stopped" / newest.name)
        align()
        notes: list[str] = []
        resumed = run_job(job, checkpoints=folder / "stopped", report=lambda event: notes.append(event.message))
        torch.save([whole_run, resumed.predictions.logits, notes], folder / f"{rank}.pt")


def test_both_go_on_from_the_checkpoint_that_one_wrote(small_jobs: Any, tmp_path: Path) -> None:
    (job,) = small_jobs(["er memory_size=10 head=query2label"], **VIT)
    arguments = (job, environments.find_free_network_port(), tmp_path)
    start_processes(stop_and_go_on, arguments, nprocs=2, start_method="fork")
    saved = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2)]
    for whole_run, resumed, notes in saved:
        assert any(note.startswith("goes on after") for note in notes)
        for pair in ((whole_run, resumed), (whole_run, saved[0][0])):
            assert all(np.array_equal(*blocks) for blocks in zip(*pair, strict=True))


class Noisy(nn.Module):
    """Half of what it reads is dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

    def read(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(images * self.weight, 0.5, training=self.training)


def draw(rank: int, port: int, folder: Path) -> None:
    torch.manual_seed(0)
    with divided(meet(rank, TrainingConfig(devices=2), port)):
        model, images = Noisy(), torch.ones(40, 3)
        features = [read_share(model, model.read, images) for _ in range(2)]
        (features[0].sum() * 2).backward()
        (asked,) = torch.autograd.grad(features[1].sum(), [model.weight])
        model.eval()
        with whole():
            undivided = read_share(model, model.read, images)
        torch.save(
            [features, model.weight.grad, asked, model.unused.grad, undivided, torch.rand(2)], folder / f"{rank}.pt"
        )


def test_dropout_differs_between_shares_and_gradients_are_sums(tmp_path: Path) -> None:
    start_processes(draw, (environments.find_free_network_port(), tmp_path), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    (before, after), gradient, asked, unused, undivided, drawn = first
    assert torch.equal(before, second[0][0])
    assert torch.equal(drawn, second[-1])  # the head's own draws stay alike
    assert not torch.equal(before[:20], before[20:])
    assert not torch.equal(before, after)
    # The derivative by the weight is the sum of what was kept, scaled.
    assert torch.equal(gradient, 2 * before.sum(dim=0))
    assert torch.equal(asked, after.sum(dim=0))
    assert torch.equal(gradient, second[1])
    assert unused is None
    assert torch.equal(undivided, torch.ones(40, 3))


@pytest.mark.slow
def test_as_a_job_with_checkpoints_and_a_failure(small_jobs: Any, tmp_path: Path) -> None:
    """The first process reports and writes; what both raise is one sentence; a checkpoint serves both."""
    (alone,), (job,) = (small_jobs(["er memory_size=10"], **VIT, **more) for more in ({}, {"devices": 2}))
    events: list[Event] = []
    result: Any = run_and_store(job, tmp_path, report=events.append)
    assert result["status"] == "ok"
    expected = run_job(alone).result["metrics"]["summary"]
    assert result["metrics"]["summary"] == pytest.approx(expected, abs=1e-3)
    assert [event.kind for event in events].count("start") == 1
    assert [event.kind for event in events].count("experience") == 2
    assert len(result_files(tmp_path)) == 1
    assert not [name for name in ("MASTER_PORT", "LOCAL_RANK") if name in os.environ]
    (failing,) = small_jobs(["naive lr=1e30"], **VIT, devices=2)
    failed: Any = run_and_store(failing, tmp_path)
    assert failed["status"] == "failed"
    assert failed["error"].startswith("the loss became nan in experience 1, epoch 1, step 2")


def test_what_cannot_be_divided(small_jobs: Any) -> None:
    for options, sentence in [
        ({"frozen": "true"}, "devices=2 divides the backbone, which frozen=true does not train"),
        ({"compile": "true"}, "compile=true would compile each"),
        ({"federated": "clients=2 rounds=1"}, "of one learner, and federated="),
        ({"device": "cpu:0"}, "device=cpu:0 is one of them: set device=cuda"),
    ]:
        with pytest.raises(CmlBenchError, match=sentence):
            plan(*small_jobs(**options, devices=2))
    with pytest.raises(CmlBenchError, match="devices=0 must be at least 1"):
        plan(*small_jobs(devices=0))
    with pytest.raises(CmlBenchError, match="devices=2 is about a backbone that trains as a whole, and with 'l2p'"):
        check_jobs(small_jobs(["l2p"], **VIT, devices=2))
    with pytest.raises(CmlBenchError, match=r"backbone=test_resnet takes means over whole batches \(batch norm\)"):
        check_jobs(small_jobs(devices=2))


def test_nothing_is_divided_in_one_process() -> None:
    backbone = nn.Linear(2, 2)
    images = torch.ones(3, 2)
    assert torch.equal(read_share(backbone, backbone, images), backbone(images))
    with whole():
        assert torch.equal(read_share(backbone, backbone, images), backbone(images))
