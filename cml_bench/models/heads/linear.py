"""The linear head: one shared feature for all labels (OFML)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from cml_bench.models.heads.head import HeadMeta, HeadOutput
from cml_bench.models.heads.label_rows import LabelRowsHead, joined
from cml_bench.models.layout import pool

__all__ = ["LinearHead"]


class LinearHead(LabelRowsHead):
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
        super().__init__(in_features, in_features, dropout)

    def forward(self, features: Tensor) -> HeadOutput:
        """Return logits (B, n) and the pooled feature (B, D); see ``Head.forward``."""
        pooled = pool(features)
        kept = F.dropout(pooled, self.dropout, self.training)
        return HeadOutput(F.linear(kept, self.classifier_rows(), joined(self.biases)), pooled)
