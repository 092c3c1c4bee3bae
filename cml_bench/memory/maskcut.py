"""MaskCut: the objects of an image, found by normalised cuts of its patch features."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

TAU = 0.2
"""Cosine over which two patches are alike."""

_UNLIKE = 1e-5
_SAME_MASK = 0.5
_SMALLEST = 0.01


def mask_cut(features: Tensor, rounds: int, tau: float = TAU) -> tuple[Tensor, Tensor]:
    """Return a box around the most prominent object of each image, then around the next one, and so on.

    A round cuts the graph of patches, linked by 1 where their cosine is over ``tau`` and by 1e-5 elsewhere, along the
    second eigenvector of ``(D - A) v = lambda D v``: the foreground is where v is over its mean, turned round if it
    holds three of the four corners, and the object is the part of it that hangs together with the patch of largest v.
    Its patches count for nothing in later rounds.

    Source: Wang et al. 2023, arXiv 2301.11320, as used by CUTER (arXiv 2505.19680). An eigenvector has no sign of its
    own: v is first turned so that its entry of largest magnitude is positive, which is the turn that the released code
    makes after the cut, where the corners leave it a choice. Departures: all images at once, by the eigenvectors of
    the symmetric ``D^-1/2 (D - A) D^-1/2``; a mask of a later round that overlaps the one before (IoU over 0.5), or any
    later one of at most 1 % of the patches, has no box, where released code blanks it and still cuts its box.

    Args:
        features: (B, D, h, w) patch features.
        rounds: Objects to look for in an image.
        tau: Cosine over which two patches are alike.

    Returns:
        (B, rounds, 4) int64 boxes ``top, left, bottom, right`` in patches, the last two exclusive, and (B, rounds)
        bool, whether there is one.
    """
    grid = (features.shape[2], features.shape[3])
    patches = torch.nn.functional.normalize(features.double().flatten(2), dim=1)
    boxes, found = [], []
    before = patches.new_zeros(len(patches), grid[0] * grid[1], dtype=torch.bool)
    for number in range(rounds):
        mask = foreground(second_eigenvector(patches, tau), grid)
        # A map of one patch has no foreground.
        kept = mask.any(dim=1)
        if number:
            shared, either = (mask & before).sum(dim=1), (mask | before).sum(dim=1)
            kept &= (shared <= _SAME_MASK * either) & (mask.sum(dim=1) > _SMALLEST * mask.shape[1])
        boxes.append(bounds(mask.view(-1, *grid)))
        found.append(kept)
        patches, before = patches * ~mask[:, None], mask
    return torch.stack(boxes, dim=1), torch.stack(found, dim=1)


def second_eigenvector(patches: Tensor, tau: float = TAU) -> Tensor:
    """Return the (B, N) second eigenvectors of the graphs of (B, D, N) patches of length 1 or 0, of either sign."""
    alike = torch.where(patches.transpose(1, 2) @ patches > tau, 1.0, _UNLIKE).to(patches)
    root = alike.sum(dim=2).rsqrt()
    laplacian = torch.eye(alike.shape[1]).to(patches) - root[:, :, None] * alike * root[:, None]
    vectors: Tensor = torch.linalg.eigh(laplacian).eigenvectors
    return root * vectors[:, :, 1] if vectors.shape[2] > 1 else root


def foreground(vectors: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return (B, N) bool masks of the objects that (B, N) eigenvectors cut out of a grid; the same for -v as for v."""
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    vectors = vectors * largest.sign()
    inside = vectors > vectors.mean(dim=1, keepdim=True)
    height, width = grid
    corners = [0, width - 1, (height - 1) * width, height * width - 1]
    turned = inside[:, corners].sum(dim=1, keepdim=True) >= 3
    inside, vectors = inside ^ turned, torch.where(turned, -vectors, vectors)
    seed = vectors.argmax(dim=1, keepdim=True)
    # Patches hang together within an image, by their sides: one call for the whole batch.
    within = np.zeros((3, 3, 3), dtype=bool)
    within[1] = ndimage.generate_binary_structure(2, 1)
    parts = torch.from_numpy(ndimage.label(inside.view(-1, *grid).cpu().numpy(), within)[0]).to(vectors.device)
    parts = parts.flatten(1)
    return (parts == parts.gather(1, seed)) & inside


def bounds(masks: Tensor) -> Tensor:
    """Return (B, 4) int64 ``top, left, bottom, right`` of (B, h, w) bool masks; all 0 for an empty one."""
    sides = []
    for line in (masks.any(dim=2), masks.any(dim=1)):
        number = torch.arange(line.shape[1], device=line.device)
        first = torch.where(line, number, line.shape[1]).amin(dim=1)
        sides.append(torch.stack([first * line.any(dim=1), torch.where(line, number + 1, 0).amax(dim=1)]))
    (top, bottom), (left, right) = sides
    return torch.stack([top, left, bottom, right], dim=1)
