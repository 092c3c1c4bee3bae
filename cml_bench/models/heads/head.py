"""The head contract: from backbone features to one logit per seen label."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor, nn


class HeadOutput(NamedTuple):
    """What a head says of a batch of B images with n seen labels.

    Attributes:
        logits: (B, n), columns in arrival order.
        pooled: (B, D) one feature per image.
        label_features: (B, n, d) one feature per label, or None where the head shares one feature.
        attention: (B, heads, n, H, W) where each label looked, rows summing to 1 over H x W, or None.
        companion: Another reading of the same images that the criterion judges as well, or None.
    """

    logits: Tensor
    pooled: Tensor
    label_features: Tensor | None = None
    attention: Tensor | None = None
    companion: HeadOutput | None = None

    def narrowed(self, width: int) -> HeadOutput:
        """Return what is said of the first ``width`` labels."""
        # Slicing costs as much as a tenth of a linear head's step, so it is left out where nothing is cut.
        if self.logits.shape[1] == width:
            return self
        return self._replace(
            logits=self.logits[:, :width],
            label_features=None if self.label_features is None else self.label_features[:, :width],
            attention=None if self.attention is None else self.attention[:, :, :width],
            companion=None if self.companion is None else self.companion.narrowed(width),
        )

    def rows(self, which: slice) -> HeadOutput:
        """Return what is said of some of the images."""
        return HeadOutput(
            self.logits[which],
            self.pooled[which],
            None if self.label_features is None else self.label_features[which],
            None if self.attention is None else self.attention[which],
            None if self.companion is None else self.companion.rows(which),
        )


@dataclass(frozen=True)
class HeadMeta:
    """What is declared of a head.

    Attributes:
        name: File stem and registry name.
        title: How tables call it.
        features: ``"pooled"`` if a (B, D) vector is enough, ``"map"`` if the spatial map is needed.
        growth_keeps_logits: Whether logits of old labels survive growth unchanged.
        reference: Paper.
        label_features: Whether the head reads a feature for each label from an image, rather than one for all.
    """

    name: str
    title: str
    features: Literal["pooled", "map"]
    growth_keeps_logits: bool
    reference: str
    label_features: bool = False


class Head(nn.Module, ABC):
    """A growing head.

    Parameters of labels are kept in one block per growth (``nn.ParameterList``), so growing touches no old tensor and
    the optimiser keeps its state. Constructor arguments after ``in_features`` are the head's options.
    """

    meta: ClassVar[HeadMeta]

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.label_names: tuple[str, ...] = ()

    @property
    def n_labels(self) -> int:
        """Number of labels seen so far: the number of columns of the logits."""
        return len(self.label_names)

    def grow(self, names: Sequence[str]) -> None:
        """Add labels to the right of the old ones.

        Raises:
            ValueError: If a name is already there.
        """
        known = set(self.label_names)
        for name in names:
            if name in known:
                raise ValueError(f"label {name!r} is already in the head")
            known.add(name)
        self.add_labels(tuple(names))
        self.label_names += tuple(names)

    @abstractmethod
    def add_labels(self, names: tuple[str, ...]) -> None:
        """Append one block of parameters for ``names``; leave every existing parameter as it is."""

    @abstractmethod
    def forward(self, features: Tensor) -> HeadOutput:
        """Read features (B, D), (B, D, H, W) or (B, N, D) and return logits for the seen labels."""
