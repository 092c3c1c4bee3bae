"""How much each parameter matters: statistics of one gradient an image, averaged over images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import binary_cross_entropy_with_logits

from cml_bench.labels import PRESENT, is_known
from cml_bench.models.divided import whole
from cml_bench.models.evaluating import evaluating
from cml_bench.streams.dataset import MultiLabelDataset
from cml_bench.streams.loading import BatchLoader

Importance = dict[str, Tensor]
"""Parameter name to a tensor of the parameter's shape."""


_MOST = 32
"""Most images whose gradients are held at once: each takes as much memory as the parameters."""


def per_image_gradients(model: nn.Module, function: Callable[..., Tensor]) -> Callable[..., Importance]:
    """Return what computes, for each image of a batch, the gradient of a function of its own logits.

    A gradient of a batch mean would not do: gradients of opposite sign cancel in it, and it depends on the batch size.

    Args:
        model: Model with logits as output, in evaluation mode.
        function: (n,) logits of one image, and its slice of every further argument, to a scalar.

    Returns:
        A function of (B, ...) inputs and further (B, ...) arguments to (B, *shape) gradients by parameter name.
    """
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    fixed = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}
    fixed.update(dict(model.named_buffers()))

    def of_one(parameters: dict[str, Tensor], x: Tensor, *arguments: Tensor) -> Tensor:
        return function(functional_call(model, {**parameters, **fixed}, (x[None],))[0], *arguments)

    def of_batch(x: Tensor, *arguments: Tensor) -> Importance:
        with whole():
            each: Importance = vmap(grad(of_one), in_dims=(None, 0, *[0] * len(arguments)))(trained, x, *arguments)
        return each

    return of_batch


def mean_over_images(
    model: nn.Module,
    dataset: MultiLabelDataset,
    measure: Callable[[Tensor, Tensor], Importance],
    *,
    samples: int,
    generator: torch.Generator,
    batch_size: int = _MOST,
    device: torch.device | str = "cpu",
) -> Importance:
    """Return the mean, over images drawn without replacement, of what ``measure`` says of each.

    Args:
        model: Model that is measured; in evaluation mode meanwhile.
        dataset: Images and four-state labels, in evaluation transforms.
        measure: (B, ...) inputs and (B, n) four-state labels to (B, *shape) values by parameter name.
        samples: Number of images.
        generator: Draws the images.
        batch_size: Images a step, of which there are 32 at most.
        device: Where the model lives.
    """
    chosen = torch.randperm(len(dataset), generator=generator)[:samples]
    totals: Importance = {}
    with evaluating(model):
        for batch in BatchLoader(dataset.subset(chosen.tolist()), min(batch_size, _MOST)):
            for name, values in measure(batch[0].to(device), batch[1].to(device)).items():
                totals[name] = totals[name] + values.sum(dim=0) if name in totals else values.sum(dim=0)
    return {name: total / len(chosen) for name, total in totals.items()}


def negative_log_likelihood(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Return ``sum_c K_c bce(z_c, y_c)`` of (n,) logits: the labels of an image are independent Bernoulli variables."""
    return (binary_cross_entropy_with_logits(logits, target, reduction="none") * known).sum()


def fisher_information(
    model: nn.Module,
    dataset: MultiLabelDataset,
    *,
    samples: int,
    generator: torch.Generator,
    empirical: bool = False,
    batch_size: int = _MOST,
    device: torch.device | str = "cpu",
) -> Importance:
    """Return the diagonal Fisher information of every trainable parameter.

    F_i = (1/N) sum_n (d/dtheta_i sum_c K_nc bce(z_nc, y_nc))^2 with K the known entries, and y drawn from the model
    (true Fisher) or annotated (empirical Fisher). Does not depend on the batch size.

    Args:
        model: Model with logits as output; its mode is restored.
        dataset: Images and four-state labels, in evaluation transforms.
        samples: Number of images, drawn without replacement.
        generator: Draws the images and the labels.
        empirical: Take the annotated labels.
        batch_size: Images a step, of which there are 32 at most.
        device: Where the model lives.
    """
    gradients = per_image_gradients(model, negative_log_likelihood)

    def squares(x: Tensor, labels: Tensor) -> Importance:
        if empirical:
            target = (labels == PRESENT).float()
        else:
            with torch.no_grad():
                chance = torch.sigmoid(model(x))
            target = (torch.rand(chance.shape, generator=generator).to(chance.device) < chance).float()
        return {name: g.square() for name, g in gradients(x, target, is_known(labels).float()).items()}

    return mean_over_images(
        model, dataset, squares, samples=samples, generator=generator, batch_size=batch_size, device=device
    )
