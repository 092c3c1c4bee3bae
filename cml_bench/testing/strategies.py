"""The public conformance kit for strategies: does one learn, repeat, and look at nothing it may not see?"""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from functools import cached_property

from cml_bench.errors import CmlBenchError
from cml_bench.labels import ABSENT, PRESENT
from cml_bench.options import as_text, convert
from cml_bench.registry import load
from cml_bench.runs.declared import check_strategy_class
from cml_bench.runs.devices import check_device
from cml_bench.runs.method import Method, parse_method
from cml_bench.runs.plan import Plan, plan_method
from cml_bench.testing.case import written_in
from cml_bench.testing.outcome import (
    BrokenRuleError,
    CheckOutcome,
    NotApplicableError,
    declared,
    named,
    require,
    require_docstring,
    require_exemptions,
    run_checks,
)
from cml_bench.testing.toy import Toy, recode_unknown, toy_scenario, turn_over_unknown
from cml_bench.testing.trial import Trial, interrupted, require_learnt, try_out
from cml_bench.training.strategy import Strategy, StrategyMeta

_MEMORY_SIZE = 10
"""Images that a memory may hold where it is to overflow."""
_FEW_EPOCHS = 2
"""Epochs of runs that are compared bit for bit: what differs shows at once, or when the second epoch starts."""


def check_strategy(strategy: str | type[Strategy], *, raise_on_failure: bool = True) -> list[CheckOutcome]:
    """Check that a strategy keeps the rules of the suite, on a toy stream of six labels in three experiences.

    Args:
        strategy: A method specification, as ``"er memory_size=20"`` or ``"./my_strategy.py:MyStrategy"``, or a class.
        raise_on_failure: Raise if a check fails, instead of only returning what was found.

    Returns:
        One outcome for each of ``CHECKS``.

    Raises:
        CmlBenchError: If nothing bears the name, an option is wrong, or a check fails.
    """
    return run_checks(CHECKS, StrategyCase(strategy), raise_on_failure=raise_on_failure)


class StrategyCase:
    """A strategy under test, with the runs that several checks look at.

    Attributes:
        file: Where the strategy is written; None if it was typed into an interpreter.
        plan: The method, resolved on the toy benchmark.
    """

    def __init__(self, strategy: str | type[Strategy]) -> None:
        if isinstance(strategy, str):
            method = parse_method(strategy)
            target = load("strategies", method.strategy)
        else:
            method, target = Method(f"{strategy.__module__}:{strategy.__qualname__}", None, None, (), (), ()), strategy
        self.file = written_in(target)
        self.plan = plan_method(method, target, Toy(), {})
        check_device(self.plan.training.device)

    @property
    def subject(self) -> str:
        """How sentences call it."""
        return self.plan.method.strategy

    @property
    def strategy(self) -> Strategy:
        """The strategy, if it is one of ours."""
        if not isinstance(self.plan.learner, Strategy):
            raise NotApplicableError("only a cml_bench Strategy promises this")
        return self.plan.learner

    @property
    def exemptions(self) -> dict[str, str]:
        """Checks that the strategy declares to be inapplicable, with its reasons."""
        meta = getattr(self.plan.learner, "meta", None)
        return dict(meta.exemptions) if isinstance(meta, StrategyMeta) else {}

    @cached_property
    def base(self) -> Trial:
        """The plain run."""
        return try_out(self.plan)

    @cached_property
    def brief(self) -> Plan:
        """The method in few epochs, if its loss can do with them, and with a memory that overflows, if it has one."""
        plan = self.plan
        with suppress(CmlBenchError):
            plan.criterion(**plan.criterion_options).check_epochs(_FEW_EPOCHS)
            epochs = min(plan.training.epochs, _FEW_EPOCHS)
            plan = dataclasses.replace(plan, training=dataclasses.replace(plan.training, epochs=epochs))
        if hasattr(plan.learner, "memory_size"):
            plan = dataclasses.replace(plan, learner=dataclasses.replace(plan.learner, memory_size=_MEMORY_SIZE))
        return plan

    @cached_property
    def short(self) -> Trial:
        """The plain run of that."""
        return try_out(self.brief)

    @property
    def memory(self) -> Trial:
        """The same, of a method that keeps images where they can be looked at."""
        if not self.short.watcher.buffers:
            raise NotApplicableError("no plugin has an Avalanche ExemplarsBuffer as an attribute")
        return self.short


