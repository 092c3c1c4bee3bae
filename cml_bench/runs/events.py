"""Signs of life that running jobs send."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """A sign of life.

    Attributes:
        job: Index of the job in its sweep.
        kind: ``start``, ``phase``, ``epoch``, ``done`` or ``failed``.
        message: The phase's name, the error's sentence, or the main figure.
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
