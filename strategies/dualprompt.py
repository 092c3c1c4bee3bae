"""DualPrompt: general prompts for all experiences, an expert prompt for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from avalanche.core import SupervisedPlugin
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import nn

from cml_bench.models.heads.head import Head
from cml_bench.models.prompts.experts import EXPERT_BLOCKS, ExpertPrompts
from cml_bench.models.prompts.model import PromptedModel
from cml_bench.models.prompts.vit import frozen_vit
from cml_bench.training.context import RunContext
from cml_bench.training.freezing import FreezePlugin
from cml_bench.training.prompting import PromptPlugin
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["DualPrompt"]


@dataclass(frozen=True)
class DualPrompt(Strategy):
    """Learn general prompts and one expert prompt per experience in front of a frozen ViT.

    Source: Wang et al. 2022, arXiv 2204.04799; lengths and blocks of the scripts of arXiv 2211.13218. Training uses the
    expert of the experience t and adds ``key_weight mean_x (1 - cos(q_x, k_t))`` to the loss, with q_x the class token
    of the ViT without prompts and k the experts' keys; a test image goes to the expert ``argmax_s cos(q_x, k_s)``. With
    several labels (inferred): the criterion, over known entries of the labels that the experience brings; old rows of
    the head are frozen. An image then belongs to several experiences at once, and one expert must answer for all its
    labels; ``route=all`` (ours) lets every expert read every image and takes from each the labels of its experience.
    Departure: the distance to the key is a mean over images, in the released code a sum.

    Attributes:
        general_length: Length of the general prompt in blocks 0 and 1; half of it are keys, half values.
        expert_length: Length of an expert prompt in blocks 2 to 4, halved likewise.
        key_weight: Weight of the distance between the images and the expert's key.
        route: ``nearest`` expert or ``all``.
    """

    general_length: Annotated[PositiveInt, Field(multiple_of=2)] = 6
    expert_length: Annotated[PositiveInt, Field(multiple_of=2)] = 20
    key_weight: NonNegativeFloat = 1.0
    route: Literal["nearest", "all"] = "nearest"

    meta = StrategyMeta(
        name="dualprompt", title="DualPrompt", family="prompt", reference="arXiv:2204.04799", backbone="vit"
    )

    def build_model(self, backbone: nn.Module | None, head: Head) -> PromptedModel:
        """Put general and expert prompts in front of the frozen ViT."""
        vit = frozen_vit(backbone, self.meta.name, max(EXPERT_BLOCKS) + 1)
        return PromptedModel(vit, ExpertPrompts(vit.width, self.general_length, self.expert_length, self.route), head)

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Freeze old experts, their keys and old rows of the head; add the distance to the newest key."""
        assert isinstance(run.model, PromptedModel)
        assert isinstance(run.model.prompts, ExpertPrompts)
        prompts = run.model.prompts
        frozen = (run.model.head, prompts.experts, prompts.keys)
        return [*map(FreezePlugin, frozen), PromptPlugin(self.key_weight)]
