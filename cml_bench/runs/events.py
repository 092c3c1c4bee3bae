"""What is said to running jobs, and the signs of life that they send."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

CheckpointEvery = str
"""An option: when a running job stores its state besides after each experience; see ``rhythm.parse_rhythm``."""

CHECKPOINT_EVERY: CheckpointEvery = "10min"
"""What holds if nobody says otherwise."""

DEFAULT_RESULTS = Path("results/runs")
"""Where results go, and are looked for, if nobody says otherwise."""

Log = Literal["tensorboard", "wandb"]
"""An option: the experiment tracker that follows a running job."""


@dataclass(frozen=True)
class Event:
    """A sign of life.

    Attributes:
        job: Index of the job in its sweep.
        kind: ``start``, ``resumed`` (what was learnt earlier is there), ``phase``, ``epoch``, ``experience`` (learnt
            and tested), ``note``, ``done``, ``failed``, ``skipped`` (another process runs it), or ``warning`` (about
            more than this job; told once).
        message: The phase's name, the error's sentence, what the user should know, or the main figure.
        experience: Experience being trained, from 0.
        epoch: Epochs of it that are done, as the learner that has trained one counts.
        step: Place on the axis of a tracker: epochs trained by all learners of the job; see ``CostMeter.tested``.
        loss: Mean loss of the last epoch.
        fraction: Share of the job's training that is done.
        metrics: Figures after an experience, on the labels seen by then; those that are undefined are left out.
    """

    job: int
    kind: str
    message: str = ""
    experience: int = 0
    epoch: int = 0
    step: int = 0
    loss: float | None = None
    fraction: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)


Report = Callable[[Event], None]
