"""POD: both terms by hand and by a loop, their growth with the labels, and when it is naive or refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cml_bench.errors import CmlBenchError
from cml_bench.models.backbones import build_backbone
from cml_bench.models.heads.linear import LinearHead
from cml_bench.registry import load

PODNet, Naive = load("strategies", "podnet"), load("strategies", "naive")
PODPlugin, spatial_distance, flat_distance = (
    load("strategies", f"cml_bench.strategies.podnet:{name}")
    for name in ("PODPlugin", "spatial_distance", "flat_distance")
)


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_worked_examples() -> None:
    """Squares [[1, 0], [0, 1]] and [[1, 1], [0, 0]] have strips (1, 1, 1, 1) / 2 and (2, 0, 1, 1) / sqrt 6."""
    before, now = torch.tensor([[[[1.0, 0.0], [0.0, -1.0]]]]), torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    expected = np.linalg.norm(np.array([2, 0, 1, 1]) / np.sqrt(6) - 0.5)
    assert float(spatial_distance(now, before)) == pytest.approx(expected)
    assert float(flat_distance(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]))) == pytest.approx(
        0.2929, abs=5e-5
    )


@settings(max_examples=30, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 3)] * 4), seed=st.integers(0, 99))
def test_the_spatial_term_equals_a_loop(shape: tuple[int, int, int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    now, before = rng.normal(size=shape), rng.normal(size=shape)

    def strips(image: Any) -> Any:
        rows = [float(sum(value**2 for value in row)) for channel in image for row in channel]
        columns = [float(sum(row[j] ** 2 for row in channel)) for channel in image for j in range(shape[3])]
        return np.array(rows + columns) / np.linalg.norm(rows + columns)

    expected = np.mean([np.linalg.norm(strips(a) - strips(b)) for a, b in zip(now, before, strict=True)])
    assert float(spatial_distance(torch.tensor(now), torch.tensor(before))) == pytest.approx(expected, abs=1e-6)


def test_the_spatial_term_sees_where_and_the_flat_one_does_not() -> None:
    now = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    turned = now.flip(3)
    assert float(flat_distance(now.mean((2, 3)), turned.mean((2, 3)))) == pytest.approx(0.0, abs=1e-6)
    assert float(spatial_distance(now, turned)) > 0.1
    assert float(spatial_distance(now, 3 * now)) == pytest.approx(0.0, abs=1e-6)


def test_weights_grow_with_the_labels() -> None:
    now, before = torch.rand(2, 2, 3, 5, 2, 2, generator=torch.Generator().manual_seed(0))[:, 0].unbind(0)
    labels = SimpleNamespace(names=tuple("abcdefgh"), first_new=6)
    strategy = SimpleNamespace(experience=SimpleNamespace(dataset=SimpleNamespace(labels=labels)))
    spatial, flat = spatial_distance(now, before), flat_distance(now.mean((2, 3)), before.mean((2, 3)))
    found = PODPlugin(3.0, 1.0).distance(now, before, strategy)
    assert float(found) == pytest.approx(2 * (3 * float(spatial) + float(flat)), rel=1e-5)


def test_a_backbone_without_maps_is_refused() -> None:
    vectors = nn.Linear(3, 3)
    vectors.spatial = False
    with pytest.raises(CmlBenchError, match="feature maps"):
        PODNet().build_model(vectors, LinearHead(3))
    vectors.spatial = True
    assert PODNet().build_model(vectors, LinearHead(3)).backbone is vectors


def test_what_a_head_reads_must_be_one_map() -> None:
    vit, cnn = (
        build_backbone("vit_tiny_patch16_224", image_size=32, depth=1, embed_dim=24, num_heads=2),
        build_backbone("resnet10t", image_size=32),
    )
    tokens = load("heads", "hp_dval")(24)
    with pytest.raises(CmlBenchError, match="for head=hp_dval the backbone returns tokens: take another head"):
        PODNet().build_model(vit, tokens)
    with pytest.raises(CmlBenchError, match="for head=hsvlt the backbone returns several"):
        PODNet().build_model(cnn, load("heads", "hsvlt")((8, 16)))
    assert PODNet().build_model(vit, LinearHead(24)).backbone is vit
    # Without a class token there is the map, whatever the head would like.
    assert PODNet().build_model(cnn, tokens).backbone is cnn


def test_zero_weights_and_a_single_experience_are_naive(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    parts, whole = tiny_scenario(), tiny_scenario(base=6)
    naive = learn(on_backbone(Naive()), parts)
    assert same(learn(on_backbone(PODNet(spatial_weight=0.0, flat_weight=0.0)), parts), naive)
    assert same(learn(on_backbone(PODNet()), whole), learn(on_backbone(Naive()), whole))
    for options in ({"spatial_weight": 0.0}, {"flat_weight": 0.0}):
        assert not same(learn(on_backbone(PODNet(**options)), parts), naive)


def test_the_map_stays(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    scenario, moved = tiny_scenario(n=80), {}
    images = scenario.train_stream[0].dataset.eval().batch(torch.arange(10))[0]
    for strategy in (Naive(), PODNet(spatial_weight=30.0, flat_weight=10.0)):
        backbone = on_backbone(strategy, batch_norm=False)
        early, late = (learn(backbone, scenario, epochs=4, lr=0.02, stop_after=n).model for n in (1, 3))
        with torch.no_grad():
            moved[type(strategy).__name__] = float(spatial_distance(late.backbone(images), early.backbone(images)))
    assert moved["PODNet"] < 0.6 * moved["Naive"]
