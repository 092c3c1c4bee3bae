"""Decoded images on disk: the same inputs as from the files, and never a damaged or another store."""

from __future__ import annotations

import multiprocessing
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cml_bench.data.inputs import ImageInputs
from cml_bench.data.pixel_cache import PixelInputs, cached_pixels, unpack
from cml_bench.data.source import Source
from cml_bench.models.preprocess import EvalTransform, StrongBatch, StrongTransform, TrainBatch, TrainTransform

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SHAPES = [(30, 41), (24, 24), (16, 50), (60, 20), (24, 31)]
SIZE = 24


def wave(shape: tuple[int, int], number: int) -> Tensor:
    """A picture that is smooth over its whole extent, so that ways to interpolate agree on it."""
    y, x = torch.meshgrid(*(torch.linspace(0, 1, side) for side in shape), indexing="ij")
    waves = [torch.sin(3 * x + number), torch.cos(2 * y - number), x * y]
    return (127 + 120 * torch.stack(waves)).round().to(torch.uint8)


class Pictures(Source):
    """Pictures of different shapes that count how often they are read."""

    name, split = "pictures", "train"

    def __init__(self, pictures: list[Tensor], label: int = 1) -> None:
        labels = np.full((len(pictures), 1), label, dtype=np.int8)
        super().__init__(["a"], labels, np.arange(len(pictures)))
        self.pictures, self.reads = pictures, 0

    def load(self, index: int) -> Tensor:
        self.reads += 1
        return self.pictures[index]


def noise() -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=draw) for shape in SHAPES]


def waves() -> list[Tensor]:
    return [wave(shape, number) for number, shape in enumerate(SHAPES)]


def test_evaluation_is_that_of_the_files_within_rounding(tmp_path: Path) -> None:
    source = Pictures(noise())
    evaluation = EvalTransform(SIZE, MEAN, STD)
    cached = PixelInputs(source, cached_pixels(source, SIZE, cache_dir=tmp_path), SIZE, evaluation)
    rows = torch.tensor([4, 0, 2, 2, 1, 3])
    given, expected = (
        inputs.fetch(rows, training=training)
        for inputs, training in ((cached, True), (ImageInputs(source, evaluation), False))
    )
    levels = ((given - expected) * torch.tensor(STD).view(3, 1, 1) * 255).abs()
    assert not cached.augments
    assert given.dtype == torch.float32
    assert 0.1 < float(levels.max()) <= 0.5 + 1e-3
    assert float(levels[4].max()) < 1e-3  # that picture had the size already


def test_rows_keep_the_shape_that_the_square_has_lost(tmp_path: Path) -> None:
    images, sizes = unpack(cached_pixels(Pictures(noise()), 10, cache_dir=tmp_path), 10)
    assert images.shape == (5, 3, 10, 10)
    assert sizes.tolist() == [list(shape) for shape in SHAPES]


def test_another_rendering_of_the_same_images_is_not_taken_for_them(tmp_path: Path) -> None:
    """Of one table with two folders of pictures, originals and small ones say, labels and ids are the same."""
    rows = []
    for rendering, level in (("original", 10), ("small", 200), ("original", 77)):
        source = Pictures([torch.full((3, 8, 8), level, dtype=torch.uint8)])
        source.rendering = rendering
        rows.append(int(cached_pixels(source, 4, cache_dir=tmp_path)[0, 0]))
    assert rows == [10, 200, 10]


@pytest.mark.parametrize("flip", [True, False])
def test_crops_are_those_of_the_files_draw_for_draw(tmp_path: Path, flip: bool) -> None:
    """The generator ends where it would have; only the interpolation differs, by little on smooth pictures."""
    source, side = Pictures(waves()), 32
    draws = [torch.Generator().manual_seed(3) for _ in range(2)]
    one_by_one = ImageInputs(
        source, EvalTransform(SIZE, MEAN, STD), TrainTransform(SIZE, MEAN, STD, draws[0], flip=flip)
    )
    of_batch = TrainBatch(SIZE, MEAN, STD, draws[1], flip=flip)
    table = cached_pixels(source, side, cache_dir=tmp_path)
    cached = PixelInputs(source, table, side, EvalTransform(SIZE, MEAN, STD), of_batch)
    assert cached.augments
    seen = []
    for _ in range(20):
        rows = torch.arange(len(source))
        expected, given = (inputs.fetch(rows, training=True) for inputs in (one_by_one, cached))
        seen.append(given)
        levels = ((given - expected) * torch.tensor(STD).view(3, 1, 1) * 255).abs()
        # Two levels of 255 for rounding twice; a part or a mirror image of its own differs by tens.
        assert float(levels.mean()) < 2
        assert float(levels.max()) < 12
    assert torch.equal(draws[0].get_state(), draws[1].get_state())
    assert not torch.equal(seen[0], seen[1])


