"""Images cut into patches, and what is said of patches brought together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError


def check_grid(wrapper: str, grid: int) -> None:
    """Refuse a number of rows and columns that is none.

    Raises:
        CmlBenchError: If it is below 1.
    """
    if grid < 1:
        raise CmlBenchError(f"wrap={wrapper}: grid={grid} cuts nothing: give 1 or more rows and columns of patches")


def cut(images: Tensor, grid: int) -> list[Tensor]:
    """Return the ``grid`` x ``grid`` patches of images (B, 3, H, W), row by row, each resized to (B, 3, H, W).

    A side that ``grid`` does not divide is cut into parts that differ by a pixel.

    Raises:
        CmlBenchError: If a side has fewer pixels than ``grid``.
    """
    size = images.shape[2:]
    if min(size) < grid:
        raise CmlBenchError(f"images of {size[0]} x {size[1]} pixels cannot be cut into {grid} x {grid} patches")
    parts = [part for row in images.tensor_split(grid, dim=2) for part in row.tensor_split(grid, dim=3)]
    return [
        part if part.shape[2:] == size else F.interpolate(part, size=size, mode="bilinear", align_corners=False)
        for part in parts
    ]


def weigh(weights: Tensor, values: Tensor) -> Tensor:
    """Return ``sum_k softmax_k(u_k) v_k``, patch by patch weighed for each label.

    Args:
        weights: (K, B, n) u.
        values: (K, B, n, ...) v.
    """
    shares = weights.softmax(dim=0)
    return torch.sum(shares.reshape(*shares.shape, *[1] * (values.dim() - shares.dim())) * values, dim=0)
