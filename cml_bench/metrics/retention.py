"""What became of earlier labels: forgetting and transfer, from a matrix of performances.

``performance[k, t]`` is a figure, larger is better, of the labels that arrived with experience k, measured after
experience t on images that are the same for every t; NaN where t < k and where the figure is undefined. Everything
below is a function of this T x T matrix.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt

from cml_bench.errors import CmlBenchError

Matrix = npt.NDArray[np.float64]


def mean_defined(values: Iterable[float]) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    array = np.fromiter(values, dtype=np.float64)
    defined = array[~np.isnan(array)]
    return float(defined.mean()) if defined.size else float("nan")


def forgetting(
    performance: Matrix,
    *,
    reference: Literal["max", "diagonal"] = "max",
    relative: bool = False,
) -> Matrix:
    """Return, for each experience but the last, how far its labels fell below their reference by the end.

    Negative values are gains. The customary figure is the mean over experiences, ``mean_defined(forgetting(...))``.

    Source: absolute, max reference: Chaudhry et al. 2018, arXiv 1801.10112, equation 3. Relative, max reference: Kim
    et al. 2020 (PRS), arXiv 2009.03632. Relative, diagonal reference: Du et al. 2022 (AGCN), arXiv 2203.05534.

    Args:
        performance: (T, T) matrix as above.
        reference: ``"max"``, the best before the last experience, or ``"diagonal"``, that right after learning.
        relative: Whether the fall is divided by the reference; from a reference of 0 it is undefined.

    Returns:
        (T - 1,) falls; NaN where undefined, so that the undefined can be counted.

    Raises:
        CmlBenchError: If the matrix is not square, or an option is unknown.
    """
    _check(performance)
    if reference not in ("max", "diagonal"):
        raise CmlBenchError(f"forgetting: reference={reference!r} must be 'max' or 'diagonal'")
    last = len(performance) - 1
    end = performance[:last, -1]
    if reference == "diagonal":
        start = np.diagonal(performance)[:last]
    else:
        start = np.fmax.reduce(performance[:last, :last], axis=1) if last else np.empty(0)
    fall = start - end
    if not relative:
        return fall
    return np.where(start == 0, np.nan, fall / np.where(start == 0, 1.0, start))


def backward_transfer(performance: Matrix) -> Matrix:
    """Return, for each experience but the last, its change from right after learning to the end; negative is a loss.

    Source: Lopez-Paz and Ranzato 2017, arXiv 1706.08840, equation 3 (there the mean over experiences).

    Args:
        performance: (T, T) matrix as above.

    Returns:
        (T - 1,) changes; NaN where undefined.

    Raises:
        CmlBenchError: If the matrix is not square.
    """
    _check(performance)
    return performance[:-1, -1] - np.diagonal(performance)[:-1]


def forward_transfer(performance: Matrix, reference: npt.ArrayLike) -> Matrix:
    """Return, for each experience but the first, how much better its labels were learnt for what came before.

    The reference is a fresh model trained on experience k alone. The older definition, the performance on k before
    k is learnt, does not exist here: a growing head has no logit for a label that has not arrived.

    Source: Wang et al. 2023, arXiv 2302.00487, the forward transfer of section 2.2 (there the mean over experiences).

    Args:
        performance: (T, T) matrix as above.
        reference: (T,) figures of the fresh models, on the same labels and images; the first is not read.

    Returns:
        (T - 1,) differences; NaN where undefined.

    Raises:
        CmlBenchError: If the matrix is not square, or the reference has another length.
    """
    _check(performance)
    fresh = np.asarray(reference, dtype=np.float64)
    if fresh.shape != (len(performance),):
        raise CmlBenchError(
            f"forward transfer: reference has shape {fresh.shape} for {len(performance)} experiences; "
            "give one figure an experience"
        )
    return np.diagonal(performance)[1:] - fresh[1:]


def _check(performance: Matrix) -> None:
    if performance.ndim != 2 or performance.shape[0] != performance.shape[1] or not performance.size:
        raise CmlBenchError(f"performance has shape {performance.shape}; it must be a square matrix, not empty")
