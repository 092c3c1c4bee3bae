"""CUTER: cut objects out of images, and rehearse the crops, each with its one label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from avalanche.core import SupervisedPlugin
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from cml_bench.errors import CmlBenchError
from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, is_known
from cml_bench.memory.budget import MemorySize
from cml_bench.memory.crops import CropMemory, Crops, around_zero
from cml_bench.memory.maskcut import TAU, mask_cut
from cml_bench.models.evaluating import evaluating
from cml_bench.models.heads.head import Head
from cml_bench.models.layout import in_place_of_map
from cml_bench.models.model import MultiLabelModel
from cml_bench.streams.dataset import Batch, MultiLabelDataset
from cml_bench.training.backbone_listener import BackboneListener
from cml_bench.training.context import RunContext
from cml_bench.training.option_types import Probability
from cml_bench.training.replay import MemoryPlugin
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["CUTER"]

_SECOND = 0.5
_SCARCE = 0.5


@dataclass(frozen=True)
class CUTER(Strategy):
    """Rehearse crops that show one label each, cut out of past images where their patches hang together.

    Source: "Cut out and replay", arXiv 2505.19680, and its released code. Objects are proposed by ``mask_cut`` on the
    backbone's map. The model then looks at each crop, with 0 around it: the crop is kept for its most probable label c
    if the image is annotated ``y_c = 1``, ``p_c > sure`` (``sure_scarce`` if fewer than half as many pixels are stored
    for c as for the label that has most), and ``p_j < 0.5`` for every other j. ``CropMemory`` tells which crops stay; a
    full one takes another with probability ``1 - held_c / max held``, held being pixels by label. The loss is
    ``L(batch) + L(crops) + low_rank mean ||F||_*``, F being the patches of an image of the batch. In an online stream
    images are cut after the step, else when the experience ends.

    The matching rule is the paper's. The released code has another (the most probable label has to be annotated;
    scarce labels from 0.55 on), and which of the two made the published numbers is not known. Departures:

    - Of a crop, only its one label is known, under a criterion that takes unknown labels for absent, too; the released
      target makes all others absent, later ones too, which ``others=absent`` does. ``others=image`` is ours: absent is
      what the image was annotated not to have.
    - A crop lies where it lay in its image (inferred: the paper says "zero-padded", not where), and the padding is 0
      as the model reads it, not a black pixel. It is cut from images without augmentation.
    - The released code cuts the transposed box, reading ``x, y`` for ``y, x``. Here it is the box.
    - The released regulariser does nothing: the nuclear norm of the Gaussian similarities of patches is their trace,
      which is the number of patches whatever the features. ``low_rank`` takes the nuclear norm of the patches
      themselves (inferred), 0 by default, like the released effect.

    A crop of a cached map would still hold what surrounds it, since a feature sees far more than its patch: CUTER needs
    the images, and a backbone with a spatial map.

    Attributes:
        memory_size: Whole images whose pixels the crops may take, or for each label seen so far as in ``20/label``.
            Published: 1000.
        replay_batch_size: Crops a step; None for as many as a full batch of the stream. Published: 5 beside 20 images.
        objects: Objects to look for in an image (released code 2, its manual 3).
        sure: Probability over which a crop is its label's.
        sure_scarce: The same for a label of which little is stored.
        others: Whether the labels that a crop is not kept for are ``unknown``, ``absent``, as released, or absent where
            the ``image`` is annotated so.
        low_rank: Weight of the nuclear norm of an image's patches, each of length 1.
    """

    memory_size: MemorySize = 1000
    replay_batch_size: PositiveInt | None = None
    objects: PositiveInt = 2
    sure: Probability = 0.8
    sure_scarce: Probability = 0.6
    others: Literal["unknown", "image", "absent"] = "unknown"
    low_rank: NonNegativeFloat = 0.0

    meta = StrategyMeta(
        name="cuter",
        title="CUTER",
        family="replay",
        reference="arXiv:2505.19680",
        loss="asl",
        exemptions={"memory_within_budget": "a crop is smaller than an image: the budget is pixels, not a count"},
    )

    def build_model(self, backbone: nn.Module | None, head: Head) -> MultiLabelModel:
        """Return backbone and head.

        Raises:
            CmlBenchError: If the model does not read images, or what the head has the backbone return is no map.
        """
        instead = "cached features" if backbone is None else in_place_of_map(backbone, head.meta.features)
        if instead:
            mend = "set frozen=false and take a backbone with a map"
            raise CmlBenchError(
                f"cuter cuts objects out of images where a map of features shows them, but the model reads {instead}: "
                f"{mend if instead in ('cached features', 'vectors') else 'take another head'}"
            )
        return super().build_model(backbone, head)

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the plugin that keeps and replays crops and, with a weight, the regulariser."""
        memory = CropMemory(self.memory_size, run.generator("memory"), Scissors(run.model, self))
        replay = CropReplay(memory, self.replay_batch_size, run.generator("replay"), others=self.others)
        return [replay, LowRank(self.low_rank)] if self.low_rank else [replay]


