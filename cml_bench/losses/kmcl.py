"""KMCL: a Gaussian of its own for each label of each image, fitted to the feature and contrasted by its kernel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cml_bench.labels import PRESENT, is_known
from cml_bench.losses.auxiliary import Auxiliary
from cml_bench.losses.contrast import jaccard, log_shares, others
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.entries import check_option
from cml_bench.losses.mixture import Components, bhattacharyya, log_kernel
from cml_bench.models.heads.head import HeadOutput

__all__ = ["KMCL"]


class KMCL(Auxiliary):
    """``base + weight * (reconstruction + contrast)`` over Gaussian components that the criterion reads from features.

    The paper reads pi, mean and variance of each label's component from the pooled feature with three linear layers,
    and pi are the logits. Here pi are the logits of the method's head, whichever that is (with ``head=linear`` the
    paper's), and the criterion owns the other two layers, which grow with the labels.

    Reconstruction: ``-1/B sum_n log( sum_{k present} sig(pi_nk) G_nk / sum_{k known} sig(pi_nk) G_nk )`` with
    ``G = exp(-|f - mu 1|^2 / (2 var))`` of the pooled feature. Contrast: with ``rho = exp(-BD)`` of the same label's
    components of two images, ``-1/B sum_n 1/|A(n)| sum_{m in A(n)} sum_{k shared} log( J(y_n, y_m) e^(rho_nmk/T) /
    sum_{i != n} e^(rho_nik/T) )``, A(n) the images of the batch that share a label with n, J the Jaccard index.

    An image that is not known to have label k or not is compared with none on k; J is over the labels known of both
    images. So images of experiences without a label in common are not compared at all.

    Source: arXiv 2307.03967; ``mahdihosseini/KMCL``, isotropic case, in log space. Departures: the release drops an
    anchor that shares a label with the whole batch, here it counts; it bounds logarithms by 1e-7, here they are exact.
    Memory: some (B, B, n) arrays.

    Args:
        base: The criterion that judges the logits; published is ASL, summed.
        weight: Weight of reconstruction and contrast, >= 0; published is 1.
        temperature: The T that kernels are divided by, > 0.

    Raises:
        CmlBenchError: If an option is out of range.
    """

    meta = CriterionMeta(name="kmcl", title="KMCL", reference="arXiv:2307.03967", reads="output")

    def __init__(
        self,
        base: str | Criterion = "asl gamma_pos=1 detach_focal=false reduction=sum",
        weight: float = 1.0,
        temperature: float = 0.17,
    ) -> None:
        super().__init__(base, weight)
        check_option("kmcl", "temperature", temperature, temperature > 0, "positive")
        self.temperature = temperature
        self.components = Components()

    def fit(self, output: HeadOutput) -> None:
        """Add rows of means and variances for labels that have none."""
        self.components.reach(output.logits.shape[1], output.pooled)

    def judge(
        self, output: HeadOutput, labels: Tensor, sample_ids: Tensor | None, epoch: int, view: HeadOutput | None
    ) -> Tensor:
        """Return reconstruction plus contrast."""
        self.fit(output)
        n = labels.shape[1]
        means, variances = (part[:, :n] for part in self.components(output.pooled))
        log_weighted = F.logsigmoid(output.logits) + log_kernel(output.pooled, means, variances)
        distance = bhattacharyya(means, variances, output.pooled.shape[1])
        return reconstruction(log_weighted, labels) + kernel_contrast(distance, labels, self.temperature)


def reconstruction(log_weighted: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over images of ``-log( sum_{k present} w_k / sum_{k known} w_k )``.

    Args:
        log_weighted: (B, n) log w.
        labels: (B, n) four-state labels.

    Returns:
        A scalar with a graph, >= 0; an image without a present label adds 0 and counts.
    """
    present = labels == PRESENT
    # The lowest number: an image without a present label has no logarithm of a share.
    lowest = torch.finfo(log_weighted.dtype).min
    shares = log_shares(log_weighted, is_known(labels))
    explained = shares.masked_fill(~present, lowest).logsumexp(dim=1)
    return -torch.where(present.any(dim=1), explained, 0).mean()


def kernel_contrast(distance: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the contrast of ``exp(-distance)`` described in ``KMCL``.

    Args:
        distance: (B, B, n) distances between the same label's components.
        labels: (B, n) four-state labels.
        temperature: What kernels are divided by.

    Returns:
        A scalar with a graph.
    """
    known, present = is_known(labels), labels == PRESENT
    apart = others(len(labels), labels.device)[:, :, None]
    among, shared = (apart & state[:, None] & state for state in (known, present))
    shares = log_shares((-distance).exp() / temperature, among, dim=1)
    # Where a label is shared the index is not 0.
    overlap = jaccard(labels).clamp(min=1 / labels.shape[1]).log()[:, :, None]
    partners = shared.any(dim=2).sum(dim=1).clamp(min=1)
    return -((shared * (shares + overlap)).sum(dim=(1, 2)) / partners).mean()
