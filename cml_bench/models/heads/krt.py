"""KRT's head: incremental cross-attention, one retention token an experience."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.checks import check_least
from cml_bench.models.heads.head import Head, HeadMeta, HeadOutput
from cml_bench.models.layout import as_tokens, pool
from cml_bench.models.ssca import merge_heads, split_heads

__all__ = ["KRTHead"]

_STD = 0.02


class KRTHead(Head):
    """Read the map once for each experience, and score that experience's labels from what was read.

    One query, the knowledge-transfer token g, attends to itself, to the experience's own retention token r_s and to the
    positions of the map: ``e_s = g + attention``, ``e_s += MLP(LayerNorm(e_s))``, then a LayerNorm and a linear layer
    of the experience's own. All else is shared. Retention tokens, norms and linear layers of earlier experiences are
    frozen.

    The softmax over {g, positions, r_s} is a mixture of the one over {g, positions}, which is the same for every
    experience, and r_s: the map is read once, however many experiences there were.

    Source: Dong et al. 2023, arXiv 2302.13334, as ported by CUTER's authors (KRT's own module is not public as text).
    Inferred: query, key and value without a bias, GELU in the MLP, bilinear interpolation of the position embedding to
    a map of another size than ``grid``, and the default width.

    Args:
        in_features: Width D of the features.
        width: Width d of the tokens (published: 384 for COCO, 768 for VOC, of 2048 features); None for 3/16 of the
            features' and at least 64, up to a multiple of ``heads``.
        heads: Number of attention heads; divides the width.
        grid: Side of the map that the position embedding is made for.

    Raises:
        CmlBenchError: If the options do not fit together.
    """

    meta = HeadMeta(
        name="krt",
        title="KRT (ICA)",
        features="map",
        growth_keeps_logits=True,
        reference="arXiv:2302.13334",
        label_features=True,
    )

    def __init__(self, in_features: int, *, width: int | None = None, heads: int = 8, grid: int = 7) -> None:
        super().__init__(in_features)
        check_least("krt", "heads", heads)
        check_least("krt", "grid", grid)
        width = heads * math.ceil(max(64, 3 * in_features / 16) / heads) if width is None else width
        if width < 1 or width % heads:
            raise CmlBenchError(f"heads={heads} of the krt head does not divide the width {width}; take a divisor")
        self.heads = heads
        self.project = nn.Linear(in_features, width)
        self.position = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, width, grid, grid), std=_STD))
        self.transfer = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, width), std=_STD))
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.retention = nn.ParameterList()
        self.classifiers = nn.ModuleList()

    def add_labels(self, names: tuple[str, ...]) -> None:
        """Freeze what earlier labels own; append a retention token (1, d), a norm and a linear layer (n, d)."""
        self.retention.requires_grad_(False)
        self.classifiers.requires_grad_(False)
        like = self.transfer
        self.retention.append(nn.Parameter(nn.init.trunc_normal_(torch.empty_like(like), std=_STD)))
        width = like.shape[1]
        self.classifiers.append(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(names))).to(like))

    def forward(self, features: Tensor) -> HeadOutput:
        """Return logits (B, n), pooled (B, D) and label features (B, n, d): those of an experience are all e_s."""
        read = self._read(features)
        read = read + self.mlp(read)
        parts = list(zip(self.classifiers, read.unbind(dim=1), strict=True))
        logits = [classify(part) for classify, part in parts]
        expanded = [part[:, None].expand(-1, z.shape[1], -1) for (_, part), z in zip(parts, logits, strict=True)]
        return HeadOutput(torch.cat(logits, dim=1), pool(features), torch.cat(expanded, dim=1))

    def _read(self, features: Tensor) -> Tensor:
        """Return (B, t, d): for each of t experiences, g and what it reads."""
        tokens, grid = as_tokens(features)
        tokens = self.project(tokens) + self._positions(grid)
        query = split_heads(self.query(self.norm(self.transfer)), self.heads)
        query = query * query.shape[-1] ** -0.5
        shared = self.norm(torch.cat([self.transfer.expand(len(tokens), -1, -1), tokens], dim=1))
        own = self.norm(torch.cat(list(self.retention)))
        shared_scores = query @ split_heads(self.key(shared), self.heads).transpose(-1, -2)  # (B, heads, 1, 1 + N)
        own_scores = query @ split_heads(self.key(own), self.heads).transpose(-1, -2)  # (heads, 1, t)
        # The share of the softmax that falls on r_s, by experience: (B, heads, t, 1).
        share = torch.sigmoid(own_scores - shared_scores.logsumexp(dim=-1, keepdim=True)).transpose(-1, -2)
        read = shared_scores.softmax(dim=-1) @ split_heads(self.value(shared), self.heads)  # (B, heads, 1, d / heads)
        mixed = torch.lerp(read.expand(-1, -1, len(own), -1), split_heads(self.value(own), self.heads), share)
        result: Tensor = self.transfer + self.out(merge_heads(mixed))
        return result

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """Return the (1, N, d) position embedding of a grid."""
        position: Tensor = self.position
        if position.shape[2:] != grid:
            position = F.interpolate(position, size=grid, mode="bilinear", align_corners=False)
        return position.flatten(2).transpose(1, 2)
