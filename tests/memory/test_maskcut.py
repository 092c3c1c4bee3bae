"""MaskCut: the reference's block, SciPy's generalised eigenproblem image by image, and what a sign must not change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import eigh
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from cml_bench.memory import maskcut
from cml_bench.memory.maskcut import bounds, foreground, mask_cut, second_eigenvector


def with_block(rows: slice, columns: slice, side: int = 14, noise: float = 0.0, seed: int = 0) -> torch.Tensor:
    """One direction everywhere but in a block, which has another."""
    features = torch.zeros(16, side, side)
    features[0] = 1.0
    features[:2, rows, columns] = torch.tensor([0.0, 1.0])[:, None, None]
    return features + noise * torch.randn(features.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_block_is_its_box(noise: float) -> None:
    """Rows 2 to 5, columns 8 to 10, so in pixels of 16 y 32:96, x 128:176; and not the transposed box."""
    boxes, found = mask_cut(with_block(slice(2, 6), slice(8, 11), noise=noise)[None], 1)
    assert boxes[0, 0].tolist() == [2, 8, 6, 11]
    assert (16 * boxes[0, 0]).tolist() == [32, 128, 96, 176]
    assert bool(found[0, 0])


def test_images_do_not_touch_each_other() -> None:
    """Masks of neighbours in a batch lie at the same place and stay apart."""
    features = torch.stack([with_block(slice(2, 6), slice(8, 11)), with_block(slice(4, 9), slice(1, 10))])
    boxes, _ = mask_cut(features, 1)
    assert boxes[:, 0].tolist() == [[2, 8, 6, 11], [4, 1, 9, 10]]
    alone = torch.cat([mask_cut(image[None], 1)[0] for image in features])
    assert torch.equal(alone, boxes)


def test_the_second_round_finds_the_second_object() -> None:
    features = with_block(slice(2, 6), slice(8, 11))
    features[:3, 9:13, 1:7] = torch.tensor([0.0, 0.0, 1.0])[:, None, None]
    boxes, found = mask_cut(features[None], 2)
    assert found.all()
    assert sorted(boxes[0].tolist()) == [[2, 8, 6, 11], [9, 1, 13, 7]]


def test_what_is_no_new_object_has_no_box() -> None:
    """The released code blanks such a mask and still cuts its box: here the leftover of one patch has none."""
    boxes, found = mask_cut(with_block(slice(2, 6), slice(8, 11))[None], 3)
    assert found[0].tolist() == [True, False, False]
    assert boxes.shape == (1, 3, 4)


def test_a_map_of_one_patch_shows_no_object() -> None:
    _, found = mask_cut(torch.randn(2, 4, 1, 1, generator=torch.Generator().manual_seed(0)), 2)
    assert not found.any()


def by_definition(features: np.ndarray[Any, Any], tau: float, sign: int) -> list[int]:
    """One round as the reference writes it, patch by patch, on one image, from an eigenvector of either sign."""
    height, width = features.shape[1:]
    flat = features.reshape(len(features), -1)
    flat = flat / np.linalg.norm(flat, axis=0)
    alike = np.where(flat.T @ flat > tau, 1.0, 1e-5)
    degree = np.diag(alike.sum(axis=1))
    vector = eigh(degree - alike, degree, subset_by_index=[1, 1])[1][:, 0]
    vector = sign * vector * np.sign(vector[np.abs(vector).argmax()])
    inside = vector > vector.mean()
    at_corner = inside.reshape(height, width)[[0, 0, -1, -1], [0, -1, 0, -1]].sum()
    # The sign is the solver's whim: for both as the released code decides where the largest entry is positive.
    if (sign > 0 and at_corner >= 3) or (sign < 0 and 4 - at_corner < 3):
        inside, vector = ~inside, -vector
    seed = int(vector.argmax())
    links = [
        (a, b)
        for a in range(height * width)
        for b in range(height * width)
        if inside[a] and inside[b] and abs(a // width - b // width) + abs(a % width - b % width) == 1
    ]
    matrix = csr_matrix((np.ones(len(links)), tuple(np.array(links, dtype=int).reshape(-1, 2).T)), (len(inside),) * 2)
    part = connected_components(matrix)[1]
    mask = np.array([part[a] == part[seed] and inside[a] for a in range(len(inside))]).reshape(height, width)
    y, x = np.nonzero(mask)
    return [int(y.min()), int(x.min()), int(y.max()) + 1, int(x.max()) + 1]


def test_against_the_generalised_eigenproblem() -> None:
    generator, compared = torch.Generator().manual_seed(0), 0
    for _ in range(120):
        height, width = torch.randint(2, 8, (2,), generator=generator).tolist()
        # Smooth, so that patches hang together; images of noise have no clear second eigenvector.
        coarse = torch.randn(1, 6, 3, 3, generator=generator)
        features = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
        features += 0.05 * torch.randn(features.shape, generator=generator)
        flat = torch.nn.functional.normalize(features[0].flatten(1).double(), dim=0)
        alike = torch.where(flat.T @ flat > 0.2, 1.0, 1e-5)
        root = alike.sum(dim=1).rsqrt()
        values = torch.linalg.eigvalsh(torch.eye(len(alike)) - root[:, None] * alike * root)
        vector = second_eigenvector(flat[None])[0]
        largest = vector.abs().sort(descending=True).values
        # Not where there is no single second eigenvector, or rounding decides between two patches.
        if (
            values[2] - values[1] > 1e-6
            and largest[0] - largest[1] > 1e-9
            and (vector - vector.mean()).abs().min() > 1e-9
        ):
            box = mask_cut(features, 1)[0][0, 0].tolist()
            assert [by_definition(features[0].double().numpy(), 0.2, sign) for sign in (1, -1)] == [box, box]
            compared += 1
    assert compared > 40


@given(seed=st.integers(0, 10_000))
def test_the_sign_of_an_eigenvector_changes_nothing(seed: int) -> None:
    vectors = torch.randn(5, 30, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert torch.equal(foreground(vectors, (5, 6)), foreground(-vectors, (5, 6)))


@given(seed=st.integers(0, 10_000))
def test_bounds(seed: int) -> None:
    masks = torch.rand(6, 5, 7, generator=torch.Generator().manual_seed(seed)) < 0.1
    for mask, box in zip(masks, bounds(masks).tolist(), strict=True):
        y, x = mask.nonzero(as_tuple=True)
        expected = [int(y.min()), int(x.min()), int(y.max()) + 1, int(x.max()) + 1] if len(y) else [0, 0, 0, 0]
        assert box == expected


def test_the_released_regulariser_is_a_constant() -> None:
    """Its matrix of Gaussian similarities is positive semi-definite with a diagonal of ones: its norm is its trace."""
    features = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)

    def released(patches: torch.Tensor) -> torch.Tensor:
        patches = torch.nn.functional.normalize(patches, dim=1)
        return torch.linalg.matrix_norm(torch.exp(-torch.cdist(patches, patches).square() / 2), "nuc")

    assert float(released(torch.eye(2, dtype=torch.float64))) == pytest.approx(2.0, abs=1e-12)
    assert float(released(features).detach()) == pytest.approx(9.0, abs=1e-9)
    (slope,) = torch.autograd.grad(released(features), features)
    assert float(slope.abs().max()) < 1e-7


def test_masks_that_are_old_or_tiny_are_no_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of six patches; of four among these (two thirds the same); of one."""

    def block(start: int, end: int) -> torch.Tensor:
        mask = torch.zeros(1, 196, dtype=torch.bool)
        mask[:, start:end] = True
        return mask

    masks = iter([block(0, 6), block(0, 4), block(12, 13)])
    monkeypatch.setattr(maskcut, "foreground", lambda vectors, grid: next(masks))
    _, found = mask_cut(torch.randn(1, 4, 14, 14, generator=torch.Generator().manual_seed(0)), 3)
    assert found[0].tolist() == [True, False, False]
