"""PAT: an image is judged whole and by its patches, and each label says which patches count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.head import Head, HeadOutput
from cml_bench.models.layout import Features
from cml_bench.models.model import MultiLabelModel
from cml_bench.models.wrappers.patches import check_grid, cut, weigh
from cml_bench.models.wrappers.wrapper import Wrapper, WrapperMeta

__all__ = ["PAT"]


class PAT(Wrapper):
    """Patching-based training (PAT-T): the whole image, z, beside its patches, ``z_pat = sum_k softmax_k(u_k) v_k``.

    The image is cut into ``grid`` x ``grid`` patches, each resized to the image's size. The backbone is shared; the
    method's head scores the whole image, another one like it weighs each patch for each label (u), a third scores it
    (v). The three grow together. In training the criterion judges both readings, the second as companion of the first;
    in evaluation the logit is ``(z + z_pat) / 2``. A training step reads whole images and patches in one batch, so
    batch norm sees them mixed, as published; all costs that of ``1 + grid^2`` images, in replay and evaluation too.

    Source: MLC-PAT, arXiv 2404.06287 ("cross" and "self"); ``xiemk/MLC-PAT``. Published with ``loss=asl`` (gammas 4 and
    0, clip 0.05, its defaults) and Cutout and RandAugment (``augment=strong``). Departure: patches are cut from the
    augmented image, where each view has an augmentation of its own in the release. Inferred: features of labels of the
    second reading are those of the patches weighed by the same shares, its pooled feature is their mean.

    Args:
        grid: Rows and columns of patches.
        classifiers: ``cross`` for two heads on patches, ``self`` for one that gives both u and v.

    Raises:
        CmlBenchError: If an option is out of range.
    """

    meta = WrapperMeta(name="pat", title="PAT", reference="arXiv:2404.06287", learns=True)

    def __init__(self, grid: int = 2, classifiers: Literal["cross", "self"] = "cross") -> None:
        super().__init__()
        check_grid("pat", grid)
        if classifiers not in ("cross", "self"):
            raise CmlBenchError(f"wrap=pat: classifiers={classifiers!r} must be 'cross' or 'self'")
        self.grid = grid
        self.classifiers = classifiers
        self.score: Head | None = None
        self.weight: Head | None = None

    def prepare(self, model: MultiLabelModel, make_head: Callable[[], Head]) -> None:
        """Make the heads for patches.

        Raises:
            CmlBenchError: If the model is more than a backbone and a head.
        """
        if type(model) is not MultiLabelModel:
            raise CmlBenchError(
                f"wrap=pat puts heads of its own on the backbone, and the {type(model).__name__} of this strategy is "
                "more than backbone and head: take wrap=pat_inference or another strategy"
            )
        self.score = make_head()
        self.weight = make_head() if self.classifiers == "cross" else None

    def grow(self, names: Sequence[str]) -> None:
        """Add labels to the heads for patches."""
        for head in self.children():
            assert isinstance(head, Head)
            head.grow(names)

    def forward(self, model: MultiLabelModel, images: Tensor) -> HeadOutput:
        """Return the reading of the whole image with that of its patches as companion, or in evaluation their mean."""
        whole, *patches = _features(model, [images, *cut(images, self.grid)])
        output: HeadOutput = model.head(whole)
        companion = self._read(patches)
        if self.training:
            return output._replace(companion=companion)
        return output._replace(logits=(output.logits + companion.logits) / 2)

    def _read(self, patches: Sequence[Features]) -> HeadOutput:
        assert self.score is not None
        said: list[HeadOutput] = [self.score(features) for features in patches]
        scores = torch.stack([each.logits for each in said])
        weights = scores if self.weight is None else torch.stack([self.weight(each).logits for each in patches])
        own = [each.label_features for each in said if each.label_features is not None]
        return HeadOutput(
            weigh(weights, scores),
            torch.stack([each.pooled for each in said]).mean(dim=0),
            weigh(weights, torch.stack(own)) if own else None,
        )


def _features(model: MultiLabelModel, views: Sequence[Tensor]) -> Iterator[Features]:
    """Yield the backbone's features of each view: of all in one pass in training, else one by one, to save memory."""
    if not model.training:
        yield from map(model.backbone, views)
        return
    features = model.backbone(torch.cat(list(views)))
    if isinstance(features, tuple):
        yield from zip(*(level.chunk(len(views)) for level in features), strict=True)
    else:
        yield from features.chunk(len(views))