class Scissors:
    """Proposes crops, and keeps those that show one label."""

    def __init__(self, model: MultiLabelModel, options: CUTER) -> None:
        self.model = model
        self.options = options

    @torch.no_grad()
    def __call__(self, dataset: MultiLabelDataset, held: Tensor) -> Crops:
        """Return the crops of a dataset's images, given (n,) how much is stored for each label."""
        batch = dataset.eval().batch(torch.arange(len(dataset)))
        images = batch[0].to(next(self.model.parameters()).device)
        with evaluating(self.model):
            features = self.model.backbone(images)
            boxes, found = mask_cut(features, self.options.objects, TAU)
            image, number = found.nonzero(as_tuple=True)
            boxes = in_pixels(boxes[image, number], features.shape[2:], images.shape[2:])
            if not len(image):
                return Crops(batch.sample_id[:0], boxes.cpu(), image.cpu(), batch[1][:0])
            chances = self.model(around_zero(images[image], boxes)).sigmoid().cpu()
        image = image.cpu()
        labels = batch[1][image]
        kept, shown = self.match(chances, labels, held)
        return Crops(batch.sample_id[image][kept], boxes.cpu()[kept], shown[kept], labels[kept])

    def match(self, chances: Tensor, labels: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
        """Return (m,) bool, which crops are kept, and (m,) the label of each.

        Args:
            chances: (m, n) probabilities.
            labels: (m, n) four-state labels of the images that the crops are of.
            held: (n,) how much is stored for each label.
        """
        top = chances.topk(min(2, chances.shape[1]), dim=1)
        shown = top.indices[:, 0]
        scarce = held < _SCARCE * held.max()
        sure = torch.where(scarce, self.options.sure_scarce, self.options.sure)[shown]
        annotated = labels.gather(1, shown[:, None])[:, 0] == PRESENT
        return annotated & (top.values[:, 0] > sure) & (top.values[:, 1:] < _SECOND).all(dim=1), shown


def in_pixels(boxes: Tensor, grid: torch.Size, size: torch.Size) -> Tensor:
    """Return (m, 4) boxes of a grid (h, w) in pixels of an image (H, W), parts of pixels included."""
    scale = torch.tensor([size[0] / grid[0], size[1] / grid[1]], dtype=torch.float64).repeat(2).to(boxes.device)
    exact = boxes * scale
    return torch.cat([exact[:, :2].floor(), exact[:, 2:].ceil()], dim=1).long()


class CropReplay(MemoryPlugin):
    """Adds the loss on crops."""

    buffer: CropMemory

    def __init__(
        self, buffer: CropMemory, batch_size: int | None, generator: torch.Generator, *, others: str = "unknown"
    ) -> None:
        super().__init__(buffer, batch_size, generator)
        self.others = others

    def draw(self, strategy: Any, count: int | None = None) -> Batch:
        """Return a batch of crops, labelled as ``others`` says."""
        batch = self.buffer.draw(count or self.batch_size or strategy.train_mb_size, self.generator)
        labels = batch[1]
        if self.others == "unknown":
            labels = labels.masked_fill(labels == ABSENT, OUT_OF_SCOPE)
        elif self.others == "absent":
            # Labels that arrived since the memory was last shown images are no columns of it yet.
            later = strategy.model.head.n_labels - labels.shape[1]
            labels = nn.functional.pad(labels.masked_fill(~is_known(labels), ABSENT), (0, later), value=ABSENT)
        batch[:] = [batch[0].to(strategy.device), labels.to(strategy.device), batch[2].to(strategy.device)]
        return batch

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the loss of a draw; what is unknown of a crop a criterion is not to make up."""
        if not len(self.buffer):
            return
        criterion, spare = strategy._criterion, strategy._criterion.spare
        criterion.spare = strategy.model.head.n_labels
        strategy.loss += self.loss(strategy, self.draw(strategy))
        criterion.spare = spare


class LowRank(BackboneListener):
    """Adds the mean nuclear norm of the stream images' patches, each of length 1."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the norm of what the backbone has just seen."""
        super().after_forward(strategy, **kwargs)
        assert isinstance(self.seen, Tensor)
        strategy.loss += self.weight * nuclear_norm(self.seen)
        self.seen = None


def nuclear_norm(features: Tensor) -> Tensor:
    """Return the mean nuclear norm of the patches of (B, D, h, w) maps, each of length 1; at least the root of h w."""
    patches = nn.functional.normalize(features.flatten(2), dim=1)
    norms: Tensor = torch.linalg.matrix_norm(patches, "nuc")
    return norms.mean()
