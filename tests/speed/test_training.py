"""What the training machinery costs over a bare PyTorch loop that does the same arithmetic.

Run with ``pytest tests/speed``: the figures come as one table at the end. Nothing fails on a clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch
from avalanche.benchmarks import DatasetExperience
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive

from cml_bench.data.inputs import TensorInputs
from cml_bench.losses.bce import BCE
from cml_bench.memory.reservoir import ReservoirBuffer
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.model import MultiLabelModel
from cml_bench.streams.dataset import LabelMatrix, MultiLabelDataset
from cml_bench.streams.timeline import set_label_attributes
from cml_bench.training.replay import ReplayPlugin
from cml_bench.training.template import MultiLabelTemplate

IMAGES, WIDTH, LABELS, BATCH = 20_000, 512, 20, 128
NAMES = tuple(f"label{i}" for i in range(LABELS))


def _dataset() -> MultiLabelDataset:
    draw = torch.Generator().manual_seed(0)
    labels = (torch.rand(IMAGES, LABELS, generator=draw) < 0.1).to(torch.int8)
    inputs = TensorInputs(torch.randn(IMAGES, WIDTH, generator=draw))
    return MultiLabelDataset.from_rows(inputs, torch.arange(IMAGES), LabelMatrix(labels, NAMES, 0))


def _model() -> MultiLabelModel:
    model = MultiLabelModel(None, LinearHead(WIDTH))
    model.head.grow(NAMES)
    return model


def _bare(dataset: MultiLabelDataset, memory: MultiLabelDataset | None = None) -> Callable[[], None]:
    model, criterion = _model(), torch.nn.BCEWithLogitsLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = dataset.inputs.table, dataset.labels.data.float()

    def epoch() -> None:
        for rows in torch.randperm(IMAGES).split(BATCH):
            if memory is not None:
                rows = torch.cat([rows, memory.sample_ids.data[torch.randperm(len(memory))[:BATCH]]])
            optimizer.zero_grad()
            criterion(model(x[rows]), y[rows]).backward()
            optimizer.step()

    return epoch


def _strategy(dataset: MultiLabelDataset, kind: str, memory: ReservoirBuffer | None = None) -> Callable[[], None]:
    model = _model()
    common = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.01),
        "criterion": BCE(),
        "train_mb_size": BATCH,
        "train_epochs": 1,
        "eval_mb_size": BATCH,
        "evaluator": EvaluationPlugin(loggers=[]),
    }
    if kind == "avalanche":
        learner = Naive(**common)
    else:
        common["evaluator"] = None
        plugins = [ReplayPlugin(memory, None, torch.Generator())] if memory else []
        learner = MultiLabelTemplate(**common, generator=torch.Generator(), plugins=plugins)
    experience = set_label_attributes(DatasetExperience(dataset=dataset))
    experience.origin_stream = type("Stream", (), {"name": "train"})()
    return lambda: learner.train(experience, eval_streams=[])


@pytest.mark.parametrize(
    ("name", "kind", "replay"),
    [("ours", "ours", False), ("ours with replay", "ours", True), ("Avalanche Naive", "avalanche", False)],
)
def test_epoch_on_cached_features(benchmark: Any, measured: Any, name: str, kind: str, replay: bool) -> None:
    """Interleaves the two loops, so that whatever else the machine does falls on both."""
    torch.set_num_threads(1)
    dataset = _dataset()
    memory = None
    if replay:
        memory = ReservoirBuffer(2000, torch.Generator().manual_seed(0))
        memory.update_from_dataset(dataset)
    bare = _bare(dataset, memory.buffer if memory else None)
    ours = _strategy(dataset, kind, memory)
    ratios = []

    def pair() -> None:
        start = time.perf_counter()
        bare()
        middle = time.perf_counter()
        ours()
        ratios.append((time.perf_counter() - middle) / (middle - start))

    benchmark.pedantic(pair, rounds=11, warmup_rounds=2)
    goal = "<= 1.1" if kind == "ours" else ""
    measured(f"epoch on cached features, {name}", median(ratios[2:]), "x a bare loop", goal)
