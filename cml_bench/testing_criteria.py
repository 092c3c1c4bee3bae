"""The public conformance kit for criteria: does a loss keep to what an annotator was asked?"""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn.functional import pad

from cml_bench.errors import CmlBenchError
from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED, is_known
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.models.heads.head import HeadOutput
from cml_bench.options import arguments, as_text, convert
from cml_bench.runs.isolation import isolated
from cml_bench.runs.method import Method, parse_method
from cml_bench.testing_outcome import (
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
from cml_bench.testing_trial import require_learnt
from cml_bench.testing_verdict import (
    EPOCHS,
    N_LABELS,
    CriterionCase,
    Verdict,
    made_up_dataset,
    made_up_labels,
    made_up_output,
)

_EPOCHS = (0, EPOCHS - 1)
_TOLERANCE = 1e-4
_SPARE = 2


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
    case = CriterionCase(criterion)
    return run_checks(
        CRITERION_CHECKS,
        case,
        subject=f"criterion {case.name}",
        exemptions=dict(getattr(getattr(case.kind, "meta", None), "exemptions", {})),
        file=case.file,
        raise_on_failure=raise_on_failure,
    )


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE)


def _require_same(one: Verdict, other: Verdict, otherwise: str) -> None:
    """Demand the same loss and the same gradients."""
    require(_close(one.loss, other.loss), f"{otherwise}: {float(one.loss):.5g} and {float(other.loss):.5g}")
    require(
        all(_close(*pair) for pair in zip(one.gradients, other.gradients, strict=True)), f"{otherwise}, in gradients"
    )


def _rows(verdict: Verdict, rows: Tensor) -> Verdict:
    return Verdict(verdict.loss, verdict.logits[rows], verdict.pooled[rows], verdict.label_features[rows])


def _metadata(case: CriterionCase) -> str:
    """Name, title, literals that lists can show, an own docstring that describes the options, real exemptions."""
    meta = declared(case.kind, CriterionMeta, None if ":" in case.name else case.name, "name=..., title=..., ...")
    require(bool(meta.title and case.kind(**case.options).title), "meta.title or title is empty")
    require_literals(case.kind)
    require_exemptions(meta, CRITERION_CHECKS)
    return require_docstring(case.kind, arguments(case.kind), "Args")


def _config_round_trip(case: CriterionCase) -> str:
    """Options written into a method and read again are the same options."""
    options = {**{name: parameter.default for name, parameter in arguments(case.kind).items()}, **case.options}
    written = tuple(sorted((name, as_text(value)) for name, value in options.items()))
    spec = Method("naive", None, case.name, (), written, ()).spec
    again = convert(case.kind, dict(parse_method(spec).loss_options), owner=f"criterion {case.name}")
    require(again == options, f"{options} written as {spec!r} is read as {again}")
    return spec.removeprefix("naive ")


def _runs(case: CriterionCase) -> str:
    """A batch with all four states gives a finite scalar with gradients, early and late, and with a second view."""
    dataset, sizes = made_up_dataset(made_up_labels()), []
    for epoch in _EPOCHS:
        criterion = case.prepared(dataset, epoch)
        for view in range(case.kind.meta.views):
            verdict = case.judge(criterion, dataset, epoch=epoch, view=bool(view))
            require(verdict.loss.dim() == 0, f"the loss has the shape {tuple(verdict.loss.shape)}, not ()")
            _require_finite(verdict, f"a batch in epoch {epoch}")
            sizes.append(float(verdict.loss))
    require(any(bool(gradient.any()) for gradient in verdict.gradients), "the loss has no gradient")
    return f"losses {', '.join(f'{size:.3g}' for size in sizes)}"


def _require_finite(verdict: Verdict, batch: str) -> None:
    require(bool(verdict.loss.isfinite()), f"{batch} costs {float(verdict.loss)}")
    require(all(bool(g.isfinite().all()) for g in verdict.gradients), f"{batch} gives gradients that are not finite")


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
        for epoch in _EPOCHS:
            criterion = case.prepared(dataset, epoch)
            _require_finite(case.judge(criterion, dataset, epoch=epoch), f"{name}, in epoch {epoch},")
            for image in range(3):
                one = case.judge(criterion, dataset, epoch=epoch, rows=torch.tensor([image]))
                _require_finite(one, f"one image of {name}, in epoch {epoch},")
    return f"{len(batches)} kinds of batches and images alone are finite"


def _finite_at_extremes(case: CriterionCase) -> str:
    """Logits of 200 and -200, right and wrong, leave loss and gradients finite."""
    dataset, said = made_up_dataset(made_up_labels()), made_up_output()
    for epoch in _EPOCHS:
        criterion = case.prepared(dataset, epoch)
        for sign in (200.0, -200.0):
            verdict = case.judge(criterion, dataset, said._replace(logits=sign * said.logits.sign()), epoch=epoch)
            _require_finite(verdict, f"logits of 200 and -200, in epoch {epoch},")
    return "logits of 200 and -200 are finite"