def test_strong_views_are_those_of_the_files(tmp_path: Path) -> None:
    source = Pictures([picture[:, :SIZE, :SIZE].contiguous() for picture in noise() if min(picture.shape[1:]) >= SIZE])
    draws = [torch.Generator().manual_seed(3) for _ in range(2)]
    evaluation = EvalTransform(SIZE, MEAN, STD)
    table = cached_pixels(source, SIZE, cache_dir=tmp_path)
    cached = PixelInputs(source, table, SIZE, evaluation, StrongBatch(SIZE, MEAN, STD, draws[0]))
    files = ImageInputs(source, evaluation, StrongTransform(SIZE, MEAN, STD, draws[1]))
    for _ in range(3):
        assert torch.equal(*(inputs.fetch(torch.arange(len(source)), training=True) for inputs in (cached, files)))


def test_read_once_and_for_this_data_alone(tmp_path: Path) -> None:
    source, done = Pictures(noise()), list[int]()
    first = cached_pixels(source, SIZE, cache_dir=tmp_path, progress=done.append)
    again = cached_pixels(source, SIZE, cache_dir=tmp_path)
    assert torch.equal(first, again)
    assert (source.reads, done) == (len(SHAPES), [len(SHAPES)])
    others = (Pictures(noise(), label=0), SIZE), (source, SIZE + 1)
    for other, side in others:
        before = other.reads
        cached_pixels(other, side, cache_dir=tmp_path)
        assert other.reads == before + len(SHAPES)


@pytest.mark.parametrize("damage", ["one bit", "truncated", "rows", "type"])
def test_a_damaged_store_is_made_again(tmp_path: Path, damage: str) -> None:
    source = Pictures(noise())
    expected = cached_pixels(source, SIZE, cache_dir=tmp_path).clone()
    (path,) = tmp_path.rglob("*.npy")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage in ("one bit", "truncated"):
        path.write_bytes(content if damage == "one bit" else content[:-1])
    else:
        np.save(path, np.zeros((4 if damage == "rows" else 5, 8), np.uint8 if damage == "rows" else np.float16))
    with pytest.warns(UserWarning, match="cached pixels .* will be computed again"):
        mended = cached_pixels(source, SIZE, cache_dir=tmp_path)
    assert torch.equal(mended, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(cached_pixels(source, SIZE, cache_dir=tmp_path), expected)


def _store(folder: Path, source: Source) -> None:
    cached_pixels(source, SIZE, cache_dir=folder)


def test_jobs_at_once_share_one_store(tmp_path: Path) -> None:
    source = Pictures(noise())
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=_store, args=(tmp_path, source)) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
        assert job.exitcode == 0
    assert len(list(tmp_path.rglob("*.npy"))) == 1
    assert torch.equal(cached_pixels(source, SIZE, cache_dir=tmp_path)[:, :-8], _squashed(source))
    assert source.reads == len(SHAPES)  # those of the comparison: the store was made by another process


def _squashed(source: Pictures) -> Tensor:
    transform = EvalTransform(SIZE, (0.0,) * 3, (1 / 255,) * 3)
    return torch.stack([transform(source.load(row)).round().to(torch.uint8).flatten() for row in range(len(source))])


def test_writing_to_a_batch_changes_no_store(tmp_path: Path) -> None:
    source = Pictures(noise())
    table: Any = cached_pixels(source, SIZE, cache_dir=tmp_path)
    expected = table.clone()
    table.zero_()
    assert torch.equal(cached_pixels(source, SIZE, cache_dir=tmp_path), expected)


def test_a_single_image_of_an_odd_side(tmp_path: Path) -> None:
    """The last batch of an epoch may be one image, and 299 px is odd."""
    side, source = 33, Pictures(noise())
    stored = cached_pixels(source, side, cache_dir=tmp_path)
    alone, together = unpack(stored[1:2], side), unpack(stored[:2], side)
    assert alone[1].tolist() == [list(SHAPES[1])]
    assert all(torch.equal(one[0], two[1]) for one, two in zip(alone, together, strict=True))
