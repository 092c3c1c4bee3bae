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
from cml_bench.training.context import RunContext
from cml_bench.training.recorder import LogitRecorder
from cml_bench.training.strategy import Strategy


def learn(
    plan: Plan, run: RunContext, scenario: MultiLabelScenario, extra: Sequence[SupervisedPlugin]
) -> Iterator[BaseSGDTemplate[Any, Any, Any]]:
    """Train on the stream and give the learner out after each experience; it goes on when the next one is asked for.

    Args:
        plan: The resolved method.
        run: The run's context.
        scenario: The stream.
        extra: Plugins of the caller (recording, progress).

    Raises:
        CmlBenchError: If the strategy's curriculum does not yield one item for each experience.
    """
    groups = _experiences(scenario)
    first = next(groups)
    # The optimiser needs a parameter to start with, and a linear head without labels has none.
    run.model.train()
    run.model.adaptation(first[0])
    learner = make_learner(plan, run, list(extra))
    stream = chain([first], groups)
    curriculum = plan.learner.curriculum(stream, run) if isinstance(plan.learner, Strategy) else stream
    done, expected = 0, len(scenario.n_seen)
    for chunks in curriculum:
        if done == expected:
            raise _uneven(plan, f"more than {expected}", expected)
        for experience in chunks:
            learner.train(experience, eval_streams=[])
        done += 1
        yield learner
    if done < expected:
        raise _uneven(plan, str(done), expected)


def _uneven(plan: Plan, count: str, expected: int) -> CmlBenchError:
    return CmlBenchError(
        f"strategy {plan.method.strategy} yielded {count} items for {expected} experiences: its curriculum must yield "
        "one for each"
    )


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
        learner: What ``learn`` gave out.
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
