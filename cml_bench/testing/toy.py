"""The toy benchmark of the conformance kit."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from cml_bench.data.inputs import TensorInputs
from cml_bench.data.source import Source
from cml_bench.labels import OUT_OF_SCOPE, is_known
from cml_bench.models.backbones import build_backbone
from cml_bench.runs.benchmark import Benchmark, BenchmarkMeta
from cml_bench.streams.dealing import TestRule
from cml_bench.streams.scenario import MultiLabelScenario
from cml_bench.streams.timeline import ends_experience
from cml_bench.training.config import TrainingConfig

N_LABELS = 6
WIDTH = 8
_PATCH = 2


class ToySource(Source):
    """Images of 4 x 4 pixels: each label shows as its own pattern in one of four patches, over noise.

    Attributes:
        images: (N, 3, 4, 4) uint8.
    """

    name = "toy"
    image_size = (2 * _PATCH, 2 * _PATCH)

    def __init__(self, split: str, n: int, seed: int, n_labels: int) -> None:
        rng = np.random.default_rng([seed, n])
        # Always all labels, so that a stream that ends earlier shows the very same images.
        labels = (rng.random((n, N_LABELS)) < 0.35).astype(np.int8)
        places = rng.integers(4, size=(n, N_LABELS))
        patches = rng.normal(128.0, 8.0, size=(n, 4, 3 * _PATCH**2))
        # Orthogonal patterns, the same for both splits.
        patterns = np.linalg.qr(np.random.default_rng(0).normal(size=(3 * _PATCH**2, N_LABELS)))[0].T
        for label in range(N_LABELS):
            patches[np.arange(n), places[:, label]] += 150.0 * labels[:, label, None] * patterns[label]
        grid = torch.from_numpy(patches).reshape(n, 2, 2, 3, _PATCH, _PATCH)
        self.images = grid.permute(0, 3, 1, 4, 2, 5).reshape(n, 3, 4, 4).clamp(0, 255).to(torch.uint8)
        self.split = split
        names = [f"label{i}" for i in range(n_labels)]
        super().__init__(names, np.ascontiguousarray(labels[:, :n_labels]), np.arange(n, dtype=np.int64))

    def load(self, index: int) -> Tensor:
        """Return image ``index``."""
        return self.images[index]

    def inputs(self) -> TensorInputs:
        """Return what the toy model reads: the images, centred and scaled."""
        return TensorInputs((self.images.to(torch.float32) - 128.0) / 32.0)


@dataclass(frozen=True, kw_only=True)
class Toy(Benchmark):
    """Two labels an experience, no download, learnt in a fraction of a second.

    Attributes:
        n_labels: Fewer labels make the same stream end earlier.
    """

    n_labels: int = N_LABELS
    increment: int = 2
    test: TestRule = "all_images"

    meta = BenchmarkMeta(name="toy", title="Toy", version=1, source="toy", licence="made up", methods=())
    training = TrainingConfig(epochs=5, batch_size=12, lr=0.03, weight_decay=0.0, schedule="constant")

    def sources(self) -> tuple[Source, Source]:
        """Make both splits."""
        return ToySource("train", 72, 0, self.n_labels), ToySource("test", 60, 1, self.n_labels)


def toy_scenario(n_labels: int = N_LABELS) -> MultiLabelScenario:
    """Return a fresh scenario of the toy benchmark, which a check may tamper with."""
    toy = Toy(n_labels=n_labels)
    train, test = (source.inputs() for source in toy.sources() if isinstance(source, ToySource))
    return toy.build(train_inputs=train, test_inputs=test)


def toy_backbone(kind: Literal["any", "vit"]) -> tuple[nn.Module, int]:
    """Return a backbone for toy images, and the width of its features.

    Args:
        kind: ``any`` for a trainable layer with (B, WIDTH, 2, 2) maps, ``vit`` for a small timm Vision Transformer.
    """
    if kind == "any":
        return nn.Conv2d(3, WIDTH, _PATCH, stride=_PATCH), WIDTH
    # Wider than the layer: strategies that ask for a ViT leave it frozen, and a random one must show all labels.
    vit = build_backbone(
        "vit_tiny_patch16_224", image_size=2 * _PATCH, patch_size=_PATCH, embed_dim=4 * WIDTH, num_heads=2, depth=5
    )
    return vit, vit.out_features


def annotated_so_far(scenario: MultiLabelScenario) -> list[Tensor]:
    """Return, for each experience, the (rows, labels) four-state table of all that had been annotated by its end.

    An online stream has a table for each experience, too, not for each chunk.
    """
    so_far = torch.full(scenario.splits["train"].truth.shape, OUT_OF_SCOPE, dtype=torch.int8)
    tables = []
    for experience in scenario.train_stream:
        ids, labels = experience.dataset.sample_ids.data, experience.dataset.labels.data
        width = labels.shape[1]
        so_far[ids, :width] = torch.maximum(so_far[ids, :width], labels)
        if ends_experience(experience):
            tables.append(so_far.clone())
    return tables


def turn_over_unknown(scenario: MultiLabelScenario) -> tuple[MultiLabelScenario, int]:
    """Turn over the truth of every training entry that is never annotated, and return how many there are.

    Experiences have been dealt and labelled by then, so a learner cannot tell, unless it reads what nobody wrote.
    """
    part = scenario.splits["train"]
    hidden = ~is_known(annotated_so_far(scenario)[-1].numpy())
    source = copy.copy(part.source)
    source.labels = part.source.labels.copy()
    source.labels[:, part.columns] = np.where(hidden, 1 - part.truth, part.truth)
    scenario.splits["train"] = dataclasses.replace(part, source=source)
    return scenario, int(hidden.sum())


def recode_unknown(scenario: MultiLabelScenario, code: int) -> MultiLabelScenario:
    """Write unknown entries of the training labels as a negative number that stands for no state.

    They are still unknown (``labels >= 0`` says so), and no state is compared with two such numbers to another end, so
    a learner cannot tell one from the other, unless it calculates with them.
    """
    for experience in scenario.train_stream:
        labels = experience.dataset.labels.data
        labels[~is_known(labels)] = code
    return scenario
