"""The head contract: from backbone features to one logit per seen label."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from cml_bench.models.layout import FeatureKind


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

    def without_gradient(self, entries: Tensor) -> HeadOutput:
        """Return the same, with no gradient through the (B, n) entries that are true."""
        logits, features, companion = self.logits, self.label_features, self.companion
        return self._replace(
            logits=torch.where(entries, logits.detach(), logits),
            label_features=None if features is None else torch.where(entries[..., None], features.detach(), features),
            companion=None if companion is None else companion.without_gradient(entries),
        )

    def full(self) -> HeadOutput:
        """Return the same in float32."""
        return HeadOutput(
            self.logits.float(),
            self.pooled.float(),
            None if self.label_features is None else self.label_features.float(),
            None if self.attention is None else self.attention.float(),
            None if self.companion is None else self.companion.full(),
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
        features: ``"pooled"`` if a (B, D) vector is enough, ``"map"`` if the spatial map is needed, ``"tokens"`` if the
            class token is to come before the positions where the backbone has one, ``"pyramid"`` if maps of several
            sizes are needed.
        growth_keeps_logits: Whether logits of old labels survive growth unchanged, with default options.
        reference: Paper.
        label_features: Whether the head reads a feature for each label from an image, rather than one for all.
        attention: Whether the head can say where each label looked (``Head.need_attention``).
        exemptions: Conformance checks that do not apply, each with its reason.
    """

    name: str
    title: str
    features: FeatureKind
    growth_keeps_logits: bool
    reference: str = ""
    label_features: bool = False
    attention: bool = False
    exemptions: Mapping[str, str] = field(default_factory=dict)


class Head(nn.Module, ABC):
    """A growing head.

    Parameters of labels are kept in one block per growth (``nn.ParameterList``), so growing touches no old tensor and
    the optimiser keeps its state. Constructor arguments after ``in_features`` are the head's options.

    Attributes:
        in_features: Width D of the pooled feature.
        label_names: Names of the labels seen so far, in arrival order.
        growth: Number of labels that each growth brought.
        need_attention: Whether ``forward`` returns where each label looked, if the head can tell; off by default, since
            training has no use for it.
    """

    meta: ClassVar[HeadMeta]
    need_attention: bool = False

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.label_names: tuple[str, ...] = ()
        self.growth: tuple[int, ...] = ()

    @property
    def n_labels(self) -> int:
        """Number of labels seen so far: the number of columns of the logits."""
        return len(self.label_names)

    @property
    def keeps_logits(self) -> bool:
        """Whether logits of old labels survive growth unchanged; a head whose options decide it overrides this."""
        return self.meta.growth_keeps_logits

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
        device = next(chain(self.parameters(), self.buffers()), torch.empty(0)).device
        # Drawn on the CPU, wherever they are needed: a seed starts the same on every device.
        self.to("cpu").add_labels(tuple(names))
        self.to(device)
        self.label_names += tuple(names)
        self.growth += (len(names),)

    @abstractmethod
    def add_labels(self, names: tuple[str, ...]) -> None:
        """Append one block of parameters for ``names``; leave every existing parameter as it is."""

    @abstractmethod
    def forward(self, features: Any) -> HeadOutput:
        """Return logits for the seen labels.

        Args:
            features: (B, D), (B, D, H, W) or (B, N, D); for a head that reads a pyramid, a tuple of maps.
        """

    def classifier_rows(self) -> Tensor | None:
        """Return the (n, d) rows w_c of a head whose logits are ``<w_c, f_c> + b_c``, None for any other.

        The f_c are the label features, or the pooled feature where there are none.
        """
        return None
