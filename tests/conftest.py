"""Shared fixtures: a tiny source, a tiny scenario on it, and a bare way to train a strategy on that."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor

from cml_bench.data.inputs import TensorInputs
from cml_bench.data.source import Source
from cml_bench.losses.bce import BCE
from cml_bench.losses.criterion import Criterion
from cml_bench.models.heads.dlfl import DLFLHead
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.model import MultiLabelModel
from cml_bench.runs.isolation import isolated
from cml_bench.runs.job import Job, make_jobs
from cml_bench.runs.setup import make_learner
from cml_bench.streams.builder import label_incremental_benchmark
from cml_bench.streams.dataset import LabelMatrix, MultiLabelDataset
from cml_bench.streams.scenario import MultiLabelScenario
from cml_bench.training.config import TrainingConfig
from cml_bench.training.context import RunContext
from cml_bench.training.optimizer import make_optimizer
from cml_bench.training.recorder import LogitRecorder
from cml_bench.training.schedule import SchedulePlugin
from cml_bench.training.strategy import Strategy
from cml_bench.training.template import MultiLabelTemplate

# Shells start jobs in the background with it ignored, and so would start all that tests stop by Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Workers of pytest-xdist share the cores, and threads that wait for one another would spin on them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# Examples are small; what takes long is a busy machine, which is no property of the code.
# A gate asks the same questions every time, and fewer; whoever works on the code is asked new ones.
IS_GATE = "CI" in os.environ
settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=IS_GATE,
    max_examples=25 if IS_GATE else 100,
)
settings.load_profile("default")

WIDTH = 6


def pytest_collection() -> None:
    """Collect without the garbage collector: what that makes stays."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Keep the garbage collector from a million objects of modules and collected tests, a tenth of all seconds."""
    gc.freeze()
    gc.enable()


class TinySource(Source):
    """Images are 4 x 4 and show nothing but their own row number, so that a mixed-up row is seen at once."""

    name = "tiny"
    image_size = (4, 4)

    def __init__(self, labels: np.ndarray[Any, Any], names: Sequence[str] | None = None, split: str = "train") -> None:
        self.split = split
        labels = np.asarray(labels, dtype=np.int8)
        names = names or [f"label{i}" for i in range(labels.shape[1])]
        super().__init__(names, labels, np.arange(1000, 1000 + len(labels), dtype=np.int64))

    def load(self, index: int) -> Tensor:
        return torch.full((3, 4, 4), index % 256, dtype=torch.uint8)


def random_labels(n: int, n_labels: int, seed: int, rate: float = 0.3) -> np.ndarray[Any, Any]:
    """Random truth in which every label occurs and the last image shows nothing."""
    labels = np.asarray(np.random.default_rng(seed).random((n, n_labels)) < rate, dtype=np.int8)
    labels[np.arange(n_labels) % (n - 1), np.arange(n_labels)] = 1
    labels[-1] = 0
    return labels


def features_of(labels: np.ndarray[Any, Any], *, spatial: bool = True) -> Tensor:
    """Noisy linear images of the labels: (N, 6, 2, 2) maps or (N, 6) vectors."""
    generator = torch.Generator().manual_seed(7)
    mixing = torch.randn(labels.shape[1], WIDTH, generator=generator)
    pooled = torch.from_numpy(labels).float() @ mixing + 0.3 * torch.randn(len(labels), WIDTH, generator=generator)
    if not spatial:
        return pooled
    return pooled[:, :, None, None] + 0.1 * torch.randn(len(labels), WIDTH, 2, 2, generator=generator)


@dataclass
class Learnt:
    """What a strategy left behind."""

    template: MultiLabelTemplate
    run: RunContext
    plugins: list[Any]
    logits: list[Tensor]

    @property
    def model(self) -> MultiLabelModel:
        return self.run.model

    def state(self) -> dict[str, Tensor]:
        return self.model.state_dict()


