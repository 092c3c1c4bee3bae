"""From a uint8 image to what a backbone reads: once for evaluation, with random crops for training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample
from torchvision.transforms.v2 import RandAugment, RandomErasing
from torchvision.transforms.v2 import functional as F

from cml_bench.data.images import squash


class EvalTransform:
    """Squash an image, or each image of a batch, to a square and normalise it.

    The whole image is kept, at the cost of its aspect ratio: a centre crop could cut off a labelled object.

    Args:
        size: Side of the square in pixels.
        mean: Per-channel mean of images in [0, 1].
        std: Per-channel standard deviation.
        device: Where the images are.
    """

    def __init__(
        self, size: int, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu"
    ) -> None:
        self.size = size
        # (x / 255 - mean) / std in one pass over the image
        self._scale = (255.0 * torch.tensor(std)).reciprocal().view(3, 1, 1).to(device)
        self._shift = (-torch.tensor(mean) / torch.tensor(std)).view(3, 1, 1).to(device)

    def __call__(self, image: Tensor) -> Tensor:
        """Return the float32 (..., 3, size, size) input of a backbone for a uint8 (..., 3, H, W) image."""
        return self._normalise(self._resize(image.float()))

    def _resize(self, image: Tensor) -> Tensor:
        return squash(image, self.size)

    def _normalise(self, image: Tensor) -> Tensor:
        return (image * self._scale).add_(self._shift)


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
        device: Where the images are.
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
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(size, mean, std, device)
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


class TrainBatch(TrainTransform):
    """``TrainTransform`` of a whole batch of images that have been squashed to one size.

    Draw for draw the same parts of the same images: cutting a part and squashing it is squashing the image and cutting
    the same share of each side. What differs is the interpolation, bilinear from the stored square.
    """

    def __call__(self, images: Tensor, sizes: Tensor) -> Tensor:  # type: ignore[override]
        """Return the float32 (B, 3, size, size) augmented inputs of a backbone.

        Args:
            images: (B, 3, side, side) uint8.
            sizes: (B, 2) heights and widths of the images as they were.
        """
        draws = torch.rand(len(images), 5, generator=self._generator).double()
        area, aspect, down, right, mirror = draws.unbind(dim=1)
        area = self._min_area + (1 - self._min_area) * area
        ratio = ((2 * aspect - 1) * math.log(4 / 3)).exp()
        height, width = sizes.double().unbind(dim=1)
        ones = torch.ones_like(height)
        crop_height = (height * width * area / ratio).sqrt().round().clamp(ones, height)
        crop_width = (height * width * area * ratio).sqrt().round().clamp(ones, width)
        top, left = (down * (height - crop_height)).round(), (right * (width - crop_width)).round()
        # Where the square's middle and half a side of it go, in units of half the image's side.
        across, along = crop_width / width, crop_height / height
        signs = torch.where(mirror < 0.5, -1.0, 1.0) if self._flip else ones
        none = torch.zeros_like(across)
        rows = [
            torch.stack([signs * across, none, 2 * left / width + across - 1], dim=1),
            torch.stack([none, along, 2 * top / height + along - 1], dim=1),
        ]
        placed = torch.stack(rows, dim=1).float().to(images.device, non_blocking=True)
        grid = affine_grid(placed, [len(images), 3, self.size, self.size], align_corners=False)
        crops = grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
        return self._normalise(crops)


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
        device: Where the images are.
    """

    def __init__(
        self,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        generator: torch.Generator,
        *,
        flip: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(size, mean, std, device)
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


class StrongBatch(StrongTransform):
    """``StrongTransform`` of a batch of squashed images, one by one: RandAugment treats all of a batch alike."""

    def __call__(self, images: Tensor, sizes: Tensor) -> Tensor:  # type: ignore[override]
        """Return the float32 (B, 3, size, size) augmented inputs; the (B, 2) original ``sizes`` make no difference."""
        return torch.stack([super(StrongBatch, self).__call__(image) for image in images])


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
