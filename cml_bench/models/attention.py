"""Attention layers that query heads are made of."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.checks import check_least


class AttentionLayer(nn.Module):
    """Attention and a feed-forward network, each with a residual and a LayerNorm after it.

    ``y = LayerNorm(x + A(q, k) v)``, ``x' = LayerNorm(y + FFN(y))``; queries and keys may carry positions that x and v
    do not. With q = k = v = x this is ``torch.nn.TransformerEncoderLayer``.

    Args:
        width: Width d of all tokens.
        heads: Number of attention heads; divides the width.
        hidden: Width of the feed-forward network.
        dropout: Probability of dropping an entry of the attention, of the network's hidden layer and of what is added.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.attention_norm = nn.LayerNorm(width)
        self.network = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width))
        self.network_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, queries: Tensor, keys: Tensor, values: Tensor, need_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the next x (B, n, d), and the attention (B, heads, n, N) if it is asked for.

        Args:
            x: (B, n, d) what is read into.
            queries: (B, n, d).
            keys: (B, N, d).
            values: (B, N, d).
            need_attention: The attention must be written out; without it a fused kernel is used.
        """
        read, attention = self.attention(queries, keys, values, need_weights=need_attention, average_attn_weights=False)
        x = self.attention_norm(x + self.dropout(read))
        return self.network_norm(x + self.dropout(self.network(x))), attention


def sine_positions(height: int, width: int, channels: int) -> Tensor:
    """Return the fixed two-dimensional position embedding of a grid.

    The first half of the channels says the row, the second the column: sine and cosine, in turn, of the place (1 to
    the grid's side, scaled so that the last is 2 pi) at wavelengths that grow geometrically to 10,000 times the first.

    Source: Carion et al. 2020, arXiv 2005.12872.

    Args:
        height: Rows H.
        width: Columns W.
        channels: Number of channels d; a multiple of 4.

    Returns:
        (H * W, d).
    """
    half = channels // 2
    frequencies = 10000.0 ** (-torch.arange(0, half, 2) / half)

    def along(side: int) -> Tensor:
        angles = torch.arange(1, side + 1)[:, None] * (2 * math.pi / side) * frequencies
        return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)

    rows, columns = along(height), along(width)
    grid = [rows[:, None].expand(-1, width, -1), columns.expand(height, -1, -1)]
    return torch.cat(grid, dim=2).flatten(0, 1)


def attention_width(
    head: str,
    width: int | None,
    in_features: int,
    share: float,
    heads: int,
    multiple: int = 1,
    name: str = "width",
) -> int:
    """Return the width that a head works in.

    Args:
        head: Name of the head, for the sentence.
        width: What the user asked for; None for a share of the features' own, rounded up until it can be divided.
        in_features: Width of the features.
        share: The published width over the published features'.
        heads: Number of attention heads, which divides the width.
        multiple: Another divisor of the width.
        name: What the user calls the width.

    Raises:
        CmlBenchError: If the width cannot be divided among the heads.
    """
    check_least(head, "heads", heads)
    step = math.lcm(heads, multiple)
    if width is None:
        return step * math.ceil(share * in_features / step)
    if width < 1 or width % step:
        raise CmlBenchError(f"{name}={width} of the {head} head is no multiple of {step} (heads={heads}); take one")
    return width
