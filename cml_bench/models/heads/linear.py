"""The linear head: one shared feature for all labels (OFML)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.head import Head, HeadMeta, HeadOutput
from cml_bench.models.layout import pool

__all__ = ["LinearHead"]


class LinearHead(Head):
    """Score every label from the same pooled feature: ``z_c = <w_c, f> + b_c``.

    The common head of continual multi-label learning: one feature for many labels (OFML). Weights start uniform in
    ``[-1/sqrt(D), 1/sqrt(D)]``, biases at 0.

    Args:
        in_features: Width D of the features.
        dropout: Probability of dropping an entry of the pooled feature in training.
    """

    meta = HeadMeta(
        name="linear", title="Linear", features="pooled", growth_keeps_logits=True, reference="one feature, many labels"
    )

    def __init__(self, in_features: int, *, dropout: float = 0.0) -> None:
        super().__init__(in_features)
        if not 0 <= dropout < 1:
            raise CmlBenchError(f"dropout {dropout} of the linear head is not a probability; take 0 <= dropout < 1")
        self.dropout = dropout
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()

    def add_labels(self, names: tuple[str, ...]) -> None:
        """Append one block of weights (n, D) and biases (n,)."""
        bound = self.in_features**-0.5
        like = self.weights[0] if len(self.weights) else torch.empty(0)
        weight = torch.empty(len(names), self.in_features, device=like.device, dtype=like.dtype)
        self.weights.append(nn.Parameter(weight.uniform_(-bound, bound)))
        self.biases.append(nn.Parameter(weight.new_zeros(len(names))))

    def forward(self, features: Tensor) -> HeadOutput:
        """Return logits (B, n) and the pooled feature (B, D); see ``Head.forward``."""
        pooled = pool(features)
        kept = F.dropout(pooled, self.dropout, self.training)
        return HeadOutput(F.linear(kept, torch.cat(list(self.weights)), torch.cat(list(self.biases))), pooled)
