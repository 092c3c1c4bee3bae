"""iCaRL: herded exemplars, and the old model's word for every old label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from avalanche.core import SupervisedPlugin
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from cml_bench.labels import OUT_OF_SCOPE
from cml_bench.memory.herding import HerdingMemory
from cml_bench.training.context import RunContext
from cml_bench.training.rehearsal import Rehearsal
from cml_bench.training.shown_labels import ShownLabelsPlugin
from cml_bench.training.strategy import StrategyMeta
from cml_bench.training.teacher import TeacherPlugin

__all__ = ["ICaRL"]


@dataclass(frozen=True)
class ICaRL(Rehearsal):
    """Rehearse herded exemplars, learn new labels from annotations and old ones from what the old model says.

    Source: Rebuffi et al. 2017, arXiv 1611.07725. Its loss (algorithm 3) is made of one sigmoid a class, so that it
    stands as it is for several labels: ``(n_old BCE(z, sigmoid(t)) + n_new L) / n_seen`` for stream images and
    exemplars alike, with BCE the mean over all entries of old labels, annotated or not, z and t their logits by the new
    and the old model, and L the loss on the new labels' annotations. The exemplars are ``HerdingMemory``'s. This is an
    adaptation; those in published multi-label tables are not described. Departures:

    - The classifier is the network's own output, the paper's variant "hybrid 1". The nearest mean of exemplars names
      one class an image; no form for several labels is published.
    - Entries of new labels that nobody annotated do not count (in the paper an exemplar is a negative of every new
      class), and what they learn from is the method's criterion.

    Attributes:
        refill: Whether a label's exemplars pass over images that are on another's, so that the memory is filled.
    """

    refill: bool = False

    meta = StrategyMeta(
        name="icarl", title="iCaRL (hybrid 1)", family="replay", reference="arXiv:1611.07725", compares_logits=True
    )

    def memory(self, run: RunContext) -> HerdingMemory:
        """Return a memory filled by herding."""
        return HerdingMemory(self.memory_size, refill=self.refill)

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the plugin that replays the memory and the one that replaces the loss."""
        return [*super().plugins(run), OldModelsWord()]


class OldModelsWord(ShownLabelsPlugin, TeacherPlugin):
    """Keeps old labels from the criterion once there is an old model, and takes that one's word for them."""

    def shown(self, strategy: Any) -> Tensor | None:
        """Return labels without the annotations of old ones."""
        if not self.n_old:
            return None
        hidden: Tensor = strategy.mb_y.clone()
        hidden[:, : self.n_old] = OUT_OF_SCOPE
        return hidden

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Put the annotations back, and average both kinds of labels by their numbers."""
        super().before_backward(strategy, **kwargs)
        if self.n_old:
            target = self.teach(strategy.mb_x).logits.sigmoid()
            old = binary_cross_entropy_with_logits(strategy.mb_output[:, : self.n_old], target)
            share = self.n_old / strategy.mb_output.shape[1]
            strategy.loss = share * old + (1 - share) * strategy.loss
