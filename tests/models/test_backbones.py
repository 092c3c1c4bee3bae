"""Backbones: layouts, checkpoints, the record, the pretraining guard."""

import copy
import hashlib
import json
import os
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from cml_bench.errors import CmlBenchError
from cml_bench.models.backbones import build_backbone

TEST_DATA = Path(os.environ.get("CML_BENCH_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))
TINY_VIT = {"embed_dim": 24, "depth": 1, "num_heads": 2}
TINY_SWIN = {"embed_dim": 12, "depths": (1, 1), "num_heads": (1, 2)}


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize(
    ("name", "size", "options", "shape"),
    [
        ("mobilenetv3_small_050", 64, {}, (288, 2, 2)),
        ("swin_tiny_patch4_window7_224", 56, TINY_SWIN, (24, 7, 7)),
        ("vit_tiny_patch16_224", 48, TINY_VIT, (24, 3, 3)),
        ("deit_tiny_distilled_patch16_224", 32, TINY_VIT, (24, 2, 2)),
        ("vit_small_patch14_reg4_dinov2", 42, TINY_VIT, (24, 3, 3)),
    ],
)
def test_every_layout_becomes_a_map(name, size, options, shape):
    backbone = build_backbone(name, image_size=size, **options).eval()
    assert backbone.spatial
    assert (backbone.out_features, backbone.image_size) == (shape[0], size)
    with torch.no_grad():
        assert backbone(torch.rand(2, 3, size, size)).shape == (2, *shape)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_positions_are_where_the_image_is(name):
    options = {**TINY_VIT, "depth": 0} if "vit" in name else {"embed_dim": 12, "depths": (1,), "num_heads": (1,)}
    size = 48 if "vit" in name else 56
    backbone = build_backbone(name, image_size=size, **options).eval()
    image = torch.zeros(1, 3, size, size)
    spot = image.clone()
    spot[:, :, : size // 8, -size // 8 :] = 1.0
    with torch.no_grad():
        change = (backbone(spot) - backbone(image)).abs().sum(1)[0]
    row, column = divmod(int(change.argmax()), change.shape[1])
    assert row < change.shape[0] / 2 <= column


def test_a_model_without_a_map_gives_vectors():
    backbone = build_backbone("coat_tiny", image_size=32, embed_dims=(8, 8, 8, 8), serial_depths=(1, 1, 1, 1)).eval()
    assert not backbone.spatial
    with torch.no_grad():
        assert backbone(torch.rand(2, 3, 32, 32)).shape == (2, backbone.out_features)


def test_random_weights_follow_the_current_generator():
    def build(seed):
        torch.manual_seed(seed)
        return build_backbone("mobilenetv3_small_050", image_size=32).state_dict()

    one, same, other = build(1), build(1), build(2)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_record():
    backbone = build_backbone("mobilenetv3_small_050", image_size=32, drop_path_rate=0.1)
    assert json.loads(json.dumps(backbone.record)) == {
        "name": "mobilenetv3_small_050",
        "options": {"drop_path_rate": 0.1},
        "parameters": sum(p.numel() for p in timm.create_model("mobilenetv3_small_050", num_classes=0).parameters()),
        "checkpoint": None,
        "sha256": None,
        "pretraining": "none",
        "image_size": 32,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }


NAME = "mobilenetv3_small_050"


@pytest.fixture
def weights():
    return timm.create_model(NAME, num_classes=7).state_dict()


@pytest.fixture
def saved(tmp_path, weights):
    def save(metadata, weights=weights, name="weights.safetensors"):
        path = tmp_path / name
        if path.suffix == ".safetensors":
            save_file(weights, path, metadata)
        else:
            torch.save(weights, path)
        return path

    return save


def test_checkpoint_with_metadata(saved, weights):
    half = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    metadata = {"architecture": NAME, "pretraining": "ImageNet-1k", "mean": "0.5,0.4,0.3", "std": "0.1, 0.2, 0.3"}
    path = saved({**metadata, "pad_type": "same"}, half)
    backbone = build_backbone(NAME, checkpoint=path, image_size=32, evaluated_on=("coco",))
    assert (backbone.mean, backbone.std) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    for key, value in backbone.model.state_dict().items():
        assert value.dtype == weights[key].dtype
        assert torch.equal(value, half[key].to(value.dtype))
    assert backbone.record["options"] == {"pad_type": "same"}
    assert backbone.record["checkpoint"] == "weights.safetensors"
    assert backbone.record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert backbone.record["pretraining"] == "ImageNet-1k"
    given = build_backbone(NAME, checkpoint=path, image_size=32, pad_type="")
    assert given.record["options"] == {"pad_type": ""}


def folded(trained):
    """What is left of a model whose batch norms are all passed on to their layers: a shift."""
    model = timm.create_model(NAME, num_classes=7)
    model.load_state_dict(trained)
    for norm in (part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(norm.bias)
        torch.nn.init.zeros_(norm.running_mean)
        torch.nn.init.ones_(norm.running_var)
    return {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}


def test_batch_norms_that_were_folded_say_in_training_what_they_say_in_evaluation(saved, weights):
    """Their layers hold the trained statistics; those of a batch, put on top, would make another model of it."""
    less = folded(weights)
    images = torch.rand(4, 3, 32, 32)
    metadata = {"pretraining": "ImageNet-1k"}
    backbone = build_backbone(NAME, checkpoint=saved(metadata, less), image_size=32)
    with torch.no_grad():
        expected = backbone.eval()(images)
    trained = copy.deepcopy(backbone).train()
    output = trained(images)
    torch.testing.assert_close(output.detach(), expected)
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in trained.model.bn1.parameters())
    assert bool((trained.model.bn1.running_var == 1).all()), "no batch has left its mark"
    # One that was never trained looks the same, but for its counter; it has its statistics still to learn.
    fresh = build_backbone(NAME, checkpoint=saved(metadata, {**weights, **less}, "fresh.safetensors"), image_size=32)
    assert not torch.allclose(fresh.train()(images), fresh.eval()(images), atol=1e-3)


def test_an_image_alone_in_its_batch_is_normalised_by_running_statistics():
    """Where its map is a single position (layer 4 at 32 px); maps of more go by their own statistics as ever."""
    backbone, image = build_backbone("resnet18", image_size=32).train(), torch.randn(1, 3, 32, 32)
    expected = copy.deepcopy(backbone)
    expected.model.layer4.eval()
    torch.testing.assert_close(backbone(image), expected.read(image, "map"))
    assert all(part.training and not part._forward_pre_hooks for part in backbone.modules())
    own = {name: int(value) for name, value in backbone.state_dict().items() if name.endswith("num_batches_tracked")}
    assert {name for name, seen in own.items() if not seen} == {name for name in own if ".layer4." in name}


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_torch_file(saved, weights, wrapper):
    path = saved(None, {wrapper: weights, "epoch": 3} if wrapper else weights, "weights.pth")
    backbone = build_backbone(NAME, checkpoint=path, pretrained_on="ImageNet-1k", image_size=32)
    assert torch.equal(backbone.model.conv_stem.weight, weights["conv_stem.weight"])


def without(weights, key):
    return {name: value for name, value in weights.items() if name != key}


@pytest.mark.parametrize(
    ("metadata", "change", "match"),
    [
        ({}, lambda w: w, "does not declare what it was trained on"),
        ({"pretraining": "x", "architecture": "resnet18"}, lambda w: w, "holds a resnet18, not a mobilenetv3"),
        ({"pretraining": "x"}, lambda w: without(w, "conv_stem.weight"), "lacks conv_stem.weight"),
        ({"pretraining": "x"}, lambda w: {**w, "extra.weight": torch.ones(2)}, "unknown extra.weight"),
        ({"pretraining": "x"}, lambda w: {**w, "conv_stem.weight": torch.ones(2)}, "wrong shapes for conv_stem"),
        ({"pretraining": "x", "mean": "a,b,c"}, lambda w: w, "'a,b,c'"),
        ({"pretraining": "x", "std": "0.5"}, lambda w: w, "'0.5'"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_sentence(saved, weights, metadata, change, match):
    path = saved(metadata, change(weights))
    with pytest.raises(CmlBenchError, match=match) as caught:
        build_backbone(NAME, checkpoint=path, image_size=32)
    assert "\n" not in str(caught.value)
    assert "weights.safetensors" in str(caught.value)


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth"])
def test_a_truncated_file_is_one_sentence(saved, weights, name):
    path = saved({"pretraining": "x"}, weights, name)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CmlBenchError, match="cannot be read") as caught:
        build_backbone(NAME, checkpoint=path, pretrained_on="x")
    assert "\n" not in str(caught.value)


def test_a_file_that_would_execute_is_refused(tmp_path):
    marker = tmp_path / "executed"

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(marker),))

    path = tmp_path / "bomb.pth"
    torch.save({"state_dict": Bomb()}, path)
    with pytest.raises(CmlBenchError, match="cannot be read") as caught:
        build_backbone(NAME, checkpoint=path, pretrained_on="x")
    assert not marker.exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "evaluated"),
    [
        ("coco", "MS-COCO 2014"),
        ("MS-COCO 2014", "coco"),
        ("ImageNet-1k, COCO 2017", "MSCOCO"),
        ("PASCAL VOC 2007", "voc"),
        ("VOC", "pascal_voc_2012"),
        ("NUS-WIDE", "nuswide"),
    ],
)
def test_weights_that_have_seen_the_data_are_refused(saved, declared, evaluated):
    path = saved({"pretraining": declared})
    with pytest.raises(CmlBenchError, match="have not seen it"):
        build_backbone(NAME, checkpoint=path, evaluated_on=("corel5k", evaluated))


def test_the_declaration_cannot_be_talked_away(saved):
    path = saved({"pretraining": "COCO"})
    with pytest.raises(CmlBenchError, match="leave pretrained_on out"):
        build_backbone(NAME, checkpoint=path, pretrained_on="ImageNet-1k", evaluated_on=("coco",))


@pytest.mark.parametrize("declared", ["ImageNet-1k", "Places365 + ImageNet-21k"])
def test_other_data_is_accepted(saved, declared):
    path = saved({"pretraining": declared})
    names = ("coco", "MS-COCO 2014", "PASCAL VOC", "NUS-WIDE", "digits")
    assert build_backbone(NAME, checkpoint=path, image_size=32, evaluated_on=names).record["pretraining"] == declared


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("resnet118", {}, "did you mean 'resnet18'"),
        ("hf-hub:someone/model", {}, "no model 'hf-hub:someone/model'"),
        ("resnet18.no_such_tag", {}, "no_such_tag"),
        ("resnet18", {"drop_rat": 0.1}, "drop_rat=0.1"),
        ("resnet18", {"pretrained_on": "ImageNet"}, "without a checkpoint"),
        ("resnet18", {"checkpoint": Path("nowhere.safetensors")}, "nowhere.safetensors does not exist"),
        ("vit_tiny_patch16_224", {"image_size": 3, **TINY_VIT}, "3"),
    ],
)
def test_wrong_names_and_options_are_one_sentence(name, options, match):
    with pytest.raises(CmlBenchError, match=match) as caught:
        build_backbone(name, **options)
    assert "\n" not in str(caught.value)


def test_real_weights():
    path = TEST_DATA / "weights/mobilenetv2_100.tf_in1k.safetensors"
    if not path.is_file():
        pytest.skip(f"MobileNetV2 weights {path} are missing; set CML_BENCH_TEST_DATA")
    backbone = build_backbone("mobilenetv2_100", checkpoint=path, evaluated_on=("coco",)).eval()
    assert backbone.record["options"] == {"pad_type": "same"}
    assert (backbone.image_size, backbone.mean, backbone.std) == (224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, 224, 224))
    assert features.shape == (1, 1280, 7, 7)
    assert 0 <= float(features.min()) < float(features.max()) <= 6  # the last layer is a ReLU6