def train_strategy(
    strategy: Strategy,
    scenario: MultiLabelScenario,
    *,
    head: str = "linear",
    criterion: Criterion | None = None,
    seed: int = 0,
    stop_after: int | None = None,
    extra: Sequence[Any] = (),
    **settings: Any,
) -> Learnt:
    """Train as the runner does, on features, and keep the live objects; logits of all test images after each step."""
    defaults: dict[str, Any] = {"epochs": 2, "batch_size": 8, "lr": 0.1, "optimizer": "sgd", "weight_decay": 0.0}
    config = TrainingConfig(**{**defaults, "schedule": "constant", **settings})
    with isolated(seed, 1):
        build = getattr(strategy, "build_model", MultiLabelModel)
        model = build(None, {"linear": LinearHead, "dlfl": DLFLHead}[head](WIDTH))
        run = RunContext(seed, config, model, criterion or BCE(), scenario.oracle)
        # Chunks of one experience know the same labels.
        chunks_by_width = groupby(scenario.train_stream, key=lambda experience: len(experience.dataset.labels.names))
        groups = [list(chunks) for _, chunks in chunks_by_width][:stop_after]
        model.train()
        model.adaptation(groups[0][0])
        recorder, plugins = LogitRecorder(), strategy.plugins(run)
        template = MultiLabelTemplate(
            model=model,
            optimizer=make_optimizer(config, model),
            criterion=run.criterion,
            train_mb_size=config.batch_size,
            train_epochs=config.epochs,
            eval_mb_size=256,
            generator=run.generator("batches"),
            plugins=[*plugins, SchedulePlugin(config.schedule, config.lr), recorder, *extra],
        )
        logits = []
        for t, chunks in enumerate(strategy.curriculum(iter(groups), run)):
            for experience in chunks:
                template.train(experience, eval_streams=[])
            template.eval([scenario.evaluation_experience(t)])
            logits.append(recorder.result()[1])
    return Learnt(template, run, plugins, logits)


@pytest.fixture(scope="session")
def tiny_source() -> type[TinySource]:
    """Make a source from a label matrix."""
    return TinySource


@pytest.fixture(scope="session")
def tiny_labels() -> Callable[..., Any]:
    """Make a random label matrix."""
    return random_labels


@pytest.fixture(scope="session")
def tiny_features() -> Callable[..., Tensor]:
    """Make features that show a label matrix."""
    return features_of


@pytest.fixture(scope="session")
def tiny_scenario() -> Callable[..., MultiLabelScenario]:
    """Make a scenario on features: 40 training and 30 test images, 6 labels in three experiences unless told else."""

    def make(
        n: int = 40,
        n_labels: int = 6,
        data_seed: int = 0,
        spatial: bool = True,
        truth: np.ndarray[Any, Any] | None = None,
        features: Tensor | None = None,
        **protocol: Any,
    ) -> MultiLabelScenario:
        labels = random_labels(n, n_labels, data_seed) if truth is None else np.asarray(truth, dtype=np.int8)
        test = random_labels(30, labels.shape[1], data_seed + 1)
        features = features_of(labels, spatial=spatial) if features is None else features
        return label_incremental_benchmark(
            TinySource(labels),
            TinySource(test, split="test"),
            train_inputs=TensorInputs(features),
            test_inputs=TensorInputs(features_of(test, spatial=spatial)),
            **{"increment": 2, **protocol},
        )

    return make


@pytest.fixture(scope="session")
def tiny_dataset() -> Callable[..., MultiLabelDataset]:
    """Make a dataset from rows and four-state labels on a shared table whose row r holds the number r."""
    table = TensorInputs(torch.arange(200, dtype=torch.float32)[:, None])

    def make(rows: Sequence[int], labels: Any, first_new: int = 0, record: Tensor | None = None) -> MultiLabelDataset:
        data = torch.as_tensor(labels, dtype=torch.int8).reshape(len(rows), -1)
        names = tuple(f"label{i}" for i in range(data.shape[1]))
        matrix = LabelMatrix(data, names, first_new, record)
        return MultiLabelDataset.from_rows(table, torch.tensor(rows, dtype=torch.int64), matrix)

    return make


@pytest.fixture(scope="session")
def learn() -> Callable[..., Learnt]:
    """Train a strategy on a scenario."""
    return train_strategy


@pytest.fixture
def with_plugins(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give learners that the runner makes from now on more plugins, at the end of their lists."""

    def add(*plugins: Any) -> None:
        monkeypatch.setattr(
            "cml_bench.runs.learn.make_learner", lambda plan, run, extra: make_learner(plan, run, [*extra, *plugins])
        )

    return add


@pytest.fixture(scope="session")
def small_jobs() -> Callable[..., list[Job]]:
    """Make jobs on the smallest digits benchmark worth the name: a fifth of a second each."""

    def make(methods: Sequence[str] = ("naive",), seeds: Sequence[int] = (0,), **options: Any) -> list[Job]:
        settings = {"n_train": 40, "n_test": 40, "epochs": 1, "increment": 5, **options}
        return make_jobs(["digits"], methods, ["default"], seeds, [f"{key}={value}" for key, value in settings.items()])

    return make
