"""The public conformance kit: does a strategy keep the rules of the suite?"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cml_bench.errors import CmlBenchError, in_one_line, suggest
from cml_bench.labels import ABSENT, PRESENT
from cml_bench.metrics.ranking import average_precision
from cml_bench.options import as_text, convert
from cml_bench.registry import load
from cml_bench.runs.method import parse_method
from cml_bench.testing_data import toy_scenario, turn_over_unknown
from cml_bench.testing_trial import MEMORY_SIZE, Case, NotApplicableError, Trial, try_out
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["CHECKS", "CheckOutcome", "check_strategy"]

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
    case = Case(strategy)
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


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _BrokenRuleError(otherwise)


def _require_same(one: Trial, other: Trial, otherwise: str) -> None:
    """Demand equal logits; ``otherwise`` gets the first experience after which they differ."""
    t = one.differs_from(other)
    _require(t is None, otherwise.format(t))


def _outcome(name: str, check: Callable[[Case], str], case: Case) -> CheckOutcome:
    if name in case.exemptions:
        return CheckOutcome(name, "exempt", case.exemptions[name])
    try:
        return CheckOutcome(name, "passed", check(case))
    except NotApplicableError as reason:
        return CheckOutcome(name, "skipped", str(reason))
    except (_BrokenRuleError, CmlBenchError) as error:
        return CheckOutcome(name, "failed", str(error))
    except Exception as error:
        return CheckOutcome(name, "failed", in_one_line(error, case.file))


def _metadata(case: Case) -> str:
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


def _config_round_trip(case: Case) -> str:
    """Options written as text and read again are the same options."""
    strategy = case.strategy
    options = {field.name: as_text(getattr(strategy, field.name)) for field in dataclasses.fields(strategy)}
    spec = dataclasses.replace(case.plan.method, options=tuple(sorted(options.items()))).spec
    read = parse_method(spec).options
    again = type(strategy)(**convert(type(strategy), dict(read), owner="the strategy"))
    _require(again == strategy, f"{strategy} written as {spec!r} is read as {again}")
    return spec


def _runs(case: Case) -> str:
    """Every experience is learnt, with finite losses and logits for all labels seen."""
    return f"learns {len(case.base.logits)} experiences"


def _learns(case: Case) -> str:
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


def _same_seed_same_result(case: Case) -> str:
    """Two runs with one seed give the same logits, bit for bit."""
    same = "two runs with seed 0 differ after experience {}: draw from run.generator(purpose) alone"
    _require_same(case.base, try_out(case.plan), same)
    return "two runs with seed 0 agree bit for bit"


def _different_seed_differs(case: Case) -> str:
    """Another seed gives other logits."""
    _require(case.base.differs_from(try_out(case.plan, seed=1)) is not None, "seeds 0 and 1 give the same logits")
    return "seeds 0 and 1 differ"


def _global_rng_untouched(case: Case) -> str:
    """Nothing is drawn from the process's generators: Avalanche's own parts do, a strategy has ``run.generator``."""
    owner, moved = type(case.strategy).__name__, ", ".join(case.base.drawn_from)
    _require(not moved, f"{owner} draws from the global generator of {moved}: use run.generator(purpose)")
    return "random, numpy.random and torch stand where they stood"


def _unknown_entries_unread(case: Case) -> str:
    """The truth behind entries that nobody annotated makes no difference."""
    scenario, count = turn_over_unknown(toy_scenario())
    read = "logits after experience {} depend on labels that nobody annotated: only entries >= 0 are known"
    _require_same(case.base, try_out(case.plan, scenario=scenario), read)
    return f"{count} labels turned over behind unknown entries change nothing"


def _future_labels(case: Case) -> str:
    """No batch is wider than the labels seen, and the rest of the stream makes no difference to its beginning."""
    n_seen = case.base.scenario.n_seen
    for t, width in case.base.watcher.widest.items():
        _require(width <= n_seen[t], f"a batch of experience {t} has {width} label columns, but {n_seen[t]} are seen")
    for t, width in enumerate(n_seen[:-1]):
        read = f"logits after experience {{}} change if the stream ends after experience {t}: the future is read"
        _require_same(try_out(case.plan, scenario=toy_scenario(width)), case.base, read)
    return "a stream that ends earlier begins the same"


def _memory_within_budget(case: Case) -> str:
    """All exemplar buffers together never hold more than ``memory_size`` images."""
    if not hasattr(case.strategy, "memory_size"):
        raise NotApplicableError("has no option memory_size")
    stored = case.memory.watcher.stored
    _require(stored <= MEMORY_SIZE, f"{stored} images are stored with memory_size={MEMORY_SIZE}")
    return f"at most {stored} images with memory_size={MEMORY_SIZE}"


def _memory_labels_as_stored(case: Case) -> str:
    """Whatever a memory or a batch holds as known was annotated so, in this experience or before."""
    altered = sorted(case.memory.watcher.altered)
    for image, column in altered[:1]:
        raise _BrokenRuleError(
            f"{len(altered)} entries are known otherwise than as annotated, first label {column} of image {image}: "
            "labels that arrived later are unknown"
        )
    return "stored labels read as annotated"


def _evaluation_changes_nothing(case: Case) -> str:
    """Evaluating once more, on future experiences too, changes neither parameters nor later logits."""
    trial = try_out(case.plan, extra_evaluations=True)
    for t, (before, after) in enumerate(trial.sizes):
        grown = f"evaluation after experience {t} takes the model from {before} to {after} parameters"
        _require(before == after, grown)
    _require_same(case.base, trial, "one more evaluation changes the logits after experience {}")
    return "one more evaluation, future experiences included, changes no logit and no size"


def _grows_once_per_experience(case: Case) -> str:
    """After each experience the head has exactly the labels seen."""
    scenario = case.base.scenario
    for t, (found, width) in enumerate(zip(case.base.head_labels, scenario.n_seen, strict=True)):
        wrong = f"after experience {t} the head has the {len(found)} labels {', '.join(found)}, but {width} are seen"
        _require(found == scenario.label_names[:width], wrong)
    return f"the head has {', '.join(map(str, scenario.n_seen))} labels"


def _no_positives_in_batch(case: Case) -> str:
    """An experience in which every annotated label is absent leaves loss and logits finite."""
    scenario = toy_scenario()
    labels = scenario.train_stream[1].dataset.labels.data
    labels[labels == PRESENT] = ABSENT
    try_out(case.plan, scenario=scenario)
    return "an experience without positives leaves everything finite"


def _both_heads(case: Case) -> str:
    """Runs on a head that shares one feature and on one that has a feature for each label."""
    heads = ("linear", "dlfl")
    for head in heads:
        try_out(dataclasses.replace(case.plan, head=load("heads", head), head_options={}))
    return f"runs with head={' and head='.join(heads)}"


def _cost_reported(case: Case) -> str:
    """Seconds, peak memory and parameters of the run are there."""
    meter, size = case.base.meter, case.base.sizes[-1][1]
    _require(size > 0 and min(meter.seconds.values()) > 0, "the run reports no parameters or no time")
    seconds = ", ".join(f"{phase} {value:.2f} s" for phase, value in meter.seconds.items())
    return f"{seconds}; peak {max(meter.peak_memory_mb.values()):.0f} MiB; {size} parameters"


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
