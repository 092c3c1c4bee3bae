"""The regulariser of EPR and ROLE: as many labels present in an image as one expects."""

from __future__ import annotations

import torch
from torch import Tensor

from cml_bench.labels import PRESENT
from cml_bench.losses.entries import check_option


def count_penalty(probabilities: Tensor, labels: Tensor, judged: Tensor, k: float | None) -> Tensor:
    """Return ``((mean_b sum_c p_bc - k) / C)^2`` over the judged entries, or 0 with a graph if there are none.

    With as many judged labels in every image this is the published form; where their number varies, C is the mean of
    it over the images that have any.

    Source: Cole et al. 2021, arXiv 2106.09708, with the factor 1 / C^2 of the authors' code.

    Args:
        probabilities: (B, n).
        labels: (B, n) four-state labels.
        judged: (B, n) bool.
        k: Expected number of present labels among the judged ones of an image; None for as many as are marked.
    """
    marked = ((labels == PRESENT) & judged).sum()
    expected = marked if k is None else k * judged.any(dim=1).sum()
    excess = torch.where(judged, probabilities, 0).sum() - expected
    return (excess / judged.sum().clamp(min=1)) ** 2


def check_count(criterion: str, k: float | None) -> None:
    """Refuse what is no number of labels.

    Raises:
        CmlBenchError: If it is not positive.
    """
    check_option(criterion, "k", k, k is None or k > 0, "positive")
