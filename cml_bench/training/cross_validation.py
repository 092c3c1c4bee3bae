"""The penalty of a ridge regression, chosen from its own sums."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

Penalty = PositiveFloat | Literal["gcv"]
"""An option: a number, or the one that generalised cross-validation prefers."""

_GRID = 10.0 ** (torch.arange(-24, 9, dtype=torch.float64) / 4)
"""Penalties to compare, relative to the largest eigenvalue: 1e-6 to 100."""


def generalised_cross_validation(gram: Tensor, moment: Tensor, squares: Tensor, count: float, free: int = 0) -> float:
    """Return the penalty with the least generalised cross-validation error, summed over targets that share it.

    With H the matrix from targets to fitted values, the error is ``N ||y - H y||^2 / (N - tr H)^2``: the squared errors
    of leaving one image out after the other, if all images had the same leverage (Golub, Heath and Wahba 1979). All it
    takes is the sums of a regression: no image is looked at again, and none that is not trained on.

    Args:
        gram: (d, d) float64 sum of f f^T; of centred features where there is an intercept.
        moment: (d, n) sum of f y^T; likewise.
        squares: (n,) sum of y^2; likewise.
        count: Number N of images.
        free: Parameters that are fitted without a penalty: 1 for an intercept.
    """
    values, vectors = torch.linalg.eigh(gram)
    values = values.clamp(min=0)
    power = (vectors.T @ moment).square().sum(dim=1)
    penalties = _GRID.to(values) * values[-1].clamp(min=torch.finfo(values.dtype).tiny)
    damped = values + penalties[:, None]
    residual = squares.sum() - (power * (values + 2 * penalties[:, None]) / damped.square()).sum(dim=1)
    left = count - free - (values / damped).sum(dim=1)
    error = residual.clamp(min=0) / left.clamp(min=1e-9 * count).square()
    # Of equals the largest: it is the safer one.
    best = len(error) - 1 - int(error.flip(0).argmin())
    return float(penalties[best])
