"""Class token and positions: from the backbone, through the cache, to what a head reads."""

import numpy as np
import pytest
import torch

from cml_bench.data.source import Source
from cml_bench.models.backbones import build_backbone
from cml_bench.models.features import extract_features
from cml_bench.models.layout import whole_and_parts
from cml_bench.models.preprocess import EvalTransform

TINY_VIT = {"embed_dim": 24, "depth": 1, "num_heads": 2}


class Pictures(Source):
    name, split, image_size = "pictures", "train", (32, 32)

    def __init__(self):
        super().__init__(["a"], np.zeros((7, 1), dtype=np.int8), np.arange(7))
        self.images = torch.randint(0, 256, (7, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()

    def load(self, index):
        return self.images[index]


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize(
    ("name", "size", "options", "between"),
    [
        ("vit_tiny_patch16_224", 48, TINY_VIT, 0),
        ("deit_tiny_distilled_patch16_224", 32, TINY_VIT, 1),
        ("vit_small_patch14_reg4_dinov2", 42, TINY_VIT, 4),
        ("vit_base_patch16_clip_224", 32, TINY_VIT, 0),
    ],
)
def test_the_class_token_comes_before_the_positions(name, size, options, between):
    backbone = build_backbone(name, image_size=size, **options).eval()
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        every = backbone.model.forward_features(images)
        whole, parts = whole_and_parts(backbone.read(images, "tokens"))
        spatial = backbone.read(images, "map")
    assert torch.equal(whole, every[:, 0])
    assert parts.shape[1] == every.shape[1] - 1 - between
    assert torch.equal(parts, spatial.flatten(2).transpose(1, 2))


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("mobilenetv3_small_050", 64, {}),
        ("vit_base_patch16_siglip_224", 32, TINY_VIT),
        ("swin_tiny_patch4_window7_224", 56, {"embed_dim": 12, "depths": (1,), "num_heads": (1,)}),
    ],
)
def test_without_a_class_token_the_mean_stands_in(name, size, options):
    backbone = build_backbone(name, image_size=size, **options).eval()
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        spatial = backbone.read(images, "tokens")
        assert torch.equal(spatial, backbone.read(images, "map"))
    whole, parts = whole_and_parts(spatial)
    assert torch.equal(whole, spatial.mean((2, 3)))
    assert torch.equal(parts[:, 1], spatial[:, :, 0, 1])


def test_a_vector_is_the_whole_and_its_one_part():
    vectors = torch.rand(2, 5)
    whole, parts = whole_and_parts(vectors)
    assert torch.equal(whole, vectors)
    assert torch.equal(parts, vectors[:, None])


def test_forward_gives_the_kind_that_was_asked_for():
    backbone = build_backbone("vit_tiny_patch16_224", image_size=32, **TINY_VIT).eval()
    images = torch.rand(1, 3, 32, 32)
    assert backbone(images).shape == (1, 24, 2, 2)
    backbone.kind = "tokens"
    assert backbone(images).shape == (1, 5, 24)


def test_tokens_and_maps_are_kept_apart_in_the_cache(tmp_path):
    backbone = build_backbone("vit_tiny_patch16_224", image_size=32, **TINY_VIT)
    source = Pictures()
    maps = extract_features(backbone, source, kind="map", batch_size=3, cache_dir=tmp_path)
    tokens = extract_features(backbone, source, kind="tokens", batch_size=3, cache_dir=tmp_path)
    assert (maps.shape, tokens.shape) == ((7, 24, 2, 2), (7, 5, 24))
    transform = EvalTransform(32, backbone.mean, backbone.std)
    with torch.no_grad():
        expected = backbone.eval().model.forward_features(torch.stack([transform(image) for image in source.images]))
    assert torch.allclose(tokens.float(), expected, rtol=2e-3, atol=2e-3)
