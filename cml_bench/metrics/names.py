"""Names of metrics: ``last_cf1_macro_minor@0.6`` is a span, a figure, a group of labels and a threshold."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_SHAPE = re.compile(r"(?:(?P<span>last|avg)_)?(?P<figure>[a-z][a-z0-9_]*?)(?:@(?P<threshold>0?\.\d+))?")


@dataclass(frozen=True)
class MetricName:
    """A metric, as tables name it.

    Attributes:
        figure: What is measured: ``map``, ``cf1_macro``, ``forgetting`` ...
        span: ``last`` after the last experience, ``avg`` mean over experiences, None for figures of the whole run.
        threshold: Probability that decisions are cut at; None for figures that need none.
        group: Labels that it is about, such as ``minor``; None for all.
    """

    figure: str
    span: str | None = None
    threshold: float | None = None
    group: str | None = None

    @property
    def after_experience(self) -> str:
        """Its key among the figures after one experience, whatever the labels."""
        return self.figure if self.threshold is None else f"{self.figure}@{self.threshold:g}"

    @property
    def in_summary(self) -> str:
        """Its key in the metrics summary, whatever the labels."""
        return self.after_experience if self.span is None else f"{self.span}_{self.after_experience}"

    def __str__(self) -> str:
        """Return the name."""
        parts = (self.span, self.figure, self.group)
        name = "_".join(part for part in parts if part)
        return name if self.threshold is None else f"{name}@{self.threshold:g}"


def parse_metric(text: str, groups: Iterable[str] = ()) -> MetricName:
    """Read a metric's name; a figure at a threshold without a span is that after the last experience.

    Whether there is such a figure is for others to say: a text of another shape is a figure of that name.

    Args:
        text: The name.
        groups: Groups of labels that it may end with.
    """
    read = _SHAPE.fullmatch(text)
    if read is None:
        return MetricName(text)
    figure, group = read["figure"], None
    for each in groups:
        if figure.endswith(f"_{each}") and len(each) > len(group or ""):
            group = each
    if group is not None:
        figure = figure.removesuffix(f"_{group}")
    threshold = None if read["threshold"] is None else float(read["threshold"])
    return MetricName(figure, read["span"] or ("last" if threshold is not None else None), threshold, group)
