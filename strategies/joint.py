"""Joint training: the upper bound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from avalanche.benchmarks import DatasetExperience

from cml_bench.streams.dataset import MultiLabelDataset, merge
from cml_bench.streams.timeline import set_label_attributes
from cml_bench.training.context import RunContext
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["Joint"]


@dataclass(frozen=True)
class Joint(Strategy):
    """Train once on all images of the stream; after each experience the seen columns of that one model are read.

    With ``labels="oracle"`` (the papers' upper bound) every image carries its full truth; with ``"as_annotated"`` the
    union of the annotations that the stream gave, known entries winning, one row an image. Trains as many epochs as any
    other strategy spends on one experience.

    Attributes:
        labels: Whose labels to learn from.
    """

    labels: Literal["oracle", "as_annotated"] = "oracle"

    meta = StrategyMeta(
        name="joint",
        title="Joint",
        family="bound",
        exemptions={
            "future_labels": "an upper bound reads the whole stream at once",
            "unknown_entries_unread": "an upper bound learns from the full truth",
            "grows_once_per_experience": "all labels are there from the start",
        },
    )

    def curriculum(
        self, stream: Iterable[Sequence[DatasetExperience]], run: RunContext
    ) -> Iterator[Sequence[DatasetExperience]]:
        """Yield everything before the first evaluation, nothing before the others."""
        experiences = list(stream)
        everything = merge([chunk.dataset for chunks in experiences for chunk in chunks])
        if self.labels == "oracle":
            everything = run.oracle(everything, everything.labels.names)
        yield [as_experience(everything)]
        for _ in experiences[1:]:
            yield []


def as_experience(dataset: MultiLabelDataset) -> DatasetExperience:
    """Return a dataset as an experience with label attributes."""
    return set_label_attributes(DatasetExperience(dataset=dataset))
