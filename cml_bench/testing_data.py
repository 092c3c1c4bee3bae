"""The toy benchmark of the conformance kit, and one run on it under observation."""

from __future__ import annotations

import copy
import dataclasses
import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks import CLExperience
from avalanche.core import SupervisedPlugin
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor, nn

from cml_bench.data.inputs import TensorInputs
from cml_bench.data.source import Source
from cml_bench.labels import OUT_OF_SCOPE, is_known
from cml_bench.models.model import MultiLabelModel
from cml_bench.runs.benchmark import Benchmark, BenchmarkMeta
from cml_bench.runs.cost import CostMeter
from cml_bench.runs.isolation import isolated
from cml_bench.runs.learn import learn, predict
from cml_bench.runs.setup import Plan
from cml_bench.streams.builder import MultiLabelScenario, TestRule
from cml_bench.streams.dataset import MultiLabelDataset
from cml_bench.training.config import TrainingConfig
from cml_bench.training.context import RunContext
from cml_bench.training.recorder import LogitRecorder

N_LABELS = 6
_PATCH, _WIDTH = 2, 8


class ToySource(Source):
    """Images of 4 x 4 pixels: each label shows as its own pattern in one of four patches, over noise.

    Attributes:
        images: (N, 3, 4, 4) uint8.
    """

    name = "toy"
    image_size = (2 * _PATCH, 2 * _PATCH)

    def __init__(self, split: str, n: int, seed: int, n_labels: int) -> None:
        rng = np.random.default_rng([seed, n])
        # Always all labels, so that a stream that ends earlier shows the very same images.
        labels = (rng.random((n, N_LABELS)) < 0.35).astype(np.int8)
        places = rng.integers(4, size=(n, N_LABELS))
        patches = rng.normal(128.0, 8.0, size=(n, 4, 3 * _PATCH**2))
        # Orthogonal patterns, the same for both splits.
        patterns = np.linalg.qr(np.random.default_rng(0).normal(size=(3 * _PATCH**2, N_LABELS)))[0].T
        for label in range(N_LABELS):
            patches[np.arange(n), places[:, label]] += 150.0 * labels[:, label, None] * patterns[label]
        grid = torch.from_numpy(patches).reshape(n, 2, 2, 3, _PATCH, _PATCH)
        self.images = grid.permute(0, 3, 1, 4, 2, 5).reshape(n, 3, 4, 4).clamp(0, 255).to(torch.uint8)
        self.split = split
        names = [f"label{i}" for i in range(n_labels)]
        super().__init__(names, np.ascontiguousarray(labels[:, :n_labels]), np.arange(n, dtype=np.int64))

    def load(self, index: int) -> Tensor:
        """Return image ``index``."""
        return self.images[index]

    def inputs(self) -> TensorInputs:
        """Return what the toy model reads: the images, centred and scaled."""
        return TensorInputs((self.images.to(torch.float32) - 128.0) / 32.0)


@dataclass(frozen=True, kw_only=True)
class Toy(Benchmark):
    """Two labels an experience, no download, learnt in a fraction of a second.

    Attributes:
        n_labels: Fewer labels make the same stream end earlier.
    """

    n_labels: int = N_LABELS
    increment: int = 2
    test: TestRule = "all_images"

    meta = BenchmarkMeta(name="toy", title="Toy", version=1, source="toy", licence="made up", methods=())
    training = TrainingConfig(epochs=8, batch_size=12, lr=0.02, weight_decay=0.0, schedule="constant")

    def sources(self) -> tuple[Source, Source]:
        """Make both splits."""
        return ToySource("train", 72, 0, self.n_labels), ToySource("test", 60, 1, self.n_labels)


def toy_scenario(n_labels: int = N_LABELS) -> MultiLabelScenario:
    """Return a fresh scenario of the toy benchmark, which a check may tamper with."""
    toy = Toy(n_labels=n_labels)
    train, test = (source.inputs() for source in toy.sources() if isinstance(source, ToySource))
    return toy.build(train_inputs=train, test_inputs=test)


def turn_over_unknown(scenario: MultiLabelScenario) -> tuple[MultiLabelScenario, int]:
    """Turn over the truth of every training entry that is never annotated, and return how many there are.

    Experiences have been dealt and labelled by then, so a learner cannot tell, unless it reads what nobody wrote.
    """
    part = scenario.splits["train"]
    hidden = ~is_known(annotated_so_far(scenario)[-1].numpy())
    truth = np.where(hidden, 1 - part.truth, part.truth).astype(np.int8)
    source = copy.copy(part.source)
    source.labels = truth
    scenario.splits["train"] = dataclasses.replace(part, truth=truth, source=source)
    return scenario, int(hidden.sum())


class _QuietModel(MultiLabelModel):
    """Grows without moving torch's global generator, so that only the strategy itself can move it."""

    def adaptation(self, experience: CLExperience) -> None:
        with torch.random.fork_rng(devices=[]):
            super().adaptation(experience)


