"""From a job's text to a plan: every name looked up, every option typed and checked.

A plan may be for another machine: whether this one has the device is for those to ask who run it (``check_device``).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.templates.base_sgd import BaseSGDTemplate

from cml_bench.data.data_set import DataSet
from cml_bench.errors import CmlBenchError, suggest
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.models.heads.head import Head
from cml_bench.models.wrappers.wrapper import Wrapper
from cml_bench.options import Pairs, arguments, beyond_defaults, convert, recorded
from cml_bench.regimes.regime import Regime
from cml_bench.registry import load, load_class
from cml_bench.runs.benchmark import Benchmark, load_benchmark, option_of_benchmark
from cml_bench.runs.declared import check_criterion, check_strategy_class
from cml_bench.runs.job import LOCATIONS, Job
from cml_bench.runs.method import Method, parse_method
from cml_bench.runs.upstream import refuse_unfit
from cml_bench.training.config import TRAINING_KEYS, TrainingConfig
from cml_bench.training.federation import parse_federation
from cml_bench.training.strategy import Strategy, StrategyMeta

_SUPPLIED = (
    *("self", "model", "optimizer", "criterion", "device", "plugins", "evaluator"),
    *("train_mb_size", "train_epochs", "eval_mb_size", "eval_every", "peval_mode"),
)
"""Arguments of an Avalanche strategy that the runner gives, so that they are not options."""
_BUILT = ("self", "in_features")
"""The same of a head."""
_OF_COMMANDS = {
    **dict.fromkeys(("seed", "seeds"), ("--seeds", "seeds")),
    **dict.fromkeys(("method", "methods"), ("--method", "methods")),
    "class_orders": ("--class-orders", "class_orders"),
}
"""What is easily taken for an option: what the commands call it, and suites."""
_OTHER_PARTS: dict[type, str] = {
    Criterion: "a criterion: a method takes it as loss={name}, a check as criterion:{name}",
    Head: "a head: a method takes it as head={name}, a check as head:{name}",
    Benchmark: "a benchmark: cml-bench run {name} runs methods on it, a check takes it as benchmark:{name}",
    DataSet: "a data set: a benchmark reads it, and cml-bench data verify {name} checks it",
    Regime: "a regime: it is set as regime={name}",
    Wrapper: "a wrapper: a method takes it as wrap={name}",
}
"""What is no strategy, and where it goes."""


@dataclass(frozen=True)
class Plan:
    """A job resolved: every option typed and checked, nothing built yet.

    Attributes:
        benchmark: The benchmark with its options.
        training: Training settings: the benchmark's, then the job's, then the method's.
        method: The parsed method.
        learner: Strategy instance, or a plain Avalanche strategy, plugin or factory with ``learner_options``.
        learner_options: Typed options of a plain Avalanche learner.
        head: Head class.
        head_options: Typed options.
        criterion: Criterion class.
        criterion_options: Typed options.
        wrapper: Wrapper class, or None.
        wrapper_options: Typed options.
    """

    benchmark: Benchmark
    training: TrainingConfig
    method: Method
    learner: Any
    learner_options: dict[str, Any]
    head: type[Head]
    head_options: dict[str, Any]
    criterion: type[Criterion]
    criterion_options: dict[str, Any]
    wrapper: type[Wrapper] | None = None
    wrapper_options: dict[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, dict[str, Any]]:
        """Return all options of benchmark and training, as a result holds them."""
        benchmark, training = dataclasses.asdict(self.benchmark), dataclasses.asdict(self.training)
        return {
            "benchmark": recorded(benchmark, f"benchmark {self.benchmark.meta.name}"),
            "training": recorded(training, "training"),
        }

    def describe(self) -> dict[str, Any]:
        """Return what tables show of the method and what a rerun needs to know, as a result holds it.

        Raises:
            CmlBenchError: If an option is of a type that no result can hold.
        """
        head, own = self.head.meta.name, self.criterion.meta.name
        is_strategy = isinstance(self.learner, Strategy)
        options = dataclasses.asdict(self.learner) if is_strategy else self.learner_options
        loss = self.criterion(**self.criterion_options)
        return {
            "title": self.learner.meta.title if is_strategy else self.learner.__name__,
            "family": self.learner.meta.family if is_strategy else "avalanche",
            "head": head,
            "head_options": recorded(beyond_defaults(self.head, self.head_options), f"head {head}"),
            "loss": loss.title,
            "loss_options": recorded(beyond_defaults(self.criterion, self.criterion_options), f"loss {own}"),
            "wrap": self.wrapper and self.wrapper.meta.name,
            "wrap_options": recorded(beyond_defaults(self.wrapper, self.wrapper_options), f"wrapper {self.method.wrap}")
            if self.wrapper
            else {},
            "options": recorded(options, f"strategy {self.method.strategy}"),
            "replay_labels": options.get("relabel"),
        }


def plan(job: Job) -> Plan:
    """Resolve a job.

    Raises:
        CmlBenchError: If a name or option is unknown or contradicts another.
    """
    kind = load_benchmark(job.benchmark)
    shared, own = _split(job.options)
    method = parse_method(job.method)
    strategy = load("strategies", method.strategy)
    check_strategy_class(method.strategy, strategy)
    for key in own:
        part = key.partition(".")[0]
        if key not in arguments(kind) and (key in arguments(strategy) or part in ("head", "loss", "wrap")):
            whose = f"strategy {method.strategy}" if key in arguments(strategy) else "methods"
            raise CmlBenchError(
                f"{key!r} is an option of {whose}: write it with the method, as in '{method.strategy} {key}={own[key]}'"
            )
    _check_place(own, kind)
    for key in sorted(LOCATIONS & {*own} - {*arguments(kind)}):
        raise CmlBenchError(f"benchmark {job.benchmark} reads no files of {key}: leave out {key}={own[key]!r:.60}")
    for key in own:
        if key not in arguments(kind):
            known = {*arguments(kind), *_beside(method, strategy)}
            raise CmlBenchError(
                f"neither benchmark {job.benchmark} nor the training has an option {key!r}: {suggest(key, known)}"
            )
    benchmark = kind(**convert(kind, own, owner=f"benchmark {job.benchmark}", written=option_of_benchmark))
    return plan_method(method, strategy, benchmark, shared)


def plan_method(method: Method, target: Any, benchmark: Benchmark, settings: Mapping[str, str]) -> Plan:
    """Resolve a method on a benchmark.

    Args:
        method: The parsed method.
        target: What its strategy's name stands for.
        benchmark: The benchmark with its options.
        settings: Training settings, as typed, that come before the method's own.

    Raises:
        CmlBenchError: If a name or option is unknown or contradicts another.
    """
    overrides, strategy_options = _split(method.options)
    _check_place(strategy_options, target)
    training = _training(benchmark.training, {**settings, **overrides})
    if benchmark.online_chunk and (training.epochs, training.schedule) != (1, "constant"):
        raise CmlBenchError(
            f"online_chunk is a single pass of unknown length but epochs={training.epochs}, "
            f"schedule={training.schedule}: set epochs=1 schedule=constant"
        )
    _check_device_name(training.device)
    learner, learner_options = _learner(method, target, strategy_options)
    meta = getattr(learner, "meta", None)
    head, criterion = _head(method, meta), _criterion(method, meta)
    wrapper = load_class("wrappers", method.wrap, Wrapper) if method.wrap else None  # type: ignore[type-abstract]
    criterion_options = convert(
        criterion, dict(method.loss_options), owner=f"loss {criterion.meta.name}", written=_of_method(method, "loss.")
    )
    loss = criterion(**criterion_options)
    check_criterion(criterion.meta.name, loss)
    if wrapper and wrapper.meta.learns:
        _check_learning_wrapper(method, meta, loss)
    for layer in loss.with_bases:
        _check_parts(method.strategy, meta, head, layer.meta)
    loss.check_epochs(_epochs_of_experience(training))
    return Plan(
        benchmark=benchmark,
        training=training,
        method=method,
        learner=learner,
        learner_options=learner_options,
        head=head,
        head_options=convert(
            head,
            dict(method.head_options),
            owner=f"head {head.meta.name}",
            skip=_BUILT,
            written=_of_method(method, "head."),
        ),
        criterion=criterion,
        criterion_options=criterion_options,
        wrapper=wrapper,
        wrapper_options=convert(
            wrapper, dict(method.wrap_options), owner=f"wrapper {method.wrap}", written=_of_method(method, "wrap.")
        )
        if wrapper
        else {},
    )


def _epochs_of_experience(training: TrainingConfig) -> int:
    """Return how many epochs an experience has, at the least: a client may be drawn in one round only."""
    federation = parse_federation(training.federated) if training.federated is not None else None
    return training.epochs * (federation.rounds if federation and federation.per_round is None else 1)


def _check_learning_wrapper(method: Method, meta: Any, loss: Criterion) -> None:
    """Refuse a wrapper with heads of its own where these would learn nothing, or something else."""
    name, about = method.strategy, next((layer.meta.name for layer in loss.with_bases if layer.meta.head), None)
    if meta is None:
        reason = f"learns from what the criterion is told of patches, and {name} tells it of logits alone"
    elif getattr(meta, "compares_logits", False):
        reason = f"trains two readings apart and evaluates their mean, and {name} would hold the one to the other"
    elif getattr(meta, "family", "") == "analytic":
        reason = f"brings heads that train on batches, and {name} solves for the model's own head"
    elif about is not None:
        reason = f"brings heads of its own, and loss={about} is about the model's"
    else:
        return
    mend = "another loss" if about is not None else "another strategy"
    raise CmlBenchError(f"wrap={method.wrap} {reason}: take wrap=pat_inference, or {mend}")


def _head(method: Method, meta: StrategyMeta | None) -> type[Head]:
    return load_class("heads", method.head or (meta.head if meta else "linear"), Head)  # type: ignore[type-abstract]


def _criterion(method: Method, meta: StrategyMeta | None) -> type[Criterion]:
    return load_class("criteria", method.loss or (meta.loss if meta else "bce"), Criterion)


def _beside(method: Method, target: Any) -> Iterator[str]:
    """Yield what could be meant by an unknown option: those of the training and of the method's parts."""
    yield from TRAINING_KEYS
    yield from ("head", "loss", "wrap")
    meta = getattr(target, "meta", None)
    yield from (f"head.{name}" for name in arguments(_head(method, meta), _BUILT))
    yield from (f"loss.{name}" for name in arguments(_criterion(method, meta)))


