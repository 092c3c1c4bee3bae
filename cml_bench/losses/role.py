"""ROLE: a classifier and an estimate of every image's labels teach each other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.labels import ABSENT, PRESENT, UNMARKED, is_known
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.entries import binary_costs, judged_entries, reduced
from cml_bench.losses.entry_store import EntryStore, keys_of, required
from cml_bench.losses.expected_positives import check_count, count_penalty
from cml_bench.models.heads.head import HeadOutput

if TYPE_CHECKING:
    from cml_bench.streams.dataset import MultiLabelDataset

__all__ = ["ROLE"]

_UNSURE, _SURE = math.log(0.6 / 0.4), math.log(0.995 / 0.005)
"""Logits of the first estimates: up to this where a label is open, this where it is known."""


class ROLE(Criterion):
    """Regularised online label estimation.

    Every label asked for of an image has an estimate ``g = sigmoid(theta)``, a parameter of this criterion. With H the
    cross-entropy, sg "no gradient" and R the regulariser of EPR, the loss is half the sum of what the classifier
    costs, ``BCE(p) + H(sg g, p) + R(p)``, and what the estimate costs, ``BCE(g) + H(sg p, g) + R(g)``. BCE is over
    known labels and H over all that were asked for; both are divided by the number of these.

    Source: Cole et al. 2021, arXiv 2106.09708, and the authors' code, the first estimates included: 0.995 and 0.005
    where a label is known, a logit drawn uniformly between those of 0.4 and 0.6 where it is open. The rate of the
    estimates is ten times the model's. Labels that are verified to be absent, which the paper does not have, enter
    like positives.

    In a stream, estimates are kept by image and label. An experience adds those of the labels that it asks for, where
    there are none yet, in a block of its own; an image keeps its estimates when it comes back or is replayed, and they
    go on being trained. Under ``annotation=all``, where later labels are annotated in earlier images too, all images
    seen get estimates of them. Where there is no estimate (a pseudo-label of a label that nobody asked for), a known
    label counts by itself.

    Args:
        k: Expected number of positives among the labels asked for of an image; see ``epr`` for the default and the
            published values.

    Raises:
        CmlBenchError: If k is not positive.
    """

    meta = CriterionMeta(name="role", title="ROLE", reference="arXiv:2106.09708", reads="output", open=True)
    lr_factor = 10.0

    def __init__(self, k: float | None = None) -> None:
        super().__init__()
        check_count("role", k)
        self.k = k
        self.blocks = nn.ParameterList()
        # Where an entry's estimate stands in all blocks, one after the other.
        self.places = EntryStore(-1)

    def start_experience(self, dataset: MultiLabelDataset) -> None:
        """Add estimates of the labels that are asked for, where there are none yet."""
        ids, states = dataset.sample_ids.data, dataset.labels.data
        if dataset.labels.record is not None:
            ids = torch.cat([ids, self.places.sample_ids.to(ids.device)]).unique()
            states = dataset.labels.record[ids, : states.shape[1]]
        keys = keys_of(ids, states.shape[1])
        known = self.places.find(keys.to(self.places.keys.device)).to(keys.device) >= 0
        new = (states >= UNMARKED) & ~known
        keys, states = keys[new], states[new]
        if not len(keys):
            return
        first = _UNSURE * (2 * torch.rand(len(keys)) - 1)
        first = first.masked_fill(states == PRESENT, _SURE).masked_fill(states == ABSENT, -_SURE)
        self.places.put(keys, len(self.places) + torch.arange(len(keys)))
        self.blocks.append(nn.Parameter(first))

    def judge(
        self, output: HeadOutput, labels: Tensor, sample_ids: Tensor | None, epoch: int, view: HeadOutput | None
    ) -> Tensor:
        """Return the loss of a batch, or 0 with a graph if nothing was asked for.

        Raises:
            CmlBenchError: If the images have no ids.
        """
        logits, judged, ids = output.logits, judged_entries(labels, self.spare), required(sample_ids, "role")
        places = self.places.find(keys_of(ids.to(self.places.keys.device), labels.shape[1]))
        places = places.masked_fill(~judged, -1)
        estimated = places >= 0
        estimates = self._estimates(places).to(logits.dtype)
        mutual = F.binary_cross_entropy_with_logits(logits, estimates.detach().sigmoid(), reduction="none")
        mutual = mutual + F.binary_cross_entropy_with_logits(estimates, logits.detach().sigmoid(), reduction="none")
        own = binary_costs(estimates, labels) * is_known(labels) + mutual
        costs = binary_costs(logits, labels) * is_known(labels) + torch.where(estimated, own, 0)
        regularisers = count_penalty(logits.sigmoid(), labels, judged, self.k)
        regularisers = regularisers + count_penalty(estimates.sigmoid(), labels, estimated, self.k)
        return (reduced(costs, judged) + regularisers) / 2

    def _estimates(self, places: Tensor) -> Tensor:
        """Return (B, n) logits of the estimates at some places, 0 where there is none."""
        ends = torch.tensor([len(block) for block in self.blocks]).cumsum(dim=0)
        which = torch.bucketize(places, ends.to(places.device), right=True).masked_fill(places < 0, -1)
        found = torch.zeros(places.shape, device=places.device)
        # A block of which the batch needs nothing gets no gradient, and the optimiser leaves it as it is.
        for each in which[which >= 0].unique().tolist():
            block, inside = self.blocks[each], which == each
            start = int(ends[each]) - len(block)
            found = found.to(block).masked_scatter(inside, block[places[inside] - start])
        return found
