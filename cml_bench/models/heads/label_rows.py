"""What most heads end with: one classifier row a label."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cml_bench.models.heads.checks import check_dropout
from cml_bench.models.heads.head import Head


def joined(blocks: nn.ParameterList) -> Tensor:
    """Return the blocks under each other; a single one as it is, as joining would copy it, and its gradient."""
    first, *later = blocks
    return torch.cat([first, *later]) if later else first


class LabelRowsHead(Head):
    """A head with logits ``z_c = <w_c, f_c> + b_c``.

    Weights start uniform in ``[-1/sqrt(d), 1/sqrt(d)]``, biases at 0.

    Args:
        in_features: Width D of the pooled feature.
        width: Width d of what is scored.
        dropout: Probability of dropping an entry in training; what is dropped is up to the head.

    Raises:
        CmlBenchError: If ``dropout`` is no probability.
    """

    def __init__(self, in_features: int, width: int, dropout: float) -> None:
        super().__init__(in_features)
        check_dropout(self.meta.name, dropout)
        self.width = width
        self.dropout = dropout
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()

    def add_labels(self, names: tuple[str, ...]) -> None:
        """Append one block of weights (n, d) and biases (n,)."""
        bound = self.width**-0.5
        like = next(self.parameters(), torch.empty(0))
        weight = torch.empty(len(names), self.width, device=like.device, dtype=like.dtype).uniform_(-bound, bound)
        self.weights.append(nn.Parameter(weight))
        self.biases.append(nn.Parameter(weight.new_zeros(len(names))))

    def classifier_rows(self) -> Tensor:
        """Return the (n, d) rows."""
        return joined(self.weights)

    def score(self, label_features: Tensor) -> Tensor:
        """Return the (B, n) logits of (B, n, d) label features."""
        return torch.einsum("bnd,nd->bn", label_features, self.classifier_rows()) + joined(self.biases)


class FixedBlocks(nn.Module):
    """Rows that labels bring and that nothing changes: one buffer a growth."""

    def append(self, block: Tensor) -> None:
        """Add the (n, d) rows of new labels."""
        self.register_buffer(str(len(self._buffers)), block)

    def rows(self) -> Tensor:
        """Return the (n, d) rows of all labels."""
        return torch.cat(list(self.buffers()))
