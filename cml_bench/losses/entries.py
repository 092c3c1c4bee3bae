"""What criteria on weak labels share: the entries that they answer for, and how the costs of these are joined."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.labels import PRESENT, UNMARKED, is_known

Reduction = Literal["mean", "sum"]
"""An option: the mean over the entries that a criterion answers for, or the sum over them."""


def open_entries(labels: Tensor, spare: int = 0) -> Tensor:
    """Return the bool mask of (B, n) labels that were asked for and left open, from column ``spare`` on."""
    return (labels == UNMARKED) & (torch.arange(labels.shape[1], device=labels.device) >= spare)


def judged_entries(labels: Tensor, spare: int = 0) -> Tensor:
    """Return the bool mask of (B, n) labels that are known or open: all that were asked for, from ``spare`` on."""
    return is_known(labels) | open_entries(labels, spare)


def binary_costs(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the (B, n) cross-entropies of labels with PRESENT against everything else; the caller masks."""
    return F.binary_cross_entropy_with_logits(logits, (labels == PRESENT).to(logits.dtype), reduction="none")


def reduced(costs: Tensor, judged: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Return the mean (or sum) of (B, n) costs over the judged entries, or 0 with a graph if there are none.

    Where as many labels are asked for of every image, the mean is the sum over images and labels divided by B * C, as
    the single-positive literature writes it.
    """
    total = torch.where(judged, costs, 0).sum()
    return total if reduction == "sum" else total / judged.sum().clamp(min=1)


def found_present(logits: Tensor, labels: Tensor, threshold: float, spare: int = 0) -> Tensor:
    """Return (B, n) labels in which open entries are PRESENT where the probability is over the threshold.

    The missing-label correction of SPLC and CLML. They know positives alone, and correct every other label; what an
    annotator verified to be absent is left so here.
    """
    found = open_entries(labels, spare) & (logits.detach().sigmoid() > threshold)
    return labels.masked_fill(found, PRESENT)


def check_option(criterion: str, option: str, value: object, holds: bool, demand: str) -> None:
    """Refuse an option's value.

    Raises:
        CmlBenchError: Unless it ``holds``: "criterion: option=value must be ``demand``".
    """
    if not holds:
        raise CmlBenchError(f"{criterion}: {option}={value!r} must be {demand}")


def check_reduction(criterion: str, reduction: str) -> None:
    """Refuse what is no reduction.

    Raises:
        CmlBenchError: If it is neither ``mean`` nor ``sum``.
    """
    check_option(criterion, "reduction", reduction, reduction in ("mean", "sum"), "'mean' or 'sum'")