class Watcher(SupervisedPlugin):
    """Notes what a learner reads and keeps.

    Attributes:
        experience: The experience being learnt.
        widest: Experience to label columns of the widest batch.
        buffers: Number of exemplar buffers on the learner's plugins.
        stored: Images in all of them together, at the fullest moment.
        altered: Entries ``(image, column)`` of batches or buffers that are known otherwise than as annotated so far.
    """

    def __init__(self, scenario: MultiLabelScenario) -> None:
        super().__init__()
        self.experience = 0
        self.widest: dict[int, int] = {}
        self.buffers = 0
        self.stored = 0
        self.altered: set[tuple[int, int]] = set()
        self._annotated = annotated_so_far(scenario)

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Look at the batch and the memory."""
        labels = strategy.mb_y
        self.widest[self.experience] = max(self.widest.get(self.experience, 0), labels.shape[1])
        if hasattr(strategy.mbatch, "sample_id"):
            self._compare(strategy.mbatch.sample_id, labels)
        self.look_at_memory(strategy)

    def look_at_memory(self, strategy: Any) -> None:
        """Look at every exemplar buffer that is an attribute of a plugin."""
        found = [value for plugin in strategy.plugins for value in vars(plugin).values()]
        memories = [value.buffer for value in found if isinstance(value, ExemplarsBuffer)]
        self.buffers = max(self.buffers, len(memories))
        self.stored = max(self.stored, sum(map(len, memories)))
        for memory in memories:
            if isinstance(memory, MultiLabelDataset):
                self._compare(memory.sample_ids.data, memory.labels.data)

    def _compare(self, ids: Tensor, labels: Tensor) -> None:
        labels = labels.cpu()
        written = self._annotated[self.experience][ids.cpu(), : labels.shape[1]]
        wrong = is_known(labels[:, : written.shape[1]]) & (labels[:, : written.shape[1]] != written)
        self.altered.update((int(ids[row]), int(column)) for row, column in wrong.nonzero().tolist())


def annotated_so_far(scenario: MultiLabelScenario) -> list[Tensor]:
    """Return, for each experience, the (rows, labels) four-state table of all that had been annotated by its end."""
    so_far = torch.full(scenario.splits["train"].truth.shape, OUT_OF_SCOPE, dtype=torch.int8)
    tables = []
    for experience in scenario.train_stream:
        ids, labels = experience.dataset.sample_ids.data, experience.dataset.labels.data
        width = labels.shape[1]
        so_far[ids, :width] = torch.maximum(so_far[ids, :width], labels)
        tables.append(so_far.clone())
    return tables


@dataclass
class Trial:
    """What a run on the toy stream left behind.

    Attributes:
        scenario: The stream.
        watcher: What was seen on the way.
        meter: What it cost.
        learner: The Avalanche strategy object, at the end.
        logits: After each experience, (N, n_seen) logits of the test images.
        sizes: After each experience, the number of parameters before and after evaluation.
        head_labels: After each experience, the labels of the head.
        drawn_from: Global generators that moved during the run.
    """

    scenario: MultiLabelScenario
    watcher: Watcher
    meter: CostMeter
    learner: Any = None
    logits: list[Tensor] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    head_labels: list[tuple[str, ...]] = field(default_factory=list)
    drawn_from: tuple[str, ...] = ()


def try_out(
    plan: Plan, *, scenario: MultiLabelScenario | None = None, seed: int = 0, extra_evaluations: bool = False
) -> Trial:
    """Run a method on the toy stream.

    Args:
        plan: The resolved method.
        scenario: A stream that was tampered with; None for a fresh one.
        seed: Seed of the run.
        extra_evaluations: Evaluate the whole test stream, future experiences included, once more after each experience.
    """
    scenario = scenario or toy_scenario()
    trial = Trial(scenario, Watcher(scenario), CostMeter())
    recorder = LogitRecorder()
    with isolated(seed, plan.training.threads), warnings.catch_warnings(record=True):
        # Avalanche turns its own deprecation warnings on again; recorded, none is shown.
        model = _QuietModel(nn.Conv2d(3, _WIDTH, _PATCH, stride=_PATCH), plan.head(_WIDTH, **plan.head_options))
        criterion = plan.criterion(**plan.criterion_options)
        model, criterion = model.to(plan.training.device), criterion.to(plan.training.device)
        before = _generator_states()
        run = RunContext(seed, plan.training, model, criterion, scenario.oracle)
        steps = learn(plan, run, scenario, [recorder, trial.watcher])
        for t in count():
            trial.watcher.experience = t
            with trial.meter.phase("training"):
                learner = next(steps, None)
            if learner is None:
                break
            trial.learner = learner
            trial.watcher.look_at_memory(learner)
            trial.head_labels.append(model.head.label_names)
            size = _size(model)
            with trial.meter.phase("evaluation"):
                trial.logits.append(predict(learner, recorder, scenario, t))
            if extra_evaluations:
                # Avalanche's own loop draws a seed for every loader, also one that does not shuffle.
                with isolated(seed, plan.training.threads):
                    learner.eval(scenario.test_stream)
            trial.sizes.append((size, _size(model)))
        after = _generator_states()
        trial.drawn_from = tuple(name for name in before if before[name] != after[name])
    return trial


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _generator_states() -> Mapping[str, object]:
    state = np.random.get_state(legacy=False)  # noqa: NPY002 - the global state is what is watched
    assert isinstance(state, dict)
    return {
        "random": random.getstate(),
        "numpy.random": (state["state"]["key"].tolist(), state["state"]["pos"]),
        "torch": torch.get_rng_state().tolist(),
    }
