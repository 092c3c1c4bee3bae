"""What counts as one figure: a job, or a class order where there are enough of these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cml_bench.report.statistics.estimates import Values, pairs_needed


def orders_enough(orders: Iterable[Any]) -> bool:
    """Return whether a test over these class orders alone can find anything: whether they are six."""
    return len({*orders}) >= pairs_needed()


def one_an_order(figures: npt.ArrayLike, orders: Sequence[Any], cells: npt.ArrayLike | None = None) -> Values:
    """Return the mean over seeds of each class order where there are six orders or more; else the figures as they are.

    Seeds on one class order are much alike, so an interval over three of them on each of six would hold far less than
    it says; and an order with more seeds than others must not weigh more.

    Args:
        figures: (n,) figures of jobs; NaN where undefined, which a mean leaves out.
        orders: The class order of each.
        cells: (n,) numbers of what else tells jobs apart, the order included; None where nothing but the seed does.
    """
    values = np.asarray(figures, dtype=np.float64)
    if not orders_enough(orders):
        return values
    _, place = np.unique(np.asarray(orders if cells is None else cells), return_inverse=True)
    known = ~np.isnan(values)
    counts = np.bincount(place, known)
    sums = np.bincount(place, np.where(known, values, 0.0))
    means: Values = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return means
