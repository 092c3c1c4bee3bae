"""Diff-Feat on real diffusers classes with tiny random weights."""

import json

import numpy as np
import pytest
import torch

from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError
from cml_bench.models.backbones import build_backbone
from cml_bench.models.features import extract_features
from cml_bench.models.preprocess import EvalTransform

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra diffusion)")

DEPTH, STEPS, WIDTH = 3, 50, 16


@pytest.fixture(scope="module")
def parts():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            latent_channels=4,
        )
        transformer = diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=DEPTH,
            sample_size=8, patch_size=2, num_embeds_ada_norm=5,
        )  # fmt: skip
        # A fresh block leaves its input as it is: its gates start at 0.
        for parameter in transformer.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return vae.eval(), transformer.eval(), diffusers.DDIMScheduler(num_train_timesteps=STEPS)


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory):
    root = tmp_path_factory.mktemp("dit")
    for part, name in zip(parts, ("vae", "transformer", "scheduler"), strict=True):
        part.save_pretrained(root / name)
    return root


@pytest.fixture
def build(folder):
    def make(block=2, step=20, seed=0, **options):
        name = f"diff_feat:block={block},step={step},seed={seed}"
        return build_backbone(name, checkpoint=folder, **{"pretrained_on": "ImageNet-1k", **options})

    return make


IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
IDS = np.array([2**63 + 11, 7, 12345], dtype=np.uint64)


def noised(parts, step, noise):
    """Latents at a step, by the real VAE and the real scheduler."""
    vae, _, scheduler = parts
    latents = vae.encode(IMAGES).latent_dist.mode() * vae.config.scaling_factor
    return latents if step == 0 else scheduler.add_noise(latents, noise, torch.full((len(IMAGES),), step - 1))


@pytest.mark.parametrize("block", [1, 2, DEPTH])
@pytest.mark.parametrize("step", [0, 1, 20, STEPS])
def test_features_are_what_a_hook_sees_in_the_full_forward(build, parts, block, step, monkeypatch):
    noise = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    by_id = dict(zip(IDS.tolist(), noise, strict=True))
    monkeypatch.setattr("cml_bench.models.diff_feat._noise", lambda shape, key, seed: by_id[key])
    seen = []
    _, transformer, _ = parts
    handle = transformer.transformer_blocks[block - 1].register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.no_grad():
        transformer(
            noised(parts, step, noise), timestep=torch.full((3,), max(step - 1, 0)), class_labels=torch.full((3,), 5)
        )
        found = build(block, step).eval().read(IMAGES, "map", IDS)
    handle.remove()
    assert found.shape == (3, WIDTH, 4, 4)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), seen[0])


def test_step_zero_is_the_image_itself(build):
    one, other = (build(step=0, seed=seed).eval().read(IMAGES, "map", IDS) for seed in (0, 1))
    assert torch.equal(one, other)
    noisy = build(step=STEPS).eval().read(IMAGES, "map", IDS)
    assert not torch.allclose(one, noisy)


def test_an_image_has_its_own_noise_whatever_is_in_the_batch(build):
    backbone = build().eval()
    together = backbone.read(IMAGES, "map", IDS)
    alone = torch.cat([backbone.read(IMAGES[i : i + 1], "map", IDS[i : i + 1]) for i in (0, 1, 2)])
    turned = backbone.read(IMAGES.flip(0), "map", IDS[::-1].copy()).flip(0)
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(turned, together, rtol=1e-4, atol=1e-5)
    same = backbone.read(IMAGES[:1].expand(2, -1, -1, -1), "map", IDS[:2])
    assert not torch.allclose(same[0], same[1])
    assert not torch.allclose(build(seed=1).eval().read(IMAGES, "map", IDS), together)


def test_the_noise_is_standard_normal():
    from cml_bench.models.diff_feat import _noise

    drawn = torch.stack([_noise((4, 8, 8), key, 0) for key in range(200)])
    assert abs(float(drawn.mean())) < 0.02
    assert abs(float(drawn.std()) - 1) < 0.02
    assert abs(float(torch.corrcoef(drawn.flatten(1)).triu(1).mean())) < 1e-2
    # Maps in a cache were made with these numbers, in another process: an image's noise follows from nothing else.
    torch.testing.assert_close(_noise((3,), 7, 0), torch.tensor([-1.9546, -0.4822, 0.6165]), rtol=0, atol=1e-4)


