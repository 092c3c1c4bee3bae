"""What fine-tuning a backbone with the DLFL head costs over a bare timm loop that does the same arithmetic.

Run with ``pytest tests/speed``: the figures come as one table at the end. Nothing fails on a clock. With a GPU the same
code runs at the sizes of papers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks import DatasetExperience
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.flop_counter import FlopCounterMode

from cml_bench.data.pixel_cache import CROP_MARGIN, PixelInputs, unpack
from cml_bench.data.source import Source
from cml_bench.models.backbones import Backbone
from cml_bench.models.heads.dlfl import DLFLHead
from cml_bench.models.preprocess import TrainBatch
from cml_bench.registry import load
from cml_bench.runs.benchmark import Benchmark, BenchmarkMeta, load_sources
from cml_bench.runs.cost import CostMeter, ImageCounter
from cml_bench.runs.footprint import TrainableParameters
from cml_bench.runs.inputs import make_inputs
from cml_bench.runs.method import parse_method
from cml_bench.runs.plan import plan_method
from cml_bench.runs.progress import EpochReporter
from cml_bench.runs.setup import make_backbone, make_learner, make_model
from cml_bench.training.config import TrainingConfig
from cml_bench.training.context import RunContext
from cml_bench.training.recorder import LogitRecorder
from cml_bench.training.template import MultiLabelTemplate


@dataclass(frozen=True)
class Case:
    """What is fine-tuned: ``steps`` batches are one measurement."""

    backbone: str
    image_size: int
    batch_size: int
    steps: int
    precision: str

    @property
    def images(self) -> int:
        return self.batch_size * self.steps


CASES = {
    "cpu": (Case("resnet18", 96, 16, 4, "float32"), Case("vit_tiny_patch16_224", 96, 16, 6, "float32")),
    "cuda": (Case("resnet50", 224, 128, 20, "bf16"), Case("vit_base_patch16_224", 224, 128, 20, "bf16")),
}
PEAK_TFLOPS = {
    "NVIDIA H200": 989.4,
    "NVIDIA H100 80GB HBM3": 989.4,
    "NVIDIA H100 PCIe": 756.5,
    "NVIDIA A100-SXM4-80GB": 312.0,
    "NVIDIA A100-SXM4-40GB": 312.0,
    "NVIDIA A100 80GB PCIe": 312.0,
    "NVIDIA A100-PCIE-40GB": 312.0,
}
"""Dense bfloat16 TFLOP/s of a card, by torch's name of it, from NVIDIA's data sheets (half of what they give "with
sparsity")."""

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LABELS, LR, WEIGHT_DECAY = 80, 1e-4, 0.05


class Noise(Source):
    """Squares of noise in memory, of the size in which the pixel cache keeps them."""

    name = "noise"

    def __init__(self, split: str, count: int, side: int) -> None:
        self.split = split
        self.image_size = (side, side)
        draw = np.random.default_rng(0)
        labels = (draw.random((count, LABELS)) < 0.04).astype(np.int8)
        # One that shows nothing would be in no experience.
        labels[np.arange(count), np.arange(count) % LABELS] = 1
        super().__init__([f"label{i}" for i in range(LABELS)], labels, np.arange(count))
        self._images = torch.from_numpy(draw.integers(256, size=(16, 3, side, side), dtype=np.uint8))

    def load(self, index: int) -> Tensor:
        return self._images[index % 16]


@dataclass(frozen=True, kw_only=True)
class Photos(Benchmark):
    """All labels in one experience."""

    images: int
    side: int
    increment: int = LABELS

    meta = BenchmarkMeta(name="noise", title="Noise", version=1, source="noise", licence="none", methods=())
    training = TrainingConfig(lr=LR, weight_decay=WEIGHT_DECAY, schedule="constant", augment=True)

    def sources(self) -> tuple[Source, Source]:
        return Noise("train", self.images, self.side), Noise("test", 16, self.side)


class BareModel(nn.Module):
    """The timm model and the DLFL head, written out, with the same weights."""

    def __init__(self, backbone: Backbone, head: DLFLHead) -> None:
        super().__init__()
        self.trunk = deepcopy(backbone.model)
        self.queries, self.weights, self.biases = (
            nn.Parameter(torch.cat([block.detach().clone() for block in blocks]))
            for blocks in (head.queries, head.weights, head.biases)
        )

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.trunk.forward_features(images)  # type: ignore[operator]
        is_map = features.dim() == 4
        tokens = features.flatten(2).mT if is_map else features[:, self.trunk.num_prefix_tokens :]  # type: ignore[misc]
        attention = torch.softmax(self.queries @ tokens.mT / math.sqrt(tokens.shape[-1]), dim=-1)
        label_features = (attention @ tokens + tokens.mean(dim=1, keepdim=True)) / 2
        return torch.einsum("bnd,nd->bn", label_features, self.weights) + self.biases


def _ours(case: Case, meter: CostMeter) -> tuple[MultiLabelTemplate, DatasetExperience]:
    """Return the learner of a job, with the plugins that the runner adds, and what it learns."""
    settings = {
        **{name: str(getattr(case, name)) for name in ("backbone", "image_size", "batch_size", "precision")},
        **{"device": DEVICE, "cache": "pixels", "epochs": "1"},
    }
    benchmark = Photos(images=case.images, side=round(CROP_MARGIN * case.image_size))
    plan = plan_method(parse_method("naive head=dlfl"), load("strategies", "naive"), benchmark, settings)
    sources = load_sources(benchmark)
    backbone = make_backbone(plan, sources)
    inputs = make_inputs(plan, backbone, sources, 0, lambda message: None)
    scenario = benchmark.build(train_inputs=inputs[0], test_inputs=inputs[1])
    model = make_model(plan, backbone).to(DEVICE)
    run = RunContext(0, plan.training, model, plan.criterion().to(DEVICE), scenario.oracle)
    model.train()
    (experience,) = scenario.train_stream
    model.adaptation(experience)
    reporter = EpochReporter(lambda event: None, 0, 1, meter)
    extra = [LogitRecorder(), reporter, TrainableParameters(meter.footprint), ImageCounter(meter)]
    learner = make_learner(plan, run, extra)
    assert isinstance(learner, MultiLabelTemplate)
    return learner, experience


def _bare(case: Case, model: BareModel, inputs: PixelInputs, labels: Tensor) -> Callable[[], None]:
    """Return what trains a bare model for an epoch on the same stored images, augmented by the same rule."""
    mean, std = model.trunk.pretrained_cfg["mean"], model.trunk.pretrained_cfg["std"]  # type: ignore[index]
    augment = TrainBatch(case.image_size, mean, std, torch.Generator(), device=DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    pinned = (lambda batch: batch.pin_memory()) if DEVICE == "cuda" else (lambda batch: batch)

    def epoch() -> None:
        for rows in torch.randperm(case.images).split(case.batch_size):
            stored = torch.empty((len(rows), inputs.table.shape[1]), dtype=torch.uint8, pin_memory=DEVICE == "cuda")
            torch.index_select(inputs.table, 0, rows, out=stored)
            images, _ = unpack(stored.to(DEVICE, non_blocking=True), inputs.side)
            x = augment(images, unpack(stored, inputs.side)[1])
            y = pinned(labels[rows]).to(DEVICE, non_blocking=True)
            optimizer.zero_grad()
            with torch.autocast(DEVICE, torch.bfloat16, enabled=case.precision == "bf16"):
                logits = model(x.to(memory_format=torch.channels_last))
            binary_cross_entropy_with_logits(logits.float(), y.float()).backward()
            optimizer.step()

    return epoch


def _seconds(run: Callable[[], None]) -> float:
    wait = torch.cuda.synchronize if DEVICE == "cuda" else (lambda: None)
    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


def _flops_an_image(model: nn.Module, size: int) -> float:
    """Return those of a forward and a backward pass."""
    counter = FlopCounterMode(display=False)
    with counter:
        model(torch.zeros(2, 3, size, size, device=DEVICE)).sum().backward()
    model.zero_grad()
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("case", CASES[DEVICE], ids=lambda case: case.backbone)
def test_fine_tuning(
    benchmark: Any, measured: Any, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interleaves the two loops, so that whatever else the machine does falls on both."""
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path))
    torch.set_num_threads(1)
    meter = CostMeter(DEVICE)
    learner, experience = _ours(case, meter)

    def ours() -> None:
        learner.train(experience, eval_streams=[])

    ours()
    with meter.phase("training"):
        ours()
    assert meter.images == 2 * case.images
    dataset = experience.dataset
    model = BareModel(learner.model.backbone, learner.model.head)
    with torch.inference_mode(), torch.autocast(DEVICE, torch.bfloat16, enabled=case.precision == "bf16"):
        images = dataset.inputs.fetch(torch.arange(4), training=False)
        expected = learner.model.eval()(images)
        torch.testing.assert_close(model.eval()(images).float(), expected.float(), rtol=0.05, atol=0.05)
    bare = _bare(case, model.train(), dataset.inputs, dataset.labels.data)
    flops = _flops_an_image(model, case.image_size)
    pairs = []
    benchmark.pedantic(lambda: pairs.append((_seconds(bare), _seconds(ours))), rounds=7, warmup_rounds=1)

    what = f"fine-tuning {case.backbone}, {case.image_size} px, {case.precision}, {DEVICE}"
    a_second = case.images / median(mine for _, mine in pairs[1:])
    measured(what, a_second, "images/s")
    measured(what, median(theirs / mine for theirs, mine in pairs[1:]), "x a bare timm loop", ">= 0.95")
    for peak in meter.peak_gpu_memory_mb.values():
        measured(what, peak, "MiB of GPU memory at most")
    tflops = a_second * flops / 1e12
    measured(what, tflops, "TFLOP/s")
    card = torch.cuda.get_device_name() if DEVICE == "cuda" else ""
    if card in PEAK_TFLOPS:
        measured(what, 100 * tflops / PEAK_TFLOPS[card], f"% of the {PEAK_TFLOPS[card]:g} TFLOP/s of {card}")
