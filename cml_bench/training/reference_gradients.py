"""Gradients of past experiences that a step must not contradict: what GEM and A-GEM have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from cml_bench.labels import is_known
from cml_bench.memory.by_experience import ExperienceMemory
from cml_bench.models.evaluating import evaluating
from cml_bench.streams.dataset import Batch, MultiLabelDataset


class ReferenceGradientPlugin(SupervisedPlugin, ABC):
    """Compares each step's gradient with gradients on a memory, and corrects it if they disagree.

    A stored image counts for the labels it was annotated for; rows of later labels get a reference gradient of 0 and
    are never constrained. References are taken in evaluation mode and without augmentation, so batch-norm statistics
    move with the stream alone (Avalanche's plugins move them with every reference). A gradient that agrees is left as
    it is, to the bit.

    Args:
        memory: Past images, by experience.
    """

    def __init__(self, memory: ExperienceMemory) -> None:
        super().__init__()
        self.memory = memory
        self.past: list[MultiLabelDataset] = []

    @abstractmethod
    def references(self, strategy: Any) -> list[Tensor]:
        """Return reference gradients, each as one vector of the trainable parameters."""

    @abstractmethod
    def correct(self, gradient: Tensor, references: Tensor) -> Tensor:
        """Return the gradient (P,) to take in place of one that some of (k, P) references contradict."""

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Read the memory for the experience."""
        names = strategy.experience.dataset.labels.names
        self.past = [part.eval() for part in self.memory.past(names)]

    def after_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Correct the gradient if it would raise the loss on the memory."""
        if not self.past:
            return
        parameters = trainable(strategy.model)
        gradient = flat([p.grad for p in parameters], parameters)
        with evaluating(strategy.model):
            references = torch.stack(self.references(strategy))
        if bool((references @ gradient < 0).any()):
            corrected = self.correct(gradient, references)
            for parameter, part in zip(parameters, corrected.split([p.numel() for p in parameters]), strict=True):
                # One without a gradient takes no part in the loss: the optimiser is to leave it alone.
                if parameter.grad is not None:
                    parameter.grad = part.view_as(parameter)

    def gradient_on(self, strategy: Any, batches: Iterable[Batch]) -> Tensor:
        """Return the gradient (P,) of the criterion on images of the memory.

        Batches are weighted by their known entries, so how many there are makes no difference to a criterion that is a
        mean over known entries. One without any counts as one entry: a criterion may learn from open ones.
        """
        parameters = trainable(strategy.model)
        total, entries = torch.zeros(sum(p.numel() for p in parameters), device=strategy.device), 0
        for batch in batches:
            known = max(1, int(is_known(batch[1]).sum()))
            output = strategy.model.head_output(batch[0].to(strategy.device))
            labels, epoch = batch[1].to(strategy.device), strategy.clock.train_exp_epochs
            loss = strategy._criterion(output, labels, batch.sample_id, epoch)
            total += known * flat(torch.autograd.grad(loss, parameters, allow_unused=True), parameters)
            entries += known
        return total / max(1, entries)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Show the experience to the memory."""
        self.memory.post_adapt(strategy, strategy.experience)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def flat(gradients: Sequence[Tensor | None], parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return gradients as one vector; a parameter without one counts as zeros."""
    pairs = zip(gradients, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).detach().flatten() for g, p in pairs])
