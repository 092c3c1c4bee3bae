"""MulCon's head: label embeddings read a self-attended map, and then each other."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.models.attention import attention_width
from cml_bench.models.heads.head import HeadMeta, HeadOutput
from cml_bench.models.heads.label_rows import LabelRowsHead
from cml_bench.models.layout import as_tokens, pool
from cml_bench.models.ssca import merge_heads, split_heads

__all__ = ["MulConHead"]


class AttentionBlock(nn.Module):
    """Queries read tokens: ``o = LN(q + softmax(q k^T / sqrt(v)) v)``, then ``LN(o + relu(W o))``.

    The residual starts from the projected query, and scores are divided by the root of the full width, not of a head's
    share of it; both as in the authors' code.

    Args:
        query_width: Width of the queries.
        token_width: Width of the tokens.
        width: Width v of the output.
        heads: Number of attention heads; divides the width.
    """

    def __init__(self, query_width: int, token_width: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(query_width, width)
        self.key = nn.Linear(token_width, width)
        self.value = nn.Linear(token_width, width)
        self.out = nn.Linear(width, width)
        self.first_norm = nn.LayerNorm(width)
        self.second_norm = nn.LayerNorm(width)

    def forward(self, queries: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (B, n, width) of queries (B, n, .) and tokens (B, N, .); (n, N) True where a query may look."""
        query = self.query(queries)
        q, k, v = (split_heads(part, self.heads) for part in (query, self.key(tokens), self.value(tokens)))
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1 / math.sqrt(query.shape[-1]))
        seen = self.first_norm(query + merge_heads(read))
        result: Tensor = self.second_norm(seen + F.relu(self.out(seen)))
        return result


class MulConHead(LabelRowsHead):
    """Score every label from its own feature, which labels exchange before: ``z_c = <w_c, f_c> + b_c``.

    Two self-attention blocks on the positions of the map, one in which label embeddings read it, one in which the
    labels read each other. All blocks are shared by the labels; growing appends embeddings and classifier rows.

    Source: Dao et al. 2021, arXiv 2107.11626; ``SonDaoDuy/MulCon``, blocks after the Set Transformer (arXiv
    1810.00825). Labels read each other, so a new label changes what old ones say: old logits do not survive growth.
    With ``isolate`` labels read only those that arrived before or with them, and old logits do survive it (this
    suite's option). Departure: new embeddings are drawn as in a table of all labels so far (Xavier uniform), one block
    a growth.

    Args:
        in_features: Width D of the features.
        width: Width of label features (published: 1024); None for half the features', up to a multiple of ``heads``.
        heads: Number of attention heads; divides the width.
        isolate: Whether old labels are kept from reading new ones.
        map_width: Width of the blocks on the map; None for the features' own (published: 2048 of 2048), up to a
            multiple of ``heads``.

    Raises:
        CmlBenchError: If the options do not fit together.
    """

    meta = HeadMeta(
        name="mulcon",
        title="MulCon",
        features="map",
        growth_keeps_logits=False,
        reference="arXiv:2107.11626",
        label_features=True,
    )

    def __init__(
        self,
        in_features: int,
        *,
        width: int | None = None,
        heads: int = 4,
        isolate: bool = False,
        map_width: int | None = None,
    ) -> None:
        super().__init__(in_features, attention_width("mulcon", width, in_features, 1 / 2, heads), dropout=0.0)
        map_width = attention_width("mulcon", map_width, in_features, 1, heads, name="map_width")
        self.isolate = isolate
        self.map_blocks = nn.ModuleList(
            AttentionBlock(each, each, map_width, heads) for each in (in_features, map_width)
        )
        self.read_map = AttentionBlock(self.width, map_width, self.width, heads)
        self.read_labels = AttentionBlock(self.width, self.width, self.width, heads)
        self.embeddings = nn.ParameterList()

    @property
    def keeps_logits(self) -> bool:
        """Whether old labels are kept from reading new ones."""
        return self.isolate

    def add_labels(self, names: tuple[str, ...]) -> None:
        """Append one block of embeddings (n, d), classifier weights (n, d) and biases (n,), d the width."""
        super().add_labels(names)
        # Xavier's bound as torch computes the fans of the published table (1, C, d): d and C * d.
        bound = math.sqrt(6 / (self.width * (1 + self.n_labels + len(names))))
        self.embeddings.append(nn.Parameter(torch.empty_like(self.weights[-1]).uniform_(-bound, bound)))

    def forward(self, features: Tensor) -> HeadOutput:
        """Return logits (B, n), pooled (B, D) and label features (B, n, d)."""
        tokens, _ = as_tokens(features)
        for block in self.map_blocks:
            tokens = block(tokens, tokens)
        queries = torch.cat(list(self.embeddings)).expand(len(tokens), -1, -1)
        labels = self.read_map(queries, tokens)
        labels = self.read_labels(labels, labels, self._earlier() if self.isolate else None)
        return HeadOutput(self.score(labels), pool(features), labels)

    def _earlier(self) -> Tensor:
        """Return the (n, n) mask of labels that arrived before each label or with it."""
        arrival = torch.arange(len(self.growth)).repeat_interleave(torch.tensor(self.growth))
        return (arrival[:, None] >= arrival).to(self.biases[0].device)
