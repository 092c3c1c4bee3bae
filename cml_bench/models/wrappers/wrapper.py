"""The wrapper contract: a model's images, read in another way than once and whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from cml_bench.models.heads.head import Head, HeadOutput

if TYPE_CHECKING:
    from cml_bench.models.model import MultiLabelModel


@dataclass(frozen=True)
class WrapperMeta:
    """What is declared of a wrapper.

    Attributes:
        name: File stem and registry name.
        title: How tables call it.
        reference: Paper.
        learns: Whether it has parts that learn from ``HeadOutput.companion``, which the criterion must be given.
    """

    name: str
    title: str
    reference: str = ""
    learns: bool = False


class Wrapper(nn.Module, ABC):
    """What stands between an image and a model.

    It is a part of the model, so what it learns is trained, copied and stored with it. Constructor arguments are its
    options. A model with a wrapper reads images: neither cached features nor vectors of a data set have parts.
    """

    meta: ClassVar[WrapperMeta]

    def prepare(self, model: MultiLabelModel, make_head: Callable[[], Head]) -> None:
        """Get what is needed to read a model's images.

        Args:
            model: The model, its head still without labels.
            make_head: Makes another head like the model's.

        Raises:
            CmlBenchError: If it cannot wrap such a model; said before anything runs.
        """

    def grow(self, names: Sequence[str]) -> None:
        """Add labels to heads of its own; the model's head has them by now."""

    @abstractmethod
    def forward(self, model: MultiLabelModel, images: Tensor) -> HeadOutput:
        """Return what is said of images (B, 3, H, W); ``model.read`` is the model without the wrapper."""