def _nothing_asked_costs_nothing(case: CriterionCase) -> str:
    """A batch that is out of scope altogether costs 0 and has no gradient."""
    dataset = made_up_dataset(made_up_labels(OUT_OF_SCOPE))
    for epoch in _EPOCHS:
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
    for epoch in _EPOCHS:
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
            _require_same(plain, other, f"what the head says of {what} changes the loss in epoch {epoch}")


def _out_of_scope_unread(case: CriterionCase) -> str:
    """Entries nobody was asked for make no difference and get no gradient, whatever is made of UNMARKED ones."""
    labels = made_up_labels()
    labels[3:5], labels[6:, 1] = OUT_OF_SCOPE, OUT_OF_SCOPE
    _require_unread(case, labels, labels == OUT_OF_SCOPE, "OUT_OF_SCOPE entries")
    dataset = made_up_dataset(labels)
    gradient = case.judge(case.prepared(dataset, _EPOCHS[1]), dataset, epoch=_EPOCHS[1]).logits
    read = bool(gradient[labels == UNMARKED].any())
    return f"OUT_OF_SCOPE entries are left alone; UNMARKED ones are {'learnt from' if read else 'left alone as well'}"


def _spare_honoured(case: CriterionCase) -> str:
    """Unknown entries of the ``spare`` leading columns are another's to answer for; known ones go on counting."""
    labels = made_up_labels()
    leading = torch.arange(N_LABELS) < _SPARE
    _require_unread(case, labels, leading & ~is_known(labels), f"unknown entries of {_SPARE} spared columns", _SPARE)
    dataset = made_up_dataset(labels)
    for epoch in _EPOCHS:
        usual = case.judge(case.prepared(dataset, epoch), dataset, epoch=epoch).logits
        spared = case.judge(case.prepared(dataset, epoch, _SPARE), dataset, epoch=epoch).logits
        lost = leading & is_known(labels) & (usual != 0) & (spared == 0)
        require(not bool(lost.any()), f"spare={_SPARE} takes known entries away in epoch {epoch}")
    return f"spare={_SPARE} leaves unknown entries of two columns alone, and known ones in"


def _order_of_images(case: CriterionCase) -> str:
    """Images in another order cost the same: what is kept by image is found by its id."""
    dataset = made_up_dataset(made_up_labels())
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(1))
    for epoch in _EPOCHS:
        criterion = case.prepared(dataset, epoch)
        _stir(criterion)
        straight = case.judge(criterion, dataset, epoch=epoch)
        mixed = case.judge(criterion, dataset, epoch=epoch, rows=order)
        _require_same(_rows(straight, order), mixed, f"images in another order cost otherwise in epoch {epoch}")
    return "images in another order cost the same"


def _stir(criterion: torch.nn.Module) -> None:
    """Move what is learnt away from where it starts, where images may be alike."""
    generator = torch.Generator().manual_seed(2)
    for parameter in criterion.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator).to(parameter)


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
    _require_same(straight, back, "labels in another order cost otherwise")
    return "labels in another order cost the same"


def _narrow_rows(case: CriterionCase) -> str:
    """A row stored before labels arrived costs what it costs with these out of scope."""
    labels = made_up_labels()
    labels[:, 3:] = OUT_OF_SCOPE
    dataset = made_up_dataset(labels)
    criterion = case.prepared(dataset)
    narrow, padded = case.judge(criterion, dataset, width=3), case.judge(criterion, dataset)
    _require_same(narrow, padded, "rows that are too narrow cost otherwise than padded ones")
    return "narrow rows cost what padded ones do"


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
    require(
        _close(both, apart), f"a reading with a companion costs {float(both):.5g}, the two alone {float(apart):.5g}"
    )
    return "a companion is judged as well"


def _reads_as_declared(case: CriterionCase) -> str:
    """A criterion of logits judges bare logits as it judges a whole output; one that reads more may refuse them."""
    dataset, said = made_up_dataset(made_up_labels()), made_up_output()
    criterion, reads = case.prepared(dataset), case.kind.meta.reads
    labels, ids = dataset.labels.data, dataset.sample_ids.data
    whole = criterion(said, labels, ids, 0).detach()
    try:
        bare = criterion(said.logits, labels, ids, 0).detach()
    except CmlBenchError as error:
        require(reads != "logits", f"meta.reads='logits', but bare logits are refused: {error}")
        return f"reads {reads}; bare logits are refused"
    same = reads != "logits" or _close(whole, bare)
    require(same, "bare logits cost otherwise than the whole output: declare meta.reads='output'")
    return f"reads {reads}; bare logits are judged"


