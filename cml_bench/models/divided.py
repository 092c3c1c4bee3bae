"""One job on several devices: the backbone is divided among them, everything else is done by all of them alike.

Every process runs the same program with the same seeds on the same batches and so holds the same memory, of the same
ids. Of a batch each reads its share through the backbone; the features are gathered, and head, criterion and plug-ins
see the whole batch. So a memory's budget, a criterion's mean and every rule of a strategy are those of one process,
whatever the number of processes. Backwards, each process takes the gradient of its share of the features through its
share of the batch, and the gradients of the backbone's parameters are summed over the processes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.weak import WeakIdKeyDictionary

from cml_bench.models.layout import Features

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass
class _Division:
    """This process's place among those that share a job.

    Attributes:
        fabric: Lightning Fabric, launched.
        shared: Parameters, by identity, whose gradients have been summed when they arrive.
        paused: Whether this process reads whole batches for now.
    """

    fabric: Fabric
    shared: WeakIdKeyDictionary = field(default_factory=WeakIdKeyDictionary)
    paused: bool = False


_division: _Division | None = None


@contextmanager
def divided(fabric: Fabric) -> Iterator[None]:
    """Divide backbones among the processes of a launched Fabric."""
    global _division
    _division = _Division(fabric)
    try:
        yield
    finally:
        _division = None


@contextmanager
def whole() -> Iterator[None]:
    """Let every process read whole batches: transforms of ``torch.func`` cannot look across processes."""
    if _division is None:
        yield
        return
    before, _division.paused = _division.paused, True
    try:
        yield
    finally:
        _division.paused = before


def is_divided() -> bool:
    """Return whether this process shares its job with others."""
    return _division is not None


def is_first() -> bool:
    """Return whether this process writes what there is to write: the only one, or the first of those sharing a job."""
    return _division is None or bool(_division.fabric.global_rank == 0)


def align() -> None:
    """Wait until all processes are here; give a GPU's generator, whose state a checkpoint holds once, to all."""
    if _division is None:
        return
    fabric = _division.fabric
    fabric.barrier()
    if fabric.device.type == "cuda":
        torch.cuda.set_rng_state(fabric.broadcast(torch.cuda.get_rng_state()))


def agree(optimizer: torch.optim.Optimizer, arguments: object = None, options: object = None) -> None:
    """Give all processes the first one's gradients of what is not divided; a hook before an optimiser's step.

    They are equal but for sums that a GPU does not take in the same order every time; what is equal now must be
    equal after a thousand steps.
    """
    if _division is None:
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients = [p.grad for p in parameters if p.grad is not None and p not in _division.shared]
    if gradients:
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.broadcast(flat, 0)
        _spread(flat, gradients)


def read_share(backbone: nn.Module, read: Callable[[Tensor], Features], images: Tensor) -> Features:
    """Return what a backbone says of a batch, of which this process reads its share.

    Args:
        backbone: Whose parameters are shared.
        read: Images to features.
        images: (B, 3, H, W), the same in all processes.
    """
    count = 1 if _division is None else _division.fabric.world_size
    if _division is None or _division.paused or len(images) < count:
        return read(images)
    fabric = _division.fabric
    # The first ones take one more each where it does not come out even.
    lengths = [len(images) // count + (rank < len(images) % count) for rank in range(count)]
    own = images.split(lengths)[fabric.global_rank]
    trained = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    with _own_draws(fabric) if backbone.training else nullcontext():
        if torch.is_grad_enabled() and trained:
            _division.shared.update(dict.fromkeys(trained.values()))
            parts: tuple[Tensor, ...] = _Shared.apply(fabric, *trained.values())
            named = {f"backbone.{name}": part for name, part in zip(trained, parts, strict=True)}
            features: Features = functional_call(_Reader(backbone, read), named, (own,))
        else:
            features = read(own)
    if isinstance(features, tuple):
        return tuple(_Gathered.apply(fabric, lengths, level) for level in features)
    gathered: Tensor = _Gathered.apply(fabric, lengths, features)
    return gathered


class _Reader(nn.Module):
    """Reads without the backbone's hooks: they are to see the whole batch."""

    def __init__(self, backbone: nn.Module, read: Callable[[Tensor], Features]) -> None:
        super().__init__()
        self.backbone = backbone
        self._read = read
        self.train(backbone.training)

    def forward(self, images: Tensor) -> Features:
        return self._read(images)


class _Shared(torch.autograd.Function):
    """Parameters on their way in; on the way back their gradients, summed over the processes in one call."""

    @staticmethod
    def forward(ctx: Any, fabric: Fabric, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.fabric = fabric
        # A parameter that nothing was read with has no gradient, in all processes alike, rather than one of zeros.
        ctx.set_materialize_grads(False)
        return tuple(parameter.view_as(parameter) for parameter in parameters)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        present = [gradient.clone() for gradient in gradients if gradient is not None]
        if present:
            _spread(ctx.fabric.all_reduce(torch.cat([g.flatten() for g in present]), reduce_op="sum"), present)
        summed = iter(present)
        return (None, *(None if gradient is None else next(summed) for gradient in gradients))


class _Gathered(torch.autograd.Function):
    """The features of all processes' shares; on the way back the gradient of this one's."""

    @staticmethod
    def forward(ctx: Any, fabric: Fabric, lengths: Sequence[int], features: Tensor) -> Tensor:
        ctx.place = sum(lengths[: fabric.global_rank]), lengths[fabric.global_rank]
        # All send the same shape.
        padded = features.new_zeros(max(lengths), *features.shape[1:])
        padded[: len(features)] = features
        gathered = fabric.all_gather(padded)
        return torch.cat([part[:length] for part, length in zip(gathered, lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        return None, None, gradient.narrow(0, *ctx.place)


def _spread(flat: Tensor, parts: Sequence[Tensor]) -> None:
    for part, values in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
        part.copy_(values.view_as(part))


@contextmanager
def _own_draws(fabric: Fabric) -> Iterator[None]:
    """Let a backbone's dropout draw otherwise in every process, and leave the generators alike in all of them."""
    cuda = [fabric.device] if fabric.device.type == "cuda" else []

    def states() -> list[Tensor]:
        return [torch.get_rng_state(), *map(torch.cuda.get_rng_state, cuda)]

    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(zlib.crc32(torch.get_rng_state().numpy().tobytes()) + fabric.global_rank)
        before = states()
        yield
        drew = any(not torch.equal(*pair) for pair in zip(before, states(), strict=True))
    if drew:
        # The next batch must not be given the same draws.
        for device in (torch.device("cpu"), *cuda):
            torch.rand((), device=device)
