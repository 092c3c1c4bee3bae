"""Frozen features through the cache."""

import numpy as np
import pytest
import torch

from cml_bench.data import cache
from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError
from cml_bench.models.backbones import build_backbone
from cml_bench.models.features import extract_features
from cml_bench.models.preprocess import EvalTransform


class Noise(Source):
    """Eleven random images of different sizes that count how often they are read."""

    name, split = "noise", "train"

    def __init__(self):
        rng = np.random.default_rng(0)
        super().__init__(["a"], rng.integers(0, 2, (11, 1)).astype(np.int8), np.arange(11))
        self.images = [torch.from_numpy(rng.integers(0, 256, (3, 30 + i, 40)).astype(np.uint8)) for i in range(11)]
        self.reads = 0

    def load(self, index):
        self.reads += 1
        return self.images[index]


@pytest.fixture
def source():
    return Noise()


@pytest.fixture
def backbone():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_backbone("mobilenetv3_small_050", image_size=32)


def test_rows_are_the_backbones_features(source, backbone, tmp_path):
    done = []
    backbone.train()
    stored = extract_features(backbone, source, kind="map", batch_size=4, cache_dir=tmp_path, progress=done.append)
    assert backbone.training
    assert done == [4, 8, 11]
    backbone.eval()
    transform = EvalTransform(32, backbone.mean, backbone.std)
    with torch.no_grad():
        expected = torch.cat([backbone(transform(image)[None]) for image in source.images])
    assert stored.dtype == torch.float16
    assert torch.allclose(stored.float(), expected, rtol=2e-3, atol=2e-3)


def test_a_pass_that_was_stopped_goes_on(source, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_ROWS_A_MARK", 4)
    whole = extract_features(backbone, source, kind="map", batch_size=4, cache_dir=tmp_path / "whole")

    def stop(done):
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_features(backbone, source, kind="map", batch_size=4, cache_dir=tmp_path / "half", progress=stop)
    read = source.reads
    done = []
    again = extract_features(
        backbone, source, kind="map", batch_size=4, cache_dir=tmp_path / "half", progress=done.append
    )
    assert torch.equal(again, whole)
    assert done == [11]
    assert source.reads - read == 3


def test_one_pass_over_the_images_serves_both_kinds(source, backbone, tmp_path):
    maps = extract_features(backbone, source, kind="map", batch_size=4, cache_dir=tmp_path)
    pooled = extract_features(backbone, source, kind="pooled", batch_size=4, cache_dir=tmp_path)
    again = extract_features(backbone, source, kind="map", batch_size=4, cache_dir=tmp_path)
    assert source.reads == 11
    assert torch.equal(maps, again)
    expected = maps.double().mean((2, 3))
    assert torch.allclose(pooled.double(), expected, rtol=1e-3, atol=1e-4)


def test_pooled_does_not_depend_on_a_cached_map(source, backbone, tmp_path):
    extract_features(backbone, source, kind="map", batch_size=4, cache_dir=tmp_path / "a")
    over_map = extract_features(backbone, source, kind="pooled", batch_size=4, cache_dir=tmp_path / "a")
    straight = extract_features(backbone, source, kind="pooled", batch_size=4, cache_dir=tmp_path / "b")
    assert torch.equal(over_map, straight)


def test_what_changes_the_features_changes_the_key(source, backbone, tmp_path):
    def reads(model, data=source):
        before = data.reads
        extract_features(model, data, kind="pooled", batch_size=4, cache_dir=tmp_path)
        return data.reads - before

    assert reads(backbone) == 11
    assert reads(backbone) == 0
    with torch.no_grad():
        next(backbone.parameters())[0] += 1e-3
    assert reads(backbone) == 11
    backbone.mean = (0.1, 0.2, 0.3)
    assert reads(backbone) == 11
    other = Noise()
    other.split = "test"
    assert reads(backbone, other) == 11
    relabelled = Noise()
    relabelled.labels = 1 - relabelled.labels
    assert reads(backbone, relabelled) == 11


def test_a_backbone_without_map_has_no_map(source, tmp_path):
    backbone = build_backbone("coat_tiny", image_size=32, embed_dims=(8, 8, 8, 8), serial_depths=(1, 1, 1, 1))
    with pytest.raises(CmlBenchError, match="'coat_tiny' has no spatial map"):
        extract_features(backbone, source, kind="map", batch_size=4, cache_dir=tmp_path)
    pooled = extract_features(backbone, source, kind="pooled", batch_size=4, cache_dir=tmp_path)
    assert pooled.shape == (11, backbone.out_features)


def test_an_unreadable_image_stops_the_run_and_restores_the_mode(source, backbone, tmp_path):
    def load(index):
        raise CmlBenchError(f"image {index}.jpg cannot be decoded; replace it")

    source.load = load
    backbone.train()
    with pytest.raises(CmlBenchError, match=r"image 0\.jpg"):
        extract_features(backbone, source, kind="map", batch_size=4, cache_dir=tmp_path)
    assert backbone.training
    assert not list(tmp_path.rglob("*.npy"))
