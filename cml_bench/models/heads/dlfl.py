"""The DLFL head: one feature for each label, read from the map by a growing set of semantic queries (OFOL)."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.head import HeadMeta, HeadOutput
from cml_bench.models.heads.label_rows import LabelRowsHead
from cml_bench.models.layout import as_tokens, pool
from cml_bench.models.ssca import SSCAStep, attention_weights, merge_heads, split_heads
from cml_bench.models.word_vectors import load_word_vectors, project_queries

__all__ = ["DLFLHead"]

QUERY_NORM = 0.7
"""Length of a new query: so small that a new label starts by looking everywhere alike."""


class DLFLHead(LabelRowsHead):
    """Disentangled label feature learning: ``z_c = <w_c, f_c> + b_c``, with its own feature ``f_c`` for each label.

    A learnable query per label attends to the positions of the map (Semantic Spatial Cross-Attention, SSCA). Labels
    never attend to each other, so new labels leave the logits of old ones as they were, and cost is linear in labels.

    By default one step in the backbone's own space, without projections: the label feature is the mean of the pooled
    feature and the attended one. Queries start small, attention starts uniform, so the untrained head is the linear
    head on the pooled feature, and the only parameters that labels share are the backbone's.

    With ``width`` the cascade of the paper: tokens are projected to ``width`` once, each of ``steps`` steps attends
    with learned projections, residual and LayerNorm, and its output is the query of the next. These projections are
    shared by all labels.

    Source: "Learning Disentangled Label Representations for Multi-label Classification", arXiv:2212.01461. No
    code is public; the residual, the norm and the default step are this suite's choice (docs/explanation/dlfl_head.md).

    Args:
        in_features: Width D of the features.
        steps: Number of SSCA steps; more than one needs ``width``.
        width: Width of the cascade; None for the step in the backbone's own space.
        heads: Number of attention heads; divides the width.
        dropout: Probability of dropping an entry of a label feature in training.
        query_init: File of word vectors (see ``load_word_vectors``) that queries start from; None for random ones.
        freeze_old_queries: Whether growing freezes the queries of the labels already there.

    Raises:
        CmlBenchError: If the options do not fit together.
    """

    meta = HeadMeta(
        name="dlfl",
        title="DLFL",
        features="map",
        growth_keeps_logits=True,
        reference="arXiv:2212.01461",
        label_features=True,
        attention=True,
    )

    def __init__(
        self,
        in_features: int,
        *,
        steps: int = 1,
        width: int | None = None,
        heads: int = 1,
        dropout: float = 0.0,
        query_init: Path | str | None = None,
        freeze_old_queries: bool = False,
    ) -> None:
        if width is not None and width < 1:
            raise CmlBenchError(
                f"width={width} of the dlfl head is not a width; take at least 1, or None for the backbone's"
            )
        super().__init__(in_features, in_features if width is None else width, dropout)
        if steps < 1 or (steps > 1 and width is None):
            raise CmlBenchError(f"steps={steps} of the dlfl head needs the cascade; give width as well, e.g. width=512")
        if heads < 1 or self.width % heads:
            raise CmlBenchError(
                f"heads={heads} of the dlfl head does not divide the width {self.width}; take a divisor"
            )
        self.heads = heads
        self.query_init = None if query_init is None else Path(query_init)
        self.freeze_old_queries = freeze_old_queries
        self.queries = nn.ParameterList()
        self.project = nn.Linear(in_features, width) if width else None
        self.cascade = nn.ModuleList(SSCAStep(width, heads) for _ in range(steps)) if width else None

    def add_labels(self, names: tuple[str, ...]) -> None:
        """Append one block of queries (n, d), weights (n, d) and biases (n,), d the width."""
        if self.freeze_old_queries:
            self.queries.requires_grad_(False)
        super().add_labels(names)
        self.queries.append(nn.Parameter(self._new_queries(names).to(self.weights[-1])))

    def _new_queries(self, names: tuple[str, ...]) -> Tensor:
        if self.query_init is not None:
            return project_queries(load_word_vectors(self.query_init, names), self.width, QUERY_NORM)
        return torch.randn(len(names), self.width) * (QUERY_NORM / math.sqrt(self.width))

    def forward(self, features: Tensor) -> HeadOutput:
        """Return logits (B, n), pooled (B, D), label features (B, n, d) and, if asked for, attention."""
        tokens, (height, width) = as_tokens(features)
        label_features, attention = self._read_cascade(tokens) if self.cascade else self._read_map(tokens)
        logits = self.score(F.dropout(label_features, self.dropout, self.training))
        if attention is not None:
            attention = attention.reshape(*attention.shape[:-1], height, width)
        return HeadOutput(logits, pool(features), label_features, attention)

    def _read_map(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the label features of the step without projections, and its attention if it is asked for."""
        attention = attention_weights(torch.cat(list(self.queries)), tokens, self.heads)
        # Averaging the attention with the uniform one averages the attended feature with the pooled one, and saves
        # a tensor of the size of the label features.
        mixed = (attention + 1 / tokens.shape[1]) / 2
        return merge_heads(mixed @ split_heads(tokens, self.heads)), attention if self.need_attention else None

    def _read_cascade(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the output of the last step of the cascade, and its attention if it is asked for."""
        assert self.project is not None
        assert self.cascade is not None
        tokens = self.project(tokens)
        queries, attention = torch.cat(list(self.queries)), None
        for step in self.cascade:
            queries, attention = step(queries, tokens, self.need_attention)
        return queries, attention
