"""From a job's text to live objects: benchmark, settings, model, criterion, learner."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates.base_sgd import BaseSGDTemplate
from torch import nn

from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError
from cml_bench.losses.criterion import Criterion, CriterionMeta
from cml_bench.models.backbones import Backbone, build_backbone
from cml_bench.models.extras import import_extra
from cml_bench.models.heads.head import Head
from cml_bench.models.model import MultiLabelModel
from cml_bench.models.pyramid import PackedPyramid
from cml_bench.models.wrappers.wrapper import Wrapper
from cml_bench.options import Pairs, arguments, beyond_defaults, convert
from cml_bench.registry import load, load_class
from cml_bench.runs.benchmark import Benchmark, load_benchmark
from cml_bench.runs.given_features import GivenFeatures, given_features
from cml_bench.runs.job import Job
from cml_bench.runs.method import Method, parse_method
from cml_bench.training.config import TRAINING_KEYS, TrainingConfig
from cml_bench.training.context import RunContext
from cml_bench.training.optimizer import make_optimizer
from cml_bench.training.schedule import SchedulePlugin
from cml_bench.training.strategy import Strategy, StrategyMeta
from cml_bench.training.template import MultiLabelTemplate

_SUPPLIED = (
    *("self", "model", "optimizer", "criterion", "device", "plugins", "evaluator"),
    *("train_mb_size", "train_epochs", "eval_mb_size", "eval_every", "peval_mode"),
)
"""Arguments of an Avalanche strategy that the runner gives, so that they are not options."""


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

    def describe(self) -> dict[str, Any]:
        """Return what tables show of the method and what a rerun needs to know."""
        is_strategy = isinstance(self.learner, Strategy)
        options = dataclasses.asdict(self.learner) if is_strategy else self.learner_options
        loss = self.criterion(**self.criterion_options)
        return {
            "title": self.learner.meta.title if is_strategy else self.learner.__name__,
            "family": self.learner.meta.family if is_strategy else "avalanche",
            "head": self.head.meta.name,
            "head_options": beyond_defaults(self.head, self.head_options),
            "loss": loss.title,
            "loss_options": beyond_defaults(self.criterion, self.criterion_options),
            "wrap": self.wrapper and self.wrapper.meta.name,
            "wrap_options": beyond_defaults(self.wrapper, self.wrapper_options) if self.wrapper else {},
            "options": options,
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
    for key in own:
        if key not in arguments(kind) and key in arguments(strategy):
            raise CmlBenchError(
                f"{key!r} is an option of strategy {method.strategy}: write it with the method, as in "
                f"'{method.strategy} {key}={own[key]}'"
            )
    owner = f"benchmark {job.benchmark}"
    benchmark = kind(**convert(kind, own, owner=owner, beside=TRAINING_KEYS))
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
    training = _training(benchmark.training, {**settings, **overrides})
    if benchmark.online_chunk and (training.epochs, training.schedule) != (1, "constant"):
        raise CmlBenchError(
            f"online_chunk is a single pass of unknown length but epochs={training.epochs}, "
            f"schedule={training.schedule}: set epochs=1 schedule=constant"
        )
    _check_device(training.device, training.devices)
    learner, learner_options = _learner(method.strategy, target, strategy_options)
    meta = getattr(learner, "meta", None)
    head = load_class("heads", method.head or (meta.head if meta else "linear"), Head)  # type: ignore[type-abstract]
    criterion = load_class("criteria", method.loss or (meta.loss if meta else "bce"), Criterion)
    wrapper = load_class("wrappers", method.wrap, Wrapper) if method.wrap else None  # type: ignore[type-abstract]
    criterion_options = convert(criterion, dict(method.loss_options), owner=f"loss {criterion.meta.name}")
    loss = criterion(**criterion_options)
    for layer in loss.with_bases:
        _check_parts(method.strategy, meta, head, layer.meta)
    loss.check_epochs(training.epochs)
    return Plan(
        benchmark=benchmark,
        training=training,
        method=method,
        learner=learner,
        learner_options=learner_options,
        head=head,
        head_options=convert(
            head, dict(method.head_options), owner=f"head {head.meta.name}", skip=("self", "in_features")
        ),
        criterion=criterion,
        criterion_options=criterion_options,
        wrapper=wrapper,
        wrapper_options=convert(wrapper, dict(method.wrap_options), owner=f"wrapper {method.wrap}") if wrapper else {},
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


def _check_device(device: str, count: int) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise CmlBenchError(f"device={device!r} cannot be used ({reason}): set device=cpu") from None
    if device == "cuda" and count > torch.cuda.device_count():
        raise CmlBenchError(
            f"devices={count}, but this process sees {torch.cuda.device_count()} GPUs: set devices to that"
        )


def _learner(name: str, target: Any, options: dict[str, str]) -> tuple[Any, dict[str, Any]]:
    owner = f"strategy {name}"
    if inspect.isclass(target) and issubclass(target, Strategy):
        return target(**convert(target, options, owner=owner, beside=TRAINING_KEYS)), {}
    is_learner = inspect.isclass(target) and issubclass(target, (BaseSGDTemplate, SupervisedPlugin))
    if not is_learner and not inspect.isfunction(target):
        raise CmlBenchError(
            f"{name!r} is no strategy: give a cml_bench Strategy, an Avalanche strategy or plugin class, or a factory"
        )
    return target, convert(target, options, owner=owner, skip=_SUPPLIED)


def stream_order(job: Job) -> str | None:
    """Return the class order to build the stream with; None for the benchmark's own."""
    return None if job.class_order == "default" else job.class_order


