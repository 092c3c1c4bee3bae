"""Labels that the criterion alone is shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from avalanche.core import SupervisedPlugin
from torch import Tensor


class ShownLabelsPlugin(SupervisedPlugin, ABC):
    """Shows the criterion other labels of a batch than were annotated; everything else reads what was.

    Attributes:
        annotated: (B, n) four-state labels of the batch while the criterion is shown others; else None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.annotated: Tensor | None = None

    @abstractmethod
    def shown(self, strategy: Any) -> Tensor | None:
        """Return the (B, n) labels to show, a tensor of their own; None for those that were annotated."""

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Show them."""
        shown = self.shown(strategy)
        if shown is not None:
            self.annotated, strategy.mbatch[1] = strategy.mb_y, shown

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Put back what was annotated."""
        if self.annotated is not None:
            strategy.mbatch[1], self.annotated = self.annotated, None
