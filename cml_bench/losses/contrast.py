"""Contrast: what of an anchor's similarity falls on its partners, among all that it is compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.labels import PRESENT, is_known


def log_shares(scores: Tensor, among: Tensor, dim: int = -1) -> Tensor:
    """Return ``log( exp(s_ap) / sum_{n in among(a)} exp(s_an) )``.

    Args:
        scores: (..., A, N) similarities over the temperature.
        among: Boolean, like ``scores``: what the anchor is compared with.
        dim: The dimension that is compared.

    Returns:
        Like ``scores``; 0, without a gradient, where nothing is compared.
    """
    # The lowest number instead of minus infinity: an anchor that is compared with nothing gives no NaN.
    lowest = torch.finfo(scores.dtype).min
    shares = scores.masked_fill(~among, lowest).log_softmax(dim)
    return shares.masked_fill(~among, 0)


def contrast(scores: Tensor, positives: Tensor, among: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return each anchor's ``-1 / max(|P|, 1) sum_{p in P} w_p log share_p``; 0 for an anchor without partners.

    Source: Khosla et al. 2020, arXiv 2004.11362, equation 2 (sum outside the logarithm).

    Args:
        scores: (A, N) similarities over the temperature. The scores, and what is kept of them for the gradient, take a
            few times A x N numbers.
        positives: (A, N) boolean, which are partners; a subset of ``among``.
        among: (A, N) boolean, what the anchor is compared with; never itself.
        weights: (A, N) weight of each partner; None for 1.

    Returns:
        (A,).
    """
    shares = positives * log_shares(scores, among)
    total = (shares if weights is None else shares * weights).sum(dim=1)
    return -total / positives.sum(dim=1).clamp(min=1)


def others(n: int, device: torch.device) -> Tensor:
    """Return the (n, n) boolean mask of all but the diagonal."""
    return ~torch.eye(n, dtype=torch.bool, device=device)


def label_contrast(features: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Contrast features of present labels: partners are features of the same label in other images or views.

    ``I`` is every (image, label) that is present, ``L = 1/|I| sum_{a in I} -1/max(|P(a)|, 1) sum_{p in P(a)} log
    share`` among ``I`` without a. An anchor without a partner adds 0 and counts. What is not present has no part in it.

    Args:
        features: (B, n, d) unit vectors.
        labels: (B, n) four-state labels.
        temperature: What similarities are divided by.

    Returns:
        A scalar with a graph; 0 without a present label. Memory grows with the square of |I|: 64 images of 3 labels in
        two views are 384 anchors, a MB or so.
    """
    rows, columns = (labels == PRESENT).nonzero(as_tuple=True)
    anchors = features[rows, columns]
    among = others(len(anchors), features.device)
    positives = among & (columns[:, None] == columns)
    return contrast(anchors @ anchors.T / temperature, positives, among).sum() / max(1, len(anchors))


def common_counts(labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Count, for each pair of images, over the labels that are known of both.

    Images of different experiences are not known to differ: what nobody annotated in one of them says nothing.

    Args:
        labels: (B, n) four-state labels.

    Returns:
        Four (B, B) float32 counts: labels known of both, present in both, present in the first, present in the second.
    """
    known, present = is_known(labels).float(), (labels == PRESENT).float()
    first = present @ known.T
    return known @ known.T, present @ present.T, first, first.T


def jaccard(labels: Tensor) -> Tensor:
    """Return the (B, B) Jaccard index of the present labels, over the labels known of both images.

    Two images without a present label among these have nothing in common: 0.
    """
    _, shared, first, second = common_counts(labels)
    return shared / (first + second - shared).clamp(min=1)


class Projector(nn.Module):
    """Two linear layers with a ReLU between them, onto the unit sphere.

    Args:
        in_features: Width of the features, and of the layer between.
        out_features: Dimension of the sphere.
        like: A tensor on the device and of the type that the parameters are to have.
    """

    def __init__(self, in_features: int, out_features: int, like: Tensor) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(in_features, in_features), nn.ReLU(), nn.Linear(in_features, out_features)
        ).to(like)

    def forward(self, features: Tensor) -> Tensor:
        """Return (..., out_features) unit vectors of (..., in_features) features."""
        return F.normalize(self.layers(features), dim=-1)
