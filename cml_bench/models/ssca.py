"""Semantic Spatial Cross-Attention: label queries read positions, labels never read each other."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def attention_weights(queries: Tensor, tokens: Tensor, heads: int) -> Tensor:
    """Return where each query looks: softmax over positions of ``<q, x> / sqrt(D / heads)``.

    Args:
        queries: (n, D), or (B, n, D) where they differ by image.
        tokens: (B, N, D).
        heads: Number of heads; each compares its own D / heads channels.

    Returns:
        (B, heads, n, N), rows summing to 1 over the positions.
    """
    scale = math.sqrt(heads / tokens.shape[-1])
    return torch.softmax(split_heads(queries * scale, heads) @ split_heads(tokens, heads).transpose(-1, -2), dim=-1)


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """Bring (..., N, D) to (..., heads, N, D / heads)."""
    return tokens.reshape(*tokens.shape[:-1], heads, tokens.shape[-1] // heads).transpose(-2, -3)


def merge_heads(tokens: Tensor) -> Tensor:
    """Bring (..., heads, N, d) to (..., N, heads * d): the inverse of ``split_heads``."""
    return tokens.transpose(-2, -3).flatten(-2)


class SSCAStep(nn.Module):
    """One step with learned projections: ``q' = LayerNorm(q + softmax(q W_q (x W_k)^T / sqrt(d)) x W_v)``.

    Args:
        width: Width of queries and tokens.
        heads: Number of attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, queries: Tensor, tokens: Tensor, need_attention: bool) -> tuple[Tensor, Tensor | None]:
        """Return the next queries (B, n, width), and the attention (B, heads, n, N) if it is asked for.

        Args:
            queries: (B, n, width), or (n, width) where they do not differ by image: these are projected once.
            tokens: (B, N, width).
            need_attention: The attention must be written out; without it a fused kernel is used.
        """
        query, key, value = self.query(queries), self.key(tokens), split_heads(self.value(tokens), self.heads)
        if need_attention:
            attention = attention_weights(query, key, self.heads)
            read = attention @ value
        else:
            attention = None
            each = split_heads(query, self.heads).expand(len(tokens), -1, -1, -1)
            read = F.scaled_dot_product_attention(each, split_heads(key, self.heads), value)
        return self.norm(queries + merge_heads(read)), attention
