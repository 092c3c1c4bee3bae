"""Copies of stored images: the same runs to the bit, without the source, in so many bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin

from cml_bench.data.inputs import ImageInputs, TensorInputs
from cml_bench.data.source import Source
from cml_bench.memory.pixels import PixelStore
from cml_bench.registry import load
from cml_bench.streams.dataset import LabelMatrix, MultiLabelDataset
from cml_bench.testing.strategies import StrategyCase
from cml_bench.testing.toy import Toy, ToySource
from cml_bench.testing.trial import Trial, try_out
from cml_bench.training.relabel import make_reader

REPLAYING = (
    *(
        "er",
        "er_ace",
        "er_balanced",
        "er_herding",
        "mir",
        "prs",
        "ocdm",
        "icarl",
        "der",
        "derpp",
        "gdumb",
        "kar",
        "bic",
    ),
    *("dlfl", "krt"),
)


RELABELS = ("as_stored", "pseudo>0.5")


class Shift:
    """Augmentation that draws: two fetches differ, and the number of draws matters."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(3)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return (image.float() - 128) / 32 + 0.1 * torch.randn(1, generator=self.generator)


def scenario(**options: Any) -> Any:
    """The toy stream, read image by image and augmented."""
    benchmark = Toy(**options)
    train, test = benchmark.sources()
    assert isinstance(test, ToySource)
    inputs = ImageInputs(train, lambda image: (image.float() - 128) / 32, Shift())
    return benchmark.build(train_inputs=inputs, test_inputs=test.inputs())


def trial(spec: str, epochs: int = 2, **options: Any) -> Trial:
    plan = StrategyCase(spec).plan
    return try_out(replace(plan, training=replace(plan.training, epochs=epochs)), scenario=scenario(**options))


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("er", "derpp", "icarl", "krt", "prs") else pytest.param(name, marks=pytest.mark.slow)
        for name in REPLAYING
    ],
)
def test_the_same_run_to_the_bit(name: str) -> None:
    options = " head.width=16" if name == "krt" else ""
    one, other = (trial(f"{name} memory_size=12 store={store}{options}") for store in ("ids", "pixels"))
    assert one.differs_from(other) is None
    assert one.learner.model.state_dict().keys() == other.learner.model.state_dict().keys()


TWO_VIEWS = "er loss=similarity_dissimilarity"


@pytest.mark.parametrize("spec", ["er", "er_herding", "er relabel=pseudo>0.5", "er relabel=oracle", "derpp", TWO_VIEWS])
def test_the_same_online_run_to_the_bit(spec: str) -> None:
    runs = [trial(f"{spec} memory_size=12 store={store}", 1, online_chunk=9) for store in ("ids", "pixels")]
    assert runs[0].differs_from(runs[1]) is None


class Vanishing(Source):
    """A source whose images are gone once it is told so."""

    name = "vanishing"
    image_size = (4, 4)

    def __init__(self, source: Source) -> None:
        self.split = source.split
        self.source = source
        self.gone = np.zeros(len(source), dtype=bool)
        super().__init__(source.label_names, source.labels, np.arange(len(source)))

    def load(self, index: int) -> torch.Tensor:
        if self.gone[index]:
            raise FileNotFoundError(index)
        return self.source.load(index)


@pytest.mark.parametrize(
    "spec",
    [
        *(f"er relabel={labels}" for labels in RELABELS),
        *("bic held_out=0.5", "mir", "icarl", "krt head.width=16", "der", "ocdm", TWO_VIEWS),
        *(
            pytest.param(spec, marks=pytest.mark.slow)
            for spec in (
                *(f"{name} relabel={labels}" for name in ("er_herding", "derpp", "gdumb") for labels in RELABELS),
                *("er_ace", "dlfl", "kar", "prs"),
            )
        ),
    ],
)
def test_past_images_may_be_gone(spec: str, with_plugins: Any) -> None:
    """After each experience its images vanish; a memory of copies does not notice, one of ids does."""

    class Removal(SupervisedPlugin):
        def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            source.gone[strategy.experience.dataset.sample_ids.data.numpy()] = True

    with_plugins(Removal())
    for store in ("pixels", "ids"):
        toy = Toy(assignment="disjoint")
        train, test = toy.sources()
        assert isinstance(test, ToySource)
        source = Vanishing(train)
        inputs = ImageInputs(source, lambda image: (image.float() - 128) / 32, Shift())
        stream = toy.build(train_inputs=inputs, test_inputs=test.inputs())
        plan = StrategyCase(f"{spec} memory_size=12 store={store}").plan
        if store == "pixels":
            assert len(try_out(plan, scenario=stream).logits) == 3
        else:
            with pytest.raises(FileNotFoundError):
                try_out(plan, scenario=stream)


def dataset(inputs: Any, rows: list[int]) -> MultiLabelDataset:
    labels = LabelMatrix(torch.ones(len(rows), 1, dtype=torch.int8), ("a",), 0)
    return MultiLabelDataset.from_rows(inputs, torch.tensor(rows), labels)


def test_what_is_copied_and_how_many_bytes() -> None:
    """Images as they are decoded, three bytes a pixel; what has left is forgotten, what stays is not copied again."""
    loaded: list[int] = []

    class Counting(Vanishing):
        def load(self, index: int) -> torch.Tensor:
            loaded.append(index)
            return super().load(index)

    inputs = ImageInputs(Counting(Toy().sources()[0]), lambda image: image.float())
    store = PixelStore(inputs)
    read = store.keep(dataset(inputs, [5, 2]))
    assert (loaded, len(store), store.augments) == ([5, 2], 72, inputs.augments)
    assert sum(copy.nbytes for copy in store.copies.values()) == 2 * 48
    assert read.batch(torch.tensor([0, 1]))[0].dtype == torch.float32
    assert store.copies[5].dtype == torch.uint8
    store.keep(dataset(inputs, [2, 7]))
    assert loaded == [5, 2, 7]
    assert sorted(store.copies) == [2, 7]
    with pytest.raises(KeyError):
        store.fetch(torch.tensor([5]), training=False)


def test_features_are_copied_as_they_are() -> None:
    table = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)).half()
    inputs = TensorInputs(table)
    store = PixelStore(inputs)
    read = store.keep(dataset(inputs, [8, 3]))
    expected = table[[8, 3]].float()
    table.zero_()
    assert torch.equal(read.batch(torch.tensor([0, 1]))[0], expected)
    assert sum(copy.nbytes for copy in store.copies.values()) == 2 * 4 * 4


def test_the_default_reads_as_before() -> None:
    """Without copies nothing comes between a memory and the method that reads it."""
    assert make_reader("as_stored", None) is MultiLabelDataset.widened
    assert load("strategies", "er")().store == "ids"
