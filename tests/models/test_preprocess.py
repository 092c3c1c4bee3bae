"""From uint8 images to backbone input."""

import numpy as np
import pytest
import torch
from PIL import Image

from cml_bench.models.preprocess import EvalTransform, StrongTransform, TrainTransform

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture
def photo():
    return torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def unnormalise(image):
    return image * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)


def test_right_size_is_normalised_only(photo):
    square = photo[:, :, :40]
    out = EvalTransform(40, MEAN, STD)(square)
    for channel in range(3):
        expected = (square[channel].double() / 255 - MEAN[channel]) / STD[channel]
        assert torch.allclose(out[channel].double(), expected, atol=1e-5)
    assert out.dtype == torch.float32


def test_resize_squashes_like_pillow(photo):
    out = unnormalise(EvalTransform(16, MEAN, STD)(photo)) * 255
    picture = Image.fromarray(photo.permute(1, 2, 0).numpy()).resize((16, 16), Image.Resampling.BILINEAR)
    expected = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
    assert float((out - expected).abs().max()) < 1.5  # Pillow rounds after each of two passes


def test_training_draws_come_from_its_generator(photo):
    state = torch.random.get_rng_state()
    first = [TrainTransform(16, MEAN, STD, torch.Generator().manual_seed(5))(photo) for _ in range(2)]
    assert torch.equal(*first)
    transform = TrainTransform(16, MEAN, STD, torch.Generator().manual_seed(5))
    assert not torch.equal(transform(photo), transform(photo))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_flip_is_an_option(photo):
    ramp = torch.arange(64, dtype=torch.uint8).expand(3, 64, 64)  # brighter to the right, also after any crop

    def leans_right(flip):
        transform = TrainTransform(16, MEAN, STD, torch.Generator().manual_seed(0), flip=flip)
        return [bool((out := transform(ramp))[0, 0, -1] > out[0, 0, 0]) for _ in range(200)]

    assert all(leans_right(False))
    assert 60 < sum(leans_right(True)) < 140


def test_crops_cover_the_promised_area():
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    image = torch.stack([rows, columns, rows]).to(torch.uint8)
    transform = TrainTransform(64, MEAN, STD, torch.Generator().manual_seed(0), min_area=0.5, flip=False)
    shares = []
    for _ in range(300):
        out = unnormalise(transform(image)) * 255
        shares.append(float((out[0].max() - out[0].min() + 1) * (out[1].max() - out[1].min() + 1)) / 64**2)
    assert min(shares) > 0.40  # a crop clipped at the border covers a little less
    assert max(shares) > 0.95
    assert 0.6 < float(np.mean(shares)) < 0.8


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 1, 50), (3, 500, 3)])
def test_odd_shapes_come_out_square(shape):
    image = torch.full(shape, 128, dtype=torch.uint8)
    transform = TrainTransform(8, MEAN, STD, torch.Generator().manual_seed(0))
    for out in (EvalTransform(8, MEAN, STD)(image), transform(image)):
        assert out.shape == (3, 8, 8)
        assert torch.allclose(unnormalise(out), torch.tensor(128 / 255), atol=1e-5)


def strong(seed=0, size=16, **options):
    return StrongTransform(size, MEAN, STD, torch.Generator().manual_seed(seed), **options)


def test_strong_draws_come_from_its_generator(photo):
    state = torch.random.get_rng_state()
    one, other = strong(5), strong(5)
    assert all(torch.equal(one(photo), other(photo)) for _ in range(10))
    assert not torch.equal(one(photo), one(photo))
    assert not torch.equal(one(photo), strong(6)(photo))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    again = strong(5)
    for _ in range(10):
        again(photo)
    assert torch.equal(again(photo), other(photo)), "what is drawn elsewhere makes a difference"


def test_cutout_has_half_the_side_and_the_mean_colour():
    image = torch.full((3, 40, 60), 255, dtype=torch.uint8)
    places = set()
    for seed in range(40):
        hole = (strong(seed)(image) == 0).all(dim=0)
        rows, columns = hole.any(dim=1).nonzero().flatten(), hole.any(dim=0).nonzero().flatten()
        assert hole.sum() >= 64
        places.add((int(rows[0]), int(columns[0])))
    assert len(places) > 10


def test_strong_keeps_the_whole_image_but_the_cutout(photo):
    """Without operations and mirror, it is the evaluation transform with a square cut out."""
    transform = strong(flip=False)
    transform._augment = lambda image: image
    out, whole = transform(photo), EvalTransform(16, MEAN, STD)(photo)
    hole = (out == 0).all(dim=0)
    assert hole.sum() == 64
    # The strong one resizes to whole numbers.
    assert float((unnormalise(out) - unnormalise(whole))[:, ~hole].abs().max()) < 1 / 255


def test_strong_mirrors_half_of_them():
    ramp = torch.arange(64, dtype=torch.uint8).expand(3, 64, 64)

    def leans_right(flip):
        transform = strong(flip=flip)
        transform._augment, transform._cut_out = lambda image: image, lambda image: image
        return [bool((out := transform(ramp))[0, 0, -1] > out[0, 0, 0]) for _ in range(200)]

    assert all(leans_right(False))
    assert 60 < sum(leans_right(True)) < 140


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 1, 50), (3, 500, 3)])
def test_strong_makes_odd_shapes_square(shape):
    image = torch.full(shape, 128, dtype=torch.uint8)
    assert strong(size=8)(image).shape == (3, 8, 8)
