"""Gaussian mixtures over features, one component a label: densities and kernels in log space, and rows that grow.

A component is isotropic with one mean for all M dimensions, ``N(mu 1, var I)``: two numbers an image and label.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Initialise = Callable[[Tensor], Tensor]


class GrowingRows(nn.Module):
    """A linear layer with one row a label; growth appends a block of rows.

    Args:
        initialise: Fills the weights (n, D) of new rows in place; biases start at 0.
    """

    def __init__(self, initialise: Initialise) -> None:
        super().__init__()
        self.initialise = initialise
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()

    def reach(self, n_labels: int, like: Tensor) -> None:
        """Add the rows missing to ``n_labels``, as wide as the features (B, D) and where they are."""
        missing = n_labels - sum(len(block) for block in self.biases)
        if missing > 0:
            # Drawn on the CPU: a seed starts the same on every device.
            weight = self.initialise(torch.empty(missing, like.shape[1], dtype=like.dtype)).to(like.device)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(weight.new_zeros(missing)))

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, n)."""
        return F.linear(features, torch.cat(list(self.weights)), torch.cat(list(self.biases)))


class Components(nn.Module):
    """Means and variances of every label's component, read from a feature: two growing linear layers.

    ``var = 2 + 1e-7 + ELU(.)``, so above 1. Means start with weights uniform in [0, 0.1], variances with weights 1.

    Source: the released code of arXiv 2307.03967 (KMCL).
    """

    def __init__(self) -> None:
        super().__init__()
        self.mean_rows = GrowingRows(_small)
        self.variance_rows = GrowingRows(_ones)

    def reach(self, n_labels: int, like: Tensor) -> None:
        """Add rows for labels that have none."""
        self.mean_rows.reach(n_labels, like)
        self.variance_rows.reach(n_labels, like)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and variances, (B, n) each, of (B, D) features."""
        return self.mean_rows(features), 2 + 1e-7 + F.elu(self.variance_rows(features))


def _small(weight: Tensor) -> Tensor:
    return weight.uniform_(0, 0.1)


def _ones(weight: Tensor) -> Tensor:
    return weight.fill_(1)


def log_kernel(features: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """Return ``log G = -1/2 |f - mu 1|^2 / var``, the Gaussian without its normaliser.

    Args:
        features: (B, M).
        means: (B, n).
        variances: (B, n).

    Returns:
        (B, n).
    """
    # Spread around the own mean plus distance of the means: no difference of large squares.
    centre = features.mean(dim=1, keepdim=True)
    spread = (features - centre).square().sum(dim=1, keepdim=True)
    return -(spread + features.shape[1] * (centre - means).square()) / (2 * variances)


def log_density(features: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """Return ``log N(f; mu 1, var I)``, (B, n); arguments as in ``log_kernel``."""
    normaliser = features.shape[1] / 2 * (2 * math.pi * variances).log()
    return log_kernel(features, means, variances) - normaliser


def bhattacharyya(means: Tensor, variances: Tensor, width: int) -> Tensor:
    """Return the Bhattacharyya distance between the same label's components of every two images.

    ``(M/2) log((v1 + v2) / (2 sqrt(v1 v2))) + (M/4) (mu1 - mu2)^2 / (v1 + v2)`` of ``N(mu 1, v I)`` in M dimensions.

    Args:
        means: (B, n).
        variances: (B, n).
        width: Number M of dimensions.

    Returns:
        (B, B, n).
    """
    total = variances[:, None] + variances
    geometric = (variances[:, None] * variances).sqrt()
    return width / 2 * (total / (2 * geometric)).log() + width / 4 * (means[:, None] - means).square() / total


def similarity(log_weights: Tensor, means: Tensor, variances: Tensor, width: int) -> Tensor:
    """Return how alike every two images' mixtures are: ``<p_i, p_j> / sqrt(<p_i, p_i> <p_j, p_j>)``.

    ``<p_i, p_j> = sum_kl pi_ik pi_jl N(mu_ik 1; mu_jl 1, (v_ik + v_jl) I)`` is the integral of the product of the two
    densities, in M dimensions.

    Args:
        log_weights: (B, n) log pi.
        means: (B, n).
        variances: (B, n).
        width: Number M of dimensions.

    Returns:
        (B, B), symmetric, in [0, 1] and 1 on the diagonal. A few (B, B, n, n) arrays are kept for the gradient: 64
        images in two views and 20 labels are 6.6 million numbers each.
    """
    total = variances[:, None, :, None] + variances[None, :, None, :]
    apart = (means[:, None, :, None] - means[None, :, None, :]).square()
    exponent = -width / 2 * ((2 * math.pi * total).log() + apart / total)
    weighted = exponent + log_weights[:, None, :, None] + log_weights[None, :, None, :]
    product = weighted.flatten(2).logsumexp(dim=2)
    own = product.diagonal()
    return (product - (own[:, None] + own) / 2).exp()
