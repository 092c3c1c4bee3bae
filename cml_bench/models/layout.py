"""Feature layouts: a vector, a map or tokens, as one of the shapes a head can read."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

FeatureKind = Literal["pooled", "map", "tokens", "pyramid"]
"""What a head asks of a backbone; ``tokens`` are the class token and then the positions, a pyramid is maps of several
sizes."""

Features = Tensor | tuple[Tensor, ...]
"""What a backbone gives: a vector, a map or tokens; a pyramid as a tuple of maps, finest first."""


def pool(features: Features) -> Tensor:
    """Return one (B, D) vector per image: the mean over positions of a map or of tokens, a vector as it is.

    Args:
        features: (B, D), (B, D, H, W) or (B, N, D); of a pyramid, the coarsest map is pooled.
    """
    if isinstance(features, tuple):
        features = features[-1]
    if features.dim() == 4:
        return features.mean(dim=(2, 3))
    return features.mean(dim=1) if features.dim() == 3 else features


def in_place_of_map(backbone: object, features: FeatureKind) -> Literal["vectors", "several maps", "tokens"] | None:
    """Return what a backbone gives, in place of a map, to a head that asks for ``features``; None if it is a map."""
    if not getattr(backbone, "spatial", True):
        return "vectors"
    if features == "pyramid":
        return "several maps"
    has_class_token = getattr(getattr(backbone, "model", None), "has_class_token", False)
    return "tokens" if features == "tokens" and has_class_token else None


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


def whole_and_parts(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return what stands for the whole image, (B, D), and for its parts, (B, N, D).

    The class token and the positions of tokens. A map without a class token is its mean and its positions, a vector is
    the whole and the one part.

    Args:
        features: (B, 1 + N, D) tokens with the class token first, (B, D, H, W) or (B, D).
    """
    if features.dim() == 3:
        return features[:, 0], features[:, 1:]
    return pool(features), as_tokens(features)[0]
