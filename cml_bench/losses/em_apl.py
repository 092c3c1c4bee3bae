"""EM + APL: entropy maximisation, and soft labels for what the model thinks most surely absent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from cml_bench.labels import UNMARKED
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.em import entropies
from cml_bench.losses.entries import binary_costs, check_option, judged_entries, open_entries, reduced
from cml_bench.losses.entry_store import EntryStore, keys_of, required
from cml_bench.models.heads.head import HeadOutput
from cml_bench.models.reading import read_logits

if TYPE_CHECKING:
    from cml_bench.models.model import MultiLabelModel
    from cml_bench.streams.dataset import MultiLabelDataset

__all__ = ["EMAPL"]


class EMAPL(Criterion):
    """Entropy maximisation with asymmetric pseudo-labelling.

    After a warm-up, at the start of each epoch, the model looks at all images of the experience, in evaluation mode and
    without augmentation. Of each label it takes the open entries with the lowest probabilities, the same number every
    epoch (to rounding), so that in the end ``share`` of them have been taken; the probability becomes the soft label of
    the entry and stays it. An entry with soft label t costs ``beta (-t log p - (1 - t) log(1 - p))``; all others as in
    ``em``.

    Soft labels are kept apart from the annotations, by image and label, so that an image which is replayed or comes
    back brings its own. New ones are made in the images of the current experience alone.

    Source: Zhou et al. 2022, arXiv 2203.16219 ("Acknowledging the Unknown"), and the authors' code (which writes soft
    labels into the label matrix, negated). Their settings: alpha 0.1, beta 0.9 and a warm-up of 5 in 10 epochs for COCO
    (the default); 0.2, 0.02, 5 for VOC; 0.1, 0.2, 4 for NUS-WIDE; 0.01, 0.4, 3 for CUB; share 0.9. The warm-up is a
    share of an experience's epochs here; a single epoch has no soft labels.

    Args:
        alpha: Weight of the entropy, >= 0.
        beta: Weight of the soft labels, >= 0.
        warm_up: Share of an experience's epochs without soft labels, at least 0 and below 1; one epoch at least.
        share: Part of each label's open entries that is to have a soft label in the end, in [0, 1].

    Raises:
        CmlBenchError: If an option is out of range.
    """

    meta = CriterionMeta(name="em_apl", title="EM + APL", reference="arXiv:2203.16219", reads="output", open=True)

    def __init__(self, alpha: float = 0.1, beta: float = 0.9, warm_up: float = 0.5, share: float = 0.9) -> None:
        super().__init__()
        check_option("em_apl", "alpha", alpha, alpha >= 0, "0 or more")
        check_option("em_apl", "beta", beta, beta >= 0, "0 or more")
        check_option("em_apl", "warm_up", warm_up, 0 <= warm_up < 1, "at least 0 and below 1")
        check_option("em_apl", "share", share, 0 <= share <= 1, "from 0 to 1")
        self.alpha = alpha
        self.beta = beta
        self.warm_up = warm_up
        self.share = share
        self.soft = EntryStore(torch.nan)
        self.n_open = torch.zeros(0, dtype=torch.int64)

    def start_experience(self, dataset: MultiLabelDataset) -> None:
        """Count each label's open entries without a soft label."""
        self.n_open = self._free(dataset).sum(dim=0)

    def start_epoch(self, model: MultiLabelModel, dataset: MultiLabelDataset, epoch: int, epochs: int) -> None:
        """Give the next entries of each label a soft label, once the warm-up is over."""
        warm = max(1, round(self.warm_up * epochs))
        if epoch < warm:
            return
        device = next(model.parameters()).device
        free = self._free(dataset)
        scores = read_logits(model, dataset, self.eval_batch_size, device).sigmoid().cpu()[:, : free.shape[1]]
        # What is due by now less what has been taken: rounding down in each epoch would leave some without.
        due = (self.share * self.n_open.double() * (epoch - warm + 1) / (epochs - warm)).round().long()
        quota = due - (self.n_open - free.sum(dim=0))
        rank = scores.masked_fill(~free, torch.inf).argsort(dim=0, stable=True).argsort(dim=0)
        taken = free & (rank < quota)
        self.soft.put(keys_of(dataset.sample_ids.data, free.shape[1])[taken], scores[taken])

    def judge(
        self, output: HeadOutput, labels: Tensor, sample_ids: Tensor | None, epoch: int, view: HeadOutput | None
    ) -> Tensor:
        """Return the mean over the labels asked for, or 0 with a graph.

        Raises:
            CmlBenchError: If the images have no ids.
        """
        logits, ids = output.logits, required(sample_ids, "em_apl")
        soft = self.soft.find(keys_of(ids.to(self.soft.keys.device), labels.shape[1])).to(logits.dtype)
        pseudo = self.beta * F.binary_cross_entropy_with_logits(logits, soft.nan_to_num(), reduction="none")
        unmarked = torch.where(soft.isnan(), -self.alpha * entropies(logits), pseudo)
        costs = torch.where(open_entries(labels, self.spare), unmarked, binary_costs(logits, labels))
        return reduced(costs, judged_entries(labels, self.spare))

    def _free(self, dataset: MultiLabelDataset) -> Tensor:
        """Return the (N, n) mask of open entries without a soft label."""
        states = dataset.labels.data
        keys = keys_of(dataset.sample_ids.data, states.shape[1])
        return (states == UNMARKED) & self.soft.find(keys.to(self.soft.keys.device)).isnan().to(states.device)
