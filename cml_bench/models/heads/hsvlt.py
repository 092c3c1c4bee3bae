"""The HSVLT head: label vectors that read every level of a feature pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from cml_bench.models.heads.head import HeadMeta, HeadOutput
from cml_bench.models.heads.label_rows import FixedBlocks, LabelRowsHead
from cml_bench.models.ivla import IVLA
from cml_bench.models.layout import Features, as_tokens, pool
from cml_bench.models.text_vectors import text_vectors

__all__ = ["HSVLTHead"]


class HSVLTHead(LabelRowsHead):
    """Score each label from what its vector took from every level: ``z_c = <w_c, concatenated M_c> + b_c``.

    The vector of a label name is brought to the width of the finest level by a linear layer, reads it (IVLA), is
    brought to the width of the next, and so on to the coarsest.

    Source: arXiv 2407.16244 and its released code. This is a lighter one ("HSVLT-lite"): labels read the finished map
    of each level once, where the released model reads after each block of a ConvNeXt of its own (inferred
    simplification). Inferred: vectors of names are scaled to the length sqrt(d). They are fixed, as in the release.
    Labels do not read each other, so a new label is a vector and a row, and old logits stay.

    Args:
        in_features: Width of each level, finest first; one number where there is one map.
        text: Where vectors of label names come from; see ``text_vectors``.
        dropout: Probability of dropping an entry of a label feature in training; 0 in the release.

    Raises:
        CmlBenchError: If the vectors of the names cannot be had.
    """

    meta = HeadMeta(
        name="hsvlt",
        title="HSVLT-lite",
        features="pyramid",
        growth_keeps_logits=True,
        reference="arXiv:2407.16244",
        label_features=True,
        attention=True,
    )

    def __init__(self, in_features: int | Sequence[int], *, text: str = "hash", dropout: float = 0.0) -> None:
        widths = (in_features,) if isinstance(in_features, int) else tuple(in_features)
        super().__init__(widths[-1], sum(widths), dropout)
        self.text = text
        self.read = nn.ModuleList(IVLA(width) for width in widths)
        self.bring = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.vectors = FixedBlocks()
        self.enter: nn.Linear | None = None

    def add_labels(self, names: tuple[str, ...]) -> None:
        """Append the fixed vectors (n, d) of the names and one block of weights and biases.

        The first growth makes the layer that reads such vectors: their width is known by then.
        """
        vectors = text_vectors(self.text, names)
        like = next(self.read.parameters())
        if self.enter is None:
            self.enter = nn.Linear(vectors.shape[1], len(like)).to(like)
        super().add_labels(names)
        self.vectors.append((vectors * math.sqrt(vectors.shape[1])).to(like))

    def forward(self, features: Features) -> HeadOutput:
        """Return logits (B, n), the pooled coarsest map (B, D), label features (B, n, d) and, if asked for, attention.

        Args:
            features: Maps, finest first; a single map, tokens or a vector is a pyramid of one level.
        """
        assert self.enter is not None
        levels = features if isinstance(features, tuple) else (features,)
        labels, taken = self.enter(self.vectors.rows())[None], []
        for depth, (level, read) in enumerate(zip(levels, self.read, strict=True)):
            positions, grid = as_tokens(level)
            coarsest = depth == len(levels) - 1
            labels, took, attention = read(labels, positions, self.need_attention and coarsest)
            taken.append(took)
            if not coarsest:
                labels = self.bring[depth](labels)
        label_features = F.dropout(torch.cat(taken, dim=2), self.dropout, self.training)
        attention = None if attention is None else attention.unflatten(-1, grid)
        return HeadOutput(self.score(label_features), pool(features), label_features, attention)
