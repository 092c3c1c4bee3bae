"""Putting the chunks of an online experience together."""

from __future__ import annotations

from avalanche.benchmarks import DatasetExperience

from cml_bench.streams.dataset import MultiLabelDataset, merge
from cml_bench.streams.timeline import ends_experience


class Chunks:
    """Collects what an experience consists of, for whoever looks at it whole.

    Attributes:
        datasets: What has come of it so far.
    """

    def __init__(self) -> None:
        self.datasets: list[MultiLabelDataset] = []

    def add(self, experience: DatasetExperience) -> MultiLabelDataset | None:
        """Take a chunk, or an experience that is one; return the whole, one row an image, once it ends."""
        self.datasets.append(experience.dataset)
        if not ends_experience(experience):
            return None
        whole, self.datasets = merge(self.datasets), []
        return whole
