"""Distribution-balanced loss: rare labels weigh more, and frequent ones need not be said aloud."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from cml_bench.labels import PRESENT, UNMARKED, is_known, row_blocks
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.entries import check_option, reduced

if TYPE_CHECKING:
    from cml_bench.streams.dataset import MultiLabelDataset


class DB(Criterion):
    """Balance by how often each label occurs: in the weight of an entry, and in the logit that it is judged by.

    With n_i positives of label i among n images, ``v_i = kappa log(n / n_i - 1)`` shifts the logit s of a label, and
    ``r_i = tau + sigmoid(beta ((1 / n_i) / sum_{j present} 1 / n_j - mu))`` weighs it by the share that it has in how
    often class-balanced sampling would take the image. The loss is the mean over known entries of
    ``r_i log(1 + exp(-w_i (s - v_i)))`` for a present label and ``(r_i / lam) log(1 + exp(lam (s - v_i)))`` for an
    absent one, where ``w_i = 1`` (DB) or ``w_i = (n_i / n) / max_j (n_j / n)`` (DB*, ``star=True``).

    Source: DB is Wu et al. 2020, arXiv 2007.09654; DB* is HP-DVAL, arXiv 2509.17747, with the sign of v as in its
    released code (printed with a doubled one). Departures from that code: the focal factor belongs to each entry, where
    the code averages entries first, and w_i is the paper's, where the code has a constant.

    In a stream (inferred): n and n_i are counted on what the annotator was asked for, n for each label on its own.
    Labels that an experience asks for are counted on that experience, the others stay as they were; chunks of one
    experience add up. What a memory replays is not counted again: it was when it came. The odds n / n_i - 1 are kept
    finite, ``max(n - n_i, 1) / max(n_i, 1)``; an image without a present label gets the limit of the weight, tau + 1; a
    label that was never counted gets v = 0 and w = 1.

    Args:
        star: DB* in place of DB.
        focal: Multiply each entry's loss by ``2 (1 - p)^2``, p the probability given to the truth.
        tau: Least weight.
        beta: Steepness of the weight, >= 0.
        mu: Share at which the weight is half way (published: 0.2 for COCO, 0.3 for VOC).
        lam: Steepness of the loss of absent labels, > 0 (published: 2 for COCO, 5 for VOC).
        kappa: Strength of the shift; None for 0.05 / lam.

    Raises:
        CmlBenchError: If an option is out of range.
    """

    meta = CriterionMeta(name="db", title="DB", reference="arXiv:2007.09654, arXiv:2509.17747")

    present: Tensor
    asked: Tensor

    def __init__(
        self,
        star: bool = False,
        focal: bool = False,
        tau: float = 0.1,
        beta: float = 10.0,
        mu: float = 0.2,
        lam: float = 2.0,
        kappa: float | None = None,
    ) -> None:
        super().__init__()
        check_option("db", "lam", lam, 0 < lam < math.inf, "positive")
        for name, value in (("tau", tau), ("beta", beta)):
            check_option("db", name, value, 0 <= value < math.inf, "0 or more")
        self.star = star
        self.focal = focal
        self.tau = tau
        self.beta = beta
        self.mu = mu
        self.lam = lam
        self.kappa = 0.05 / lam if kappa is None else kappa
        self.register_buffer("present", torch.zeros(0))
        self.register_buffer("asked", torch.zeros(0))
        self._names: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """How tables call it."""
        return f"{'DB*' if self.star else 'DB'}{' focal' if self.focal else ''}"

    def start_experience(self, dataset: MultiLabelDataset) -> None:
        """Count the labels of what is going to be trained on."""
        labels, names = dataset.labels.data, dataset.labels.names
        present, asked = torch.zeros(len(names)), torch.zeros(len(names))
        for rows in row_blocks(*labels.shape):
            present += (labels[rows] == PRESENT).sum(dim=0)
            asked += (labels[rows] >= UNMARKED).sum(dim=0)
        old_present, old_asked = (_padded(counts.cpu(), len(names)) for counts in (self.present, self.asked))
        if names == self._names:
            present, asked = present + old_present, asked + old_asked
        else:
            present, asked = torch.where(
                asked > 0, torch.stack([present, asked]), torch.stack([old_present, old_asked])
            )
        self.present, self.asked = present.to(self.present.device), asked.to(self.asked.device)
        self._names = names

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over known entries, or 0 with a graph."""
        is_present = labels == PRESENT
        present, asked = (_padded(counts, labels.shape[1]).to(logits) for counts in (self.present, self.asked))
        shift = self.kappa * ((asked - present).clamp(min=1).log() - present.clamp(min=1).log())
        shifted = logits - torch.where(asked > 0, shift, 0.0)
        # How the truth is favoured: w (s - v) of a present label, -lam (s - v) of an absent one.
        favour = torch.where(is_present, self._steepness(present, asked), -self.lam) * shifted
        entries = F.softplus(-favour) * torch.where(is_present, 1.0, 1 / self.lam)
        if self.focal:
            entries = entries * 2 * torch.sigmoid(-favour).square()
        weight = self.tau + torch.sigmoid(self.beta * (_share(present, is_present) - self.mu))
        return reduced(weight * entries, is_known(labels))

    def _steepness(self, present: Tensor, asked: Tensor) -> Tensor:
        """Return the (n,) w_i."""
        if not self.star:
            return torch.ones_like(present)
        # A label without positives has nobody whose logit w could shape; 1 keeps the others' maximum from being 0.
        rate = present / asked.clamp(min=1)
        return torch.where(present > 0, rate / rate.max().clamp(min=torch.finfo(rate.dtype).tiny), 1.0)


def _share(present: Tensor, is_present: Tensor) -> Tensor:
    """Return (B, n): 1 / n_i relative to the sum of 1 / n_j over an image's present labels, huge without any."""
    rarity = 1 / present.clamp(min=1)
    share = rarity / (is_present.to(rarity) @ rarity)[:, None]
    # Finite, so that beta = 0 times it is 0.
    return share.clamp(max=torch.finfo(share.dtype).max)


def _padded(counts: Tensor, width: int) -> Tensor:
    """Return (width,) counts; labels not yet counted have 0."""
    return F.pad(counts, (0, max(0, width - len(counts))))[:width]
