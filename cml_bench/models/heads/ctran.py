"""The C-Tran head: positions and labels attend to each other, and some labels may be told."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from cml_bench.errors import CmlBenchError, suggest
from cml_bench.labels import widen
from cml_bench.models.attention import attention_width
from cml_bench.models.heads.checks import check_least
from cml_bench.models.heads.head import HeadMeta, HeadOutput
from cml_bench.models.heads.label_rows import FixedBlocks, LabelRowsHead
from cml_bench.models.layout import as_tokens, pool
from cml_bench.models.text_vectors import text_vectors

__all__ = ["CTranHead"]

Attends = Literal["all", "older"]


class CTranHead(LabelRowsHead):
    """Read a map and a token for each label through one transformer encoder; a label token may carry what is known.

    ``z_c = <w_c, f_c> + b_c``, with f_c what the encoder makes of the token of label c, which starts as the vector of
    the label plus the vector of its state: 0 where it is unknown, else one for absent and one for present. Nothing is
    known at test time; in training a strategy may tell some labels (``states``).

    Source: Lanchantin et al. 2021, arXiv 2011.14027, with learnt vectors of labels and states; with ``text`` they are
    frozen vectors of the label names and of "negative" and "positive", as in FedLGT (arXiv 2312.07165), whose released
    table gives the absent state the vector of "positive" and the present one that of "negative": here each has its own.
    As in both released codes the feed-forward network is as wide as the tokens, a LayerNorm comes before the encoder
    and positions carry no embedding. Inferred: the learnt matrix that maps text vectors of another width to the
    tokens', after the sum (FedLGT's have the same width).

    Labels attend to each other, so new ones move the logits of old ones, unless they attend to ``older`` alone
    (inferred): then positions attend to positions, and labels to positions and to labels that came no later.

    Args:
        in_features: Width D of the features.
        width: Width d of all tokens; None for the features' own, up to a multiple of ``heads``.
        layers: Layers of the encoder.
        heads: Number of attention heads; divides the width.
        dropout: Probability of dropping an entry within the layers.
        text: Where vectors of label names come from (see ``text_vectors``); None to learn them.
        attends: Which labels a label attends to: ``all`` or ``older``.

    Raises:
        CmlBenchError: If the options do not fit together, or ``text`` has no vector for "negative" or "positive".

    Attributes:
        states: (B, m) four-state labels of the images that come next; known ones are told, negative ones stay unknown.
            Where the batch holds several views of the B images, one after the other, all are told the same. None, as
            at test time, tells nothing.
    """

    meta = HeadMeta(
        name="ctran",
        title="C-Tran",
        features="map",
        growth_keeps_logits=False,
        reference="arXiv:2011.14027",
        label_features=True,
    )
    known: Tensor

    def __init__(
        self,
        in_features: int,
        *,
        width: int | None = None,
        layers: int = 3,
        heads: int = 4,
        dropout: float = 0.1,
        text: str | None = None,
        attends: Attends = "all",
    ) -> None:
        width = attention_width("ctran", width, in_features, 1.0, heads)
        super().__init__(in_features, width, dropout)
        check_least("ctran", "layers", layers)
        if attends not in get_args(Attends):
            raise CmlBenchError(
                f"attends={attends!r} of the ctran head is unknown: {suggest(attends, get_args(Attends))}"
            )
        self.text = text
        self.attends = attends
        self.states: Tensor | None = None
        self.project = nn.Identity() if width == in_features else nn.Linear(in_features, width)
        self.words: FixedBlocks | nn.ParameterList
        if text is None:
            self.words = nn.ParameterList()
            self.known = nn.Parameter(torch.randn(2, width) * width**-0.5)
        else:
            self.words = FixedBlocks()
            self.register_buffer("known", text_vectors(text, ("negative", "positive")))
        # Without a bias: the unknown state is 0 in the tokens' space, too.
        same = self.known.shape[1] == width
        self.project_words = nn.Identity() if same else nn.Linear(self.known.shape[1], width, bias=False)
        self.norm = nn.LayerNorm(width)
        layer = nn.TransformerEncoderLayer(width, heads, width, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    @property
    def keeps_logits(self) -> bool:
        """Whether labels attend to older ones alone."""
        return self.attends == "older"

    def add_labels(self, names: tuple[str, ...]) -> None:
        """Append one block of label vectors (n, w), weights (n, d) and biases (n,)."""
        super().add_labels(names)
        if self.text is None:
            drawn = torch.randn_like(self.weights[-1]) * self.width**-0.5
            self.words.append(nn.Parameter(drawn))
        else:
            self.words.append(text_vectors(self.text, names).to(self.weights[-1]))

    def forward(self, features: Tensor) -> HeadOutput:
        """Return logits (B, n), pooled (B, D) and label features (B, n, d)."""
        positions = self.project(as_tokens(features)[0])
        labels = self.project_words(self._label_vectors(len(positions)))
        tokens = self.norm(torch.cat([positions, labels], dim=1))
        mask = self._mask(positions.shape[1]) if self.attends == "older" else None
        read: Tensor = self.encoder(tokens, mask=mask)[:, positions.shape[1] :]
        return HeadOutput(self.score(read), pool(features), read)

    def _label_vectors(self, n_images: int) -> Tensor:
        """Return the (B, n, w) sums of the labels' vectors and those of their states."""
        words = self.words.rows() if isinstance(self.words, FixedBlocks) else torch.cat(list(self.words))
        if self.states is None:
            return words.expand(n_images, -1, -1)
        states = widen(self.states, self.n_labels).repeat(n_images // len(self.states), 1)
        # Unknown, absent, present: the states in ascending order, all unknown ones alike.
        vectors = torch.cat([torch.zeros_like(self.known[:1]), self.known])
        return words + vectors[states.clamp(min=-1).long() + 1]

    def _mask(self, n_positions: int) -> Tensor:
        """Return the (N + n, N + n) bool mask of what a token (row) may not attend to (column)."""
        like = self.weights[0]
        growth = torch.tensor(self.growth, device=like.device)
        arrival = torch.repeat_interleave(torch.arange(len(growth), device=like.device), growth)
        arrival = torch.cat([arrival.new_full((n_positions,), -1), arrival])
        return arrival[None] > arrival[:, None]
