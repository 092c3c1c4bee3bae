"""Experience replay with a label-balanced reservoir."""

from __future__ import annotations

from dataclasses import dataclass

from cml_bench.memory.label_balanced import LabelBalancedMemory
from cml_bench.training.context import RunContext
from cml_bench.training.rehearsal import Rehearsal
from cml_bench.training.strategy import StrategyMeta

__all__ = ["ERBalanced"]


@dataclass(frozen=True)
class ERBalanced(Rehearsal):
    """Experience replay from a memory that holds as many images for every label.

    An image belongs to that label c it shows which fewest images showed so far. Once the memory is full, it replaces an
    image of the label that holds most where ``m_c < max_j m_j``, else one of c with probability ``m_c / n_c``, with m_c
    the stored and n_c all images that belong to c.

    Source: CBRS (Chrysakis and Moens 2020, ICML) for one label an image; the form for several labels is inferred, see
    ``LabelBalancedMemory``. Departure: in CBRS a class that once held most never grows again, here it may after it has
    shrunk. In an online stream the memory is updated after each step, else after each experience.
    """

    meta = StrategyMeta(
        name="er_balanced",
        title="ER (label-balanced)",
        family="replay",
        reference="Chrysakis and Moens, ICML 2020",
    )

    def memory(self, run: RunContext) -> LabelBalancedMemory:
        """Return a label-balanced reservoir."""
        return LabelBalancedMemory(self.memory_size, run.generator("memory"))
