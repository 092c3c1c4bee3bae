"""From a uint8 image to what a backbone reads: once for evaluation, with random crops for training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torchvision.transforms.v2 import RandAugment, RandomErasing
from torchvision.transforms.v2 import functional as F


class EvalTransform:
    """Squash an image to a square and normalise it.

    The whole image is kept, at the cost of its aspect ratio: a centre crop could cut off a labelled object.

    Args:
        size: Side of the square in pixels.
        mean: Per-channel mean of images in [0, 1].
        std: Per-channel standard deviation.
    """

    def __init__(self, size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        self.size = size
        # (x / 255 - mean) / std in one pass over the image
        self._scale = (255.0 * torch.tensor(std)).reciprocal().view(3, 1, 1)
        self._shift = (-torch.tensor(mean) / torch.tensor(std)).view(3, 1, 1)

    def __call__(self, image: Tensor) -> Tensor:
        """Return the float32 (3, size, size) input of a backbone for a uint8 (3, H, W) image."""
        return self._normalise(self._resize(image.float()))

    def _resize(self, image: Tensor) -> Tensor:
        if image.shape[-2:] == (self.size, self.size):
            return image
        resized: Tensor = F.resize(image, [self.size, self.size], antialias=True)
        return resized

    def _normalise(self, image: Tensor) -> Tensor:
        return image * self._scale + self._shift


class TrainTransform(EvalTransform):
    """Crop a random part, resize it to a square, perhaps mirror it, normalise it.

    The crop covers a random share of the area with a random aspect ratio in [3/4, 4/3] (Szegedy et al. 2015, arXiv
    1409.4842). Draws come from the generator given, never from torch's global one.

    Args:
        size: Side of the square in pixels.
        mean: Per-channel mean of images in [0, 1].
        std: Per-channel standard deviation.
        generator: Source of the random draws.
        min_area: Smallest share of the area that a crop covers.
        flip: Mirror every second image on average; leave it off where left and right differ in meaning (digits).
    """

    def __init__(
        self,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        generator: torch.Generator,
        *,
        min_area: float = 0.35,
        flip: bool = True,
    ) -> None:
        super().__init__(size, mean, std)
        self._generator = generator
        self._min_area = min_area
        self._flip = flip

    def __call__(self, image: Tensor) -> Tensor:
        """Return the float32 (3, size, size) augmented input of a backbone for a uint8 (3, H, W) image."""
        height, width = image.shape[-2:]
        area, aspect, down, right, mirror = torch.rand(5, generator=self._generator).tolist()
        area = self._min_area + (1 - self._min_area) * area
        ratio = math.exp((2 * aspect - 1) * math.log(4 / 3))
        # A crop that would stick out is clipped to the image: no rejection, so each image costs five draws.
        crop_height = min(height, max(1, round(math.sqrt(height * width * area / ratio))))
        crop_width = min(width, max(1, round(math.sqrt(height * width * area * ratio))))
        top, left = round(down * (height - crop_height)), round(right * (width - crop_width))
        crop = self._resize(image[:, top : top + crop_height, left : left + crop_width].float())
        return self._normalise(F.horizontal_flip(crop) if self._flip and mirror < 0.5 else crop)


class StrongTransform(EvalTransform):
    """Squash the whole image to a square, RandAugment it, perhaps mirror it, normalise it, cut a square out.

    RandAugment as torchvision has it (two operations of magnitude 9; Cubuk et al. 2020, arXiv 1909.13719). The square
    of Cutout (arXiv 1708.04552) has half the side of the image and the mean colour; departure: it lies within the
    image. Draws come from the generator given, never from torch's global one.

    Args:
        size: Side of the square in pixels.
        mean: Per-channel mean of images in [0, 1].
        std: Per-channel standard deviation.
        generator: Source of the random draws.
        flip: Mirror every second image on average; leave it off where left and right differ in meaning (digits).
    """

    def __init__(
        self,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        generator: torch.Generator,
        *,
        flip: bool = True,
    ) -> None:
        super().__init__(size, mean, std)
        self._generator = generator
        self._flip = flip
        self._augment = RandAugment()
        self._cut_out = RandomErasing(p=1.0, scale=(0.25, 0.25), ratio=(1.0, 1.0), value=0)

    def __call__(self, image: Tensor) -> Tensor:
        """Return the float32 (3, size, size) augmented input of a backbone for a uint8 (3, H, W) image."""
        with _lent(self._generator):
            augmented = self._augment(self._resize(image))
            mirrored = F.horizontal_flip(augmented) if self._flip and torch.rand(()) < 0.5 else augmented
            cut: Tensor = self._cut_out(self._normalise(mirrored.float()))
            return cut


@contextmanager
def _lent(generator: torch.Generator) -> Iterator[None]:
    """Lend the place of torch's global generator, from which torchvision draws, to a private one."""
    state = torch.random.get_rng_state()
    torch.random.set_rng_state(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(torch.random.get_rng_state())
        torch.random.set_rng_state(state)
