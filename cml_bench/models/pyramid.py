"""Feature pyramids: a model's maps of several sizes, and how one row of a table holds them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cml_bench.errors import CmlBenchError
from cml_bench.models.evaluating import evaluating
from cml_bench.models.layout import Features

LEVELS = 4
"""Most levels that a pyramid has: the coarsest ones, which in most networks have strides 4 to 32."""


class Level(NamedTuple):
    """One map of a pyramid.

    Attributes:
        place: Its number among timm's intermediate features.
        shape: (D, H, W).
    """

    place: int
    shape: tuple[int, int, int]


@torch.no_grad()
def find_levels(model: nn.Module, name: str, image_size: int) -> tuple[Level, ...]:
    """Return the levels of a timm model, finest first: of all maps of one size the last, of all sizes the coarsest.

    Args:
        model: The model.
        name: Its name, for the sentence.
        image_size: Side of the images it reads.

    Raises:
        CmlBenchError: If the model has maps of one size only, or does not give its intermediate maps.
    """
    image = next(model.parameters()).new_zeros(1, 3, image_size, image_size)
    try:
        with evaluating(model):
            maps = model.forward_intermediates(image, output_fmt="NCHW", intermediates_only=True)  # type: ignore[operator]
    except (AttributeError, AssertionError, RuntimeError, TypeError):
        maps = []
    by_size = {each.shape[2:]: Level(place, tuple(each.shape[1:])) for place, each in enumerate(maps)}
    if len(by_size) < 2:
        found = "one size only" if by_size else "no size but the last"
        raise CmlBenchError(
            f"backbone {name!r} gives maps of {found}, and the head reads a pyramid: take a convolutional network or a "
            "hierarchical transformer (resnet50, mobilenetv2_100, swin_tiny_patch4_window7_224), or another head"
        )
    return tuple(sorted(by_size.values())[-LEVELS:])


def read_levels(model: nn.Module, levels: Sequence[Level], images: Tensor) -> tuple[Tensor, ...]:
    """Return the maps (B, D, H, W) of images (B, 3, H, W), one a level."""
    indices = [level.place for level in levels]
    return tuple(model.forward_intermediates(images, indices=indices, output_fmt="NCHW", intermediates_only=True))  # type: ignore[operator]


def pack(features: Features) -> Tensor:
    """Return the maps of a pyramid as (B, total) rows, level after level; other features as they are."""
    return torch.cat([level.flatten(1) for level in features], dim=1) if isinstance(features, tuple) else features


class PackedPyramid(nn.Module):
    """Gives the maps of cached rows: what stands in a frozen backbone's place.

    Attributes:
        spatial: False: what it gives is not one map.

    Args:
        levels: The levels, as they were packed.
    """

    spatial = False

    def __init__(self, levels: Sequence[Level]) -> None:
        super().__init__()
        self.shapes = [level.shape for level in levels]

    def forward(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return the maps (B, D, H, W) of (B, total) rows."""
        parts = rows.split([math.prod(shape) for shape in self.shapes], dim=1)
        return tuple(part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True))
