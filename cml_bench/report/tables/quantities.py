"""What the figures of a result table are: how they are headed, printed, and which way is better."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cml_bench.report.statistics.estimates import Estimate

COSTS: Final = (
    *("training_seconds", "images_per_second", "peak_memory_mb", "peak_gpu_memory_mb"),
    *("stored_images", "trainable_parameters"),
)
"""What a method costs: columns of collected jobs that may stand in a table beside metrics."""

_NAMES: Final = {
    "map": "mAP",
    "cp": "CP",
    "cr": "CR",
    "cf1_macro": "CF1 macro",
    "cf1_harmonic": "CF1 harmonic",
    "op": "OP",
    "or": "OR",
    "of1": "OF1",
}
_METRIC: Final = re.compile(
    rf"(?P<span>last|avg)_(?P<figure>{'|'.join(_NAMES)})(?:_(?P<group>[a-z0-9_]+))?(?P<threshold>@.+)?"
)
_COUNTS: Final = ("dropped_labels", "undefined_forgetting", "undefined_experiences")
_HEADINGS: Final = {
    "images_per_second": "images/s",
    "peak_memory_mb": "peak MB",
    "peak_gpu_memory_mb": "GPU peak MB",
    "memory_mb": "memory MB",
}
_WHOLE: Final = tuple(name for name in COSTS if name != "training_seconds")
_SMALLER: Final = (
    *("forgetting", *_COUNTS, "seconds", "memory_mb"),
    *(name for name in COSTS if name != "images_per_second"),
)


@dataclass(frozen=True)
class Quantity:
    """One kind of figure.

    Attributes:
        name: Key of the metrics summary, or a cost.
        heading: How its column is headed.
        scale: Factor of printed figures: 100 for fractions, 1 for counts, seconds and sizes.
        decimals: Decimals printed.
        lower_is_better: Whether the lowest is the best.
        ranked: Whether the best is marked: metrics are, counts and costs are not.
    """

    name: str
    heading: str
    scale: float
    decimals: int
    lower_is_better: bool
    ranked: bool

    def printed(self, value: float) -> str:
        """Return one figure, or a dash for none."""
        return "-" if math.isnan(value) else f"{value * self.scale:,.{self.decimals}f}"

    def cell(self, estimate: Estimate, *, interval: bool = False) -> str:
        """Return mean ± sample deviation, or mean [low, high]; a count that does not vary stands alone."""
        mean = self.printed(estimate.mean)
        if math.isnan(estimate.deviation) or (not self.decimals and estimate.deviation == 0):
            return mean
        if interval:
            return f"{mean} [{self.printed(estimate.low)}, {self.printed(estimate.high)}]"
        return f"{mean} ± {self.printed(estimate.deviation)}"


def quantity(name: str) -> Quantity:
    """Return what is known of a metric or cost by its name."""
    # A count of a group of labels begins like that of all.
    plain = name.startswith(_COUNTS) or name in COSTS or name in ("seconds", "memory_mb")
    return Quantity(
        name=name,
        heading=heading(name),
        scale=1.0 if plain else 100.0,
        decimals=0 if name in _WHOLE else 1,
        lower_is_better=name.startswith(_SMALLER),
        ranked=not plain,
    )


def heading(name: str) -> str:
    """Return how a column is headed: ``last_cf1_macro_minor@0.5`` as ``last CF1 macro minor @0.5``."""
    match = _METRIC.fullmatch(name)
    if match is None:
        return _HEADINGS.get(name, name.replace("_", " "))
    group = (match["group"] or "").replace("_", " ")
    return " ".join(filter(None, (match["span"], _NAMES[match["figure"]], group, match["threshold"])))
