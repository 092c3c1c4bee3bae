"""Feature pyramids: levels, packing, the cache, and a frozen run of the head that reads one."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError
from cml_bench.models.backbones import build_backbone
from cml_bench.models.features import extract_features
from cml_bench.models.layout import pool
from cml_bench.models.preprocess import EvalTransform
from cml_bench.models.pyramid import PackedPyramid, pack
from cml_bench.runs.job import make_jobs
from cml_bench.runs.run import run_job

SWIN = {"embed_dim": 12, "depths": (1, 1, 1), "num_heads": (1, 2, 2)}
VIT = {"embed_dim": 24, "depth": 2, "num_heads": 2}


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("mobilenetv3_small_050", 64, {}),
        ("resnet10t", 64, {}),
        ("swin_tiny_patch4_window7_224", 56, SWIN),
    ],
)
def test_levels_are_what_timms_own_feature_extractor_gives(name, size, options):
    backbone = build_backbone(name, image_size=size, **options).eval()
    sized = {"img_size": size} if "swin" in name else {}
    reference = timm.create_model(name, features_only=True, **sized, **options).eval()
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        levels, all_of_them = backbone.read(images, "pyramid"), reference(images)
    channels_last = "swin" in name
    shapes = [tuple(each.permute(0, 3, 1, 2).shape if channels_last else each.shape) for each in all_of_them]
    assert isinstance(levels, tuple)
    assert [tuple(level.shape) for level in levels] == shapes[-4:]
    assert [level.shape for level in backbone.levels] == [shape[1:] for shape in shapes[-4:]]
    backbone.kind = "pyramid"
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(backbone(images), levels, strict=True))


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("vit_tiny_patch16_224", 48, VIT),
        ("coat_tiny", 32, {"embed_dims": (8, 8, 8, 8), "serial_depths": (1, 1, 1, 1)}),
    ],
)
def test_one_scale_is_one_sentence(name, size, options):
    backbone = build_backbone(name, image_size=size, **options)
    if name == "coat_tiny" and hasattr(backbone.model, "forward_intermediates"):
        pytest.skip("this timm gives the intermediate maps of CoaT")
    with pytest.raises(CmlBenchError, match=f"'{name}' gives maps of") as caught:
        _ = backbone.levels
    assert "\n" not in str(caught.value)


def test_rows_hold_the_maps():
    backbone = build_backbone("mobilenetv3_small_050", image_size=64).eval()
    with torch.no_grad():
        maps = backbone.read(torch.rand(3, 3, 64, 64), "pyramid")
    rows = pack(maps)
    again = PackedPyramid(backbone.levels)(rows)
    assert rows.shape == (3, sum(level[0].numel() for level in maps))
    assert all(torch.equal(one, other) for one, other in zip(again, maps, strict=True))
    assert torch.equal(pool(maps), maps[-1].mean((2, 3)))
    assert torch.equal(pack(rows), rows)


class Noise(Source):
    """Five random images."""

    name, split = "noise", "train"

    def __init__(self):
        super().__init__(["a"], np.ones((5, 1), dtype=np.int8), np.arange(5))
        self.images = torch.randint(0, 256, (5, 3, 40, 30), dtype=torch.uint8)

    def load(self, index):
        return self.images[index]


def test_the_cache_holds_every_level_of_every_image(tmp_path):
    backbone, source = build_backbone("mobilenetv3_small_050", image_size=32).eval(), Noise()
    stored = extract_features(backbone, source, kind="pyramid", batch_size=2, cache_dir=tmp_path)
    transform = EvalTransform(32, backbone.mean, backbone.std)
    with torch.no_grad():
        expected = backbone.read(torch.stack([transform(image) for image in source.images]), "pyramid")
    assert stored.dtype == torch.float16
    for found, level in zip(PackedPyramid(backbone.levels)(stored.float()), expected, strict=True):
        assert torch.allclose(found, level, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("frozen", ["true", "false"])
def test_hsvlt_runs_on_cached_levels_and_on_images(frozen, tmp_path, monkeypatch):
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path))
    options = [
        "backbone_options=[]",
        "backbone=mobilenetv3_small_050",
        "image_size=32",
        f"frozen={frozen}",
        "n_train=40",
        "n_test=40",
    ]
    (job,) = make_jobs(["digits"], ["naive head=hsvlt"], ["default"], [0], [*options, "epochs=1", "increment=5"])
    made = run_job(job)
    assert [part.shape[1] for part in made.predictions.logits] == [5, 10]


def test_hsvlt_on_a_vit_is_refused_before_anything_runs():
    from cml_bench.runs.check import check_jobs

    options = ["backbone_options=[]", "backbone=vit_tiny_patch16_224", "image_size=32", "n_train=40", "n_test=40"]
    jobs = make_jobs(["digits"], ["naive head=hsvlt"], ["default"], [0], options)
    with pytest.raises(CmlBenchError, match="maps of one size only"):
        check_jobs(jobs)
