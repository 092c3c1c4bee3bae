"""The model as it was before the current experience."""

from __future__ import annotations

import copy
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.head import HeadOutput
from cml_bench.models.model import MultiLabelModel
from cml_bench.streams.timeline import ends_experience


class TeacherPlugin(SupervisedPlugin):
    """Keeps a frozen copy of the model after each experience.

    The copy is made before the head grows, so it has exactly the old labels. It reads the same augmented tensor as the
    learner. While there is a teacher, a criterion that assumes unknown entries to be negative leaves the old labels'
    unknown entries to it (``Criterion.spare``), or the two would pull in opposite directions.

    Args:
        answers: Whether the teacher answers for old labels' unknown entries: not if what it says of them weighs 0.
    """

    # Of the class, or a subclass that does not call __init__ would fail by a name it has never heard of.
    answers = True
    teacher: MultiLabelModel | None = None

    def __init__(self, *, answers: bool = True) -> None:
        super().__init__()
        self.answers = answers

    @property
    def n_old(self) -> int:
        """Number of labels the teacher knows; 0 before there is one."""
        return 0 if self.teacher is None else self.teacher.head.n_labels

    @torch.no_grad()
    def teach(self, x: Tensor) -> HeadOutput:
        """Return what the teacher says of (B, ...) inputs.

        Raises:
            CmlBenchError: If there is none yet.
        """
        if self.teacher is None:
            raise CmlBenchError("there is no teacher in the first experience: ask it only where n_old is not 0")
        return self.teacher.head_output(x)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Leave the old labels' unknown entries to the teacher."""
        strategy._criterion.spare = self.n_old if self.answers else 0

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Copy the model at the end of an experience."""
        if not ends_experience(strategy.experience):
            return
        self.teacher = copy.deepcopy(strategy.model).eval()
        # It answers in training; what predictions are made with besides is no part of that.
        self.teacher.take_off()
        self.teacher.requires_grad_(False)
