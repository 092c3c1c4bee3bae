"""The embedded default data set: scenes of handwritten digits over clutter, made from a seed in under a second.

It needs no download and is small enough to train on from random weights in seconds, yet it has what makes multi-label
data hard: several labels an image at random scale and place, a long tail, and labels that attract or shun each other.

How the labels are dealt. Scene ``i`` has one hidden mood ``f_i ~ N(0, 1)``; digit ``c`` has the score
``z_ic = a_c f_i + sqrt(1 - a_c^2) e_ic`` with ``e_ic ~ N(0, 1)`` and ``a_c`` = ``+AFFINITY`` for even, ``-AFFINITY``
for odd digits (a one-factor Gaussian copula). The ``round(n * PREVALENCE[c])`` scenes with the highest ``z_ic`` show
the digit. So label counts are exact, digits of equal parity attract each other (correlation ``AFFINITY^2`` of the
scores) and digits of unequal parity shun each other.

Source of the strokes: the 1,797 8 x 8 images of ``sklearn.datasets.load_digits`` (Alpaydin and Kaynak 1998, UCI
Optical Recognition of Handwritten Digits, CC BY 4.0).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError
from cml_bench.labels import LabelArray

LABEL_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# A geometric tail from 0.60 down to 0.06 (imbalance 10, 2.45 labels a scene). Frequent and rare digits are mixed, so
# that neither the natural order nor one parity runs from head to tail. The pair zero and one covers most scenes: a
# backbone that starts from random weights needs a first experience to learn from.
PREVALENCE = (0.600, 0.129, 0.077, 0.278, 0.167, 0.465, 0.359, 0.060, 0.215, 0.100)
AFFINITY = 0.6
TRAIN_SHARE = 0.7
DIGIT_SIZES = (11, 12, 13, 14)
CONTRAST = (0.8, 1.0)
CLUTTER_STRENGTH = 0.35
N_FRAGMENTS = 6
FRAGMENT_SIZE = 4
MAX_OVERLAP = 0.1

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


class Placement(NamedTuple):
    """One digit in one scene.

    Attributes:
        scene: Row of the scene.
        instance: Index of the handwritten digit in ``load_digits``.
        top: First image row of its square box, in pixels.
        left: First image column of its box, in pixels.
        size: Side of the box, in pixels.
        contrast: Factor on the ink, in (0, 1].
    """

    scene: int
    instance: int
    top: int
    left: int
    size: int
    contrast: float


class DigitsSource(Source):
    """Scenes of digits; see the module text for how labels are dealt.

    Attributes:
        images: (N, size, size) uint8 gray scenes.
        placements: Every digit of every scene, in order of scene.
        instances: Ascending ``load_digits`` indices from which this split's digits and clutter are drawn; the two
            splits share none.
    """

    name = "digits"
    pretraining_names = ("digits",)

    def __init__(
        self, split: str, images: Images, labels: LabelArray, placements: tuple[Placement, ...], instances: Indices
    ) -> None:
        counts = {"instances": len(instances)}
        super().__init__(LABEL_NAMES, labels, np.arange(len(labels), dtype=np.int64), counts=counts)
        self.split = split
        self.images = images
        self.placements = placements
        self.instances = instances
        self.image_size = (images.shape[1], images.shape[2])
        self.rendering = f"{images.shape[1]} px"

    def load(self, index: int) -> Tensor:
        """Return scene ``index`` as a (3, size, size) uint8 tensor, the gray image three times."""
        return torch.from_numpy(self.images[index]).expand(3, -1, -1).clone()


def digits_sources(
    n_train: int = 1500, n_test: int = 700, size: int = 32, seed: int = 0
) -> tuple[DigitsSource, DigitsSource]:
    """Make the train and the test split.

    Handwritten instances, and so writers' strokes, are disjoint between the splits. The test split does not depend on
    ``n_train``. Only private generators are used.

    Args:
        n_train: Number of training scenes.
        n_test: Number of test scenes.
        size: Side of a scene in pixels.
        seed: Seed of everything random.

    Raises:
        CmlBenchError: If a split is too small to show the rarest digit, a scene too small for two of the largest side
            by side, or the seed negative.
    """
    if seed < 0:
        raise CmlBenchError(f"seed={seed} is negative; give 0 or a positive number")
    fewest = int(np.ceil(0.5 / min(PREVALENCE)))
    for option, count in (("n_train", n_train), ("n_test", n_test)):
        if count < fewest:
            raise CmlBenchError(f"{option}={count} scenes cannot show every digit; ask for at least {fewest}")
    smallest = 2 * max(DIGIT_SIZES)
    if size < smallest:
        raise CmlBenchError(f"size={size} pixels is too small for several digits a scene; ask for at least {smallest}")
    ink, digit = load_digits(return_X_y=True)
    strokes = ink.reshape(-1, 8, 8).astype(np.float32) / 16.0
    for_split, for_train, for_test = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))
    is_train = np.zeros(len(digit), dtype=bool)
    for value in range(len(LABEL_NAMES)):
        members = for_split.permutation(np.flatnonzero(digit == value))
        is_train[members[: round(TRAIN_SHARE * len(members))]] = True
    return (
        _make_split("train", n_train, size, strokes, digit, np.flatnonzero(is_train), for_train),
        _make_split("test", n_test, size, strokes, digit, np.flatnonzero(~is_train), for_test),
    )


def _make_split(
    split: str, n: int, size: int, strokes: Floats, digit: Indices, instances: Indices, rng: np.random.Generator
) -> DigitsSource:
    labels = deal_labels(n, rng)
    scenes = _clutter(n, size, strokes[instances], rng)
    placements = _place_digits(labels, size, digit, instances, rng)
    enlarged = {side: _enlarge(strokes, side) for side in DIGIT_SIZES}
    for scene, instance, top, left, side, contrast in placements:
        window = scenes[scene, top : top + side, left : left + side]
        # The brighter of the two wins, so that no stroke is ever erased by a neighbour.
        np.maximum(window, enlarged[side][instance] * contrast, out=window)
    images = np.rint(scenes * 255.0).astype(np.uint8)
    return DigitsSource(split, images, labels, placements, instances)


def deal_labels(n: int, rng: np.random.Generator) -> LabelArray:
    """Return (n, 10) int8 labels, ``round(n * PREVALENCE[c])`` positives in column c, correlated by parity."""
    loading = np.where(np.arange(len(LABEL_NAMES)) % 2 == 0, AFFINITY, -AFFINITY)
    mood = rng.standard_normal((n, 1))
    scores = loading * mood + np.sqrt(1.0 - loading**2) * rng.standard_normal((n, len(LABEL_NAMES)))
    ranks = np.argsort(np.argsort(-scores, axis=0, kind="stable"), axis=0, kind="stable")
    return np.asarray(ranks < np.rint(n * np.array(PREVALENCE)), dtype=np.int8)


def _enlarge(strokes: Floats, side: int) -> Floats:
    """Return (M, 8, 8) strokes resized to (M, side, side), bilinear."""
    resized = torch.nn.functional.interpolate(torch.from_numpy(strokes)[:, None], size=(side, side), mode="bilinear")
    return np.asarray(resized[:, 0].numpy(), dtype=np.float32)


def _clutter(n: int, size: int, strokes: Floats, rng: np.random.Generator) -> Floats:
    """Return (n, size, size) backgrounds: a tilted gradient, grain, and torn-off fragments of real strokes."""
    ramp = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    tilt = rng.uniform(-0.5, 0.5, (n, 2, 1, 1)).astype(np.float32)
    level = 0.5 + tilt[:, 0] * ramp[:, None] + tilt[:, 1] * ramp
    grain = rng.random((n, size, size), dtype=np.float32)
    scenes = CLUTTER_STRENGTH * (0.5 * level + 0.3 * grain)
    window = np.arange(FRAGMENT_SIZE)
    everyone = np.arange(n)[:, None, None]
    for _ in range(N_FRAGMENTS):
        donor = rng.integers(len(strokes), size=n)
        corner = rng.integers(8 - FRAGMENT_SIZE + 1, size=(n, 2, 1))
        place = rng.integers(size - FRAGMENT_SIZE + 1, size=(n, 2, 1))
        torn = strokes[donor[:, None, None], (corner[:, 0] + window)[:, :, None], (corner[:, 1] + window)[:, None, :]]
        where = everyone, (place[:, 0] + window)[:, :, None], (place[:, 1] + window)[:, None, :]
        scenes[where] = np.maximum(scenes[where], 2 * CLUTTER_STRENGTH * torn)
    return np.minimum(scenes, 1.0)


def _place_digits(
    labels: LabelArray, size: int, digit: Indices, instances: Indices, rng: np.random.Generator
) -> tuple[Placement, ...]:
    """Choose instance, scale, contrast and place of every present digit.

    The place is drawn from all those where the box shares at most ``MAX_OVERLAP`` of its area with the boxes already
    set; where a crowded scene has none, from those that share least.
    """
    scenes, values = np.nonzero(labels)
    by_value = [instances[digit[instances] == value] for value in range(len(LABEL_NAMES))]
    sides = rng.choice(DIGIT_SIZES, size=len(scenes))
    contrasts = rng.uniform(*CONTRAST, size=len(scenes))
    which, where = rng.random((2, len(scenes)))
    placements: list[Placement] = []
    # Summed area table of the pixels that boxes of the current scene cover: four look-ups give any overlap.
    covered = np.zeros((size, size), dtype=np.int64)
    summed = np.zeros((size + 1, size + 1), dtype=np.int64)
    for k, (scene, value, side) in enumerate(zip(scenes.tolist(), values.tolist(), sides.tolist(), strict=True)):
        if k == 0 or scene != scenes[k - 1]:
            covered[:] = 0
        covered.cumsum(axis=0).cumsum(axis=1, out=summed[1:, 1:])
        rest = size + 1 - side
        overlap = summed[side:, side:] - summed[:rest, side:] - summed[side:, :rest] + summed[:rest, :rest]
        free = np.flatnonzero(overlap <= max(MAX_OVERLAP * side**2, overlap.min()))
        top, left = divmod(int(free[int(where[k] * len(free))]), rest)
        covered[top : top + side, left : left + side] = 1
        members = by_value[value]
        instance = int(members[int(which[k] * len(members))])
        placements.append(Placement(scene, instance, top, left, side, float(contrasts[k])))
    return tuple(placements)
