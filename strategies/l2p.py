"""L2P: a pool of prompts, of which every image gets those that suit it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from avalanche.core import SupervisedPlugin
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import nn

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.head import Head
from cml_bench.models.prompts.model import PromptedModel
from cml_bench.models.prompts.pool import PromptPool
from cml_bench.models.prompts.vit import frozen_vit
from cml_bench.training.context import RunContext
from cml_bench.training.freezing import FreezePlugin
from cml_bench.training.prompting import PromptPlugin
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["L2P"]


@dataclass(frozen=True)
class L2P(Strategy):
    """Learn a pool of prompts in front of a frozen ViT; an image gets the prompts with the keys nearest to its feature.

    The loss is ``L + key_weight mean_x sum_k (1 - cos(q_x, K_k))`` over the ``top`` nearest keys k of each block, with
    L the criterion's and q_x the class token of the ViT without prompts.

    Source: Wang et al. 2022, arXiv 2112.08654, in the form that is compared since ("L2P++" of arXiv 2211.13218 and its
    released code): prefixes in place of input tokens, and a distance ``1 - cosine`` in place of a similarity. With
    several labels (inferred): the criterion, over known entries of the labels that the experience brings; old rows of
    the head are frozen, which the masked softmax of the original amounts to. Departures: the distance is a mean over
    images, in the released code a sum; of a batch, keys beyond those chosen by an image are left alone.

    Attributes:
        pool_size: Prompts in the pool of a block.
        length: Length of a prompt; half of it are keys, half values.
        top: Prompts that an image gets.
        blocks: First blocks that are prompted, each from its own pool; 5 in "L2P++ deep".
        key_weight: Weight of the distance between an image and the keys it chose.
    """

    pool_size: PositiveInt = 30
    length: Annotated[PositiveInt, Field(multiple_of=2)] = 20
    top: PositiveInt = 5
    blocks: PositiveInt = 1
    key_weight: NonNegativeFloat = 1.0

    meta = StrategyMeta(name="l2p", title="L2P", family="prompt", reference="arXiv:2112.08654", backbone="vit")

    def __post_init__(self) -> None:
        """Refuse to choose more prompts than there are."""
        if self.top > self.pool_size:
            raise CmlBenchError(f"l2p: top={self.top} prompts cannot be chosen from pool_size={self.pool_size}")

    def build_model(self, backbone: nn.Module | None, head: Head) -> PromptedModel:
        """Put a pool in front of the frozen ViT."""
        vit = frozen_vit(backbone, self.meta.name, self.blocks)
        return PromptedModel(vit, PromptPool(vit.width, self.pool_size, self.length, self.top, self.blocks), head)

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Freeze old rows of the head; add the distance to the chosen keys."""
        return [FreezePlugin(run.model.head), PromptPlugin(self.key_weight)]
