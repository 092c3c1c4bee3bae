"""How often a running job is stored."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cml_bench.errors import CmlBenchError

_UNITS = {"s": 1, "min": 60, "h": 3600}


@dataclass(frozen=True)
class Rhythm:
    """When a job is stored, besides after each experience.

    Attributes:
        epochs: After each epoch.
        seconds: At the first step after so much time since the last checkpoint.
    """

    epochs: bool = False
    seconds: float = float("inf")


def parse_rhythm(text: str) -> Rhythm | None:
    """Parse ``experience``, ``epoch``, a time such as ``10min``, or ``never``, which is None.

    Raises:
        CmlBenchError: If it is none of these.
    """
    if text in ("experience", "epoch"):
        return Rhythm(epochs=text == "epoch")
    if text == "never":
        return None
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)(s|min|h)", text, re.ASCII)
    if found is None or not float(found[1]):
        raise CmlBenchError(
            f"checkpoint_every={text!r:.60} is no time: give experience, epoch, never or a time as in 30s, 10min, 2h"
        )
    return Rhythm(seconds=float(found[1]) * _UNITS[found[2]])
