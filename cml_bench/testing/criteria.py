"""The public conformance kit for criteria: does a loss keep to what an annotator was asked?"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from cml_bench.errors import CmlBenchError
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.models.heads.head import HeadOutput
from cml_bench.options import arguments
from cml_bench.runs.isolation import isolated
from cml_bench.testing.entries import ENTRY_CHECKS
from cml_bench.testing.keeping import KEEPING_CHECKS
from cml_bench.testing.outcome import (
    CheckOutcome,
    NotApplicableError,
    declared,
    named,
    require,
    require_docstring,
    require_exemptions,
    require_literals,
    run_checks,
)
from cml_bench.testing.trial import require_learnt
from cml_bench.testing.verdict import (
    ENDS,
    N_LABELS,
    CriterionCase,
    Verdict,
    made_up_dataset,
    made_up_labels,
    made_up_output,
    require_finite,
    require_same,
    same,
    stir,
)


def check_criterion(criterion: str | type[Criterion], *, raise_on_failure: bool = True) -> list[CheckOutcome]:
    """Check that a criterion keeps the rules of the suite, on made-up batches and on the toy stream.

    Args:
        criterion: A name with options, as ``"asl reduction=sum"`` or ``"clml+asl"`` or ``"./my_loss.py:MyLoss"``, or a
            class.
        raise_on_failure: Raise if a check fails, instead of only returning what was found.

    Returns:
        One outcome for each of ``CRITERION_CHECKS``.

    Raises:
        CmlBenchError: If nothing bears the name, an option is wrong, or a check fails.
    """
    return run_checks(CRITERION_CHECKS, CriterionCase(criterion), raise_on_failure=raise_on_failure)


def _metadata(case: CriterionCase) -> str:
    """Name, title, literals that lists can show, an own docstring that describes the options, real exemptions."""
    meta = declared(case.kind, CriterionMeta, case.listed_name, "name=..., title=..., ...")
    require(bool(meta.title and case.kind(**case.options).title), "meta.title or title is empty")
    require_literals(case.kind)
    require_exemptions(meta, CRITERION_CHECKS)
    return require_docstring(case.kind, arguments(case.kind), "Args")


def _config_round_trip(case: CriterionCase) -> str:
    """Options written into a method and read again are the same options."""
    return case.require_round_trip()


def _runs(case: CriterionCase) -> str:
    """A batch with all four states gives a finite scalar with gradients, early and late, and with a second view."""
    dataset, sizes = made_up_dataset(made_up_labels()), []
    for epoch in ENDS:
        criterion = case.prepared(dataset, epoch)
        for view in range(criterion.views):
            verdict = case.judge(criterion, dataset, epoch=epoch, view=bool(view))
            require(verdict.loss.dim() == 0, f"the loss has the shape {tuple(verdict.loss.shape)}, not ()")
            require_finite(verdict, f"a batch in epoch {epoch}")
            sizes.append(float(verdict.loss))
    require(any(bool(gradient.any()) for gradient in verdict.gradients), "the loss has no gradient")
    return f"losses {', '.join(f'{size:.3g}' for size in sizes)}"


def _rows(verdict: Verdict, rows: Tensor) -> Verdict:
    return Verdict(verdict.loss, verdict.logits[rows], verdict.pooled[rows], verdict.label_features[rows])


def _order_of_images(case: CriterionCase) -> str:
    """Images in another order cost the same: what is kept by image is found by its id."""
    dataset = made_up_dataset(made_up_labels())
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(1))
    for epoch in ENDS:
        criterion = case.prepared(dataset, epoch)
        stir(criterion)
        straight = case.judge(criterion, dataset, epoch=epoch)
        mixed = case.judge(criterion, dataset, epoch=epoch, rows=order)
        require_same(_rows(straight, order), mixed, f"images in another order cost otherwise in epoch {epoch}")
    return "images in another order cost the same"


def _order_of_labels(case: CriterionCase) -> str:
    """Labels in another order cost the same, if the criterion has no parameters, which begin at random."""
    labels, said = made_up_labels(), made_up_output()
    assert said.label_features is not None
    dataset = made_up_dataset(labels, first_new=0)
    if any(True for _ in case.prepared(dataset).parameters()):
        raise NotApplicableError("has parameters, which begin at random for each label")
    order = torch.randperm(N_LABELS, generator=torch.Generator().manual_seed(3))
    other = made_up_dataset(labels[:, order], first_new=0)
    moved = HeadOutput(said.logits[:, order], said.pooled, said.label_features[:, order])
    straight = case.judge(case.prepared(dataset), dataset, said)
    mixed = case.judge(case.prepared(other), other, moved)
    back = Verdict(mixed.loss, mixed.logits[:, order.argsort()], mixed.pooled, mixed.label_features[:, order.argsort()])
    require_same(straight, back, "labels in another order cost otherwise")
    return "labels in another order cost the same"


def _companion_is_judged(case: CriterionCase) -> str:
    """A second reading of the same images is judged as well, and its loss added."""
    dataset, said, second = made_up_dataset(made_up_labels()), made_up_output(), made_up_output(seed=1)
    criterion = case.prepared(dataset)
    labels, ids = dataset.labels.data, dataset.sample_ids.data

    def cost(output: HeadOutput) -> Tensor:
        with isolated(0, 1):
            loss: Tensor = copy.deepcopy(criterion)(output, labels, ids, 0)
        return loss.detach()

    both, apart = cost(said._replace(companion=second)), cost(said) + cost(second)
    require(same(both, apart), f"a reading with a companion costs {float(both):.5g}, the two alone {float(apart):.5g}")
    return "a companion is judged as well"


def _reads_as_declared(case: CriterionCase) -> str:
    """A criterion of logits judges bare logits as it judges a whole output; one that reads more may refuse them."""
    dataset, said = made_up_dataset(made_up_labels()), made_up_output()
    criterion, reads = case.prepared(dataset), [need.reads for need in case.needs if need.reads != "logits"]
    labels, ids = dataset.labels.data, dataset.sample_ids.data
    whole = criterion(said, labels, ids, 0).detach()
    try:
        bare = criterion(said.logits, labels, ids, 0).detach()
    except CmlBenchError as error:
        require(bool(reads), f"meta.reads='logits', but bare logits are refused: {error}")
        return f"reads {reads[0]}; bare logits are refused"
    alike = bool(reads) or same(whole, bare)
    require(alike, "bare logits cost otherwise than the whole output: declare meta.reads='output'")
    return f"reads {', '.join(reads) or 'logits'}; bare logits are judged"


def _learns(case: CriterionCase) -> str:
    """On the toy stream, the labels of each experience are ranked clearly better than by chance."""
    return require_learnt(case.trial)


CRITERION_CHECKS = {
    **named(_metadata, _config_round_trip, _runs),
    **ENTRY_CHECKS,
    **named(_order_of_images, _order_of_labels, _companion_is_judged, _reads_as_declared),
    **KEEPING_CHECKS,
    **named(_learns),
}
"""Name of each check of a criterion to the function that makes it; the docstring says what it demands."""
