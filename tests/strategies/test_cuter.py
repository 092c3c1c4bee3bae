"""CUTER: which crops it keeps, what they teach, the regulariser, and when it is naive."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import nn

from cml_bench.data.inputs import TensorInputs
from cml_bench.errors import CmlBenchError
from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED, is_known
from cml_bench.losses.assume_negative import AssumeNegative
from cml_bench.losses.bce import BCE
from cml_bench.memory.crops import CropMemory
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.model import MultiLabelModel
from cml_bench.registry import load
from cml_bench.streams.dataset import Batch, LabelMatrix, MultiLabelDataset
from cml_bench.testing.strategies import StrategyCase
from cml_bench.testing.toy import Toy, ToySource
from cml_bench.testing.trial import Trial, try_out

CUTER, Naive = load("strategies", "cuter"), load("strategies", "naive")
Scissors, CropReplay, nuclear_norm, in_pixels = (
    load("strategies", f"cml_bench.strategies.cuter:{name}")
    for name in ("Scissors", "CropReplay", "nuclear_norm", "in_pixels")
)


def toy(**options: Any) -> Any:
    benchmark = Toy(**options)
    train, test = (source.inputs() for source in benchmark.sources() if isinstance(source, ToySource))
    return benchmark.build(train_inputs=train, test_inputs=test)


def trial(spec: str, epochs: int = 5, **options: Any) -> Trial:
    plan = StrategyCase(spec).plan
    return try_out(replace(plan, training=replace(plan.training, epochs=epochs)), scenario=toy(**options))


def same(one: Trial, other: Trial) -> bool:
    first, second = one.learner.model.state_dict(), other.learner.model.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# -- matching --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chances", "labels", "held", "kept"),
    [
        ([0.1, 0.81, 0.49], [1, 1, 1], [9, 9, 9], True),
        ([0.1, 0.79, 0.49], [1, 1, 1], [9, 9, 9], False),
        ([0.1, 0.79, 0.49], [1, 1, 1], [9, 4, 9], True),
        ([0.1, 0.79, 0.49], [1, 1, 1], [9, 5, 9], False),
        ([0.1, 0.59, 0.49], [1, 1, 1], [9, 4, 9], False),
        ([0.5, 0.95, 0.1], [1, 1, 1], [9, 9, 9], False),
        ([0.1, 0.95, 0.1], [1, ABSENT, 1], [9, 9, 9], False),
        ([0.1, 0.95, 0.1], [1, UNMARKED, 1], [9, 9, 9], False),
        ([0.1, 0.95, 0.1], [OUT_OF_SCOPE, 1, 0], [9, 9, 9], True),
        ([0.81], [1], [0], True),
    ],
)
def test_matching(chances: list[float], labels: list[int], held: list[int], kept: bool) -> None:
    """Sure (less so of a label with under half of what the fullest holds), of one label alone, which is annotated."""
    states = torch.tensor([labels], dtype=torch.int8)
    found, shown = Scissors(None, CUTER()).match(torch.tensor([chances]), states, torch.tensor(held))
    assert found.tolist() == [kept]
    assert shown.tolist() == [chances.index(max(chances))]


def test_grids_that_do_not_divide_an_image() -> None:
    boxes = torch.tensor([[2, 8, 6, 11], [0, 0, 7, 14]])
    assert in_pixels(boxes, (14, 14), (224, 224)).tolist() == [[32, 128, 96, 176], [0, 0, 112, 224]]
    assert in_pixels(torch.tensor([[1, 0, 2, 3]]), (3, 3), (10, 10)).tolist() == [[3, 0, 7, 10]]


def test_an_object_is_cut_out_of_its_place() -> None:
    """A 10 x 8 image with two objects, read by a layer of 1 x 1: boxes, labels and what is drawn."""
    images = torch.zeros(1, 3, 10, 8)
    images[:, 2] = 1.0
    images[0, :, 1:4, 2:7] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    images[0, :, 6:9, 0:3] = torch.tensor([0.0, 1.0, 0.0])[:, None, None]
    model = MultiLabelModel(nn.Conv2d(3, 3, 1), LinearHead(3))
    model.head.grow(["red", "green"])
    with torch.no_grad():
        model.backbone.weight.copy_(torch.eye(3)[:, :, None, None])
        model.backbone.bias.zero_()
        # 15 of 80 pixels are red: a mean of 0.1875; any red at all makes a probability of 0.9, and so does green.
        model.head.weights[0].copy_(torch.tensor([[40.0, -40.0, 0.0], [-40.0, 40.0, 0.0]]))
        model.head.biases[0].fill_(-1.0)
    labels = LabelMatrix(torch.tensor([[PRESENT, ABSENT]], dtype=torch.int8), ("red", "green"), 0)
    dataset = MultiLabelDataset.from_rows(TensorInputs(images), torch.tensor([0]), labels)
    crops = Scissors(model.train(), CUTER(objects=2))(dataset, torch.zeros(2))
    # Green is there, too, but nobody annotated it.
    assert crops.boxes.tolist() == [[1, 2, 4, 7]]
    assert crops.shown.tolist() == [0]
    assert model.training
    both = MultiLabelDataset.from_rows(
        TensorInputs(images), torch.tensor([0]), LabelMatrix(torch.ones(1, 2, dtype=torch.int8), ("red", "green"), 0)
    )
    crops = Scissors(model, CUTER(objects=2))(both, torch.zeros(2))
    assert sorted(zip(crops.boxes.tolist(), crops.shown.tolist(), strict=True)) == [
        ([1, 2, 4, 7], 0),
        ([6, 0, 9, 3], 1),
    ]


# -- whole runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [None, 20])
def test_every_crop_shows_what_its_image_was_annotated_for(chunk: int | None) -> None:
    spec = "cuter sure=0.4 sure_scarce=0.3 lr=0.1 memory_size=8 batch_size=2"
    found = trial(spec, epochs=1 if chunk else 8, **({"online_chunk": chunk} if chunk else {}))
    memory = found.learner.plugins[0].buffer
    assert isinstance(memory, CropMemory)
    assert len(memory) > 4
    truth = found.scenario.splits["train"].truth
    assert (truth[memory.ids, memory.shown] == PRESENT).all()
    assert int(memory.pixels.sum()) <= 8 * 16
    assert chunk or found.watcher.altered == set()


@pytest.mark.parametrize(("others", "known"), [("unknown", 1), ("image", 2), ("absent", 6)])
def test_what_is_known_of_a_crop(others: str, known: int) -> None:
    """The memory was last shown images when there were four labels; now there are six."""

    class Fixed:
        def draw(self, count: int, generator: torch.Generator) -> Any:
            labels = torch.tensor([[OUT_OF_SCOPE, PRESENT, ABSENT, UNMARKED]], dtype=torch.int8)
            return Batch(torch.zeros(1, 3), labels, torch.zeros(1), torch.zeros(1))

    class Step:
        device = "cpu"
        train_mb_size = 4
        model = SimpleNamespace(head=SimpleNamespace(n_labels=6))

    labels = CropReplay(Fixed(), None, torch.Generator(), others=others).draw(Step())[1]
    assert labels[0, 1] == PRESENT
    assert int(is_known(labels).sum()) == known
    assert int((labels == PRESENT).sum()) == 1


def test_a_step_adds_the_loss_on_crops(
    tiny_scenario: Any, learn: Any, on_backbone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worked out anew from the draw: one entry a crop, as the epoch weighs it, beside the loss of the batch."""

    class Growing(BCE):
        def judge(self, output: Any, labels: Any, sample_ids: Any, epoch: int, view: Any) -> torch.Tensor:
            return (1 + epoch) * super().judge(output, labels, sample_ids, epoch, view)

    class Added(SupervisedPlugin):
        steps = 0

        def before_backward(self, strategy: Any, **kwargs: Any) -> None:
            if drawn:
                stream = float(strategy.criterion().detach())
                x, labels = drawn.pop()
                logits = strategy.model(x)
                entries = [
                    float(nn.functional.softplus(-logits[row, column]).detach())
                    for row, column in (labels == PRESENT).nonzero().tolist()
                ]
                assert len(entries) == len(x)
                crops = (1 + strategy.clock.train_exp_epochs) * sum(entries) / len(entries)
                assert float(strategy.loss.detach()) == pytest.approx(stream + crops, rel=1e-5)
                self.steps += 1

    drawn: list[tuple[torch.Tensor, torch.Tensor]] = []
    original = CropReplay.draw

    def draw(self: Any, strategy: Any, count: int | None = None) -> Any:
        batch = original(self, strategy, count)
        drawn.append((batch[0], batch[1]))
        return batch

    monkeypatch.setattr(CropReplay, "draw", draw)
    strategy, watcher = CUTER(sure=0.5, sure_scarce=0.4, replay_batch_size=3), Added()
    learn(on_backbone(strategy, batch_norm=False), tiny_scenario(), extra=[watcher], criterion=Growing(), epochs=6)
    assert watcher.steps > 5


