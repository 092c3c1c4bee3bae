"""The strategy contract: how a learner trains on the stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from avalanche.benchmarks import DatasetExperience
from avalanche.core import SupervisedPlugin
from torch import nn

from cml_bench.models.heads.head import Head
from cml_bench.models.model import MultiLabelModel

if TYPE_CHECKING:
    from cml_bench.training.context import RunContext


@dataclass(frozen=True)
class StrategyMeta:
    """What is declared of a strategy.

    Attributes:
        name: File stem and registry name, snake_case.
        title: The paper's spelling, kept with every result.
        family: ``baseline``, ``bound``, ``regularization``, ``replay``, ``distillation``, ``analytic``, ``graph``,
            ``prompt``, ``query``, or a word of one's own. Bounds are shown in tables and not ranked.
        reference: Paper.
        head: Head used unless the method names one.
        loss: Criterion used unless the method names one.
        backbone: ``any``, or ``vit`` for a strategy whose ``build_model`` refuses all but a timm Vision Transformer.
        criterion: ``any``, or ``logits`` for a strategy that asks the criterion about logits alone.
        compares_logits: Whether it holds the logits of a training step to what the model said in evaluation. A wrapper
            that trains two readings apart and evaluates their mean is refused then.
        federated: Whether the clients of a federation can train it in turn on one model: not if it puts another module
            in the place of one.
        exemptions: Conformance checks that do not apply, each with its reason.
    """

    name: str
    title: str
    family: str
    reference: str = ""
    head: str = "linear"
    loss: str = "bce"
    backbone: Literal["any", "vit"] = "any"
    criterion: Literal["any", "logits"] = "any"
    compares_logits: bool = False
    federated: bool = True
    exemptions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Strategy:
    """A frozen set of hyper-parameters that knows which plugins make up its learner.

    Subclasses are frozen dataclasses with a ``meta``; every field is an option of the command line.
    """

    meta: ClassVar[StrategyMeta]

    def build_model(self, backbone: nn.Module | None, head: Head) -> MultiLabelModel:
        """Return the model to train: backbone and head, unless the strategy puts something between or beside them.

        Args:
            backbone: Images to features; None where the inputs are cached features of a frozen one.
            head: Head, still without labels.

        Raises:
            CmlBenchError: If the strategy cannot use the backbone; said before anything runs.
        """
        return MultiLabelModel(backbone, head)

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the Avalanche plugins of one run; none by default."""
        return []

    def curriculum(
        self, stream: Iterable[Sequence[DatasetExperience]], run: RunContext
    ) -> Iterator[Sequence[DatasetExperience]]:
        """Yield, for each experience of the stream, what to train on before the next evaluation.

        Args:
            stream: The experiences, each as the sequence of its chunks (one unless the stream is online). It is
                consumed lazily: a strategy that takes the next item before it has trained on the last one looks ahead,
                and only bounds may.
            run: The run's context.
        """
        yield from stream
