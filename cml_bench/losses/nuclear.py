"""Nuclear norms of groups of rows: values, and gradients that exist at any rank."""

from __future__ import annotations

import torch
from torch import Tensor

NEGLIGIBLE = 1e-6
"""Singular values below this part of the largest are rounding of 0 and have no direction."""


@torch.no_grad()
def nuclear_norms(features: Tensor, members: Tensor, least: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the nuclear norms of G groups of rows, and a subgradient of the sum of those over ``least``.

    With ``X_g`` the rows of a group and ``U S V^T`` its singular value decomposition without the negligible part, a
    subgradient of ``|X_g|_*`` is ``U V^T = (X_g X_g^T)^{-1/2} X_g`` (pseudo-inverse), and ``<U V^T, X_g> = |X_g|_*``.
    So the one (B, B) matrix ``X X^T`` is enough, however wide the features are: the groups' parts of it are decomposed
    in one batch, in float64 because it squares the singular values. Nothing is differentiated through a decomposition,
    which has no answer where singular values are 0 or equal.

    Args:
        features: (B, D).
        members: (G, B) bool; a row may be in several groups.
        least: Groups whose norm is not over it have no part in the subgradient.

    Returns:
        (G,) norms in float64, and the (B, D) subgradient in the features' type.
    """
    wide = features.double()
    # A diverging model is told by its loss; a decomposition of NaN would raise something less plain.
    gram = (wide @ wide.mT).nan_to_num(0, 0, 0)
    # Members first; what a group has less than the largest is padding with rows of 0.
    inside, rows = members.to(torch.int8).sort(dim=1, descending=True, stable=True)
    size = max(1, int(members.sum(dim=1).max()))
    inside, rows = inside[:, :size].bool(), rows[:, :size]
    first, second = rows[:, :, None].expand(-1, -1, size), rows[:, None, :].expand(-1, size, -1)
    values, vectors = torch.linalg.eigh(gram[first, second] * (inside[:, :, None] & inside[:, None, :]))
    singular = values.clamp(min=0).sqrt()
    counts = singular > NEGLIGIBLE * singular.amax(dim=1, keepdim=True)
    norms = torch.where(counts, singular, 0).sum(dim=1)
    inverse = torch.where(counts & (norms > least)[:, None], 1 / singular, 0)
    together = torch.zeros_like(gram)
    together.index_put_((first, second), (vectors * inverse[:, None, :]) @ vectors.mT, accumulate=True)
    return norms, (together @ wide).to(features.dtype)
