"""C-GMVAE's loss: reconstruction of labels from images and from labels, a mixture prior, and label embeddings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.labels import PRESENT, is_known
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.entries import binary_costs, check_option
from cml_bench.models.heads.c_gmvae import CGMVAEHead, sample
from cml_bench.models.heads.head import HeadOutput

if TYPE_CHECKING:
    from cml_bench.models.model import MultiLabelModel
    from cml_bench.streams.dataset import MultiLabelDataset

__all__ = ["CGMVAE"]


class CGMVAE(Criterion):
    """``coefficient * (three cross-entropies) + 6 KL + contrast``, for ``head=c_gmvae`` alone.

    With q(z|x) of the head and ``p(z|y)`` the uniform mixture of the Gaussians of the labels that are present: the
    embedding decoded from x and the mean of these Gaussians' means scores the labels once, those decoded from two draws
    of q twice; each costs a sum over labels, the mean over images. KL is ``log q(z|x) - log p(z|y)`` at a draw of q,
    the contrast ``1/|y| sum_{c in y} -log softmax_c(<emb, E_c>)`` for the first embedding and for the second, averaged.

    Source: Bai et al. 2022 (ICML), as in ``JunwenBai/C-GMVAE``. Cross-entropy and softmax are over the known labels of
    an image. Departure: an image without a present label (there 0 is divided by 0) has no mixture; the two
    cross-entropies from draws of q are all that it adds.

    Args:
        coefficient: Weight of the cross-entropies, > 0; published: 0.5 in the script, 0.1 as default of its program.
        divergence: Weight of KL, >= 0.

    Raises:
        CmlBenchError: If an option is out of range.
    """

    meta = CriterionMeta(
        name="c_gmvae",
        title="C-GMVAE",
        reference="ICML 2022, Bai et al.",
        reads="output",
        head="c_gmvae",
        exemptions={
            "order_of_images": "what is drawn for an image depends on its place in the batch",
            "order_of_labels": "the head's embeddings begin at random for each label",
            "companion_is_judged": "two readings that are judged one after the other get other draws",
        },
    )

    def __init__(self, coefficient: float = 0.5, divergence: float = 6.0) -> None:
        super().__init__()
        check_option("c_gmvae", "coefficient", coefficient, coefficient > 0, "positive")
        check_option("c_gmvae", "divergence", divergence, divergence >= 0, "0 or more")
        self.coefficient = coefficient
        self.divergence = divergence
        # In a list: a module would be a part of the criterion, and its parameters the criterion's own.
        self._head: list[CGMVAEHead] = []

    def build(self, model: MultiLabelModel, dataset: MultiLabelDataset) -> None:
        """Find the head whose Gaussians the loss is about.

        Raises:
            CmlBenchError: If it is another head.
        """
        if not isinstance(model.head, CGMVAEHead):
            raise CmlBenchError(f"loss=c_gmvae is about what head={model.head.meta.name} has not: set head=c_gmvae")
        self._head = [model.head]

    def start_epoch(self, model: MultiLabelModel, dataset: MultiLabelDataset, epoch: int, epochs: int) -> None:
        """Find the head again: a strategy may have put another in its place."""
        self.build(model, dataset)

    def judge(
        self, output: HeadOutput, labels: Tensor, sample_ids: Tensor | None, epoch: int, view: HeadOutput | None
    ) -> Tensor:
        """Return the loss; it draws anew, and reads of the output the pooled feature alone.

        Raises:
            CmlBenchError: If no model was shown to the criterion.
        """
        if not self._head:
            raise CmlBenchError("loss=c_gmvae was called without its model: build(model, dataset) comes before")
        head, pooled, n = self._head[0], output.pooled, labels.shape[1]
        mean, log_variance = head.encode(pooled)
        label_means, label_log_variances = (part[:n] for part in head.label_gaussians())
        present = labels == PRESENT
        rows = present.any(dim=1)
        shares = present / present.sum(dim=1, keepdim=True).clamp(min=1)

        by_labels = head.score(head.decode(pooled, shares.to(mean.dtype) @ label_means))[:, :n]
        by_image, again, drawn = (sample(mean, log_variance) for _ in range(3))
        logits, more = (head.score(head.decode(pooled, latent))[:, :n] for latent in (by_image, again))
        costs = [known_costs(by_labels, labels) * rows, known_costs(logits, labels), known_costs(more, labels)]

        likely = log_normal(drawn[:, None], label_means, label_log_variances)
        mixed = (likely.masked_fill(~present, torch.finfo(likely.dtype).min)).logsumexp(dim=1)
        mixed = mixed - present.sum(dim=1).clamp(min=1).log()
        divergence = torch.where(rows, log_normal(drawn, mean, log_variance) - mixed, 0)
        contrast = (present_costs(by_labels, labels) + present_costs(logits, labels)) / 2
        total = self.coefficient * sum(costs) + self.divergence * divergence + contrast
        return total.mean()


def known_costs(logits: Tensor, labels: Tensor) -> Tensor:
    """Return, for each image, the sum of cross-entropies over known labels, (B,)."""
    return torch.where(is_known(labels), binary_costs(logits, labels), 0).sum(dim=1)


def present_costs(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``1/|y| sum_{c in y} -log softmax_c`` over known labels, (B,); 0 without a present label."""
    present = labels == PRESENT
    shares = F.log_softmax(logits.masked_fill(~is_known(labels), torch.finfo(logits.dtype).min), dim=1)
    return -torch.where(present, shares, 0).sum(dim=1) / present.sum(dim=1).clamp(min=1)


def log_normal(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the log-density of a diagonal Gaussian at z, the sum over the last dimension."""
    squares = (z - mean).square() / log_variance.exp()
    return -(squares + log_variance + math.log(2 * math.pi)).sum(dim=-1) / 2
