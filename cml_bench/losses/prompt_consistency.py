"""Prompt consistency: learnt prompts stay near what a text encoder makes of the fixed ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from cml_bench.errors import CmlBenchError
from cml_bench.losses.auxiliary import Auxiliary
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.models.heads.head import HeadOutput
from cml_bench.models.heads.hp_dval import HPDVALHead

if TYPE_CHECKING:
    from cml_bench.models.model import MultiLabelModel
    from cml_bench.streams.dataset import MultiLabelDataset


class PromptConsistency(Auxiliary):
    """``base + weight ||P^H - P^G||_1``, P^H the fixed prompts of a head that has any, P^G its learnt global ones.

    Source: HP-DVAL, arXiv 2509.17747, second stage. Inferred: the norm is the mean over entries, as in the released
    code, of unit vectors, as the head compares them. All labels seen so far have a say, whatever the batch asks for.

    Args:
        base: The criterion that judges the logits: a name, with options if need be, or a criterion object.
        weight: Weight of the distance, >= 0.

    Raises:
        CmlBenchError: If the base or one of its options is unknown, or the weight is negative.
    """

    meta = CriterionMeta(
        name="prompt_consistency",
        title="PC",
        reference="arXiv:2509.17747",
        reads="output",
        head="hp_dval",
        exemptions={
            "nothing_asked_costs_nothing": "the distance is between prompts, whatever the batch asks for",
            "companion_is_judged": "the distance is between prompts, and counts once for all readings of a batch",
        },
    )

    def __init__(self, base: str | Criterion = "db", weight: float = 1.0) -> None:
        super().__init__(base, weight)
        self._distance: Callable[[], Tensor] | None = None

    def start_epoch(self, model: MultiLabelModel, dataset: MultiLabelDataset, epoch: int, epochs: int) -> None:
        """Look for the prompts.

        Raises:
            CmlBenchError: If the head has none.
        """
        super().start_epoch(model, dataset, epoch, epochs)
        if not isinstance(model.head, HPDVALHead):
            raise CmlBenchError(
                f"loss=prompt_consistency compares prompts, and {type(model.head).__name__} has none: set head=hp_dval"
            )
        self._distance = model.head.prompt_distance

    def end_experience(self, model: MultiLabelModel) -> None:
        """Let go of the head."""
        super().end_experience(model)
        self._distance = None

    def term(
        self,
        output: HeadOutput | Tensor,
        labels: Tensor,
        sample_ids: Tensor | None,
        epoch: int,
        view: HeadOutput | None,
    ) -> Tensor:
        """Return the distance while a head is trained, else 0."""
        logits = output.logits if isinstance(output, HeadOutput) else output
        return logits.new_zeros(()) if self._distance is None else self._distance()
