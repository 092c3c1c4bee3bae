"""Long tail: a few labels with many images, many labels with few."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError
from cml_bench.labels import PRESENT, LabelArray, samples_by_label
from cml_bench.regimes.regime import Question, Regime, RegimeMeta

__all__ = ["LongTail"]


@dataclass(frozen=True)
class LongTail(Regime):
    """Images are chosen so that label counts follow a Pareto density; what is chosen is marked in full.

    Labels are ranked by how often they come with others, sum_i P(label | i), the highest first. Label by label, images
    that show it are drawn, or drawn images are put back, until as many are chosen as its rank should have. Later labels
    change the counts of earlier ones, so the counts only resemble the aim.

    Source: Wu et al. 2020, arXiv 2007.09654, and the authors' ``create_longtail_dataset.py``: COCO-MLT of train2017 is
    ``most=1200``, VOC-MLT of VOC2012 ``most=800`` (1,909 and 1,142 images; other works call them COCO-LT and VOC-LT).
    Their random draws cannot be repeated: the published image lists are a data set of their own.

    Attributes:
        most: Images that the first label should have.
        least: What the counts fall towards, at least 0.
        alpha: Shape of the Pareto density, above 0; the ranks cover it up to its 99th percentile.
    """

    most: int = 1200
    least: int = 1
    alpha: float = 6.0

    meta = RegimeMeta(name="long_tail", title="long tail", reference="arXiv:2007.09654")

    def __post_init__(self) -> None:
        """Refuse counts that do not fall."""
        if not 0 <= self.least <= self.most:
            raise CmlBenchError(f"regime long_tail: least={self.least} and most={self.most} must be 0 <= least <= most")
        if not self.alpha > 0:
            raise CmlBenchError(f"regime long_tail: alpha={self.alpha} must be above 0")

    def aims(self, n_labels: int) -> npt.NDArray[np.intp]:
        """Return the (C,) counts that the labels should have, by rank."""
        # (most - least) * density / alpha, the density of alpha being alpha / x^(alpha + 1) from x = 1 on.
        x = np.linspace(1, 0.01 ** (-1 / self.alpha), n_labels)
        return np.floor((self.most - self.least) * x ** -(self.alpha + 1) + self.least).astype(np.intp)

    def select(self, source: Source, seed: int) -> npt.NDArray[np.intp]:
        """Return the chosen rows; each label's draws go by the images' ids."""
        showing = samples_by_label(source.labels)
        chosen = np.zeros(len(source), dtype=np.bool_)
        for label, aim in zip(_ranked(source, showing), self.aims(len(showing)), strict=True):
            rows = showing[label]
            there = chosen[rows]
            change = aim - np.count_nonzero(there)
            candidates = rows[~there] if change > 0 else rows[there]
            question = Question(source, candidates, np.array([label]), source.labels[candidates, label][:, None], seed)
            first = np.argsort(question.uniform()[:, 0], kind="stable")[: abs(change)]
            chosen[candidates[first]] = change > 0
        return np.flatnonzero(chosen)

    def observe(self, question: Question) -> LabelArray:
        """Return the labels as they are."""
        return question.labels


def _ranked(source: Source, showing: list[npt.NDArray[np.intp]]) -> npt.NDArray[np.intp]:
    """Return the labels, those that most often come with others first."""
    company = np.zeros(len(showing))
    for rows in showing:
        company += np.count_nonzero(source.labels[rows] == PRESENT, axis=0) / max(1, len(rows))
    # Equal shares are summed in another order for each label, and their rounding must rank none above another.
    return np.argsort(-company.round(9), kind="stable")
