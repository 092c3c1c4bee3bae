"""One run on the toy stream of the conformance kit, under observation."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks import CLExperience
from avalanche.core import SupervisedPlugin
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor, nn

from cml_bench.labels import PRESENT, is_known
from cml_bench.metrics.ranking import average_precision
from cml_bench.models.model import MultiLabelModel
from cml_bench.runs.checkpoint import Checkpoints
from cml_bench.runs.cost import CostMeter
from cml_bench.runs.isolation import isolated
from cml_bench.runs.learn import Course, predict
from cml_bench.runs.plan import Plan
from cml_bench.runs.setup import build_model
from cml_bench.streams.dataset import MultiLabelDataset
from cml_bench.streams.scenario import MultiLabelScenario
from cml_bench.testing.outcome import require, require_above_chance
from cml_bench.testing.toy import annotated_so_far, toy_backbone, toy_scenario
from cml_bench.training.context import RunContext
from cml_bench.training.recorder import LogitRecorder
from cml_bench.training.template import SafePoint

_STEPS = 7
"""Steps of an experience after which it is interrupted: within its second epoch or, online, its seventh chunk."""


class _QuietModel(MultiLabelModel):
    """Grows without moving torch's global generator, so that only the strategy itself can move it."""

    def adaptation(self, experience: CLExperience) -> None:
        with torch.random.fork_rng(devices=[]):
            super().adaptation(experience)

    @staticmethod
    def quieten(model: MultiLabelModel) -> None:
        """Make any model grow so, whatever its class."""
        model.__class__ = type("QuietModel", (_QuietModel, type(model)), {})


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
        notes: What a user would have been told.
    """

    scenario: MultiLabelScenario
    watcher: Watcher
    meter: CostMeter
    learner: Any = None
    logits: list[Tensor] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    head_labels: list[tuple[str, ...]] = field(default_factory=list)
    drawn_from: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    def differs_from(self, other: Trial) -> int | None:
        """Return the first experience after which a bit of the logits differs, of the experiences that both have."""
        pairs = enumerate(zip(self.logits, other.logits, strict=False))
        return next((t for t, (mine, theirs) in pairs if not torch.equal(mine, theirs)), None)


def try_out(
    plan: Plan,
    *,
    scenario: MultiLabelScenario | None = None,
    seed: int = 0,
    extra_evaluations: bool = False,
    checkpoints: Path | None = None,
    steps: int | None = None,
) -> Trial:
    """Run a method on the toy stream.

    Args:
        plan: The resolved method.
        scenario: A stream that was tampered with; None for a fresh one.
        seed: Seed of the run.
        extra_evaluations: Evaluate the whole test stream, future experiences included, once more after each experience.
        checkpoints: Folder to go on from; the run stops after the next experience, as if it was interrupted there.
        steps: The run is stored and stops after so many steps already, if it takes as many.
    """
    scenario = scenario or toy_scenario()
    trial = Trial(scenario, Watcher(scenario), CostMeter())
    recorder = LogitRecorder()
    with isolated(seed, plan.training.threads), warnings.catch_warnings(record=True):
        # Avalanche turns its own deprecation warnings on again; recorded, none is shown.
        meta = getattr(plan.learner, "meta", None)
        backbone, width = toy_backbone(meta.backbone if meta else "any")
        model = build_model(plan, backbone, width)
        _QuietModel.quieten(model)
        criterion = plan.criterion(**plan.criterion_options)
        model, criterion = model.to(plan.training.device), criterion.to(plan.training.device)
        before = _generator_states()
        run = RunContext(seed, plan.training, model, criterion, scenario.oracle)
        stored = Checkpoints(checkpoints, {}, trial.notes.append) if checkpoints else None
        taken = count(1)

        def stop(point: SafePoint) -> None:
            if stored and point == "step" and next(taken) == steps:
                stored.keep(course, past, trial.meter, within=True)
                raise _InterruptedError

        course = Course(plan, run, scenario, [recorder, trial.watcher], stop)
        past = stored.resume(course, trial.meter) if stored else []
        for t in count(len(past)):
            trial.watcher.experience = t
            try:
                with trial.meter.phase("training"):
                    learner = next(course, None)
            except _InterruptedError:
                break
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
            if stored:
                stored.keep(course, [*past, trial.logits[-1].half().numpy()], trial.meter)
                break
        after = _generator_states()
        trial.drawn_from = tuple(name for name in before if before[name] != after[name])
    return trial


class _InterruptedError(Exception):
    """A run is stopped in the middle of an experience."""


def interrupted(plan: Plan) -> Trial:
    """Run a method that is interrupted in the middle and at the end of every experience, and goes on each time.

    Returns:
        The last run, with the logits of all.
    """
    logits: list[Tensor] = []
    with TemporaryDirectory() as folder:
        for t in range(len(toy_scenario().n_seen)):
            trial = try_out(plan, checkpoints=Path(folder), steps=_STEPS)
            if not trial.logits:
                _require_stored(trial, folder, f"in the middle of experience {t + 1}")
                trial = try_out(plan, checkpoints=Path(folder))
            _require_stored(trial, folder, f"after experience {t + 1}")
            logits += trial.logits
    trial.logits = logits
    return trial


def _require_stored(trial: Trial, folder: str, where: str) -> None:
    kept = any(note for note in trial.notes if not note.startswith("goes on after experience"))
    require(not kept, f"{where} the run {' and '.join(trial.notes)}")


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


def require_learnt(trial: Trial) -> str:
    """Demand that after each experience its own labels are ranked clearly better than by chance; say how well."""
    truth, found, first = trial.scenario.splits["test"].truth, [], 0
    for logits, end in zip(trial.logits, trial.scenario.n_seen, strict=True):
        found.append(average_precision(logits[:, first:end].numpy(), truth[:, first:end]).mean())
        first = end
    reached, chance = float(np.mean(found)), float((truth == PRESENT).mean())
    return require_above_chance("mAP of the labels just learnt", reached, chance)