@pytest.mark.parametrize(("others", "counted"), [("unknown", 1), ("absent", 6)])
def test_a_criterion_makes_nothing_up_of_a_crop(
    tiny_scenario: Any, learn: Any, on_backbone: Any, others: str, counted: int
) -> None:
    """Under AN seen old labels of the stream's images become absent; of a crop, what ``others`` makes so."""

    class Judge(AssumeNegative):
        def __init__(self) -> None:
            super().__init__("bce", "seen")
            self.known: dict[str, list[int]] = {"stream": [], "crops": []}

        def assume(self, labels: torch.Tensor) -> torch.Tensor:
            assumed = super().assume(labels)
            kind = "crops" if drawing else "stream"
            self.known[kind] += is_known(assumed).sum(dim=1).tolist()
            return assumed

    class Draws(SupervisedPlugin):
        def before_forward(self, strategy: Any, **kwargs: Any) -> None:
            strategy.plugins[0].loss = loss.__get__(strategy.plugins[0])

        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            del strategy.plugins[0].loss

    def loss(self: Any, strategy: Any, batch: Any) -> torch.Tensor:
        drawing.append(True)
        found = CropReplay.loss(self, strategy, batch)
        drawing.clear()
        assert strategy._criterion.spare == strategy.model.head.n_labels
        return found

    drawing: list[bool] = []
    judge = Judge()
    strategy = CUTER(sure=0.5, sure_scarce=0.4, replay_batch_size=3, others=others)
    learn(on_backbone(strategy, batch_norm=False), tiny_scenario(), extra=[Draws()], criterion=judge, epochs=6)
    assert judge.spare == 0
    assert set(judge.known["stream"]) == {2, 4, 6}
    assert judge.known["crops"]
    assert max(judge.known["crops"]) == counted