def make_backbone(plan: Plan, sources: tuple[Source, Source]) -> Backbone | GivenFeatures:
    """Build the backbone, or what stands in its place; refuses weights that were trained on the data evaluated here."""
    config = plan.training
    given = given_features(sources, config, plan.benchmark.training)
    if given is not None:
        return given
    backbone = build_backbone(
        config.backbone,
        checkpoint=Path(config.checkpoint) if config.checkpoint else None,
        pretrained_on=config.pretrained_on,
        image_size=config.image_size,
        evaluated_on=tuple({name for source in sources for name in source.pretraining_names}),
        **dict(config.backbone_options),
    )
    if not (config.frozen or backbone.trainable):
        raise CmlBenchError(f"backbone={config.backbone} is read once for every image: set frozen=true")
    return backbone


def make_model(plan: Plan, backbone: Backbone | GivenFeatures) -> MultiLabelModel:
    """Return the model, its head still without labels. Cached features need no backbone in it."""
    width: int | tuple[int, ...] = backbone.out_features
    reader: nn.Module | None = None if plan.training.frozen else backbone
    if isinstance(backbone, Backbone):
        backbone.kind = plan.head.meta.features
        if backbone.kind == "pyramid":
            width = tuple(level.shape[0] for level in backbone.levels)
            reader = reader or PackedPyramid(backbone.levels)
    if plan.wrapper and (plan.training.frozen or isinstance(backbone, GivenFeatures)):
        # Patches of a map are not the maps of patches: they are not magnified, and each knows its surroundings.
        mend = "set frozen=false" if plan.training.frozen else "take a data set of images"
        raise CmlBenchError(f"wrap={plan.method.wrap} cuts images, and here the model reads features: {mend}")
    model = build_model(plan, reader, width)
    model.bf16 = plan.training.precision == "bf16"
    if isinstance(backbone, Backbone):
        backbone.bf16 = model.bf16
    _check_trunk(plan, model)
    return model


def _check_trunk(plan: Plan, model: MultiLabelModel) -> None:
    """Refuse to compile or to divide a backbone that is not read as a whole, or to divide one that cannot be."""
    config = plan.training
    asked = {"compile=true": config.compile, f"devices={config.devices}": config.devices > 1}
    for option in (option for option, is_asked in asked.items() if is_asked):
        if not isinstance(model.backbone, Backbone):
            raise CmlBenchError(
                f"{option} is about a backbone that trains as a whole, and with {plan.method.spec!r} there is none: "
                "leave it out"
            )
    if config.devices > 1:
        import_extra("lightning_fabric", extra="distributed", what=f"devices={config.devices}")
        has_batch_norm = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.backbone.modules())
        if has_batch_norm and config.device == "cpu":
            raise CmlBenchError(
                f"backbone={config.backbone} takes means over whole batches (batch norm), which torch does across "
                "devices on GPUs only: take a backbone without, a ViT say, or device=cuda, or devices=1"
            )


def build_model(plan: Plan, backbone: nn.Module | None, width: int | tuple[int, ...]) -> MultiLabelModel:
    """Return the model, in its wrapper if there is one.

    Args:
        plan: The resolved job.
        backbone: Images to features; None where the inputs are features.
        width: Width of the features, or widths of a pyramid's maps.
    """
    # A head that reads a pyramid takes a width for each of its maps.
    kind: Callable[..., Head] = plan.head

    def make_head() -> Head:
        return kind(width, **plan.head_options)

    model = assemble(plan.learner, backbone, make_head())
    if plan.wrapper:
        model.wrap(plan.wrapper(**plan.wrapper_options), make_head)
    return model


def assemble(learner: Any, backbone: nn.Module | None, head: Head) -> MultiLabelModel:
    """Let a strategy build its model; a plain Avalanche learner trains backbone and head."""
    return learner.build_model(backbone, head) if isinstance(learner, Strategy) else MultiLabelModel(backbone, head)


def make_learner(plan: Plan, run: RunContext, extra: list[SupervisedPlugin]) -> BaseSGDTemplate[Any, Any, Any]:
    """Return the Avalanche strategy object that trains the model.

    Args:
        plan: The resolved job.
        run: The run's context; its model has at least one label, so that the optimiser has parameters.
        extra: The runner's own plugins (recording, progress).
    """
    config = run.training
    common: dict[str, Any] = {
        "model": run.model,
        "optimizer": make_optimizer(config, run.model),
        "criterion": run.criterion,
        "train_mb_size": config.batch_size,
        "train_epochs": config.epochs,
        "eval_mb_size": config.eval_batch_size,
        "device": config.device,
    }
    own: list[SupervisedPlugin] = [SchedulePlugin(config.schedule, config.lr), *extra]
    learner = plan.learner
    if isinstance(learner, Strategy):
        return MultiLabelTemplate(**common, plugins=[*learner.plugins(run), *own], generator=run.generator("batches"))
    if inspect.isclass(learner) and issubclass(learner, SupervisedPlugin):
        plugin = learner(**plan.learner_options)
        return MultiLabelTemplate(**common, plugins=[plugin, *own], generator=run.generator("batches"))
    common.update(plan.learner_options, plugins=own, evaluator=EvaluationPlugin(loggers=[]))
    if inspect.isfunction(learner):
        accepted = inspect.signature(learner).parameters
        takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values())
        common = common if takes_all else {name: value for name, value in common.items() if name in accepted}
    made = learner(**common)
    if not isinstance(made, BaseSGDTemplate):
        raise CmlBenchError(f"{plan.method.strategy} returned {made!r}: a factory must return an Avalanche strategy")
    for plugin in own:
        if plugin not in made.plugins:
            # Before Avalanche's clock, which must stay last.
            made.plugins.insert(0, plugin)
    return made
