"""Every built-in criterion passes the kit for criteria, and each broken rule is caught by the check meant for it."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED, is_known
from cml_bench.losses.bce import BCE
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.models.heads.head import HeadOutput
from cml_bench.registry import entries
from cml_bench.testing import CRITERION_CHECKS, CheckOutcome, check, check_criterion

MORE = ("asl reduction=sum detach_focal=false", "focal gamma=2.5", "assume_negative+splc", "assume_negative+mulcon")
CRITERIA = (
    *entries("criteria"),
    *("assume_negative+asl", "clml+role"),
    *(pytest.param(criterion, marks=pytest.mark.slow) for criterion in (*MORE, "mulcon+similarity_dissimilarity")),
)
WITHOUT_SUBJECT = {"order_of_labels", "growth_leaves_old_parameters", "parameters_are_trained"}


@functools.cache
def outcomes(criterion: str) -> dict[str, CheckOutcome]:
    return {outcome.name: outcome for outcome in check_criterion(criterion, raise_on_failure=False)}


@pytest.mark.parametrize("check_name", CRITERION_CHECKS)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_conforms(criterion: str, check_name: str) -> None:
    outcome = outcomes(criterion)[check_name]
    if outcome.status in ("skipped", "exempt"):
        assert outcome.status == "exempt" or check_name in WITHOUT_SUBJECT
        pytest.skip(outcome.detail)
    assert outcome.status == "passed", outcome.detail
    assert outcome.detail


def test_what_becomes_of_unmarked_entries_is_told() -> None:
    assert outcomes("bce")["out_of_scope_unread"].detail.endswith("UNMARKED ones are left alone as well")
    assert outcomes("assume_negative")["out_of_scope_unread"].detail.endswith("UNMARKED ones are learnt from")


def test_what_loaders_of_the_field_do_silently_is_found() -> None:
    """Labels nobody asked for, read as absent: allowed under its name, and never unseen."""
    found = check_criterion("assume_negative scope=seen", raise_on_failure=False)
    failed = {outcome.name for outcome in found if outcome.status == "failed"}
    assert failed == {"nothing_asked_costs_nothing", "out_of_scope_unread"}


# -- broken criteria ---------------------------------------------------------------------------------------------------


def mean(costs: Tensor, counts: Tensor) -> Tensor:
    return (costs * counts).sum() / counts.sum().clamp(min=1)


class Assumes(Criterion):
    """Take all that is not present to be absent."""

    meta = CriterionMeta(name="broken", title="Broken", reference="")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, (labels == PRESENT).to(logits.dtype))


class WritesZeros(BCE):
    """Put open labels out of scope, in the batch itself."""

    meta = CriterionMeta(name="broken", title="Broken", reference="")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        labels[labels == UNMARKED] = OUT_OF_SCOPE
        return super().loss(logits, labels)


class PerPositive(Criterion):
    """Divide by the number of positives."""

    meta = CriterionMeta(name="broken", title="Broken", reference="")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return BCE().loss(logits, labels) * is_known(labels).sum() / (labels == PRESENT).sum()


class TakesLogs(Criterion):
    """Take the logarithm of a probability that may be 0."""

    meta = CriterionMeta(name="broken", title="Broken", reference="")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        p = logits.sigmoid()
        return mean(-torch.where(labels == PRESENT, p.log(), (1 - p).log()), is_known(labels))


class NeverSpares(Criterion):
    """Assume negatives, whoever else answers for them."""

    meta = CriterionMeta(name="broken", title="Broken", reference="")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return BCE().loss(logits, labels.masked_fill(labels == UNMARKED, ABSENT))


class SparesAll(BCE):
    """Leave known entries of spared columns out as well."""

    meta = CriterionMeta(name="broken", title="Broken", reference="")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        spared = torch.arange(labels.shape[1]) < self.spare
        return super().loss(logits, labels.masked_fill(spared, OUT_OF_SCOPE))


class ByPlace(Criterion):
    """Weigh images by their place in the batch."""

    meta = CriterionMeta(name="broken", title="Broken", reference="")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        costs = F.binary_cross_entropy_with_logits(logits, labels.clamp(min=0).to(logits), reduction="none")
        return mean(costs, is_known(labels) * torch.arange(1.0, len(labels) + 1)[:, None])


class ByColumn(Criterion):
    """Weigh labels by their place in the order of arrival."""

    meta = CriterionMeta(name="broken", title="Broken", reference="")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        costs = F.binary_cross_entropy_with_logits(logits, labels.clamp(min=0).to(logits), reduction="none")
        return mean(costs, is_known(labels) * torch.arange(1.0, labels.shape[1] + 1))


class ByWidth(BCE):
    """Weigh a batch by its width."""

    meta = CriterionMeta(name="broken", title="Broken", reference="")

    def forward(self, output: Any, labels: Tensor, *rest: Any) -> Tensor:
        return labels.shape[1] * super().forward(output, labels, *rest)


class Alone(BCE):
    """Judge one reading, and forget the other."""

    meta = CriterionMeta(name="broken", title="Broken", reference="")

    def forward(self, output: Any, labels: Tensor, *rest: Any) -> Tensor:
        return super().forward(output._replace(companion=None) if isinstance(output, HeadOutput) else output, labels)


class Denies(BCE):
    """Read pooled features, and say that logits are enough."""

    meta = CriterionMeta(name="broken", title="Broken", reference="")

    def judge(self, output: HeadOutput, labels: Tensor, *rest: Any) -> Tensor:
        scored = is_known(labels).any(dim=1, keepdim=True)
        return self.loss(output.logits, labels) + mean(output.pooled.square(), scored)


class Freezes(BCE):
    """Freeze the head, and go."""

    meta = CriterionMeta(name="broken", title="Broken", reference="")

    def start_epoch(self, model: Any, dataset: Any, epoch: int, epochs: int) -> None:
        if epoch == epochs - 1:
            model.requires_grad_(False)


class Late(Criterion):
    """Make a parameter when the first batch comes, after the optimiser has looked."""

    meta = CriterionMeta(name="broken", title="Broken", reference="", reads="output")

    def judge(self, output: HeadOutput, labels: Tensor, *rest: Any) -> Tensor:
        if not hasattr(self, "scale"):
            self.scale = nn.Parameter(torch.ones(()))
        return BCE().loss(output.logits * self.scale, labels)


class Forgets(Criterion):
    """Keep something of every image, in a table made anew for each experience."""

    meta = CriterionMeta(name="broken", title="Broken", reference="", reads="output")
    lr_factor = 0.0

    def start_experience(self, dataset: Any) -> None:
        self.offsets = nn.Parameter(torch.zeros(200))

    def judge(self, output: HeadOutput, labels: Tensor, sample_ids: Any, *rest: Any) -> Tensor:
        return BCE().loss(output.logits + self.offsets[sample_ids][:, None], labels)


class ByRow(Forgets):
    """Keep something of every image, by its row in the first experience."""

    meta = CriterionMeta(name="broken", title="Broken", reference="", reads="output")

    def start_experience(self, dataset: Any) -> None:
        if not hasattr(self, "offsets"):
            super().start_experience(dataset)
        self.rows = {int(row): place for place, row in enumerate(dataset.sample_ids.data)}

    def judge(self, output: HeadOutput, labels: Tensor, sample_ids: Any, *rest: Any) -> Tensor:
        places = torch.tensor([self.rows.get(int(row), 0) for row in sample_ids])
        return super().judge(output, labels, places)


class Idle(Criterion):
    """Own a parameter that nothing reads."""

    meta = CriterionMeta(name="broken", title="Broken", reference="")

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.ones(()))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return BCE().loss(logits, labels)


class Backwards(BCE):
    """Teach the contrary."""

    meta = CriterionMeta(name="broken", title="Broken", reference="")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().loss(-logits, labels)


class Vector(Criterion):
    """Return a loss for each image."""

    meta = CriterionMeta(name="broken", title="Broken", reference="")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (logits * is_known(labels)).mean(dim=1)


BROKEN = {
    Assumes: {"nothing_asked_costs_nothing", "out_of_scope_unread", "spare_honoured", "narrow_rows"},
    WritesZeros: {"batch_left_alone"},
    PerPositive: {"finite_without_positives", "nothing_asked_costs_nothing"},
    TakesLogs: {"finite_at_extremes"},
    NeverSpares: {"spare_honoured"},
    SparesAll: {"spare_honoured"},
    ByPlace: {"order_of_images"},
    ByColumn: {"order_of_labels"},
    ByWidth: {"narrow_rows"},
    Alone: {"companion_is_judged"},
    Denies: {"reads_as_declared"},
    Freezes: {"batch_left_alone", "learns"},
    Late: {"parameters_are_trained"},
    Forgets: {"growth_leaves_old_parameters"},
    ByRow: {"growth_leaves_old_parameters"},
    Idle: {"parameters_are_trained"},
    Backwards: {"learns"},
    Vector: {"runs"},
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_rule_is_caught(kind: type[Criterion]) -> None:
    found = check_criterion(kind, raise_on_failure=False)
    failed = {outcome.name: outcome.detail for outcome in found if outcome.status == "failed"}
    assert set(failed) == BROKEN[kind], failed


class Unexplained(BCE):
    """Have an option that the docstring does not name."""

    meta = CriterionMeta(name="broken", title="Broken", reference="")

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()


class Untyped(BCE):
    """Have a default that nobody can type.

    Args:
        alpha: A number.
    """

    meta = CriterionMeta(name="broken", title="Broken", reference="")

    def __init__(self, alpha: float = None) -> None:  # type: ignore[assignment]  # noqa: RUF013
        super().__init__()


def test_metadata_and_options_say_what_is_missing() -> None:
    found = {outcome.name: outcome.detail for outcome in check_criterion(Unexplained, raise_on_failure=False)}
    assert found["metadata"] == "option 'alpha' is not described under 'Args:' in the docstring"
    found = {outcome.name: outcome.detail for outcome in check_criterion(Untyped, raise_on_failure=False)}
    assert "option alpha='none' of criterion" in found["config_round_trip"]


def test_specifications() -> None:
    found = {outcome.name: outcome.detail for outcome in check("criterion:assume_negative+asl")}
    assert found["config_round_trip"] == "loss=assume_negative loss.base=asl loss.scope=unmarked"
    with pytest.raises(CmlBenchError, match=r"there is no criterion 'asll': did you mean 'asl'\?"):
        check("criterion:asll")
    with pytest.raises(CmlBenchError, match="criterion asl has no option 'gama'"):
        check("criterion:asl gama=2")
    with pytest.raises(CmlBenchError, match=r"Backwards fails 1 of \d+ checks \(learns: mAP"):
        check_criterion(Backwards)
