"""PAT-I: at test time patches are judged as well, by a model that was trained as ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cml_bench.models.heads.head import HeadOutput
from cml_bench.models.wrappers.patches import check_grid, cut, weigh
from cml_bench.models.wrappers.wrapper import Wrapper, WrapperMeta

if TYPE_CHECKING:
    from cml_bench.models.model import MultiLabelModel

__all__ = ["PATInference"]


class PATInference(Wrapper):
    """Patching-based inference (PAT-I): the logit is ``(z + z_pat) / 2`` in evaluation; training is left as it is.

    ``z_pat = sum_k softmax_k(z_k) z_k`` over the logits z_k of ``grid`` x ``grid`` patches, each resized to the image's
    size: each label is read where it shows most. Teachers, stored logits, importances and whatever else a strategy of
    this suite reads between steps are of whole images, so that the weights are those without a wrapper; a copy that a
    plug-in of Avalanche makes as its teacher reads patches. Evaluation costs ``1 + grid^2`` times as much.

    Source: MLC-PAT, arXiv 2404.06287.

    Args:
        grid: Rows and columns of patches.

    Raises:
        CmlBenchError: If ``grid`` is below 1.
    """

    meta = WrapperMeta(name="pat_inference", title="PAT-I", reference="arXiv:2404.06287")

    def __init__(self, grid: int = 2) -> None:
        super().__init__()
        check_grid("pat_inference", grid)
        self.grid = grid

    def forward(self, model: MultiLabelModel, images: Tensor) -> HeadOutput:
        """Return what the model says of the whole image, in evaluation with the mean of both logits."""
        output = model.read(images)
        if self.training:
            return output
        logits = torch.stack([model.read(patch).logits for patch in cut(images, self.grid)])
        return output._replace(logits=(output.logits + weigh(logits, logits)) / 2)
