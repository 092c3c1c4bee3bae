"""The public conformance kit: does a strategy keep the rules of the suite?"""

from __future__ import annotations

import dataclasses
import inspect
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from cml_bench.errors import CmlBenchError, suggest
from cml_bench.labels import ABSENT, PRESENT
from cml_bench.metrics.ranking import average_precision
from cml_bench.options import as_text, convert
from cml_bench.registry import load
from cml_bench.runs.method import Method, parse_method
from cml_bench.runs.setup import plan_method
from cml_bench.testing_data import Toy, Trial, toy_scenario, try_out, turn_over_unknown
from cml_bench.training.strategy import Strategy, StrategyMeta
from cml_bench.training.template import MultiLabelTemplate

__all__ = ["CHECKS", "CheckOutcome", "check_strategy"]

_BUDGET = 10
_ABOVE_CHANCE = 0.2


@dataclass(frozen=True)
class CheckOutcome:
    """What one check found.

    Attributes:
        name: Name of the check, as in ``StrategyMeta.exemptions``.
        status: ``exempt`` if the strategy declares that the check cannot apply, ``skipped`` if it has no subject.
        detail: What was measured, what is wrong, or why it was not looked at.
    """

    name: str
    status: Literal["passed", "failed", "exempt", "skipped"]
    detail: str


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
    case = _Case(strategy)
    outcomes: list[CheckOutcome] = []
    for name, check in CHECKS.items():
        # One that does not run would fail nearly all the others, for the same reason.
        stuck = any((outcome.name, outcome.status) == ("runs", "failed") for outcome in outcomes)
        outcomes.append(CheckOutcome(name, "skipped", "it does not run") if stuck else _outcome(name, check, case))
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if failed and raise_on_failure:
        reasons = "; ".join(f"{outcome.name}: {outcome.detail}" for outcome in failed)
        raise CmlBenchError(f"{case.plan.method.strategy} fails {len(failed)} of {len(outcomes)} checks ({reasons})")
    return outcomes


class _BrokenRuleError(Exception):
    """A rule is broken."""


class _NotApplicableError(Exception):
    """There is nothing to check."""


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _BrokenRuleError(otherwise)


class _Case:
    """A strategy under test, with the runs that several checks look at."""

    def __init__(self, strategy: str | type[Strategy]) -> None:
        if isinstance(strategy, str):
            method = parse_method(strategy)
            target = load("strategies", method.strategy)
        else:
            method = Method(f"{strategy.__module__}:{strategy.__qualname__}", None, None, (), (), ())
            target = strategy
        self.plan = plan_method(method, target, Toy(), {})

    @property
    def strategy(self) -> Strategy:
        """The strategy, if it is one of ours."""
        if not isinstance(self.plan.learner, Strategy):
            raise _NotApplicableError("only a cml_bench Strategy declares this")
        return self.plan.learner

    @property
    def exemptions(self) -> dict[str, str]:
        meta = getattr(self.plan.learner, "meta", None)
        return dict(meta.exemptions) if isinstance(meta, StrategyMeta) else {}

    @cached_property
    def base(self) -> Trial:
        """The plain run."""
        return try_out(self.plan)

    @cached_property
    def memory(self) -> Trial:
        """A run with a memory that overflows."""
        plan = self.plan
        if hasattr(plan.learner, "memory_size"):
            plan = dataclasses.replace(plan, learner=dataclasses.replace(plan.learner, memory_size=_BUDGET))
        trial = try_out(plan)
        if not trial.watcher.buffers:
            raise _NotApplicableError("no plugin has an Avalanche ExemplarsBuffer as an attribute")
        return trial


def _outcome(name: str, check: Callable[[_Case], str], case: _Case) -> CheckOutcome:
    if name in case.exemptions:
        return CheckOutcome(name, "exempt", case.exemptions[name])
    try:
        return CheckOutcome(name, "passed", check(case))
    except _NotApplicableError as reason:
        return CheckOutcome(name, "skipped", str(reason))
    except (_BrokenRuleError, CmlBenchError) as error:
        return CheckOutcome(name, "failed", str(error))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        detail = f"{type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})"
        return CheckOutcome(name, "failed", detail)


