"""General prompts for all experiences and one expert prompt for each (DualPrompt)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.models.prompts.model import PrefixPrompts, Selection

Route = Literal["nearest", "all"]

GENERAL_BLOCKS = (0, 1)
EXPERT_BLOCKS = (2, 3, 4)


class ExpertPrompts(PrefixPrompts):
    """General prompts in blocks 0 and 1, the prompts of one expert in blocks 2 to 4.

    Training uses the newest expert and draws its key to the queries. Otherwise, an image is sent to the expert with the
    nearest key (``route="nearest"``), or to all, one lane each (``route="all"``). Keys and prompts start uniform in
    [0, 1].

    Args:
        width: Width D of the tokens.
        general_length: Length of a general prompt; its first half are keys, its second half values.
        expert_length: Length of an expert prompt, halved likewise.
        route: Which experts read an image after training.
    """

    def __init__(self, width: int, general_length: int, expert_length: int, route: Route) -> None:
        super().__init__()
        self.route = route
        self.general = nn.Parameter(torch.rand(len(GENERAL_BLOCKS), 2, general_length // 2, width))
        self.expert_shape = (len(EXPERT_BLOCKS), 2, expert_length // 2, width)
        self.keys = nn.ParameterList()
        self.experts = nn.ParameterList()

    def grow(self) -> None:
        """Add an expert and its key."""
        # Drawn on the CPU: a seed starts the same on every device.
        for parts, shape in ((self.keys, self.expert_shape[-1:]), (self.experts, self.expert_shape)):
            parts.append(nn.Parameter(torch.rand(shape).to(self.general.device)))

    def select(self, query: Tensor) -> Selection:
        """Return general and expert prefixes; the loss is the images' mean of ``1 - cosine`` to the newest key."""
        count = len(query)
        cosine = F.normalize(query, dim=-1) @ F.normalize(torch.stack(list(self.keys)), dim=-1).T
        if self.training:
            experts = self.experts[-1].expand(count, -1, -1, -1, -1)
        elif self.route == "nearest":
            experts = torch.stack(list(self.experts))[cosine.argmax(dim=-1)]
        else:
            experts = torch.stack(list(self.experts)).repeat_interleave(count, dim=0)
        general = self.general.expand(count, -1, -1, -1, -1)
        prefixes = {
            **dict(zip(GENERAL_BLOCKS, general.unbind(1), strict=True)),
            **dict(zip(EXPERT_BLOCKS, experts.unbind(1), strict=True)),
        }
        return Selection(prefixes, (1 - cosine[:, -1]).mean())
