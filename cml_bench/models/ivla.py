"""Image-vision-language attention: what label vectors take from a map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.models.ssca import attention_weights


class IVLA(nn.Module):
    """Let label vectors T read positions V, and move by what they read.

    ``R = W_p softmax((T W_q)(V W_k)^T / sqrt(d)) V W_v``, ``M = GELU(W_m (GELU(W_1 T) * R))``, ``T' = T + M`` and
    ``T + tanh(W_b relu(W_a T')) * T'`` with T' for T. Labels do not read each other.

    Source: arXiv 2407.16244 and its released code: one head, no bias in q, k, v and the gate.

    Args:
        width: Width d of labels and positions.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.project = nn.Linear(width, width)
        self.text = nn.Linear(width, width)
        self.meet = nn.Linear(width, width)
        self.gate = nn.Sequential(nn.Linear(width, width, bias=False), nn.ReLU(), nn.Linear(width, width, bias=False))

    def forward(
        self, labels: Tensor, positions: Tensor, need_attention: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the labels (B, n, d) after they read, what they took (B, n, d), and the attention if asked for.

        Args:
            labels: (B, n, d) or (1, n, d).
            positions: (B, N, d).
            need_attention: The attention (B, 1, n, N) must be written out; without it a fused kernel is used.
        """
        query = self.query(labels).expand(len(positions), -1, -1)
        key, value = self.key(positions), self.value(positions)
        attention = attention_weights(query, key, heads=1) if need_attention else None
        read = F.scaled_dot_product_attention(query, key, value) if attention is None else attention[:, 0] @ value
        taken = F.gelu(self.meet(F.gelu(self.text(labels)) * self.project(read)))
        moved = labels + taken
        return moved + torch.tanh(self.gate(moved)) * moved, taken, attention
