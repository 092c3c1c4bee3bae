"""The criterion contract: a loss on logits and four-state labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor, nn

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.head import HeadOutput

if TYPE_CHECKING:
    from cml_bench.models.model import MultiLabelModel
    from cml_bench.streams.dataset import MultiLabelDataset


@dataclass(frozen=True)
class CriterionMeta:
    """What is declared of a criterion.

    Attributes:
        name: File stem and registry name.
        title: How tables call it.
        reference: Paper.
        reads: ``logits`` if these are enough, so that the criterion works wherever a loss does; ``output`` if it reads
            what else the head says, or keeps state by image and label; ``label_features`` if the head must have a
            feature for each label.
        views: Augmented views of each image that the criterion compares, 1 or 2.
        head: Name of the head that it is about, where it is about one; empty for any.
        open: Whether it learns from what the annotator left open, so that it can do without labels marked absent.
        exemptions: Conformance checks that do not apply, each with its reason.
    """

    name: str
    title: str
    reference: str = ""
    reads: Literal["logits", "output", "label_features"] = "logits"
    views: Literal[1, 2] = 1
    head: str = ""
    open: bool = False
    exemptions: Mapping[str, str] = field(default_factory=dict)


class Criterion(nn.Module):
    """A loss that reads four-state labels.

    A criterion overrides ``loss`` if logits are all it reads, else ``judge``. Parameters of its own are trained with
    the model's; what it keeps by image is keyed by ``sample_ids``, so that it follows an image into a memory and back.

    Attributes:
        spare: Number of leading columns whose unknown entries another loss term answers for (a teacher, say). A
            criterion that makes up targets for unknown entries leaves these alone; known entries always count.
        eval_batch_size: Images a step where it looks at many of them; the learner sets it.
        lr_factor: Learning rate of the criterion's own parameters, relative to the model's; they are not decayed. Those
            of a criterion that it is put on go by that one's.
    """

    meta: ClassVar[CriterionMeta]
    spare: int = 0
    eval_batch_size: int = 256

    lr_factor: float = 1.0

    @property
    def title(self) -> str:
        """How tables call it; a criterion that changes what another one reads says so."""
        return self.meta.title

    @property
    def with_bases(self) -> list[Criterion]:
        """This criterion and all that it is put on: what one of them needs, it needs."""
        return [part for part in self.modules() if isinstance(part, Criterion)]

    @property
    def views(self) -> int:
        """Augmented views of each image that this criterion, or one that it is put on, compares."""
        return max(layer.meta.views for layer in self.with_bases)

    def forward(
        self,
        output: HeadOutput | Tensor,
        labels: Tensor,
        sample_ids: Tensor | None = None,
        epoch: int = 0,
        view: HeadOutput | None = None,
    ) -> Tensor:
        """Return the scalar loss of a batch.

        Labels and logits are compared over the columns both have: a memory row is narrower than a grown head, a later
        experience's row wider than an earlier head. A companion of the output is judged too, and its loss added. A
        batch without images, or labels in common, costs 0, with a graph.

        Args:
            output: Head output, or bare (B, n) logits as Avalanche's own plugins pass them.
            labels: (B, m) four-state labels.
            sample_ids: (B,) stable ids, for criteria that keep state per image.
            epoch: Epoch within the experience, from 0.
            view: What the head says of a second augmented view of the same images, where ``views`` is 2 and images are
                augmented; else None.
        """
        logits = output.logits if isinstance(output, HeadOutput) else output
        width = min(logits.shape[1], labels.shape[1])
        # Slicing costs as much as a tenth of a linear head's step, so it is left out where nothing is cut.
        labels = labels if labels.shape[1] == width else labels[:, :width]
        if not labels.numel():
            # Here once for all: means over nothing divide by zero, and groups of none have no largest.
            return logits[:, :width].sum()
        if not isinstance(output, HeadOutput):
            return self.loss(logits if logits.shape[1] == width else logits[:, :width], labels)
        output, view = output.narrowed(width), view and view.narrowed(width)
        loss = self.judge(output, labels, sample_ids, epoch, view)
        if output.companion is not None:
            loss = loss + self.judge(output.companion, labels, sample_ids, epoch, view and view.companion)
        return loss

    def judge(
        self, output: HeadOutput, labels: Tensor, sample_ids: Tensor | None, epoch: int, view: HeadOutput | None
    ) -> Tensor:
        """Return the scalar loss of all that the head says; arguments as in ``forward``, with columns in common."""
        return self.loss(output.logits, labels)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of (B, n) logits under (B, n) four-state labels; 0 with a graph if nothing counts.

        Raises:
            CmlBenchError: If the criterion needs more than logits.
        """
        raise CmlBenchError(
            f"loss={self.meta.name} reads more than logits, and this strategy gives no more: take another loss"
        )

    def check_epochs(self, epochs: int) -> None:
        """Refuse experiences that are too short for it. Called before anything runs, and when one begins.

        Args:
            epochs: Epochs of an experience.

        Raises:
            CmlBenchError: If there are too few; a sentence that says how many it takes.
        """
        for part in self._parts():
            part.check_epochs(epochs)

    def start_experience(self, dataset: MultiLabelDataset) -> None:
        """Get ready for an experience: count its labels, add parameters. Called before the optimiser looks for them.

        Args:
            dataset: What is going to be trained on, as annotated; one chunk of it in an online stream.
        """
        for part in self._parts():
            part.start_experience(dataset)

    def build(self, model: MultiLabelModel, dataset: MultiLabelDataset) -> None:
        """Add the parameters whose shapes follow from the model's features and labels; leave those that are there.

        Called after ``start_experience``, when the model has grown and before the optimiser looks for parameters.

        Args:
            model: The model; to be left as it was found.
            dataset: What is going to be trained on.
        """
        for part in self._parts():
            part.build(model, dataset)

    def start_epoch(self, model: MultiLabelModel, dataset: MultiLabelDataset, epoch: int, epochs: int) -> None:
        """Get ready for an epoch: look at all images, enter another phase.

        Args:
            model: The model, in training mode; what is changed of it, ``end_experience`` puts back.
            dataset: What is being trained on.
            epoch: Epoch within the experience, from 0.
            epochs: Epochs of the experience.

        Raises:
            CmlBenchError: If there are too few.
        """
        if epoch == 0:
            self.check_epochs(epochs)
        for part in self._parts():
            part.start_epoch(model, dataset, epoch, epochs)

    def end_experience(self, model: MultiLabelModel) -> None:
        """Put back what phases changed of the model.

        Called before plugins hear that training has ended, and in a federation after each round of a client.
        """
        for part in self._parts():
            part.end_experience(model)

    def _parts(self) -> list[Criterion]:
        return [part for part in self.children() if isinstance(part, Criterion)]
