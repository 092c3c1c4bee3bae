"""What a criterion makes of label entries: the checks of the kit that are about states, logits and columns."""

from __future__ import annotations

import torch
from torch import Tensor

from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED, is_known
from cml_bench.models.heads.head import HeadOutput
from cml_bench.testing.outcome import named, require
from cml_bench.testing.verdict import (
    ENDS,
    N_LABELS,
    CriterionCase,
    made_up_dataset,
    made_up_labels,
    made_up_output,
    require_finite,
    require_same,
)

_SPARE = 2


def _finite_without_positives(case: CriterionCase) -> str:
    """Batches without positives, without known entries, or of one image leave loss and gradients finite."""
    batches = {
        "a batch without positives": made_up_labels(ABSENT, UNMARKED, OUT_OF_SCOPE),
        "a batch of positives alone": made_up_labels(PRESENT, UNMARKED, OUT_OF_SCOPE),
        "a batch without known entries": made_up_labels(UNMARKED, OUT_OF_SCOPE),
        "a fully annotated batch": made_up_labels(PRESENT, ABSENT),
        "a batch in which all is present": made_up_labels(PRESENT),
    }
    for name, labels in batches.items():
        dataset = made_up_dataset(labels)
        for epoch in ENDS:
            criterion = case.prepared(dataset, epoch)
            require_finite(case.judge(criterion, dataset, epoch=epoch), f"{name}, in epoch {epoch},")
            for image in range(3):
                one = case.judge(criterion, dataset, epoch=epoch, rows=torch.tensor([image]))
                require_finite(one, f"one image of {name}, in epoch {epoch},")
    return f"{len(batches)} kinds of batches and images alone are finite"


def _finite_at_extremes(case: CriterionCase) -> str:
    """Logits of 200 and -200, right and wrong, leave loss and gradients finite."""
    dataset, said = made_up_dataset(made_up_labels()), made_up_output()
    for epoch in ENDS:
        criterion = case.prepared(dataset, epoch)
        for sign in (200.0, -200.0):
            verdict = case.judge(criterion, dataset, said._replace(logits=sign * said.logits.sign()), epoch=epoch)
            require_finite(verdict, f"logits of 200 and -200, in epoch {epoch},")
    return "logits of 200 and -200 are finite"


def _nothing_asked_costs_nothing(case: CriterionCase) -> str:
    """A batch that is out of scope altogether costs 0 and has no gradient."""
    dataset = made_up_dataset(made_up_labels(OUT_OF_SCOPE))
    for epoch in ENDS:
        verdict = case.judge(case.prepared(dataset, epoch), dataset, epoch=epoch)
        require(float(verdict.loss) == 0, f"a batch that nobody was asked about costs {float(verdict.loss):.3g}")
        moved = any(bool(gradient.any()) for gradient in verdict.gradients)
        require(not moved, "a batch that nobody was asked about has a gradient")
    return "what is out of scope costs nothing"


def _poisoned(said: HeadOutput, entries: Tensor, value: float) -> HeadOutput:
    """Put something else behind entries (N, n), and in pooled features of images with no other entry."""
    assert said.label_features is not None
    return HeadOutput(
        said.logits.masked_fill(entries, value),
        said.pooled.masked_fill(entries.all(dim=1, keepdim=True), value),
        said.label_features.masked_fill(entries[..., None], value),
    )


def _require_unread(case: CriterionCase, labels: Tensor, entries: Tensor, what: str, spare: int = 0) -> None:
    """Demand that what the head says of some entries makes no difference and gets no gradient."""
    dataset, said = made_up_dataset(labels), made_up_output()
    for epoch in ENDS:
        criterion = case.prepared(dataset, epoch, spare)
        plain = case.judge(criterion, dataset, said, epoch=epoch)
        for gradient in (plain.logits, plain.label_features):
            require(not bool(gradient[entries].any()), f"{what} get a gradient in epoch {epoch}")
        unasked = entries.all(dim=1)
        require(
            not bool(plain.pooled[unasked].any()), f"images with nothing but {what} get a gradient in epoch {epoch}"
        )
        for value in (7.0, -30.0):
            other = case.judge(criterion, dataset, _poisoned(said, entries, value), epoch=epoch)
            require_same(plain, other, f"what the head says of {what} changes the loss in epoch {epoch}")


def _out_of_scope_unread(case: CriterionCase) -> str:
    """Entries nobody was asked for make no difference and get no gradient, whatever is made of UNMARKED ones."""
    labels = made_up_labels()
    labels[3:5], labels[6:, 1] = OUT_OF_SCOPE, OUT_OF_SCOPE
    _require_unread(case, labels, labels == OUT_OF_SCOPE, "OUT_OF_SCOPE entries")
    dataset = made_up_dataset(labels)
    gradient = case.judge(case.prepared(dataset, ENDS[1]), dataset, epoch=ENDS[1]).logits
    read = bool(gradient[labels == UNMARKED].any())
    return f"OUT_OF_SCOPE entries are left alone; UNMARKED ones are {'learnt from' if read else 'left alone as well'}"


def _spare_honoured(case: CriterionCase) -> str:
    """Unknown entries of the ``spare`` leading columns are another's to answer for; known ones go on counting."""
    labels = made_up_labels()
    leading = torch.arange(N_LABELS) < _SPARE
    _require_unread(case, labels, leading & ~is_known(labels), f"unknown entries of {_SPARE} spared columns", _SPARE)
    dataset = made_up_dataset(labels)
    for epoch in ENDS:
        usual = case.judge(case.prepared(dataset, epoch), dataset, epoch=epoch).logits
        spared = case.judge(case.prepared(dataset, epoch, _SPARE), dataset, epoch=epoch).logits
        lost = leading & is_known(labels) & (usual != 0) & (spared == 0)
        require(not bool(lost.any()), f"spare={_SPARE} takes known entries away in epoch {epoch}")
    return f"spare={_SPARE} leaves unknown entries of two columns alone, and known ones in"


def _narrow_rows(case: CriterionCase) -> str:
    """A row stored before labels arrived costs what it costs with these out of scope."""
    labels = made_up_labels()
    labels[:, 3:] = OUT_OF_SCOPE
    dataset = made_up_dataset(labels)
    criterion = case.prepared(dataset)
    narrow, padded = case.judge(criterion, dataset, width=3), case.judge(criterion, dataset)
    require_same(narrow, padded, "rows that are too narrow cost otherwise than padded ones")
    return "narrow rows cost what padded ones do"


ENTRY_CHECKS = named(
    *(_finite_without_positives, _finite_at_extremes, _nothing_asked_costs_nothing, _out_of_scope_unread),
    *(_spare_honoured, _narrow_rows),
)
"""Name of each check to the function that makes it; the docstring says what it demands."""
