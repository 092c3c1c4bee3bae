"""A learner goes through a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from avalanche.benchmarks import DatasetExperience
from avalanche.core import SupervisedPlugin
from avalanche.training.templates.base_sgd import BaseSGDTemplate
from torch import Tensor

from cml_bench.errors import CmlBenchError
from cml_bench.runs.setup import Plan, make_learner
from cml_bench.streams.builder import MultiLabelScenario
from cml_bench.streams.timeline import ends_experience
from cml_bench.training.argmax_metrics import refuse_argmax_metrics
from cml_bench.training.context import RunContext
from cml_bench.training.recorder import LogitRecorder
from cml_bench.training.state import LearnerState, Stored
from cml_bench.training.strategy import Strategy


class Course(Iterator[BaseSGDTemplate[Any, Any, Any]]):
    """Trains on the stream and gives the learner out after each experience; goes on when asked for the next one.

    Args:
        plan: The resolved method.
        run: The run's context.
        scenario: The stream.
        extra: Plugins of the caller (recording, progress).

    Raises:
        CmlBenchError: If the strategy's curriculum does not yield one item for each experience, or its evaluator would
            report accuracies.

    Attributes:
        learner: The Avalanche strategy object.
    """

    def __init__(
        self, plan: Plan, run: RunContext, scenario: MultiLabelScenario, extra: Sequence[SupervisedPlugin]
    ) -> None:
        groups = _experiences(scenario)
        first = next(groups)
        # The optimiser needs a parameter to start with, and a linear head without labels has none.
        run.model.train()
        run.model.adaptation(first[0])
        self.learner = make_learner(plan, run, list(extra))
        refuse_argmax_metrics(self.learner)
        self._state = LearnerState(self.learner, run, scenario, extra)
        self._name, self._expected, self._done = plan.method.strategy, len(scenario.n_seen), 0
        stream = chain([first], groups)
        self._curriculum = iter(plan.learner.curriculum(stream, run) if isinstance(plan.learner, Strategy) else stream)

    @property
    def learners(self) -> list[BaseSGDTemplate[Any, Any, Any]]:
        """All that learn: one."""
        return [self.learner]

    def __next__(self) -> BaseSGDTemplate[Any, Any, Any]:
        """Learn the next experience."""
        for experience in self._advance():
            self.learner.train(experience, eval_streams=[])
        # Every step clears gradients before it computes its own; the last ones would only fill checkpoints.
        self.learner.optimizer.zero_grad()
        return self.learner

    def _advance(self) -> Sequence[DatasetExperience]:
        """Return what to train on next."""
        chunks = next(self._curriculum, None)
        if chunks is None and self._done == self._expected:
            raise StopIteration
        if chunks is None or self._done == self._expected:
            count = str(self._done) if chunks is None else f"more than {self._expected}"
            raise CmlBenchError(
                f"strategy {self._name} yielded {count} items for {self._expected} experiences: its curriculum must "
                "yield one for each"
            )
        self._done += 1
        return chunks

    def store(self) -> Stored:
        """Return all that the learner knows by now; see ``LearnerState.store``."""
        return self._state.store()

    def resume(self, stored: Stored, done: int) -> None:
        """Go on where another course over the same stream was after ``done`` experiences.

        The curriculum is asked for what has been learnt already, without training on it; so it must not look at what
        training does.
        """
        for _ in range(done):
            self._advance()
        self._state.restore(stored)


def _experiences(scenario: MultiLabelScenario) -> Iterator[Sequence[DatasetExperience]]:
    """Yield each experience as the sequence of its chunks (one, unless the stream is online)."""
    chunks: list[DatasetExperience] = []
    for experience in scenario.train_stream:
        chunks.append(experience)
        if ends_experience(experience):
            yield chunks
            chunks = []


def predict(
    learner: BaseSGDTemplate[Any, Any, Any],
    recorder: LogitRecorder,
    scenario: MultiLabelScenario,
    experience: int,
    split: str = "test",
) -> Tensor:
    """Return the (N, n_seen) float32 logits of a split's images, in ascending order of id.

    Args:
        learner: What a ``Course`` gave out.
        recorder: One of its plugins.
        scenario: The stream.
        experience: The experience just learnt.
        split: Whose images.

    Raises:
        CmlBenchError: If the model has no logit for a seen label or a logit is not finite.
    """
    learner.eval([scenario.evaluation_experience(experience, split)])
    ids, logits = recorder.result()
    width = scenario.n_seen[experience]
    if logits.shape[1] < width:
        raise CmlBenchError(
            f"the model gives {logits.shape[1]} logits but {width} labels have been seen: its head must grow"
        )
    if not bool(torch.isfinite(logits).all()):
        raise CmlBenchError(f"predictions after experience {experience} are not finite: lower the learning rate")
    # Ids ascend in the evaluation set; a strategy may have shuffled.
    return logits[ids.argsort(), :width]
