"""What stands in a backbone's place where a data set has feature vectors and no images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError
from cml_bench.training.config import TrainingConfig

_IMAGE_KEYS = (
    "backbone",
    "backbone_options",
    "checkpoint",
    "pretrained_on",
    "image_size",
    "frozen",
    "augment",
    "flip",
    "cache",
)
"""Training settings that say how images are read."""


class GivenFeatures(nn.Module):
    """Hands vectors on as they are; a head that looks at positions sees one.

    Attributes:
        out_features: Width D of the vectors.
        record: What a result keeps in place of a backbone's record.
    """

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.out_features = out_features
        self.record: dict[str, Any] = {
            "name": "features as given",
            "options": {},
            "parameters": 0,
            "checkpoint": None,
            "sha256": None,
            "pretraining": "none",
        }

    def forward(self, features: Tensor) -> Tensor:
        """Return the (B, D) vectors."""
        return features


def given_features(sources: Sequence[Source], asked: TrainingConfig, declared: TrainingConfig) -> GivenFeatures | None:
    """Return the stand-in for sources that have feature vectors, None for images.

    Args:
        sources: Training and test source.
        asked: The job's settings.
        declared: The benchmark's own, to tell what was asked for.

    Raises:
        CmlBenchError: If widths differ, or a setting was asked for that speaks of images.
    """
    widths = [None if source.features is None else source.features.shape[1] for source in sources]
    name, width = sources[0].name, widths[0]
    if any(other != width for other in widths):
        raise CmlBenchError(f"{name} has features of widths {widths} in its splits: use two splits of one data set")
    if width is None:
        return None
    for key in _IMAGE_KEYS:
        if getattr(asked, key) != getattr(declared, key):
            raise CmlBenchError(f"{name} has feature vectors in place of images, so {key} has no use: leave it out")
    return GivenFeatures(width)
