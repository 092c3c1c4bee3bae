"""HP-DVAL's head: prompts of label names, compared with the whole image and with its parts."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.checks import check_least
from cml_bench.models.heads.head import Head, HeadMeta, HeadOutput
from cml_bench.models.layout import whole_and_parts
from cml_bench.models.open_clip_text import load_text_tower, parse_text_tower
from cml_bench.models.text_vectors import text_vectors
from cml_bench.models.word_vectors import project_queries

__all__ = ["HPDVALHead"]

_STD = 0.02
_LOG_SCALE = 3.0
_WIDTH = 512


class HPDVALHead(Head):
    """Score a label by ``alpha cos(P^G, class token) + (1 - alpha) mean of the top k cos(P^L, patch)``.

    P^G and P^L are what a frozen text tower makes of M learnt words and the label's name; the words of each are shared
    by all labels, so a new label needs its name and no new parameter, and old logits stay as they were. With word
    vectors or hashed names (no tower) a prompt is the projected unit text vector plus the mean of its M learnt words
    (inferred).

    Source: arXiv 2509.17747. As in the paper, and unlike the released code, alpha weighs the global score and both
    scores are cosines: the code divides dot products by their norm over the labels, so that one more label would change
    the logits of all. The logit is the score times a learnt scale that starts at exp(3), as in the code. Inferred:
    without a class token the mean of the map stands in for it, and fewer than k parts are averaged all.
    Departure: the student is whatever backbone the benchmark trains; its distillation from CLIP's image tower is not
    here. The distance of the second stage is a criterion of its own, ``loss=prompt_consistency+db``.

    Args:
        in_features: Width D of the features.
        text: Where names get their meaning: a text tower as ``open_clip:MODEL:WEIGHTS_FILE[:prompt]``, whose prompt is
            the fixed one of the second stage's distance; or any other source of ``text_vectors``.
        embedding: ``linears`` for two linear layers with a tanh between them, learnt; ``clip`` for the image projection
            of the text tower's own checkpoint, frozen, which a CLIP image tower as backbone was trained with.
        alpha: Weight of the global score, in [0, 1].
        k: Number of best parts that are averaged.
        words: Number M of learnt words.
        width: Width of the space that features and prompts meet in; None for the tower's own, and for 512 without one.

    Raises:
        CmlBenchError: If an option is out of range, the text source cannot be read, or its checkpoint has no image
            projection for features of this width.
    """

    meta = HeadMeta(
        name="hp_dval", title="HP-DVAL", features="tokens", growth_keeps_logits=True, reference="arXiv:2509.17747"
    )

    names: Tensor
    fixed: Tensor

    def __init__(
        self,
        in_features: int,
        *,
        text: str = "hash",
        embedding: Literal["linears", "clip"] = "linears",
        alpha: float = 0.4,
        k: int = 32,
        words: int = 4,
        width: int | None = None,
    ) -> None:
        super().__init__(in_features)
        if not 0 <= alpha <= 1:
            raise CmlBenchError(f"alpha={alpha} of the hp_dval head is no share; take 0 <= alpha <= 1")
        check_least("hp_dval", "k", k)
        check_least("hp_dval", "words", words)
        self.text = text
        self.alpha = alpha
        self.k = k
        self.source = parse_text_tower(text) if text.startswith("open_clip:") else None
        self.tower = load_text_tower(self.source) if self.source else None
        if width is not None and (width < 1 or self.tower):
            raise CmlBenchError(f"width={width} of the hp_dval head must be at least 1, and a text tower has its own")
        width = self.tower.out_features if self.tower else width or _WIDTH
        spoken = self.tower.width if self.tower else width
        self.global_words = nn.Parameter(_STD * torch.randn(words, spoken))
        self.local_words = nn.Parameter(_STD * torch.randn(words, spoken))
        self.log_scale = nn.Parameter(torch.tensor(_LOG_SCALE))
        self.embed = self._embedding(embedding, width)
        # What a name says: token ids for the tower, else nothing beside its vector.
        self.register_buffer("names", torch.zeros(0, 0, dtype=torch.int64), persistent=False)
        self.register_buffer("fixed", torch.zeros(0, width), persistent=False)

    def _embedding(self, kind: str, width: int) -> nn.Module:
        """Return what brings (..., D) features into the space of the text vectors."""
        if kind == "linears":
            return nn.Sequential(nn.Linear(self.in_features, width), nn.Tanh(), nn.Linear(width, width))
        if kind != "clip":
            raise CmlBenchError(f"embedding={kind!r} of the hp_dval head is unknown: take linears or clip")
        projection = self.tower.image_projection if self.tower else None
        if projection is None or len(projection) != self.in_features:
            raise CmlBenchError(
                f"embedding=clip of the hp_dval head needs a checkpoint with an image projection of "
                f"{self.in_features} features, and text={self.text} has none: take embedding=linears"
            )
        linear = nn.Linear(self.in_features, width, bias=False).requires_grad_(False)
        linear.weight.copy_(projection.T)
        return linear

    def add_labels(self, names: tuple[str, ...]) -> None:
        """Look up what the names say; there is nothing to learn for a label alone."""
        if self.tower and self.source:
            fixed = self.tower.encode(self.source.prompts(names))
            ids = self.tower.prompt_ids(names, len(self.global_words)).to(self.names)
            self.names = torch.cat([self.names.reshape(-1, ids.shape[1]), ids])
        else:
            fixed = project_queries(text_vectors(self.text, names), self.fixed.shape[1], 1.0)
        self.fixed = torch.cat([self.fixed, fixed.to(self.fixed)])

    def prompts(self, words: Tensor) -> Tensor:
        """Return the (n, d) prompts of all labels with these (M, w) learnt words."""
        if self.tower:
            return self.tower.encode_prompts(words, self.names)
        return self.fixed + words.mean(dim=0)

    def prompt_distance(self) -> Tensor:
        """Return the mean absolute difference of the unit vectors of fixed and learnt global prompts."""
        return F.l1_loss(F.normalize(self.prompts(self.global_words), dim=1), self.fixed)

    def forward(self, features: Tensor) -> HeadOutput:
        """Return logits (B, n) and the class token (B, D) of tokens (B, 1 + N, D), a map or a vector."""
        whole, parts = whole_and_parts(features)
        score = self.alpha * self._cosines(whole, self.global_words)
        best = self._cosines(parts, self.local_words).topk(min(self.k, parts.shape[1]), dim=1).values
        score = score + (1 - self.alpha) * best.mean(dim=1)
        return HeadOutput(self.log_scale.exp() * score, whole)

    def _cosines(self, features: Tensor, words: Tensor) -> Tensor:
        """Return the (..., n) cosines of (..., D) features and the prompts."""
        return F.normalize(self.embed(features), dim=-1) @ F.normalize(self.prompts(words), dim=1).T
