"""KAR: informed exemplars, and pseudo-labels in both directions of time."""

from __future__ import annotations

from dataclasses import dataclass

from avalanche.core import SupervisedPlugin

from cml_bench.memory.budget import MemorySize
from cml_bench.memory.kis import KISMemory
from cml_bench.training.context import RunContext
from cml_bench.training.option_types import Probability
from cml_bench.training.pseudo_labels import BELOW, Below, PseudoLabelPlugin
from cml_bench.training.rehearsal import Rehearsal
from cml_bench.training.relabel import Relabel
from cml_bench.training.strategy import StrategyMeta

__all__ = ["KAR"]


@dataclass(frozen=True)
class KAR(Rehearsal):
    """Rehearse images that stand for their label; label old labels of new images, and new labels of old images.

    Source: "Knowledge-Aware Replay for Multi-Label Class-Incremental Learning" as far as it is public: its manual and
    the module that selects exemplars, which ``KISMemory`` follows: for each label the images with the highest
    ``balance exp(-d) + (1 - balance) r``, with d the distance of an image's feature from the label's mean and r the
    mean probability of the new labels in it, both brought to between 0 and 1. Forward, the old model labels new images
    where ``p > threshold``, like ``pseudo_label``; backward, ``relabel=pseudo`` labels stored images by the new model
    where its probability is over 0.9, which is the released threshold. Both are for unknown entries alone, and an
    annotation that comes later wins.

    Inferred: the forward threshold, which is not public and by default the backward one; that an old label under it is
    absent, as in the methods of its kind; that stored images are labelled backward when an experience ends, old labels
    included (the released code asks about new ones, of images without a positive among them), and that what is not
    found there stays unknown; that replayed images are labelled forward as well. The released code overwrites the
    stored labels; here what was found is laid over them when they are read.

    Attributes:
        threshold: Probability over which the old model finds a label in a new image.
        below: Whether an old label that it does not find stays unknown or is absent (``zero``).
        balance: Weight of an image's nearness to its label's mean, against what it shows of the new labels.
    """

    memory_size: MemorySize = "20/label"
    relabel: Relabel = "pseudo"
    threshold: Probability = 0.9
    below: Below = "zero"
    balance: Probability = 0.5

    meta = StrategyMeta(
        name="kar",
        title="KAR",
        family="replay",
        reference="Knowledge-Aware Replay for Multi-Label Class-Incremental Learning",
        exemptions={"memory_labels_as_stored": "what the model finds in stored images is read over their labels"},
    )

    def memory(self, run: RunContext) -> KISMemory:
        """Return a memory of informed exemplars."""
        return KISMemory(self.memory_size, self.balance)

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the plugin that labels forward, and the one that replays and labels backward."""
        rest = BELOW[self.below]
        return [PseudoLabelPlugin(self.threshold, rest), *super().plugins(run)]
