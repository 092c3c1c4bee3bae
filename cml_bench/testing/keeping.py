"""What a criterion keeps and leaves alone: the checks of the kit that are about parameters, growth and the model."""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from cml_bench.labels import PRESENT
from cml_bench.runs.isolation import isolated
from cml_bench.testing.outcome import NotApplicableError, named, require
from cml_bench.testing.verdict import (
    ENDS,
    EPOCHS,
    N_LABELS,
    CriterionCase,
    made_up_dataset,
    made_up_labels,
    made_up_output,
    require_finite,
    require_same,
    stir,
)


def _batch_left_alone(case: CriterionCase) -> str:
    """What is judged is not changed, and neither is the model after an experience."""
    dataset = made_up_dataset(made_up_labels())
    for epoch in ENDS:
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
        stir(criterion)
        before = {name: (parameter, parameter.detach().clone()) for name, parameter in criterion.named_parameters()}
        if not before:
            raise NotApplicableError("has no parameters")
        cost = case.judge(criterion, first)
        # In another order, as a stream that comes back to its images would.
        case.enter(criterion, model, first.subset(torch.arange(len(first)).flip(0).tolist()))
        require_same(cost, case.judge(criterion, first), "images that return cost otherwise: what was kept is lost")
        case.enter(criterion, model, later)
    after = dict(criterion.named_parameters())
    for name, (parameter, value) in before.items():
        require(after.get(name) is parameter, f"an experience replaces parameter {name}: append a block instead")
        require(torch.equal(parameter, value), f"an experience changes parameter {name}")
    require_finite(case.judge(criterion, later.subset(range(len(first)))), "a batch of the next experience")
    require_finite(case.judge(criterion, first), "a replayed batch")
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


KEEPING_CHECKS = named(_batch_left_alone, _growth_leaves_old_parameters, _parameters_are_trained)
"""Name of each check to the function that makes it; the docstring says what it demands."""