def _batch_left_alone(case: CriterionCase) -> str:
    """What is judged is not changed, and neither is the model after an experience."""
    dataset = made_up_dataset(made_up_labels())
    for epoch in _EPOCHS:
        changed = case.judge(case.prepared(dataset, epoch), dataset, epoch=epoch).changed
        require(not changed, "the criterion changes its arguments: work on a copy")
    with isolated(0, 1):
        criterion, model = case.kind(**case.options), case.model()
        case.enter(criterion, model, dataset)
        kept = {name: (p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}
        for epoch in range(EPOCHS):
            criterion.start_epoch(model, dataset, epoch, EPOCHS)
        criterion.end_experience(model)
    for name, parameter in model.named_parameters():
        value, trained = kept[name]
        require(torch.equal(parameter, value), f"the criterion changes parameter {name} of the model")
        require(
            parameter.requires_grad == trained, f"after an experience parameter {name} of the model is frozen or thawed"
        )
    require(all(module.training for module in model.modules()), "the criterion leaves the model in evaluation mode")
    return "neither the batch nor the model is changed"


def _growth_leaves_old_parameters(case: CriterionCase) -> str:
    """New labels leave old parameters the same objects with the same bits; images that return find what was kept."""
    first = made_up_dataset(made_up_labels())
    later = made_up_dataset(pad(made_up_labels(seed=1), (0, 2), value=PRESENT), first_id=70, first_new=N_LABELS)
    with isolated(0, 1):
        criterion, model = case.kind(**case.options), case.model()
        case.enter(criterion, model, first)
        _stir(criterion)
        before = {name: (parameter, parameter.detach().clone()) for name, parameter in criterion.named_parameters()}
        if not before:
            raise NotApplicableError("has no parameters")
        cost = case.judge(criterion, first)
        # In another order, as a stream that comes back to its images would.
        case.enter(criterion, model, first.subset(torch.arange(len(first)).flip(0).tolist()))
        _require_same(cost, case.judge(criterion, first), "images that return cost otherwise: what was kept is lost")
        case.enter(criterion, model, later)
    after = dict(criterion.named_parameters())
    for name, (parameter, value) in before.items():
        require(after.get(name) is parameter, f"an experience replaces parameter {name}: append a block instead")
        require(torch.equal(parameter, value), f"an experience changes parameter {name}")
    _require_finite(case.judge(criterion, later.subset(range(len(first)))), "a batch of the next experience")
    _require_finite(case.judge(criterion, first), "a replayed batch")
    return f"{len(before)} old parameters stand, {len(after) - len(before)} are new"


def _parameters_are_trained(case: CriterionCase) -> str:
    """Own parameters end up in the optimiser, and each gets a gradient in some epoch."""
    dataset, reached = made_up_dataset(made_up_labels()), set[str]()
    with isolated(0, 1):
        criterion = case.kind(**case.options)
        case.enter(criterion, case.model(), dataset)
    there = {name for name, parameter in criterion.named_parameters()}
    own: dict[str, torch.nn.Parameter] = {}
    for epoch in range(EPOCHS):
        criterion = case.prepared(dataset, epoch)
        said = made_up_output()
        said.logits.requires_grad_()
        said.pooled.requires_grad_()
        with isolated(0, 1):
            criterion(said, dataset.labels.data, dataset.sample_ids.data, epoch).backward()
        own = {name: parameter for name, parameter in criterion.named_parameters() if parameter.requires_grad}
        reached |= {
            name for name, parameter in own.items() if parameter.grad is not None and bool(parameter.grad.any())
        }
    if not own:
        raise NotApplicableError("has no parameters")
    late = [name for name in own if name not in there]
    require(not late, f"the optimiser does not know {', '.join(late)}: make parameters in start_experience or build")
    idle = [name for name in own if name not in reached]
    require(not idle, f"no gradient reaches {', '.join(idle)}")
    learner = case.trial.learner
    optimised = {id(parameter) for group in learner.optimizer.param_groups for parameter in group["params"]}
    left = [name for name, p in learner._criterion.named_parameters() if p.requires_grad and id(p) not in optimised]
    require(not left, f"in training, the optimiser has lost {', '.join(left)}")
    return f"{len(own)} parameters are trained"


def _learns(case: CriterionCase) -> str:
    """On the toy stream, the labels of each experience are ranked clearly better than by chance."""
    return require_learnt(case.trial)


CRITERION_CHECKS = named(
    *(_metadata, _config_round_trip, _runs, _finite_without_positives, _finite_at_extremes),
    *(_nothing_asked_costs_nothing, _out_of_scope_unread, _spare_honoured, _order_of_images, _order_of_labels),
    *(_narrow_rows, _companion_is_judged, _reads_as_declared, _batch_left_alone, _growth_leaves_old_parameters),
    *(_parameters_are_trained, _learns),
)
"""Name of each check of a criterion to the function that makes it; the docstring says what it demands."""