def _of_method(method: Method, part: str = "") -> Callable[[str], str]:
    """Return how options of a method, or of a part of it, are written and where."""
    return lambda name: f"{part}{name}=VALUE to the method, as in '{method.strategy} {part}{name}=VALUE'"


def _check_place(options: Iterable[str], target: Any) -> None:
    """Refuse what is easily taken for an option, and is chosen for all jobs at once."""
    for key in options:
        if key in _OF_COMMANDS and key not in arguments(target):
            option, of_suite = _OF_COMMANDS[key]
            raise CmlBenchError(
                f"{key!r} is chosen for all jobs at once: give the command {option}, or a suite the key {of_suite}"
            )


def _split(options: Pairs) -> tuple[dict[str, str], dict[str, str]]:
    """Split options into training settings and the rest."""
    shared = {key: value for key, value in options if key in TRAINING_KEYS}
    return shared, {key: value for key, value in options if key not in TRAINING_KEYS}


def _training(defaults: TrainingConfig, options: dict[str, str]) -> TrainingConfig:
    typed = convert(TrainingConfig, options, owner="training")
    if typed.get("frozen"):
        # Cached features cannot be augmented; only an augmentation that was asked for is a contradiction.
        typed.setdefault("augment", False)
    return dataclasses.replace(defaults, **typed)


