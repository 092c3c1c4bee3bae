"""What is said to running jobs, and the signs of life that they send."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

CheckpointEvery = Literal["experience", "never"]
"""An option: when a running job stores its state."""


@dataclass(frozen=True)
class Event:
    """A sign of life.

    Attributes:
        job: Index of the job in its sweep.
        kind: ``start``, ``phase``, ``epoch``, ``note``, ``done`` or ``failed``.
        message: The phase's name, the error's sentence, what the user should know, or the main figure.
        experience: Experience being trained, from 0.
        epoch: Epochs of it that are done.
        loss: Mean loss of the last epoch.
        fraction: Share of the job's training that is done.
    """

    job: int
    kind: str
    message: str = ""
    experience: int = 0
    epoch: int = 0
    loss: float | None = None
    fraction: float = 0.0


Report = Callable[[Event], None]