def _require_same(one: Trial, other: Trial, otherwise: str) -> None:
    """Demand equal logits; ``otherwise`` gets the first experience after which they differ."""
    t = one.differs_from(other)
    if t is not None:
        raise BrokenRuleError(otherwise.format(t + 1))


def _metadata(case: StrategyCase) -> str:
    """Name, title, family, an own docstring, a frozen dataclass whose options are documented, real exemptions."""
    kind, name = type(case.strategy), case.plan.method.strategy
    meta = declared(kind, StrategyMeta, None if ":" in name else name, "name=..., title=..., family=...")
    require(bool(meta.title and meta.family), "meta.title or meta.family is empty")
    decorated = "__dataclass_params__" in vars(kind)
    require(decorated, f"{kind.__name__} is no dataclass of its own: decorate it with @dataclass(frozen=True)")
    sentence = require_docstring(kind, (field.name for field in dataclasses.fields(kind)), "Attributes")
    require_exemptions(meta, CHECKS)
    check_strategy_class(kind.__name__, kind)
    return sentence


def _config_round_trip(case: StrategyCase) -> str:
    """Options written as text and read again are the same options."""
    strategy = case.strategy
    options = {field.name: as_text(getattr(strategy, field.name)) for field in dataclasses.fields(strategy)}
    spec = dataclasses.replace(case.plan.method, options=tuple(sorted(options.items()))).spec
    read = parse_method(spec).options
    again = type(strategy)(**convert(type(strategy), dict(read), owner="the strategy"))
    require(again == strategy, f"{strategy} written as {spec!r} is read as {again}")
    return spec


def _runs(case: StrategyCase) -> str:
    """Every experience is learnt, with finite losses and logits for all labels seen."""
    return f"learns {len(case.base.logits)} experiences"


def _learns(case: StrategyCase) -> str:
    """After each experience its own labels are ranked clearly better than by chance."""
    return require_learnt(case.base)


def _same_seed_same_result(case: StrategyCase) -> str:
    """Two runs with one seed give the same logits, bit for bit."""
    same = "two runs with seed 0 differ after experience {}: draw from run.generator(purpose) alone"
    _require_same(case.short, try_out(case.brief), same)
    return "two runs with seed 0 agree bit for bit"


def _different_seed_differs(case: StrategyCase) -> str:
    """Another seed gives other logits."""
    require(case.short.differs_from(try_out(case.brief, seed=1)) is not None, "seeds 0 and 1 give the same logits")
    return "seeds 0 and 1 differ"


def _global_rng_untouched(case: StrategyCase) -> str:
    """Nothing is drawn from the process's generators: Avalanche's own parts do, a strategy has ``run.generator``."""
    owner, moved = type(case.strategy).__name__, ", ".join(case.base.drawn_from)
    require(not moved, f"{owner} draws from the global generator of {moved}: use run.generator(purpose)")
    return "random, numpy.random and torch stand where they stood"


def _unknown_entries_unread(case: StrategyCase) -> str:
    """The truth behind entries that nobody annotated makes no difference."""
    scenario, count = turn_over_unknown(toy_scenario())
    read = "logits after experience {} depend on labels that nobody annotated: only entries >= 0 are known"
    _require_same(case.short, try_out(case.brief, scenario=scenario), read)
    return f"{count} labels turned over behind unknown entries change nothing"


def _codes_not_calculated_with(case: StrategyCase) -> str:
    """The numbers that stand for unknown entries are never calculated with."""
    # Neither is the number of a state: strategies may well tell UNMARKED from OUT_OF_SCOPE.
    one, other = (try_out(case.brief, scenario=recode_unknown(toy_scenario(), code)) for code in (-3, -4))
    read = (
        "logits after experience {} depend on which negative number stands for unknown: leave entries out where "
        "is_known(y) is False before a loss, a sum or a mean"
    )
    _require_same(one, other, read)
    return "whichever negative numbers stand for unknown entries, nothing changes"


def _future_labels(case: StrategyCase) -> str:
    """No batch is wider than the labels seen, and the rest of the stream makes no difference to its beginning."""
    n_seen = case.short.scenario.n_seen
    for t, width in case.short.watcher.widest.items():
        wider = f"a batch of experience {t + 1} has {width} label columns, but {n_seen[t]} are seen"
        require(width <= n_seen[t], wider)
    for t, width in enumerate(n_seen[:-1], start=1):
        read = f"logits after experience {{}} change if the stream ends after experience {t}: the future is read"
        _require_same(try_out(case.brief, scenario=toy_scenario(width)), case.short, read)
    return "a stream that ends earlier begins the same"


