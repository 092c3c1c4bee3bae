"""Prompts as weighted sums of components (CODA-Prompt)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.models.prompts.model import PrefixPrompts, Selection


class ComponentPrompts(PrefixPrompts):
    """In each prompted block, the prompt of an image is the sum of all components, each weighted by the image's query.

    Every experience adds components, orthogonal to the ones before.

    Args:
        width: Width D of the tokens.
        per_experience: Number of components that an experience adds to each block.
        length: Length L of the prompt; its first half are keys, its second half values.
        blocks: Number of first blocks that are prompted.
        orthogonality: Weight of the penalty on keys, attentions and components that are not orthonormal.
    """

    def __init__(self, width: int, per_experience: int, length: int, blocks: int, orthogonality: float) -> None:
        super().__init__()
        self.per_experience = per_experience
        self.shape = (2, length // 2, width)
        self.blocks = blocks
        self.orthogonality = orthogonality
        self.keys = nn.ParameterList()
        self.attentions = nn.ParameterList()
        self.components = nn.ParameterList()

    def grow(self) -> None:
        """Append a block of keys, attentions (blocks, n, D) and components (blocks, n, 2, L / 2, D)."""
        for parts in (self.keys, self.attentions):
            parts.append(self._new([*parts], self.shape[-1:]))
        self.components.append(self._new([*self.components], self.shape))

    def _new(self, old: list[Tensor], shape: tuple[int, ...]) -> nn.Parameter:
        known = torch.cat(old, dim=1).flatten(2) if old else torch.empty(self.blocks, 0, torch.Size(shape).numel())
        fresh = torch.stack([orthogonal_to(block, self.per_experience) for block in known.detach()])
        return nn.Parameter(fresh.unflatten(2, shape))

    def select(self, query: Tensor) -> Selection:
        """Return prefixes of L / 2 keys and values; the loss is the orthogonality penalty, 0 without."""
        keys, attentions, components = (
            torch.cat(list(parts), dim=1) for parts in (self.keys, self.attentions, self.components)
        )
        weights = component_weights(query, attentions, keys)
        prefixes = torch.einsum("bim,imsld->bisld", weights, components)
        penalty = query.new_zeros(())
        if self.training and self.orthogonality:
            stacks = (keys, attentions, components.flatten(2))
            penalty = self.orthogonality * torch.stack([orthogonality_penalty(stack) for stack in stacks]).sum()
        return Selection(dict(enumerate(prefixes.unbind(1))), penalty)


def component_weights(query: Tensor, attentions: Tensor, keys: Tensor) -> Tensor:
    """Return (B, blocks, M) cosines ``cos(q * A_m, K_m)``, the product elementwise.

    Args:
        query: (B, D).
        attentions: (blocks, M, D).
        keys: (blocks, M, D).
    """
    # The B x M attended queries are never written out: both <q * A, K> and |q * A|^2 are matrix products.
    product = torch.einsum("bd,imd->bim", query, attentions * F.normalize(keys, dim=-1))
    square = torch.einsum("bd,imd->bim", query.square(), attentions.square())
    return product / square.clamp(min=1e-24).sqrt()


def orthogonality_penalty(stack: Tensor) -> Tensor:
    """Return the sum over blocks of ``mean((X X^T - I)^2)``, X the (M, D) rows of a (blocks, M, D) stack."""
    gram = stack @ stack.transpose(1, 2)
    return (gram - torch.eye(stack.shape[1], device=stack.device)).square().mean(dim=(1, 2)).sum()


def orthogonal_to(old: Tensor, count: int) -> Tensor:
    """Return ``count`` random unit rows, orthogonal to each other and to the (M, D) old ones (Gram-Schmidt).

    Where D dimensions cannot hold them all, the rows are random unit vectors.
    """
    # Drawn on the CPU: a seed starts the same on every device.
    rows = torch.randn(count, old.shape[1]).to(old.device)
    if len(old) + count > old.shape[1]:
        return F.normalize(rows, dim=1)
    basis: Tensor = torch.linalg.qr(torch.cat([old, rows]).T).Q
    return basis.T[len(old) :].contiguous()
