"""Feature layouts: a vector, a map or tokens, as one of two shapes a head can read."""

from __future__ import annotations

from torch import Tensor


def pool(features: Tensor) -> Tensor:
    """Return one (B, D) vector per image: the mean over positions of a map or of tokens, a vector as it is.

    Args:
        features: (B, D), (B, D, H, W) or (B, N, D).
    """
    if features.dim() == 4:
        return features.mean(dim=(2, 3))
    return features.mean(dim=1) if features.dim() == 3 else features


def as_tokens(features: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Return the positions as (B, N, D) tokens, and the grid (H, W) they came from.

    A vector is one token on a 1 x 1 grid; tokens without a map are a 1 x N grid.

    Args:
        features: (B, D), (B, D, H, W) or (B, N, D).
    """
    if features.dim() == 4:
        return features.flatten(2).transpose(1, 2), (features.shape[2], features.shape[3])
    if features.dim() == 3:
        return features, (1, features.shape[1])
    return features.unsqueeze(1), (1, 1)
