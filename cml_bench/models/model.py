"""The model that strategies train: a backbone and a head that grows with the labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from avalanche.benchmarks import CLExperience
from avalanche.models import DynamicModule
from torch import Tensor, nn

from cml_bench.models.heads.head import Head, HeadOutput

if TYPE_CHECKING:
    from cml_bench.models.wrappers.wrapper import Wrapper


@contextmanager
def nothing_learnt(model: nn.Module) -> Iterator[None]:
    """Let a model grow that nobody has trained: a head that freezes what old labels own freezes nothing."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    yield
    for parameter in trainable:
        parameter.requires_grad_(True)


class MultiLabelModel(DynamicModule):
    """Backbone and growing head as an Avalanche dynamic module.

    ``forward`` returns bare logits, as every Avalanche plugin expects; ``head_output`` returns all that the head says.

    Args:
        backbone: Images to features; None when the inputs are the cached features of a frozen one.
        head: Growing head.

    Attributes:
        wrapper: What reads images in another way than once and whole; None by default.
        bf16: Whether backbone and head compute in bfloat16 where autocast finds that safe. Parameters, and all that the
            model says, are float32 all the same.
    """

    def __init__(self, backbone: nn.Module | None, head: Head) -> None:
        super().__init__()
        # Channels-last convolutions are 1.2 to 1.5 times as fast on a CPU, and at least as fast on a GPU.
        self.backbone = nn.Identity() if backbone is None else backbone.to(memory_format=torch.channels_last)
        self.head = head
        self.wrapper: Wrapper | None = None
        self.bf16 = False

    def wrap(self, wrapper: Wrapper, make_head: Callable[[], Head]) -> None:
        """Put a wrapper around a model that has no labels yet; ``make_head`` makes another head like the model's."""
        wrapper.prepare(self, make_head)
        self.wrapper = wrapper

    def take_off(self) -> Wrapper | None:
        """Take a wrapper off that is about predictions alone, and return it; one that learns stays on."""
        wrapper = self.wrapper
        if wrapper is None or wrapper.meta.learns:
            return None
        self.wrapper = None
        return wrapper

    def adaptation(self, experience: CLExperience) -> None:
        """Add the experience's labels to the head; only in training, so that evaluation never grows a model."""
        if not self.training:
            return
        names = experience.dataset.labels.names
        known = self.head.label_names
        if names[: len(known)] != known[: len(names)]:
            raise ValueError("the experience's labels are not in the order in which the head has learnt them")
        if len(names) > len(known):
            self.head.grow(names[len(known) :])
            if self.wrapper is not None:
                self.wrapper.grow(names[len(known) :])

    def head_output(self, x: Tensor) -> HeadOutput:
        """Return logits, pooled feature, label features and attention of (B, ...) inputs."""
        if not self.bf16:
            return self._output(x)
        with torch.autocast(x.device.type, torch.bfloat16):
            return self._output(x).full()

    def _output(self, x: Tensor) -> HeadOutput:
        output: HeadOutput = self.read(x) if self.wrapper is None else self.wrapper(self, x)
        return output

    def read(self, x: Tensor) -> HeadOutput:
        """Return what backbone and head say of (B, ...) inputs, read once and whole."""
        output: HeadOutput = self.head(self.backbone(x))
        return output

    def forward(self, x: Tensor) -> Tensor:
        """Return the (B, n) logits of the labels seen so far."""
        return self.head_output(x).logits
