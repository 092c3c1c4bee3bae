"""Pseudo-labels: what an old model says of entries that nobody annotated."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from pydantic import PositiveFloat
from torch import Tensor
from torch.nn.functional import pad

from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, is_known
from cml_bench.models.heads.head import HeadOutput
from cml_bench.streams.dataset import MultiLabelDataset
from cml_bench.streams.loading import BatchLoader
from cml_bench.streams.timeline import begins_experience
from cml_bench.training.shown_labels import ShownLabelsPlugin
from cml_bench.training.teacher import TeacherPlugin

Kappa = PositiveFloat | Literal["estimated"]
"""An option: labels expected in an image for each label seen, or an estimate from what was annotated so far."""

Below = Literal["unknown", "zero"]
"""An option: whether what a threshold does not make present stays unknown or becomes absent."""

BELOW: dict[Below, float] = {"unknown": -math.inf, "zero": math.inf}
"""Score under which an entry that is not present is absent."""

_STEP, _TOLERANCE, _LOWEST, _HIGHEST = 0.005, 0.1, 0.0001, 0.999999
_WINDOW = 1000


class Filled(NamedTuple):
    """Labels with pseudo-labels among them.

    Attributes:
        labels: (B, n) four-state labels.
        is_pseudo: (B, n) bool, entries that no annotator wrote.
    """

    labels: Tensor
    is_pseudo: Tensor


def fill(labels: Tensor, scores: Tensor, above: float | Tensor, below: float | Tensor = -math.inf) -> Filled:
    """Return labels whose unknown entries are PRESENT where the score is over ``above``, else ABSENT under ``below``.

    Known entries and columns without a score stay as they are. ``below=math.inf`` leaves no scored entry unknown.

    Args:
        labels: (B, n) four-state labels; left as they are.
        scores: (B, m) probabilities, or scores on any other scale, of the first m labels.
        above: One threshold, or one for each of the m labels.
        below: Likewise.
    """
    scored = labels[:, : scores.shape[1]]
    unknown = ~is_known(scored)
    present = unknown & (scores > above)
    absent = unknown & ~present & (scores < below)
    missing = labels.shape[1] - scores.shape[1]
    filled = scored.masked_fill(present, PRESENT).masked_fill(absent, ABSENT)
    return Filled(torch.cat([filled, labels[:, scores.shape[1] :]], dim=1), pad(present | absent, (0, missing)))


def count_threshold(scores: Tensor, expected: float, start: float = 0.8) -> float:
    """Return the threshold over which there are, within 0.1, ``expected`` scores a row.

    From ``start`` the threshold moves in steps of 0.005 and stops within the tolerance, at 0.0001 and 0.999999, or
    where one step crosses the tolerance (there KRT's released code goes back and forth, and it raises after 100 steps).

    Args:
        scores: (N, m) probabilities.
        expected: Scores a row that are to exceed the threshold.
        start: Threshold to begin with.
    """
    ordered, threshold, direction = scores.flatten().sort().values, start, 0
    while True:
        count = (len(ordered) - int(torch.searchsorted(ordered, threshold, right=True))) / len(scores)
        towards = (count > expected + _TOLERANCE) - (count < expected - _TOLERANCE)
        if not towards or towards == -direction:
            return threshold
        moved, direction = min(_HIGHEST, max(_LOWEST, threshold + towards * _STEP)), towards
        if moved == threshold:
            return threshold
        threshold = moved


class DynamicCount:
    """KRT's dynamic threshold: as many pseudo-labels an image as labels are expected there.

    Source: Dong et al. 2023, arXiv 2302.13334, whose expectation is ``LC * C_old / C_total``, with LC the mean number
    of labels in an image and C_total the number of all labels, those to come included. Both are priors; to use them,
    give their ratio as ``kappa``. ``"estimated"`` needs none (inferred): all positives of the labels seen, over all
    different images seen. Where a label is only partly marked, an image counts with the rate of positives among the
    known entries; where none of it is marked absent, the positives are all that there is to count. (The sum over
    experiences of their mean positives an image would be far too large, because an experience is made of images that
    show one of its labels.)

    The estimate is too high for the same reason, most after the first experience: all images seen show a label of
    theirs, those to be labelled need not. Under ``assignment=overlap`` it is divided by the share of images that show
    any label seen so far: of six labels that 35 % of images show, one an experience, it expects 1.0, 1.2, 1.4, 1.7 and
    2.0 old ones an image, where there are 0.35, 0.7, 1.0, 1.4 and 1.8. Under ``disjoint`` it expects 1.0 each time,
    where there are 0.25, 0.5, 0.75, 1.0 and 1.3. A number as ``kappa`` has no such bias.

    In an online stream the threshold is set anew with each chunk, from the last 1000 images of the experience.

    Args:
        kappa: Labels expected in an image for each old label, or ``"estimated"``.
        start: Threshold to begin with.
    """

    def __init__(self, kappa: float | Literal["estimated"], start: float) -> None:
        self.kappa = kappa
        self.threshold = start
        self.expected = 0.0
        self._window = torch.empty(0, 0)
        self._ids = torch.empty(0, dtype=torch.int64)
        # Of each label, where an annotator was asked about it: images, known entries, positives.
        self._counts = torch.zeros(3, 0, dtype=torch.float64)

    def observe(self, dataset: MultiLabelDataset) -> None:
        """Count the labels that an experience, or a chunk of one, brings, and old ones where they are annotated too.

        Old ones in images that are new alone: of one that comes back they may have been counted.
        """
        labels, states = dataset.labels, dataset.labels.data
        fresh = ~torch.isin(dataset.sample_ids.data, self._ids)
        asked = (states > OUT_OF_SCOPE) & fresh[:, None]
        asked[:, labels.first_new :] = True
        counts = torch.stack([asked, asked & is_known(states), asked & (states == PRESENT)]).sum(dim=1).double()
        self._counts = pad(self._counts, (0, len(labels.names) - self._counts.shape[1])) + counts
        self._ids = torch.cat([self._ids, dataset.sample_ids.data]).unique()

    def expect(self, n_old: int) -> float:
        """Return the number of old labels expected in an image."""
        if self.kappa != "estimated":
            return self.kappa * n_old
        images, known, present = self._counts[:, :n_old]
        positives = torch.where(known > present, present / known.clamp(min=1) * images, present)
        return float(positives.sum()) / max(1, len(self._ids))

    def update(self, scores: Tensor, *, first_chunk: bool) -> float:
        """Return the threshold for images with (N, n_old) probabilities."""
        if first_chunk:
            self.expected = self.expect(scores.shape[1])
            self._window = scores
        else:
            self._window = torch.cat([self._window, scores])[-_WINDOW:]
        self.threshold = count_threshold(self._window, self.expected, self.threshold)
        return self.threshold


class PseudoLabelPlugin(ShownLabelsPlugin, TeacherPlugin):
    """Gives the criterion, and it alone, the old model's labels for the unknown entries of old labels.

    Attributes:
        taught: What the teacher said of the current batch, until the step is over.

    Args:
        above: Probability over which an entry is present; where it starts from, with ``count``.
        below: Probability under which one that is not present is absent.
        count: Sets ``above`` before each experience; None leaves it.
    """

    taught: HeadOutput

    def __init__(self, above: float, below: float, count: DynamicCount | None = None) -> None:
        super().__init__()
        self.above = above
        self.below = below
        self.count = count

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Set the threshold by what the teacher says of the experience's images, without augmentation."""
        super().before_training_exp(strategy, **kwargs)
        if self.count and self.n_old:
            loader = BatchLoader(strategy.experience.dataset.eval(), strategy.eval_mb_size)
            scores = [self.teach(batch[0].to(strategy.device)).logits.sigmoid().cpu() for batch in loader]
            first_chunk = begins_experience(strategy.experience)
            self.above = self.count.update(torch.cat(scores), first_chunk=first_chunk)

    def shown(self, strategy: Any) -> Tensor | None:
        """Return labels with pseudo-labels among them."""
        if not self.n_old:
            return None
        self.taught = self.teach(strategy.mb_x)
        return self.fill(strategy.mb_y, self.taught.logits.sigmoid()).labels

    def fill(self, labels: Tensor, scores: Tensor) -> Filled:
        """Return (B, n) four-state labels completed by the (B, m) probabilities of the old labels."""
        return fill(labels, scores, self.above, self.below)

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Forget the batch: a checkpoint would hold it."""
        self.__dict__.pop("taught", None)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Copy the model, and count what the experience brought."""
        super().after_training_exp(strategy, **kwargs)
        if self.count:
            self.count.observe(strategy.experience.dataset)
