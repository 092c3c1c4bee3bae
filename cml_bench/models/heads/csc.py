"""CSC's head: class-independent graph convolution over label descriptors (CI-GCN)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.models.heads.checks import check_least
from cml_bench.models.heads.head import Head, HeadMeta, HeadOutput
from cml_bench.models.layout import as_tokens, pool

__all__ = ["CSCHead"]

_SLOPE = 0.2


class CSCHead(Head):
    """Score a label twice, at the best position of its map and after its descriptor met those of other labels.

    Class maps of the features give the first logit (their maximum) and, by a softmax over positions, one descriptor V0
    a label. Descriptors exchange what they know over a learned graph (``U = V0 + static``) and over one made from the
    image (``V = V0 + dynamic``), from which the second logit is read. The logit is the mean of both.

    Source: arXiv 2403.12559 and its released code. What belongs to labels is kept in one block per growth; the graph's
    matrix (n, n) gets a block of columns and one of rows, so that the old links stay the same parameters. The released
    code forgets two old biases when it grows; here nothing old changes. Departure: a training batch of one image is
    normalised by the running statistics, because it has none of its own.

    Args:
        in_features: Width D of the features.
        width: Width of the descriptors; None for half the features' (1024 of 2048, as published).

    Raises:
        CmlBenchError: If ``width`` is no width.
    """

    meta = HeadMeta(
        name="csc",
        title="CSC (CI-GCN)",
        features="map",
        growth_keeps_logits=False,
        reference="arXiv:2403.12559",
        label_features=True,
        attention=True,
    )

    def __init__(self, in_features: int, *, width: int | None = None) -> None:
        super().__init__(in_features)
        width = max(1, in_features // 2) if width is None else width
        check_least("csc", "width", width)
        self.transform = nn.Linear(in_features, width)
        self.static = nn.Linear(width, width)
        self.whole = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.dynamic = nn.Linear(width, width)
        self.maps = nn.ParameterList()
        self.columns = nn.ParameterList()
        self.rows = nn.ParameterList()
        self.links = nn.ModuleList()
        self.classifiers = nn.ModuleList()

    def add_labels(self, names: tuple[str, ...]) -> None:
        """Append blocks: class maps (n, D), links, classifiers, and the new border of the static graph."""
        like, n, old = self.transform.weight, len(names), self.n_labels
        width, seen = len(like), old + n

        def uniform(rows: int, columns: int, fan_in: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(rows, columns).uniform_(-(fan_in**-0.5), fan_in**-0.5).to(like))

        self.maps.append(uniform(n, self.in_features, self.in_features))
        self.columns.append(uniform(old, n, seen))
        self.rows.append(uniform(n, seen, seen))
        self.links.append(nn.Linear(2 * width, n).to(like))
        self.classifiers.append(nn.Linear(width, n).to(like))

    def static_graph(self) -> Tensor:
        """Return the (n, n) learned matrix that mixes labels."""
        graph: Tensor = self.rows[0]
        for columns, rows in zip(list(self.columns)[1:], list(self.rows)[1:], strict=True):
            graph = torch.cat([torch.cat([graph, columns], dim=1), rows])
        return graph

    def forward(self, features: Tensor) -> HeadOutput:
        """Return logits (B, n), pooled (B, D) and label features (B, n, d): the descriptors after both graphs.

        The attention, if asked for, is the softmax that the descriptors are read with.
        """
        tokens, grid = as_tokens(features)
        maps = F.linear(tokens, torch.cat(list(self.maps)))
        first = maps.amax(dim=1)
        looks = maps.softmax(dim=1).transpose(1, 2)
        own = looks @ self.transform(tokens)
        met = own + F.leaky_relu(self.static(F.leaky_relu(self.static_graph() @ own, _SLOPE)), _SLOPE)
        seen = torch.cat([self._whole(met), met], dim=2)
        links = torch.cat([link(seen) for link in self.links], dim=2).sigmoid()
        heard = F.leaky_relu(links @ met, _SLOPE)
        described = own + F.leaky_relu(self.dynamic(heard), _SLOPE)
        weights, biases = (torch.cat([getattr(c, part) for c in self.classifiers]) for part in ("weight", "bias"))
        second = torch.einsum("bnd,nd->bn", described, weights) + biases
        attention = looks.unflatten(-1, grid)[:, None] if self.need_attention else None
        return HeadOutput((first + second) / 2, pool(features), described, attention)

    def _whole(self, descriptors: Tensor) -> Tensor:
        """Return the (B, n, d) summary of an image's descriptors, the same for each label."""
        mean, norm = self.whole(descriptors.mean(dim=1)), self.norm
        lone = self.training and len(mean) == 1
        normal = F.batch_norm(mean, norm.running_mean, norm.running_var, norm.weight, norm.bias) if lone else norm(mean)
        return F.leaky_relu(normal, _SLOPE)[:, None].expand_as(descriptors)
