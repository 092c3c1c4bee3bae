"""MULTI-LANE: a lane of patch selectors and prompts for each experience."""

from __future__ import annotations

from dataclasses import dataclass

from avalanche.core import SupervisedPlugin
from pydantic import PositiveInt
from torch import nn

from cml_bench.models.heads.head import Head
from cml_bench.models.prompts.lanes import Lanes
from cml_bench.models.prompts.model import PromptedModel
from cml_bench.models.prompts.vit import frozen_vit
from cml_bench.training.context import RunContext
from cml_bench.training.freezing import FreezePlugin
from cml_bench.training.prompting import PromptPlugin
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["MultiLane"]


@dataclass(frozen=True)
class MultiLane(Strategy):
    """Learn one lane per experience beside a frozen ViT; every label is read from the lane of its own experience.

    Source: De Min et al. 2024, arXiv 2405.15633, "Less is more: summarizing patch tokens for efficient multi-label
    class-incremental learning". In each block the lane's class token attends to ``softmax(S X^T / sqrt(D)) X``,
    summaries of the frozen ViT's D-dimensional tokens X by the lane's selectors S, both after the block's norm; then
    the summaries are dropped and the selectors put back. Nothing of an old lane or an old row of the head trains, so
    logits of old labels stay.

    Departures: lanes and rows are allocated as experiences come, not for a known number. The released loss fills the
    labels of other experiences with 0 and averages over all n labels of the stream: that is ``n_new / n`` times the one
    used here, the criterion over the labels that the experience brings, plus a constant; its learning rate (0.03 x
    batch / 256 with Adam) is meant with that factor. In a model with layer scale the selectors put back are scaled like
    the attention they stand in for (inferred).

    Attributes:
        selectors: Patch selectors of a lane.
        prompts: Prefix keys, and as many values, in a prompted block.
        blocks: First blocks that are prompted.
    """

    selectors: PositiveInt = 20
    prompts: PositiveInt = 20
    blocks: PositiveInt = 5

    meta = StrategyMeta(
        name="multilane", title="MULTI-LANE", family="prompt", reference="arXiv:2405.15633", backbone="vit"
    )

    def build_model(self, backbone: nn.Module | None, head: Head) -> PromptedModel:
        """Put lanes beside the frozen ViT."""
        vit = frozen_vit(backbone, self.meta.name, self.blocks)
        return PromptedModel(vit, Lanes(vit.width, self.selectors, self.prompts, self.blocks), head)

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Freeze old lanes and old rows of the head."""
        return [FreezePlugin(run.model), PromptPlugin()]
