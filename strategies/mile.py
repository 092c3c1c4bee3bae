"""MILe: a student learns, for a short while, what a teacher finds beside the labels that were marked."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from pydantic import PositiveInt
from torch import Tensor

from cml_bench.labels import PRESENT, UNMARKED
from cml_bench.models.model import MultiLabelModel
from cml_bench.streams.timeline import begins_experience, ends_experience
from cml_bench.training.context import RunContext
from cml_bench.training.option_types import Probability
from cml_bench.training.shown_labels import ShownLabelsPlugin
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["MILe"]


@dataclass(frozen=True)
class MILe(Strategy):
    """Alternate between learning the marked labels (as teacher) and a frozen copy's findings beside them (as student).

    One network plays both parts, as in the released code. For ``teacher_steps`` it learns from the labels y that were
    marked; then it is copied, and for ``student_steps`` it learns from y with ``y_c = 1`` wherever c is open and
    ``p_c > threshold``, p being the copy's in evaluation mode; then the student is the teacher. Few steps are the
    bottleneck that lets through what is easy to learn. An experience begins with a teacher, since the copy does not
    know its labels.

    Only labels that the annotator was asked for and left open can be found: a marked label, present or absent, stays as
    it is. What is open and not found is absent by the default criterion, ``assume_negative``, in both parts, which is
    the target of the sigmoid loss in the paper. So where everything is annotated, this is plain training.

    Source: Rajeswar et al. 2022, arXiv 2111.12172, on single labels (regime ``single_positive``); the released code has
    2000 and 2000 of 200,000 steps and thresholds of 0.25 and 0.5. Unconfirmed: which threshold the published results
    had. Inferred: the default steps, fewer for the student.

    Attributes:
        teacher_steps: Steps of an iteration on what was marked.
        student_steps: Steps of an iteration on what the teacher finds as well.
        threshold: Probability over which the teacher has found a label.
    """

    teacher_steps: PositiveInt = 20
    student_steps: PositiveInt = 10
    threshold: Probability = 0.25

    meta = StrategyMeta(
        name="mile", title="MILe", family="weak labels", reference="arXiv:2111.12172", loss="assume_negative"
    )

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the plugin that alternates."""
        return [IterationPlugin(self)]


class IterationPlugin(ShownLabelsPlugin):
    """Counts steps; while it is the student's turn, adds the teacher's findings to the labels that the criterion sees.

    Attributes:
        step: Steps of the current experience so far.
        teacher: The frozen copy; None while it is the teacher's turn.
    """

    def __init__(self, options: MILe) -> None:
        super().__init__()
        self.options = options
        self.step = 0
        self.teacher: MultiLabelModel | None = None

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Begin with a teacher; the chunks of an online experience go on."""
        if begins_experience(strategy.experience):
            self.step, self.teacher = 0, None

    @torch.no_grad()
    def shown(self, strategy: Any) -> Tensor | None:
        """Return labels with what the teacher finds."""
        if self.teacher is None:
            return None
        return find(strategy.mb_y, self.teacher(strategy.mb_x), self.options.threshold)

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Count, and change parts when it is time."""
        self.step += 1
        turn = self.step % (self.options.teacher_steps + self.options.student_steps)
        if turn == self.options.teacher_steps:
            self.teacher = copy.deepcopy(strategy.model).eval().requires_grad_(False)
            self.teacher.take_off()
        elif turn == 0:
            self.teacher = None

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Let go of a teacher that will not know the next labels."""
        if ends_experience(strategy.experience):
            self.teacher = None


def find(labels: Tensor, logits: Tensor, threshold: float) -> Tensor:
    """Return labels whose UNMARKED entries are PRESENT where the probability is over a threshold.

    Args:
        labels: (B, n) four-state labels; left as they are.
        logits: (B, n) of the teacher.
        threshold: Probability.
    """
    return labels.masked_fill((labels == UNMARKED) & (logits.sigmoid() > threshold), PRESENT)