def _check_parts(strategy: str, meta: StrategyMeta | None, head: type[Head], loss: CriterionMeta) -> None:
    """Refuse a criterion, or one that it is put on, that would not be given what it reads."""
    name, reads = loss.name, loss.reads
    # A plain Avalanche learner asks the criterion about logits.
    if reads != "logits" and (meta is None or meta.criterion == "logits"):
        raise CmlBenchError(
            f"loss={name} reads more than logits, and strategy {strategy} gives no more: take another loss"
        )
    if loss.head not in ("", head.meta.name):
        raise CmlBenchError(
            f"loss={name} is about what head={loss.head} has and head={head.meta.name} has not: set head={loss.head}"
        )
    if reads == "label_features" and not head.meta.label_features:
        raise CmlBenchError(
            f"loss={name} compares features of labels, and head={head.meta.name} has one feature for all labels: "
            "take a head with a feature for each, head=dlfl say"
        )


def _check_device_name(device: str) -> None:
    """Refuse what is no device anywhere; whether a machine has it is asked where the job runs."""
    try:
        torch.device(device)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise CmlBenchError(f"device={device!r} cannot be used ({reason}): set device=cpu or device=cuda") from None


def _learner(method: Method, target: Any, options: dict[str, str]) -> tuple[Any, dict[str, Any]]:
    name, owner, written = method.strategy, f"strategy {method.strategy}", _of_method(method)
    if inspect.isclass(target) and issubclass(target, Strategy):
        return target(**convert(target, options, owner=owner, beside=_beside(method, target), written=written)), {}
    is_learner = inspect.isclass(target) and issubclass(target, (BaseSGDTemplate, SupervisedPlugin))
    for part, told in _OTHER_PARTS.items():
        if inspect.isclass(target) and issubclass(target, part):
            raise CmlBenchError(f"{name!r} is {told.format(name=name)}")
    if not is_learner and not inspect.isfunction(target):
        raise CmlBenchError(
            f"{name!r} is no strategy: give a cml_bench Strategy, an Avalanche strategy or plugin class, or a factory"
        )
    if is_learner:
        refuse_unfit(target)
    return target, convert(
        target, options, owner=owner, skip=_SUPPLIED, beside=_beside(method, target), written=written
    )