def _memory_within_budget(case: StrategyCase) -> str:
    """All exemplar buffers together never hold more than ``memory_size`` images."""
    if not hasattr(case.strategy, "memory_size"):
        raise NotApplicableError("has no option memory_size")
    stored = case.memory.watcher.stored
    require(stored <= _MEMORY_SIZE, f"{stored} images are stored with memory_size={_MEMORY_SIZE}")
    return f"at most {stored} images with memory_size={_MEMORY_SIZE}"


def _memory_labels_as_stored(case: StrategyCase) -> str:
    """Whatever a memory or a batch holds as known was annotated so, in this experience or before."""
    altered = sorted(case.memory.watcher.altered)
    for image, column in altered[:1]:
        raise BrokenRuleError(
            f"{len(altered)} entries are known otherwise than as annotated, first label {column} of image {image}: "
            "labels that arrived later are unknown"
        )
    return "stored labels read as annotated"


def _evaluation_changes_nothing(case: StrategyCase) -> str:
    """Evaluating once more, on future experiences too, changes neither parameters nor later logits."""
    trial = try_out(case.brief, extra_evaluations=True)
    for t, (before, after) in enumerate(trial.sizes, start=1):
        grown = f"evaluation after experience {t} takes the model from {before} to {after} parameters"
        require(before == after, grown)
    _require_same(case.short, trial, "one more evaluation changes the logits after experience {}")
    return "one more evaluation, future experiences included, changes no logit and no size"


def _grows_once_per_experience(case: StrategyCase) -> str:
    """After each experience the head has exactly the labels seen."""
    scenario = case.base.scenario
    for t, (found, width) in enumerate(zip(case.base.head_labels, scenario.n_seen, strict=True), start=1):
        wrong = f"after experience {t} the head has the {len(found)} labels {', '.join(found)}, but {width} are seen"
        require(found == scenario.label_names[:width], wrong)
    return f"the head has {', '.join(map(str, scenario.n_seen))} labels"


def _no_positives_in_batch(case: StrategyCase) -> str:
    """An experience in which every annotated label is absent leaves loss and logits finite."""
    scenario = toy_scenario()
    labels = scenario.train_stream[1].dataset.labels.data
    labels[labels == PRESENT] = ABSENT
    try_out(case.brief, scenario=scenario)
    return "an experience without positives leaves everything finite"


def _both_heads(case: StrategyCase) -> str:
    """Runs on a head that shares one feature and on one that has a feature for each label."""
    heads = ("linear", "dlfl")
    for head in heads:
        try_out(dataclasses.replace(case.brief, head=load("heads", head), head_options={}))
    return f"runs with head={' and head='.join(heads)}"


def _resumes_exactly(case: StrategyCase) -> str:
    """Interrupted in and after every experience, a run that goes on each time gives the same logits, bit for bit."""
    lost = "logits after experience {} differ if the run is interrupted before: keep state in attributes alone"
    _require_same(case.short, interrupted(case.brief), lost)
    return f"{2 * len(case.base.logits) - 1} interruptions change no bit"


def _cost_reported(case: StrategyCase) -> str:
    """Seconds, peak memory and parameters of the run are there."""
    meter, size = case.base.meter, case.base.sizes[-1][1]
    require(size > 0 and min(meter.seconds.values()) > 0, "the run reports no parameters or no time")
    seconds = ", ".join(f"{phase} {value:.2f} s" for phase, value in meter.seconds.items())
    return f"{seconds}; peak {max(meter.peak_memory_mb.values()):.0f} MiB; {size} parameters"


CHECKS = named(
    *(_metadata, _config_round_trip, _runs, _learns, _same_seed_same_result, _different_seed_differs),
    *(_global_rng_untouched, _unknown_entries_unread, _codes_not_calculated_with, _future_labels),
    *(_memory_within_budget, _memory_labels_as_stored, _evaluation_changes_nothing, _grows_once_per_experience),
    *(_no_positives_in_batch, _both_heads, _resumes_exactly, _cost_reported),
)
"""Name of each check of a strategy to the function that makes it; the docstring says what it demands."""