def _metadata(case: _Case) -> str:
    """Name, title, family, an own docstring, a frozen dataclass whose options are documented, real exemptions."""
    kind = type(case.strategy)
    meta = getattr(kind, "meta", None)
    if not isinstance(meta, StrategyMeta):
        raise _BrokenRuleError(f"{kind.__name__} has no meta: add meta = StrategyMeta(name=..., title=..., family=...)")
    _require(re.fullmatch(r"[a-z][a-z0-9_]*", meta.name) is not None, f"meta.name={meta.name!r} is not snake_case")
    name = case.plan.method.strategy
    _require(":" in name or meta.name == name, f"meta.name={meta.name!r} differs from the name {name!r} it goes by")
    _require(bool(meta.title and meta.family), "meta.title or meta.family is empty")
    decorated = "__dataclass_params__" in vars(kind)
    _require(decorated, f"{kind.__name__} is no dataclass of its own: decorate it with @dataclass(frozen=True)")
    doc = inspect.cleandoc(vars(kind).get("__doc__") or "")
    # A dataclass without a docstring gets its signature as one.
    own = bool(doc) and not doc.startswith(f"{kind.__name__}(")
    _require(own, f"{kind.__name__} has no docstring: its first sentence says what the strategy does")
    _require(doc.split("\n\n")[0].rstrip().endswith("."), "the first paragraph of the docstring is no sentence")
    docs = "\n".join(inspect.cleandoc(base.__doc__ or "") for base in kind.__mro__)
    for field in dataclasses.fields(kind):
        described = re.search(rf"^\s+{field.name}: \S", docs, re.MULTILINE)
        _require(described is not None, f"option {field.name!r} is not described under 'Attributes:' in the docstring")
    for check in meta.exemptions:
        _require(check in CHECKS, f"meta.exemptions names {check!r}, which is no check: {suggest(check, CHECKS)}")
    return doc.split("\n\n")[0].replace("\n", " ")


def _config_round_trip(case: _Case) -> str:
    """Options written as text and read again are the same options."""
    strategy = case.strategy
    options = {field.name: as_text(getattr(strategy, field.name)) for field in dataclasses.fields(strategy)}
    spec = dataclasses.replace(case.plan.method, options=tuple(sorted(options.items()))).spec
    read = parse_method(spec).options
    again = type(strategy)(**convert(type(strategy), dict(read), owner="the strategy"))
    _require(again == strategy, f"{strategy} written as {spec!r} is read as {again}")
    return spec


def _runs(case: _Case) -> str:
    """Every experience is learnt, with finite losses and logits for all labels seen."""
    return f"learns {len(case.base.logits)} experiences"


def _learns(case: _Case) -> str:
    """After each experience its own labels are ranked clearly better than by chance."""
    scenario = case.base.scenario
    truth, found, first = scenario.splits["test"].truth, [], 0
    for logits, end in zip(case.base.logits, scenario.n_seen, strict=True):
        found.append(average_precision(logits[:, first:end].numpy(), truth[:, first:end]).mean())
        first = end
    reached, chance = float(np.mean(found)), float((truth == PRESENT).mean())
    detail = f"mAP of the labels just learnt {reached:.3f}, by chance {chance:.3f}"
    _require(reached >= chance + _ABOVE_CHANCE, f"{detail}: at least {chance + _ABOVE_CHANCE:.3f} is expected")
    return detail


def _same_seed_same_result(case: _Case) -> str:
    """Two runs with one seed give the same logits, bit for bit."""
    differing = _first_difference(case.base, try_out(case.plan))
    _require(
        differing is None,
        f"two runs with seed 0 differ after experience {differing}: draw from run.generator(purpose) alone",
    )
    return "two runs with seed 0 agree bit for bit"


def _different_seed_differs(case: _Case) -> str:
    """Another seed gives other logits."""
    _require(_first_difference(case.base, try_out(case.plan, seed=1)) is not None, "seeds 0 and 1 give the same logits")
    return "seeds 0 and 1 differ"


def _global_rng_untouched(case: _Case) -> str:
    """Nothing is drawn from the process's generators."""
    if not isinstance(case.base.learner, MultiLabelTemplate):
        raise _NotApplicableError(
            "Avalanche's own loop draws from the global generators; a run sets them and puts them back"
        )
    moved = ", ".join(case.base.drawn_from)
    _require(not moved, f"the run draws from the global generator of {moved}: use run.generator(purpose)")
    return "random, numpy.random and torch stand where they stood"


def _unknown_entries_unread(case: _Case) -> str:
    """The truth behind entries that nobody annotated makes no difference."""
    scenario, count = turn_over_unknown(toy_scenario())
    differing = _first_difference(case.base, try_out(case.plan, scenario=scenario))
    _require(
        differing is None,
        f"logits after experience {differing} depend on labels that nobody annotated: only entries >= 0 are known",
    )
    return f"{count} labels turned over behind unknown entries change nothing"


