"""MulCon's loss: features of the same label are drawn together across images and views."""

from __future__ import annotations

from torch import Tensor

from cml_bench.errors import CmlBenchError
from cml_bench.losses.contrast import label_contrast
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.losses.entries import check_option
from cml_bench.losses.projected import ProjectedContrast
from cml_bench.models.heads.head import HeadOutput

__all__ = ["MulCon"]


class MulCon(ProjectedContrast):
    """Add a label-level supervised contrast to another criterion: ``base + weight * L_con``.

    Anchors are the projected features of the labels that are PRESENT, over both views of all images of the batch, the
    replayed ones among them; partners are anchors of the same label (``label_contrast``). Absent and unknown entries
    have no part. Without augmentation (cached features) there is one view.

    Source: Dao et al. 2021, arXiv 2107.11626; ``SonDaoDuy/MulCon``. Two stages: epochs before ``start`` train with the
    base alone, later ones with both, in every experience anew. Departures: one optimiser and schedule for both stages,
    no moving average of weights, the base's own reduction (the mean over known entries); the release's option to fill
    the denominator with high-scoring absent pairs, off there, is left out. Memory: see ``label_contrast``.

    Args:
        base: The criterion beside the contrast.
        weight: Weight of the contrast, >= 0.
        temperature: What similarities are divided by, > 0.
        projection: Dimension that label features are projected to.
        start: First epoch of an experience that contrasts; an online stream has only epoch 0.

    Raises:
        CmlBenchError: If an option is out of range.
    """

    meta = CriterionMeta(name="mulcon", title="MulCon", reference="arXiv:2107.11626", reads="label_features", views=2)

    def __init__(
        self,
        base: str | Criterion = "bce",
        weight: float = 0.5,
        temperature: float = 0.2,
        projection: int = 128,
        start: int = 1,
    ) -> None:
        super().__init__(base, weight, temperature, projection)
        check_option("mulcon", "start", start, start >= 0, "0 or more")
        self.start = start

    def contrasted(self, output: HeadOutput) -> Tensor:
        """Return the label features."""
        assert output.label_features is not None
        return output.label_features

    def check_epochs(self, epochs: int) -> None:
        """Refuse experiences that would end before it contrasts."""
        if epochs <= self.start:
            raise CmlBenchError(
                f"loss=mulcon contrasts from epoch {self.start} on, but experiences have epochs={epochs}: set "
                "loss.start=0, or more epochs"
            )
        super().check_epochs(epochs)

    def judge(
        self, output: HeadOutput, labels: Tensor, sample_ids: Tensor | None, epoch: int, view: HeadOutput | None
    ) -> Tensor:
        """Return the contrast of label features; 0 in the first stage."""
        if epoch < self.start:
            return output.logits.new_zeros(())
        features = self.projected(output, view)
        return label_contrast(features, labels.repeat(len(features) // len(labels), 1), self.temperature)
