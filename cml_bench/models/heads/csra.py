"""The CSRA head: the mean score of a label and, on top, its score where it is highest."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.head import Head, HeadMeta, HeadOutput
from cml_bench.models.layout import as_tokens, pool

__all__ = ["CSRAHead"]


class CSRAHead(Head):
    """Class-specific residual attention: ``z_c = sum_h <m_ch, g + lam a_ch>``.

    Rows m are scaled to length 1 and have no bias; g is the pooled feature, ``a_ch = sum_k s_k x_k`` what label c
    attends to in head h, ``s = softmax over positions of T_h <m_ch, x_k>``. An infinite temperature T takes the best
    position alone. Labels do not interact and share nothing.

    Source: Zhu and Wu 2021, arXiv 2108.02456, and its released code (which scales the rows). Published: lam 0.1 and one
    head for VOC; lam 0.5 and 6 heads for COCO. Temperatures of 1, 2, 4, 6 and 8 heads: [1], [1, inf], [1, 2, 4, inf],
    [1, 2, 3, 4, 5, inf], [1, 2, 3, 4, 5, 6, 7, inf].

    Args:
        in_features: Width D of the features.
        lam: Weight of what is attended to.
        temperatures: One attention head for each, as in ``[1,Infinity]``; infinity for the best position alone.

    Raises:
        CmlBenchError: If there is no temperature or one is not positive.
    """

    meta = HeadMeta(
        name="csra",
        title="CSRA",
        features="map",
        growth_keeps_logits=True,
        reference="arXiv:2108.02456",
        label_features=True,
        attention=True,
    )

    def __init__(self, in_features: int, *, lam: float = 0.1, temperatures: tuple[float, ...] = (1.0,)) -> None:
        super().__init__(in_features)
        if not temperatures or not all(temperature > 0 for temperature in temperatures):
            raise CmlBenchError(f"temperatures={list(temperatures)} of the csra head must be positive; take [1], say")
        self.lam = lam
        self.temperatures = tuple(temperatures)
        self.weights = nn.ParameterList()

    def add_labels(self, names: tuple[str, ...]) -> None:
        """Append one block of rows (n, heads, D)."""
        like, bound = next(self.parameters(), torch.empty(0)), self.in_features**-0.5
        shape = (len(names), len(self.temperatures), self.in_features)
        self.weights.append(
            nn.Parameter(torch.empty(shape, device=like.device, dtype=like.dtype).uniform_(-bound, bound))
        )

    def classifier_rows(self) -> Tensor:
        """Return the (n, heads * D) rows, of length 1 in each head."""
        return F.normalize(torch.cat(list(self.weights)), dim=-1).flatten(1)

    def forward(self, features: Tensor) -> HeadOutput:
        """Return logits (B, n), pooled (B, D), label features (B, n, heads * D) and, if asked for, attention."""
        tokens, grid = as_tokens(features)
        pooled, rows = pool(features), self.classifier_rows()
        scores = torch.einsum("bkd,nhd->bhnk", tokens, rows.unflatten(1, (-1, self.in_features)))
        parts = [
            _look(head, temperature) for head, temperature in zip(scores.unbind(1), self.temperatures, strict=True)
        ]
        attention = torch.stack(parts, dim=1)
        label_features = pooled[:, None, None] + self.lam * (attention @ tokens[:, None])
        label_features = label_features.transpose(1, 2).flatten(2)
        logits = torch.einsum("bnd,nd->bn", label_features, rows)
        return HeadOutput(
            logits, pooled, label_features, attention.unflatten(-1, grid) if self.need_attention else None
        )


def _look(scores: Tensor, temperature: float) -> Tensor:
    """Return where (B, n, N) scores make each label look; rows sum to 1."""
    if temperature == float("inf"):
        return F.one_hot(scores.argmax(dim=-1), scores.shape[-1]).to(scores)
    return torch.softmax(temperature * scores, dim=-1)
