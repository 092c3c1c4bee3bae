"""Label mask training: some labels of an image are told, the others are to be found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from avalanche.core import SupervisedPlugin
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from cml_bench.errors import CmlBenchError
from cml_bench.labels import OUT_OF_SCOPE, UNMARKED, is_known
from cml_bench.models.evaluating import evaluating
from cml_bench.models.heads.head import Head
from cml_bench.models.model import MultiLabelModel
from cml_bench.streams.timeline import begins_experience
from cml_bench.training.context import RunContext
from cml_bench.training.option_types import Probability
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["LabelMask"]


@dataclass(frozen=True)
class LabelMask(Strategy):
    """Tell the head a random part of each image's labels, so that it learns how labels go together.

    Of the C labels that an image was asked for, ``k ~ U{0, ..., floor(known C)}`` are drawn and told, but for those
    that the annotator left open; all others are unknown, those that nobody asked for always. At test time nothing is
    told.

    Source: C-Tran, arXiv 2011.14027; ``eps`` is the client-aware masking (CA-MLE) of FedLGT, arXiv 2312.07165: a label
    of which the model as it was received, told nothing, is unsure, ``|p - 0.5| <= eps``, stays unknown. It is the
    global model of the round in a federation, else the model as the experience found it (inferred), read in evaluation
    mode (inferred). The released code asks about the first image of a batch alone, and tells it that one's labels; here
    every image has its own. Departure: published losses are sums, here the method's criterion decides; labels left out
    of the loss are left out by stopping their gradient, so every other entry weighs the same however many were told.

    Attributes:
        known: Largest part of the labels that is told.
        loss_on: ``all`` labels, as released, or only the ``unknown`` ones.
        eps: Labels whose probability is within this of 0.5 are not told (published: 0.02); None for no such mask.
    """

    known: Probability = 0.75
    loss_on: Literal["all", "unknown"] = "all"
    eps: Annotated[float, Field(ge=0, le=0.5)] | None = None

    meta = StrategyMeta(
        name="label_mask",
        title="Label mask",
        family="label dependencies",
        reference="arXiv:2011.14027",
        head="ctran",
        exemptions={
            "both_heads": "only a head with a token for each label can be told labels",
            "global_rng_untouched": "its head drops entries, which torch draws from its own generator",
        },
    )

    def build_model(self, backbone: nn.Module | None, head: Head) -> MultiLabelModel:
        """Return backbone and head.

        Raises:
            CmlBenchError: If the head cannot be told anything.
        """
        if not hasattr(head, "states"):
            raise CmlBenchError(
                f"label_mask tells the head some of the labels, which head={head.meta.name} has no place for: take "
                "head=ctran"
            )
        return super().build_model(backbone, head)

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the plugin that tells."""
        return [LabelMaskPlugin(self, run.generator("label mask"))]


class LabelMaskPlugin(SupervisedPlugin):
    """Tells the head what it may know of each batch, and takes that back after the forward pass.

    Attributes:
        received: Weights of the model that decides what is uncertain, by name.
        told: (B, m) bool, the entries that the head was told of the current batch, until the step is over.
    """

    told: Tensor

    def __init__(self, options: LabelMask, generator: torch.Generator) -> None:
        super().__init__()
        self.options = options
        self.generator = generator
        self.received: Mapping[str, Tensor] = {}

    def start_round(self, strategy: Any, received: Mapping[str, Tensor]) -> None:
        """Take the weights that a federation hands out."""
        self.received = received if self.options.eps is not None else {}

    def end_round(self, strategy: Any) -> None:
        """Let go of them."""
        self.received = {}

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Take the weights that the experience starts from; the chunks of an online one go on with them."""
        if self.options.eps is not None and begins_experience(strategy.experience):
            state = strategy.model.state_dict()
            self.received = {name: value.detach().clone() for name, value in state.items()}

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Tell."""
        labels = strategy.mb_y
        self.told = draw_known(labels, self.options.known, self.generator)
        if self.options.eps is not None:
            self.told &= ~self._uncertain(strategy)[:, : labels.shape[1]]
        strategy.model.head.states = labels.masked_fill(~self.told, UNMARKED)

    @torch.no_grad()
    def _uncertain(self, strategy: Any) -> Tensor:
        """Return (B, n) bool, where the received model is within ``eps`` of 0.5."""
        with evaluating(strategy.model):
            logits = functional_call(strategy.model, dict(self.received), (strategy.mb_x,))
        unsure: Tensor = (logits.sigmoid() - 0.5).abs() <= self.options.eps
        return unsure

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Take back what was told, for whoever reads the model next; leave it out of the loss if that is asked for."""
        strategy.model.head.states = None
        if self.options.loss_on == "unknown":
            strategy.head_output = strategy.head_output.without_gradient(self.told)
            strategy.second_view = strategy.second_view and strategy.second_view.without_gradient(self.told)
            strategy.mb_output = strategy.head_output.logits

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Forget what was told: a checkpoint would hold it."""
        self.__dict__.pop("told", None)


def draw_known(labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return which entries are told: of each row's C asked-for labels k at random, k uniform in 0..floor(share C).

    One of the k that the annotator left open cannot be told.

    Args:
        labels: (B, m) four-state labels.
        share: Largest part of the C labels.
        generator: Private generator, on the CPU.

    Returns:
        (B, m) bool; true for known entries alone.
    """
    asked = labels > OUT_OF_SCOPE
    # A share of 0.29 of 100 labels is 29 of them, whatever floating point makes of it.
    most = (share * asked.sum(dim=1).double() + 1e-9).floor()
    count = (torch.rand(len(labels), generator=generator, dtype=torch.float64).to(labels.device) * (most + 1)).floor()
    lots = torch.rand(labels.shape, generator=generator).to(labels.device).masked_fill(~asked, 2.0)
    place = lots.argsort(dim=1).argsort(dim=1)
    return (place < count[:, None]) & is_known(labels)
