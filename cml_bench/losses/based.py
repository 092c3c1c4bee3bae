"""A criterion that is put on another one."""

from __future__ import annotations

from cml_bench.losses.criterion import Criterion
from cml_bench.losses.specification import as_criterion


class Based(Criterion):
    """A criterion that leaves the judgement of logits to another, its base, and says so in its title.

    Args:
        base: A name, with options if need be (``"asl reduction=sum"``), or a criterion object.

    Raises:
        CmlBenchError: If the base or one of its options is unknown.
    """

    def __init__(self, base: str | Criterion) -> None:
        super().__init__()
        self.base = as_criterion(base)

    @property
    def title(self) -> str:
        """How tables call it: never without what it is put on."""
        return f"{self.meta.title} ({self.base.title})"

    @property
    def spare(self) -> int:
        """Number of leading columns whose unknown entries are left alone, here and in the base."""
        return self.base.spare

    @spare.setter
    def spare(self, columns: int) -> None:
        self.base.spare = columns