def _future_labels(case: _Case) -> str:
    """No batch is wider than the labels seen, and the rest of the stream makes no difference to its beginning."""
    n_seen = case.base.scenario.n_seen
    for t, width in case.base.watcher.widest.items():
        _require(width <= n_seen[t], f"a batch of experience {t} has {width} label columns, but {n_seen[t]} are seen")
    for t, width in enumerate(n_seen[:-1]):
        shorter = try_out(case.plan, scenario=toy_scenario(width))
        differing = _first_difference(shorter, case.base)
        _require(
            differing is None,
            f"logits after experience {differing} change if the stream ends after experience {t}: the future is read",
        )
    return "a stream that ends earlier begins the same"


def _memory_within_budget(case: _Case) -> str:
    """All exemplar buffers together never hold more than ``memory_size`` images."""
    if not hasattr(case.strategy, "memory_size"):
        raise _NotApplicableError("has no option memory_size")
    stored = case.memory.watcher.stored
    _require(stored <= _BUDGET, f"{stored} images are stored with memory_size={_BUDGET}")
    return f"at most {stored} images with memory_size={_BUDGET}"


def _memory_labels_as_stored(case: _Case) -> str:
    """Whatever a memory or a batch holds as known was annotated so, in this experience or before."""
    altered = sorted(case.memory.watcher.altered)
    if altered:
        image, column = altered[0]
        raise _BrokenRuleError(
            f"{len(altered)} entries are read otherwise than annotated, first label {column} of image {image}: labels "
            "that arrived later are unknown"
        )
    return "stored labels read as annotated"


def _evaluation_changes_nothing(case: _Case) -> str:
    """Evaluating once more, on future experiences too, changes neither parameters nor later logits."""
    trial = try_out(case.plan, extra_evaluations=True)
    for t, (before, after) in enumerate(trial.sizes):
        grown = f"evaluation after experience {t} takes the model from {before} to {after} parameters"
        _require(before == after, grown)
    differing = _first_difference(case.base, trial)
    _require(differing is None, f"one more evaluation changes the logits after experience {differing}")
    return "one more evaluation, future experiences included, changes no logit and no size"


def _grows_once_per_experience(case: _Case) -> str:
    """After each experience the head has exactly the labels seen."""
    scenario = case.base.scenario
    for t, (labels, width) in enumerate(zip(case.base.head_labels, scenario.n_seen, strict=True)):
        expected = scenario.label_names[:width]
        _require(labels == expected, f"after experience {t} the head has {_listed(labels)}, not {_listed(expected)}")
    return f"the head has {', '.join(map(str, scenario.n_seen))} labels"


def _no_positives_in_batch(case: _Case) -> str:
    """An experience in which every annotated label is absent leaves loss and logits finite."""
    scenario = toy_scenario()
    labels = scenario.train_stream[1].dataset.labels.data
    labels[labels == PRESENT] = ABSENT
    try_out(case.plan, scenario=scenario)
    return "an experience without positives leaves everything finite"


def _both_heads(case: _Case) -> str:
    """Runs on a head that shares one feature and on one that has a feature for each label."""
    heads = ("dlfl",) if case.strategy.meta.needs_label_features else ("linear", "dlfl")
    for head in heads:
        try_out(dataclasses.replace(case.plan, head=load("heads", head), head_options={}))
    return f"runs with head={' and head='.join(heads)}"


def _cost_reported(case: _Case) -> str:
    """Seconds, peak memory and parameters of the run are there."""
    meter, size = case.base.meter, case.base.sizes[-1][1]
    _require(size > 0 and sum(meter.seconds.values()) > 0, "the run reports no parameters or no time")
    seconds = ", ".join(f"{phase} {value:.2f} s" for phase, value in meter.seconds.items())
    return f"{seconds}; peak {max(meter.peak_memory_mb.values()):.0f} MiB; {size} parameters"


def _first_difference(one: Trial, other: Trial) -> int | None:
    """Return the first experience after which the logits differ in a bit, over the experiences both have."""
    for t, (a, b) in enumerate(zip(one.logits, other.logits, strict=False)):
        if not torch.equal(a, b):
            return t
    return None


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} labels ({', '.join(names)})"


CHECKS: dict[str, Callable[[Any], str]] = {
    check.__name__.removeprefix("_"): check
    for check in (
        *(_metadata, _config_round_trip, _runs, _learns, _same_seed_same_result, _different_seed_differs),
        *(_global_rng_untouched, _unknown_entries_unread, _future_labels, _memory_within_budget),
        *(_memory_labels_as_stored, _evaluation_changes_nothing, _grows_once_per_experience),
        *(_no_positives_in_batch, _both_heads, _cost_reported),
    )
}
"""Name of each check to the function that makes it; the docstring says what it demands."""
