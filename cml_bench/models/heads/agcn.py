"""AGCN's head: label classifiers made by a graph network over word vectors."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.checks import check_least
from cml_bench.models.heads.head import Head, HeadMeta, HeadOutput
from cml_bench.models.layout import pool
from cml_bench.models.word_vectors import load_word_vectors

__all__ = ["AGCNHead"]

_WORD_WIDTH = 300


class AGCNHead(Head):
    """Score a label by the product of the pooled feature with the label's node in a graph: ``z = f H^T``.

    ``H = A LeakyReLU(A E W1) W2``, with one 300-d vector E a label, two shared matrices, and the correlation A of the
    labels, which is a buffer: a strategy writes it with ``correlate``. Until then a new label is linked to itself
    alone, so that growth leaves the logits of old labels as they were.

    Source: arXiv 2203.05534 and its released code. Without word vectors E is learnt (inferred).

    Args:
        in_features: Width D of the features.
        hidden: Width of the layer between.
        word_vectors: File of 300-d word vectors (see ``load_word_vectors``) of the label names; None to learn them.

    Raises:
        CmlBenchError: If ``hidden`` is no width or the word vectors are not 300-d.
    """

    meta = HeadMeta(
        name="agcn", title="AGCN", features="pooled", growth_keeps_logits=True, reference="arXiv:2203.05534"
    )
    correlation: Tensor

    def __init__(self, in_features: int, *, hidden: int = 1024, word_vectors: Path | str | None = None) -> None:
        super().__init__(in_features)
        check_least("agcn", "hidden", hidden)
        self.word_vectors = None if word_vectors is None else Path(word_vectors)
        self.words = nn.ParameterList()
        self.first = nn.Parameter(torch.empty(_WORD_WIDTH, hidden).uniform_(-(hidden**-0.5), hidden**-0.5))
        self.second = nn.Parameter(torch.empty(hidden, in_features).uniform_(-(in_features**-0.5), in_features**-0.5))
        self.register_buffer("correlation", torch.empty(0, 0))

    def add_labels(self, names: tuple[str, ...]) -> None:
        """Append one block of word vectors (n, 300), and nodes that are linked to themselves alone."""
        if self.word_vectors is None:
            vectors = torch.randn(len(names), _WORD_WIDTH)
        else:
            vectors = load_word_vectors(self.word_vectors, names)
        if vectors.shape[1] != _WORD_WIDTH:
            raise CmlBenchError(f"{self.word_vectors} has {vectors.shape[1]}-d vectors; the agcn head reads 300-d ones")
        self.words.append(nn.Parameter(vectors.to(self.first), requires_grad=self.word_vectors is None))
        self.correlation = torch.block_diag(self.correlation, torch.eye(len(names)).to(self.correlation))

    def correlate(self, correlation: Tensor) -> None:
        """Take over the (n, n) correlation of the labels."""
        self.correlation = correlation.to(self.correlation)

    def forward(self, features: Tensor) -> HeadOutput:
        """Return logits (B, n), pooled (B, D) and label features (B, n, D): the nodes H, the same for every image."""
        pooled = pool(features)
        hidden = F.leaky_relu(self.correlation @ (torch.cat(list(self.words)) @ self.first), 0.2)
        nodes = self.correlation @ (hidden @ self.second)
        return HeadOutput(pooled @ nodes.T, pooled, nodes.expand(len(pooled), -1, -1))
