"""CODA-Prompt: prompts are sums of components that the image weighs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from avalanche.core import SupervisedPlugin
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import nn

from cml_bench.models.heads.head import Head
from cml_bench.models.prompts.components import ComponentPrompts
from cml_bench.models.prompts.model import PromptedModel
from cml_bench.models.prompts.vit import frozen_vit
from cml_bench.training.context import RunContext
from cml_bench.training.freezing import FreezePlugin
from cml_bench.training.prompting import PromptPlugin
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["CODAPrompt"]


@dataclass(frozen=True)
class CODAPrompt(Strategy):
    """Learn prompt components in front of a frozen ViT; every image's prompt is a weighted sum of all of them.

    An image's prompt is ``sum_m cos(q * A_m, K_m) P_m``, with q the class token of the ViT without prompts and, for
    each component P_m, a learnt attention A_m and key K_m. The loss adds ``orthogonality sum_X mean (X X^T - I)^2``
    over the K, A and P of each block.

    Source: Smith et al. 2023, arXiv 2211.13218 (components of earlier experiences are frozen, new ones start orthogonal
    to them), and its released code. Departures: the released code deals a pool of 100 evenly to a known number of
    experiences, here each brings its own components. With several labels (inferred): the criterion, over known entries
    of the labels that the experience brings; old rows of the head are frozen.

    Attributes:
        components_per_experience: Components that an experience adds to each block.
        length: Length of a component; half of it are keys, half values.
        blocks: First blocks that are prompted.
        orthogonality: Weight of the orthogonality penalty, which starting orthogonal replaces in the released runs.
    """

    components_per_experience: PositiveInt = 10
    length: Annotated[PositiveInt, Field(multiple_of=2)] = 8
    blocks: PositiveInt = 5
    orthogonality: NonNegativeFloat = 0.0

    meta = StrategyMeta(
        name="coda_prompt", title="CODA-Prompt", family="prompt", reference="arXiv:2211.13218", backbone="vit"
    )

    def build_model(self, backbone: nn.Module | None, head: Head) -> PromptedModel:
        """Put components in front of the frozen ViT."""
        vit = frozen_vit(backbone, self.meta.name, self.blocks)
        prompts = ComponentPrompts(
            vit.width, self.components_per_experience, self.length, self.blocks, self.orthogonality
        )
        return PromptedModel(vit, prompts, head)

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Freeze old components and old rows of the head; add the penalty."""
        return [FreezePlugin(run.model), PromptPlugin()]
