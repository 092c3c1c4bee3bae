"""Angles between what a head sees of a label and the classifier row it is compared with."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from cml_bench.models.heads.head import Head, HeadOutput


def label_angles(features: Tensor, rows: Tensor) -> Tensor:
    """Return the angle between each label's feature and its classifier row, in degrees.

    Args:
        features: (B, n, d) label features, or (B, d) where all labels share one.
        rows: (n, d).

    Returns:
        (B, n) float64; NaN where one of the two is zero.
    """
    if features.dim() == 2:
        features = features[:, None]
    cosine = F.cosine_similarity(features.double(), rows.double(), dim=-1, eps=0.0)
    return torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))


def head_angles(head: Head, output: HeadOutput) -> Tensor | None:
    """Return the (B, n) ``label_angles`` of what a head said, None for a head without classifier rows."""
    rows = head.classifier_rows()
    if rows is None:
        return None
    return label_angles(output.pooled if output.label_features is None else output.label_features, rows)


def angle_law(labels: int) -> float:
    """Return ``arccos(1 / sqrt(M))`` in degrees: how far one feature stays from each of M orthonormal rows.

    One shared feature of fixed length that minimises the logistic loss over M labels ends at this angle to the row of
    each present one, and at 180 degrees minus it to that of each absent one; a feature of a label's own can reach 0.

    Source: "Learning Disentangled Label Representations for Multi-label Classification", arXiv 2212.01461.

    Raises:
        ValueError: If there is no label.
    """
    if labels < 1:
        raise ValueError(f"{labels} labels have no angle")
    return math.degrees(math.acos(labels**-0.5))