def test_when_it_is_naive() -> None:
    assert same(trial("cuter", increment=6), trial("naive loss=asl", increment=6))
    assert same(trial("cuter memory_size=0"), trial("naive loss=asl"))
    assert not same(trial("cuter sure=0.5 sure_scarce=0.4 lr=0.1"), trial("naive loss=asl lr=0.1"))
    assert not same(trial("cuter memory_size=0 low_rank=0.1"), trial("naive loss=asl"))


def test_the_regulariser_is_the_nuclear_norm_of_the_patches_and_no_constant() -> None:
    features = torch.randn(3, 5, 2, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    patches = features.detach().numpy().reshape(3, 5, 8)
    patches = patches / (patches**2).sum(axis=1, keepdims=True) ** 0.5
    expected = np.mean([np.linalg.svd(image, compute_uv=False).sum() for image in patches])
    norm = nuclear_norm(features)
    assert float(norm.detach()) == pytest.approx(float(expected), rel=1e-5)
    norm.backward()
    assert float(features.grad.abs().max()) > 1e-3
    alike = torch.ones(2, 5, 3, 3, requires_grad=True)
    lowest = nuclear_norm(alike)
    lowest.backward()
    assert float(lowest.detach()) == pytest.approx(3.0, abs=1e-5)
    assert bool(torch.isfinite(alike.grad).all())


def test_needs_images_and_a_map() -> None:
    with pytest.raises(CmlBenchError, match="cached features: set frozen=false"):
        CUTER().build_model(None, LinearHead(3))
    vector = nn.Identity()
    vector.spatial = False
    with pytest.raises(CmlBenchError, match="the model reads vectors: set frozen=false and take a backbone with a map"):
        CUTER().build_model(vector, LinearHead(3))
    with pytest.raises(CmlBenchError, match="the model reads several maps: take another head"):
        CUTER().build_model(nn.Identity(), load("heads", "hsvlt")((8, 16)))


def test_the_regulariser_reads_full_numbers() -> None:
    """Of short ones torch takes no singular values."""
    assert len(trial("cuter memory_size=0 low_rank=0.1 precision=bf16", epochs=1).logits) == 3