def test_later_blocks_and_the_decoder_are_left_behind(build, parts):
    backbone = build(block=1)
    assert backbone.record["options"] == {"block": 1, "step": 20, "seed": 0}
    assert (backbone.image_size, backbone.out_features, backbone.spatial) == (16, WIDTH, True)
    assert backbone.record["parameters"] < sum(p.numel() for part in parts[:2] for p in part.parameters())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert json.loads(json.dumps(backbone.record))["pretraining"] == "ImageNet-1k"


class Pictures(Source):
    name, split, image_size = "pictures", "train", (16, 16)

    def __init__(self, rows):
        every = torch.randint(0, 256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
        super().__init__(["a"], np.zeros((len(rows), 1), dtype=np.int8), np.array([f"image {row}" for row in rows]))
        self.images, self.reads = every[rows], 0

    def load(self, index):
        self.reads += 1
        return self.images[index]


def test_through_the_cache(build, tmp_path):
    def features(backbone, source, kind="pooled", batch_size=2):
        return extract_features(backbone, source, kind=kind, batch_size=batch_size, cache_dir=tmp_path)

    source, turned = Pictures([0, 1, 2, 3, 4, 5]), Pictures([5, 3, 1])
    found = features(build(), source)
    assert torch.allclose(features(build(), turned, batch_size=3), found[[5, 3, 1]], rtol=1e-2, atol=1e-3)
    transform = EvalTransform(16, (0.5,) * 3, (0.5,) * 3)
    images = torch.stack([transform(image) for image in source.images])
    expected = build().eval().read(images, "map", source.id_keys).mean((2, 3))
    assert torch.allclose(found.float(), expected, rtol=5e-3, atol=5e-3)
    reads = source.reads
    features(build(), source)
    assert source.reads == reads
    for other in (build(block=1), build(step=21), build(seed=1), build(image_size=32)):
        features(other, source)
        assert source.reads == (reads := reads + 6)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"block": 0}, "take 1 to 3"),
        ({"block": DEPTH + 1}, "block=4"),
        ({"step": STEPS + 1}, "take 0 to 50"),
        ({"step": -1}, "step=-1"),
        ({"block": "many"}, "block='many'"),
        ({"pretrained_on": None}, "pass pretrained_on"),
        ({"pretrained_on": "coco", "evaluated_on": ("MS-COCO",)}, "have not seen it"),
        ({"image_size": 18}, "patches of 4 px"),
        ({"drop_rate": 0.1}, "backbone_options"),
    ],
)
def test_what_is_wrong_is_one_sentence(build, options, match):
    with pytest.raises(CmlBenchError, match=match) as caught:
        build(**options)
    assert "\n" not in str(caught.value)


def test_a_place_a_folder_and_whole_weights_are_needed(folder, tmp_path):
    def build(name, checkpoint):
        return build_backbone(name, checkpoint=checkpoint, pretrained_on="ImageNet-1k")

    with pytest.raises(CmlBenchError, match="needs option 'block'"):
        build("diff_feat", folder)
    with pytest.raises(CmlBenchError, match="no option 'blok'"):
        build("diff_feat:blok=1,step=2", folder)
    with pytest.raises(CmlBenchError, match="is no folder"):
        build("diff_feat:block=1,step=2", None)
    with pytest.raises(CmlBenchError, match="vae cannot be read"):
        build("diff_feat:block=1,step=2", tmp_path)
    from safetensors.torch import load_file, save_file

    for part in ("vae", "transformer", "scheduler"):
        (tmp_path / part).mkdir()
        for file in (folder / part).iterdir():
            (tmp_path / part / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "transformer/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights.pop("transformer_blocks.0.attn1.to_q.weight")
    save_file(weights, path)
    with pytest.raises(CmlBenchError, match="lacks weights"):
        build("diff_feat:block=1,step=2", tmp_path)


def test_images_of_unknown_id_are_refused(build):
    with pytest.raises(CmlBenchError, match="frozen=true"):
        build()(IMAGES)
