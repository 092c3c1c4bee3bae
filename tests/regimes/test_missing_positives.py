"""Missing labels: independent of each other, and as the published lists have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cml_bench.labels import PRESENT, UNMARKED


@pytest.mark.parametrize("rate", [0.25, 0.6])
def test_what_is_left_of_coco_is_binomial(coco_source: Any, answers: Any, rate: float) -> None:
    """In total, in every label, and in how many images keep none."""
    left = answers(f"missing_positives rate={rate}", coco_source) == PRESENT
    n = coco_source.labels.sum(axis=0)
    deviation = (left.sum(axis=0) - (1 - rate) * n) / np.sqrt(rate * (1 - rate) * n)
    assert abs(deviation.sum() / np.sqrt(80)) < 4.5
    assert np.abs(deviation).max() < 4.5
    empty = rate ** coco_source.labels.sum(axis=1)
    assert abs((~left.any(axis=1)).sum() - empty.sum()) < 4 * np.sqrt((empty * (1 - empty)).sum())


def test_negatives_are_open_like_overlooked_positives(bare_source: Any, answers: Any) -> None:
    source = bare_source(np.tile([1, 0], (50, 1)))
    assert set(answers("missing_positives rate=0.5", source)[:, 0].tolist()) == {PRESENT, UNMARKED}
    assert set(answers("missing_positives rate=0.5", source)[:, 1].tolist()) == {UNMARKED}
    assert (answers("missing_positives rate=0", source) == [[PRESENT, UNMARKED]]).all()
    assert (answers("missing_positives rate=1", source) == UNMARKED).all()


@pytest.mark.parametrize(("share", "total"), [(0.5, 181_422), (0.2, 96_251), (0, 82_081)])
def test_kept_positives_has_the_totals_of_the_published_lists(
    coco_source: Any, answers: Any, share: float, total: int
) -> None:
    """The README of the lists calls them 75 % left, 40 % left and single label."""
    left = answers(f"kept_positives share={share}", coco_source) == PRESENT
    assert left.sum() == total
    assert left.any(axis=1).all()
    assert not left[coco_source.labels != PRESENT].any()


@pytest.mark.parametrize(
    ("positives", "kept_75", "kept_40"),
    [(1, 1, 1), (2, 2, 1), (3, 2, 1), (5, 3, 2), (6, 4, 2), (9, 5, 2), (10, 6, 3), (11, 6, 3), (13, 7, 3), (15, 8, 4)],
)
def test_kept_positives_keeps_as_many_as_lines_of_the_published_lists(
    bare_source: Any, answers: Any, positives: int, kept_75: int, kept_40: int
) -> None:
    """Read off images 246920, 480023, 209263, 10046, 50518, 329623, 466519, 374661, 161719 and 206280."""
    source = bare_source(np.arange(20)[None] < np.full((30, 1), positives))
    assert set((answers("kept_positives share=0.5", source) == PRESENT).sum(axis=1).tolist()) == {kept_75}
    assert set((answers("kept_positives share=0.2", source) == PRESENT).sum(axis=1).tolist()) == {kept_40}


def test_every_positive_is_as_likely_to_be_kept(bare_source: Any, answers: Any) -> None:
    """Three of five: each label in 6,000 of 10,000 images, each pair in 3,000."""
    source = bare_source(np.ones((10_000, 5)))
    left = (answers("kept_positives share=0.4", source) == PRESENT).astype(np.int64)
    together = left.T @ left
    expected = np.where(np.eye(5, dtype=bool), 6000, 3000)
    assert np.abs(together - expected).max() < 5 * np.sqrt(10_000 * 0.25)


def test_a_share_that_is_not_a_binary_fraction_loses_nothing(bare_source: Any, answers: Any) -> None:
    """0.29 * 100 is 28.999999999999996."""
    source = bare_source(np.ones((3, 100)))
    assert (answers("kept_positives share=0.29", source) == PRESENT).sum(axis=1).tolist() == [30, 30, 30]
