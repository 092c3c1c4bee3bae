"""A contrast of projected features beside another criterion."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from cml_bench.losses.auxiliary import Auxiliary
from cml_bench.losses.contrast import Projector
from cml_bench.losses.criterion import Criterion
from cml_bench.losses.entries import check_option
from cml_bench.models.heads.head import HeadOutput


class ProjectedContrast(Auxiliary):
    """``base + weight * contrast``, where features meet on a unit sphere that a projector of this criterion leads to.

    Args:
        base: The criterion beside the contrast.
        weight: Weight of the contrast, >= 0.
        temperature: What similarities are divided by, > 0.
        projection: Dimension that features are projected to; None for half their own.

    Raises:
        CmlBenchError: If an option is out of range.
    """

    def __init__(self, base: str | Criterion, weight: float, temperature: float, projection: int | None) -> None:
        super().__init__(base, weight)
        name = self.meta.name
        check_option(name, "temperature", temperature, temperature > 0, "positive")
        check_option(name, "projection", projection, projection is None or projection >= 1, "at least 1")
        self.temperature = temperature
        self.projection = projection
        self.projector: Projector | None = None

    @abstractmethod
    def contrasted(self, output: HeadOutput) -> Tensor:
        """Return the (B, ..., d) features that are compared."""

    def fit(self, output: HeadOutput) -> None:
        """Add the projector, shared by all labels."""
        if self.projector is None:
            features = self.contrasted(output)
            width = features.shape[-1]
            self.projector = Projector(width, self.projection or max(1, width // 2), features)

    def projected(self, *views: HeadOutput | None) -> Tensor:
        """Return the projected features of some views of B images, one view after the other, without those missing."""
        there = [view for view in views if view is not None]
        self.fit(there[0])
        assert self.projector is not None
        features: Tensor = self.projector(torch.cat([self.contrasted(view) for view in there]))
        return features
