"""Elastic weight consolidation with a per-image Fisher information."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from avalanche.core import SupervisedPlugin
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import binary_cross_entropy_with_logits

from cml_bench.labels import PRESENT, is_known
from cml_bench.streams.dataset import MultiLabelDataset, merge
from cml_bench.streams.loading import BatchLoader
from cml_bench.streams.timeline import ends_experience
from cml_bench.training.context import RunContext
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["EWC"]


@dataclass(frozen=True)
class EWC(Strategy):
    """Penalise moving parameters that the old labels' likelihood depends on.

    Source: Kirkpatrick et al. 2017, arXiv 1612.00796, with the likelihood of independent labels: the sum over known
    entries of the Bernoulli log-likelihood. The Fisher information is the mean over images of the squared gradient of
    one image (Avalanche squares the gradient of a batch mean, in which opposite signs cancel), in evaluation mode,
    without augmentation. Parameters that arrive with new labels carry no penalty until the experience ends.

    Attributes:
        ewc_lambda: Weight of the penalty; has no safe default and must be swept.
        fisher: ``true`` draws the labels from the model (one draw an image), ``empirical`` takes the annotated ones.
        fisher_samples: Images that the Fisher information is estimated on.
    """

    ewc_lambda: NonNegativeFloat = 10.0
    fisher: Literal["true", "empirical"] = "true"
    fisher_samples: PositiveInt = 1000

    meta = StrategyMeta(name="ewc", title="EWC", family="regularization", reference="arXiv:1612.00796")

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the EWC plugin."""
        return [EWCPlugin(self.ewc_lambda, self.fisher == "empirical", self.fisher_samples, run.generator("fisher"))]


class EWCPlugin(SupervisedPlugin):
    """Holds the penalty of all past experiences as one quadratic.

    The sum over experiences k of F_k (theta - theta_k)^2 is, up to a constant, A (theta - m)^2 with A the sum of the
    F_k and m their weighted mean of the theta_k: memory and time do not grow with the number of experiences.
    """

    def __init__(self, strength: float, empirical: bool, samples: int, generator: torch.Generator) -> None:
        super().__init__()
        self.strength = strength
        self.empirical = empirical
        self.samples = samples
        self.generator = generator
        self.curvature: dict[str, Tensor] = {}
        self.centre: dict[str, Tensor] = {}
        self.chunks: list[MultiLabelDataset] = []

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add lambda / 2 times the quadratic."""
        if self.strength and self.curvature:
            strategy.loss += 0.5 * self.strength * self.penalty(strategy.model)

    def penalty(self, model: nn.Module) -> Tensor:
        """Return the sum over parameters of A (theta - m)^2."""
        parameters = dict(model.named_parameters())
        terms = [(a * (parameters[name] - self.centre[name]).square()).sum() for name, a in self.curvature.items()]
        return torch.stack(terms).sum()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Add the experience's Fisher information at the parameters it ended with."""
        if not self.strength:
            return
        self.chunks.append(strategy.experience.dataset)
        if not ends_experience(strategy.experience):
            return
        fisher = fisher_information(
            strategy.model,
            merge(self.chunks).eval(),
            samples=self.samples,
            generator=self.generator,
            empirical=self.empirical,
            device=strategy.device,
        )
        self.chunks = []
        for name, parameter in strategy.model.named_parameters():
            if name not in fisher:
                continue
            here = parameter.detach().clone()
            before, centre = self.curvature.get(name), self.centre.get(name)
            if before is None or centre is None:
                self.curvature[name], self.centre[name] = fisher[name], here
                continue
            total = before + fisher[name]
            moved = torch.where(total > 0, fisher[name] / total, 0.0)
            self.curvature[name], self.centre[name] = total, centre + moved * (here - centre)


def fisher_information(
    model: nn.Module,
    dataset: MultiLabelDataset,
    *,
    samples: int,
    generator: torch.Generator,
    empirical: bool = False,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """Return the diagonal Fisher information of every trainable parameter.

    F_i = (1/N) sum_n (d/dtheta_i sum_c K_nc bce(z_nc, y_nc))^2 with K the known entries, and y drawn from the model
    (true Fisher) or annotated (empirical Fisher). Does not depend on the batch size.

    Args:
        model: Model with logits as output; its mode is restored.
        dataset: Images and four-state labels, in evaluation transforms.
        samples: Number of images, drawn without replacement.
        generator: Draws the images and the labels.
        empirical: Take the annotated labels.
        batch_size: Images whose gradients are held at once.
        device: Where the model lives.
    """
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    fixed = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}
    fixed.update(dict(model.named_buffers()))

    def negative_log_likelihood(trained: dict[str, Tensor], x: Tensor, target: Tensor, known: Tensor) -> Tensor:
        logits = functional_call(model, {**trained, **fixed}, (x[None],))[0]
        return (binary_cross_entropy_with_logits(logits, target, reduction="none") * known).sum()

    gradients = vmap(grad(negative_log_likelihood), in_dims=(None, 0, 0, 0))
    chosen = torch.randperm(len(dataset), generator=generator)[:samples]
    fisher = {name: torch.zeros_like(p) for name, p in parameters.items()}
    was_training = model.training
    model.eval()
    for batch in BatchLoader(dataset.subset(chosen.tolist()), batch_size):
        x, labels = batch[0].to(device), batch[1].to(device)
        known = is_known(labels).float()
        if empirical:
            target = (labels == PRESENT).float()
        else:
            with torch.no_grad():
                chance = torch.sigmoid(model(x))
            target = (torch.rand(chance.shape, generator=generator).to(device) < chance).float()
        for name, g in gradients(parameters, x, target, known).items():
            fisher[name] += g.square().sum(dim=0)
    model.train(was_training)
    return {name: total / len(chosen) for name, total in fisher.items()}
