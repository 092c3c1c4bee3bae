"""The Query2Label head: label queries read a map through a transformer decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cml_bench.models.attention import AttentionLayer, attention_width, sine_positions
from cml_bench.models.heads.checks import check_least
from cml_bench.models.heads.head import HeadMeta, HeadOutput
from cml_bench.models.heads.label_rows import LabelRowsHead
from cml_bench.models.layout import as_tokens, pool

__all__ = ["Query2LabelHead"]


class Query2LabelHead(LabelRowsHead):
    """Project the map, let positions attend to each other, let label queries attend to positions.

    One encoder and two decoder layers; keys carry fixed sine positions, values do not. By default the decoder has no
    self-attention, as released: labels do not interact, so old logits survive growth. With ``self_attention`` they do,
    and old logits move when labels arrive.

    Source: Liu et al. 2021, arXiv 2107.10834; the released ``GroupWiseLinear`` is the row of each label. Published for
    2,048 features: width 2,048, hidden 8,192, 4 heads. Inferred: label embeddings are the first query and are not added
    again in later layers; no LayerNorm behind the last layer, which ends with one; biases start at 0.

    Args:
        in_features: Width D of the features.
        width: Width d of all tokens; None for the features' own (as published), up to a multiple of 4 and ``heads``.
        hidden: Width of the feed-forward networks; None for four times ``width``, as published.
        heads: Number of attention heads; divides the width.
        encoder_layers: Layers of self-attention over positions.
        decoder_layers: Layers in which labels read positions.
        self_attention: Whether labels attend to each other before they read.
        dropout: Probability of dropping an entry within the layers.

    Raises:
        CmlBenchError: If the options do not fit together.
    """

    meta = HeadMeta(
        name="query2label",
        title="Query2Label",
        features="map",
        growth_keeps_logits=True,
        reference="arXiv:2107.10834",
        label_features=True,
        attention=True,
    )

    def __init__(
        self,
        in_features: int,
        *,
        width: int | None = None,
        hidden: int | None = None,
        heads: int = 4,
        encoder_layers: int = 1,
        decoder_layers: int = 2,
        self_attention: bool = False,
        dropout: float = 0.1,
    ) -> None:
        width = attention_width("query2label", width, in_features, 1.0, heads, multiple=4)
        super().__init__(in_features, width, dropout)
        hidden = 4 * width if hidden is None else hidden
        check_least("query2label", "hidden", hidden)
        check_least("query2label", "encoder_layers", encoder_layers, 0)
        check_least("query2label", "decoder_layers", decoder_layers)
        self.project = nn.Linear(in_features, width)
        self.encoder = nn.ModuleList(AttentionLayer(width, heads, hidden, dropout) for _ in range(encoder_layers))
        self.decoder = nn.ModuleList(AttentionLayer(width, heads, hidden, dropout) for _ in range(decoder_layers))
        self.exchange = nn.ModuleList(
            LabelExchange(width, heads, dropout) for _ in range(decoder_layers if self_attention else 0)
        )
        for matrix in (parameter for parameter in self.parameters() if parameter.dim() > 1):
            nn.init.xavier_uniform_(matrix)
        self.queries = nn.ParameterList()

    @property
    def keeps_logits(self) -> bool:
        """Whether labels do not attend to each other."""
        return not self.exchange

    def add_labels(self, names: tuple[str, ...]) -> None:
        """Append one block of queries (n, d), weights (n, d) and biases (n,)."""
        super().add_labels(names)
        self.queries.append(nn.Parameter(torch.randn_like(self.weights[-1])))

    def forward(self, features: Tensor) -> HeadOutput:
        """Return logits (B, n), pooled (B, D), label features (B, n, d) and, if asked for, the last attention."""
        tokens, grid = as_tokens(features)
        tokens = self.project(tokens)
        positions = sine_positions(*grid, self.width).to(tokens)
        for layer in self.encoder:
            placed = tokens + positions
            tokens, _ = layer(tokens, placed, placed, tokens)
        labels, attention = torch.cat(list(self.queries)).expand(len(tokens), -1, -1), None
        for depth, layer in enumerate(self.decoder):
            if self.exchange:
                labels = self.exchange[depth](labels)
            last = depth == len(self.decoder) - 1
            labels, attention = layer(labels, labels, tokens + positions, tokens, self.need_attention and last)
        if attention is not None:
            attention = attention.unflatten(-1, grid)
        return HeadOutput(self.score(labels), pool(features), labels, attention)


class LabelExchange(nn.Module):
    """Self-attention between labels: ``LayerNorm(x + A(x, x) x)``.

    Args:
        width: Width of the labels.
        heads: Number of attention heads.
        dropout: Probability of dropping an entry of the attention and of what is added.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, labels: Tensor) -> Tensor:
        """Return the labels (B, n, d) after they met."""
        read, _ = self.attention(labels, labels, labels, need_weights=False)
        met: Tensor = self.norm(labels + self.dropout(read))
        return met
