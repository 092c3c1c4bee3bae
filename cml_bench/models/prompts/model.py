"""The model of prompt methods: a frozen ViT, prompts that grow with the experiences, and a growing head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from avalanche.benchmarks import CLExperience
from torch import Tensor, nn

from cml_bench.models.heads.head import Head, HeadOutput
from cml_bench.models.model import MultiLabelModel
from cml_bench.models.prompts.vit import FrozenViT


class Prompted(NamedTuple):
    """What prompted blocks see.

    Attributes:
        features: (B, D), or (R x B, D) if every image was read in R lanes, one an experience, lane by lane.
        loss: What the prompts themselves are to minimise, a scalar.
    """

    features: Tensor
    loss: Tensor


class Prompts(nn.Module, ABC):
    """What is learnt in front of a frozen ViT."""

    @abstractmethod
    def grow(self) -> None:
        """Begin an experience that brings labels; leave every existing parameter as it is."""

    @abstractmethod
    def forward(self, vit: FrozenViT, images: Tensor) -> Prompted:
        """Read images (B, 3, H, W)."""


class Selection(NamedTuple):
    """Prefixes chosen for a batch.

    Attributes:
        prefixes: Position of a block to (B, 2, L, D) keys and values, or (R x B, 2, L, D) for R lanes.
        loss: What the choice is to minimise, a scalar.
    """

    prefixes: Mapping[int, Tensor]
    loss: Tensor


class PrefixPrompts(Prompts):
    """Prompts that are chosen by what the ViT sees without them."""

    @abstractmethod
    def select(self, query: Tensor) -> Selection:
        """Choose by the (B, D) class tokens of the unprompted ViT."""

    def forward(self, vit: FrozenViT, images: Tensor) -> Prompted:
        """Read images twice: without prompts, for the query, and with the prompts chosen by it."""
        tokens = vit.embed(images)
        selection = self.select(vit.read(tokens))
        return Prompted(vit.read(tokens, selection.prefixes), selection.loss)


class PromptedModel(MultiLabelModel):
    """Frozen ViT, prompts and head.

    Args:
        vit: The frozen ViT.
        prompts: The prompts.
        head: Growing head.

    Attributes:
        prompt_loss: What the prompts themselves are to minimise in the last batch.
        growth: Number of labels that each experience brought.
    """

    backbone: FrozenViT

    def __init__(self, vit: FrozenViT, prompts: Prompts, head: Head) -> None:
        super().__init__(vit, head)
        self.prompts = prompts
        self.prompt_loss: Tensor = torch.zeros(())
        self.growth: list[int] = []

    def adaptation(self, experience: CLExperience) -> None:
        """Grow the head, and the prompts where the experience brings labels; only in training."""
        known = self.head.n_labels
        super().adaptation(experience)
        if self.head.n_labels > known:
            self.growth.append(self.head.n_labels - known)
            self.prompts.grow()

    def read(self, x: Tensor) -> HeadOutput:
        """Return what the head says of images (B, 3, H, W), each label read from its own lane if there are several."""
        features, loss = self.prompts(self.backbone, x)
        self.prompt_loss = loss
        output: HeadOutput = self.head(features)
        return output if len(features) == len(x) else own_columns(output, self.growth)


def own_columns(output: HeadOutput, growth: Sequence[int]) -> HeadOutput:
    """Keep, of every lane's output, the labels that its own experience brought.

    Args:
        output: What the head says of R x B features, lane by lane.
        growth: R numbers of labels.

    Returns:
        The output of B images; ``pooled`` is the mean over the lanes.
    """
    labels = torch.arange(sum(growth), device=output.logits.device)
    lane = torch.repeat_interleave(torch.tensor(growth, device=labels.device))

    def keep(values: Tensor, label_axis: int = 1) -> Tensor:
        by_label: Tensor = values.unflatten(0, (len(growth), -1)).movedim(label_axis + 1, 1)[lane, labels]
        return by_label.movedim(0, label_axis)

    return HeadOutput(
        keep(output.logits),
        output.pooled.unflatten(0, (len(growth), -1)).mean(dim=0),
        None if output.label_features is None else keep(output.label_features),
        None if output.attention is None else keep(output.attention, 2),
    )
