"""The ML-Decoder head: fixed random queries read a map in one decoder layer without self-attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.models.attention import AttentionLayer, attention_width
from cml_bench.models.heads.checks import check_least
from cml_bench.models.heads.head import HeadMeta, HeadOutput
from cml_bench.models.heads.label_rows import FixedBlocks, LabelRowsHead
from cml_bench.models.layout import as_tokens, pool

__all__ = ["MLDecoderHead"]


class MLDecoderHead(LabelRowsHead):
    """Read the projected map with one fixed random query a label; labels never attend to each other.

    ``tokens = relu(linear(x))``; ``q = LayerNorm(q + dropout(q))`` in place of self-attention; one layer of
    cross-attention and feed-forward network; one row a label.

    Source: Ridnik et al. 2021, arXiv 2111.12933, and its released code. Published for 2,048 features: width 768, hidden
    2,048, 8 heads, dropout 0.1. Departure: a group is one label (G = C). With G < C groups every growth would deal the
    labels to groups anew, and old logits with them. Rows start as in the suite's other heads.

    Args:
        in_features: Width D of the features.
        width: Width d of all tokens; None for 3/8 of the features' (as published), up to a multiple of ``heads``.
        hidden: Width of the feed-forward network; None for 8/3 of ``width``, as published.
        heads: Number of attention heads; divides the width.
        dropout: Probability of dropping an entry within the layer.

    Raises:
        CmlBenchError: If the options do not fit together.
    """

    meta = HeadMeta(
        name="ml_decoder",
        title="ML-Decoder",
        features="map",
        growth_keeps_logits=True,
        reference="arXiv:2111.12933",
        label_features=True,
        attention=True,
    )

    def __init__(
        self,
        in_features: int,
        *,
        width: int | None = None,
        hidden: int | None = None,
        heads: int = 8,
        dropout: float = 0.1,
    ) -> None:
        width = attention_width("ml_decoder", width, in_features, 3 / 8, heads)
        super().__init__(in_features, width, dropout)
        hidden = 8 * width // 3 if hidden is None else hidden
        check_least("ml_decoder", "hidden", hidden)
        self.project = nn.Linear(in_features, width)
        self.norm = nn.LayerNorm(width)
        self.decoder = AttentionLayer(width, heads, hidden, dropout)
        self.queries = FixedBlocks()

    def add_labels(self, names: tuple[str, ...]) -> None:
        """Append one block of fixed queries (n, d), of weights (n, d) and biases (n,)."""
        super().add_labels(names)
        self.queries.append(torch.randn_like(self.weights[-1], requires_grad=False))

    def forward(self, features: Tensor) -> HeadOutput:
        """Return logits (B, n), pooled (B, D), label features (B, n, d) and, if asked for, attention."""
        tokens, grid = as_tokens(features)
        tokens = F.relu(self.project(tokens))
        queries = self.queries.rows().expand(len(tokens), -1, -1)
        labels = self.norm(queries + F.dropout(queries, self.dropout, self.training))
        labels, attention = self.decoder(labels, labels, tokens, tokens, self.need_attention)
        if attention is not None:
            attention = attention.unflatten(-1, grid)
        return HeadOutput(self.score(labels), pool(features), labels, attention)
