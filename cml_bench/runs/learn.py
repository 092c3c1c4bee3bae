"""A learner goes through a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Any

import torch
from avalanche.benchmarks import DatasetExperience
from avalanche.core import SupervisedPlugin
from avalanche.training.templates.base_sgd import BaseSGDTemplate
from torch import Tensor

from cml_bench.errors import CmlBenchError
from cml_bench.runs.plan import Plan
from cml_bench.runs.setup import make_learner
from cml_bench.streams.scenario import MultiLabelScenario
from cml_bench.streams.timeline import ends_experience
from cml_bench.training.argmax_metrics import refuse_argmax_metrics
from cml_bench.training.context import RunContext
from cml_bench.training.recorder import LogitRecorder
from cml_bench.training.state import LearnerState, Stored
from cml_bench.training.strategy import Strategy
from cml_bench.training.template import MultiLabelTemplate, SafePoint, pass_by


class Course(Iterator[BaseSGDTemplate[Any, Any, Any]]):
    """Trains on the stream and gives the learner out after each experience; goes on when asked for the next one.

    Args:
        plan: The resolved method.
        run: The run's context.
        scenario: The stream.
        extra: Plugins of the caller (recording, progress).
        at_safe_point: Called wherever the course can be stored. Between the chunks of an experience that is any
            learner; within a chunk, one with our training loop.

    Raises:
        CmlBenchError: If the strategy's curriculum does not yield one item for each experience, or its evaluator would
            report accuracies.

    Attributes:
        learner: The Avalanche strategy object.
    """

    def __init__(
        self,
        plan: Plan,
        run: RunContext,
        scenario: MultiLabelScenario,
        extra: Sequence[SupervisedPlugin],
        at_safe_point: Callable[[SafePoint], None] = pass_by,
    ) -> None:
        groups = _experiences(scenario)
        first = next(groups)
        # The optimiser needs a parameter to start with, and a linear head without labels has none.
        run.model.train()
        run.model.adaptation(first[0])
        self.learner = make_learner(plan, run, list(extra))
        refuse_argmax_metrics(self.learner)
        self._at_safe_point = at_safe_point
        if isinstance(self.learner, MultiLabelTemplate):
            self.learner.at_safe_point = at_safe_point
        self._state = LearnerState(self.learner, run, scenario, [*extra, at_safe_point])
        self._name, self._expected, self._begun = plan.method.strategy, len(scenario.n_seen), 0
        # Of the experience that is being learnt: what it consists of, and how much of that has been learnt.
        self._chunks: Sequence[DatasetExperience] = ()
        self._learnt: int | None = None
        stream = chain([first], groups)
        self._curriculum = iter(plan.learner.curriculum(stream, run) if isinstance(plan.learner, Strategy) else stream)

    @property
    def learners(self) -> list[BaseSGDTemplate[Any, Any, Any]]:
        """All that learn: one."""
        return [self.learner]

    def __next__(self) -> BaseSGDTemplate[Any, Any, Any]:
        """Learn the next experience, or what is left of it."""
        if self._learnt is None:
            self._chunks, self._learnt = self._advance(), 0
        while self._learnt < len(self._chunks):
            # Upstream lets go of the experience at the end of training, and only then.
            if self.learner.experience is not None:
                self.learner.go_on()
            else:
                self.learner.train(self._chunks[self._learnt], eval_streams=[])
            # Every step clears gradients before it computes its own; the last ones would only fill checkpoints.
            self.learner.optimizer.zero_grad()
            self._learnt += 1
            self._at_safe_point("chunk" if self._learnt < len(self._chunks) else "experience")
        self._learnt = None
        return self.learner

    def _advance(self) -> Sequence[DatasetExperience]:
        """Return what to train on next."""
        chunks = next(self._curriculum, None)
        if chunks is None and self._begun == self._expected:
            raise StopIteration
        if chunks is None or self._begun == self._expected:
            count = str(self._begun) if chunks is None else f"more than {self._expected}"
            raise CmlBenchError(
                f"strategy {self._name} yielded {count} items for {self._expected} experiences: its curriculum must "
                "yield one for each"
            )
        self._begun += 1
        return chunks

    def store(self) -> Stored:
        """Return all that the learner knows by now, and where it is; see ``LearnerState.store``.

        Raises:
            UnknownStateError: If the learner keeps something that cannot be stored.
            CmlBenchError: If its loss became NaN or infinite.
        """
        experience = self.learner.experience
        with nullcontext() if experience is None else self.learner.at_rest():
            stored = self._state.store([] if experience is None else [experience])
        return Stored({**stored.tree, "begun": self._begun, "learnt": self._learnt}, stored.blocks)

    def resume(self, stored: Stored, done: int) -> str:
        """Go on where another course over the same stream was stored.

        The curriculum is asked for what has been learnt already, without training on it; so it must not look at what
        training does.

        Args:
            stored: As ``store`` gave it.
            done: Number of experiences whose learner it had given out.

        Returns:
            After what it goes on, for the user.

        Raises:
            CmlBenchError: If it was another course.
        """
        begun, learnt = progress(stored, done, self._expected)
        for _ in range(begun):
            self._chunks = self._advance()
        if learnt is not None and learnt > len(self._chunks):
            raise CmlBenchError(f"{learnt} of {len(self._chunks)} chunks had been learnt")
        self._learnt = learnt
        rest = self._chunks[learnt:] if learnt is not None else ()
        self._state.restore(stored, rest[:1])
        return f"experience {begun}" + (self._where() if rest else "")

    def _where(self) -> str:
        """Return how far the experience that is under way has been learnt, for the user."""
        assert self._learnt is not None
        training = self.learner.experience is not None
        where = f", chunk {self._learnt + training}" if len(self._chunks) > 1 else ""
        if training:
            clock, within = self.learner.clock, self.learner.in_epoch
            where += f", epoch {clock.train_exp_epochs + within}"
            where += f", step {clock.train_epoch_iterations}" if within else ""
        return where


def progress(stored: Stored, done: int, expected: int) -> tuple[int, int | None]:
    """Return how many experiences a stored course had begun, and how many parts of the last one it had learnt.

    None for the latter once its learner had been given out.

    Raises:
        CmlBenchError: If there is no such course of ``expected`` experiences, ``done`` of them given out.
    """
    begun, learnt = stored.tree["begun"], stored.tree["learnt"]
    if type(begun) is not int or not 0 <= begun <= expected or not (learnt is None or type(learnt) is int):
        raise CmlBenchError(f"what was stored is no progress: {begun!r:.40}, {learnt!r:.40}")
    if begun - (learnt is not None) != done or (learnt is not None and learnt < 0):
        raise CmlBenchError(f"{begun} experiences had been begun and {done} tested, which do not fit")
    return begun, learnt


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
        raise CmlBenchError(f"predictions after experience {experience + 1} are not finite: lower the learning rate")
    # Ids ascend in the evaluation set; a strategy may have shuffled.
    return logits[ids.argsort(), :width]
