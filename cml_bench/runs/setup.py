"""From a plan to live objects: backbone, model, learner."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates.base_sgd import BaseSGDTemplate
from torch import nn

from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError
from cml_bench.models.backbones import Backbone, build_backbone
from cml_bench.models.extras import import_extra
from cml_bench.models.heads.head import Head
from cml_bench.models.model import MultiLabelModel
from cml_bench.models.pyramid import PackedPyramid
from cml_bench.runs.declared import check_plugins, plugins_of
from cml_bench.runs.given_features import GivenFeatures, given_features
from cml_bench.runs.job import Job
from cml_bench.runs.plan import Plan
from cml_bench.runs.upstream import refuse_unfit
from cml_bench.training.context import RunContext
from cml_bench.training.optimizer import make_optimizer
from cml_bench.training.schedule import SchedulePlugin
from cml_bench.training.strategy import Strategy
from cml_bench.training.template import MultiLabelTemplate


def stream_order(job: Job) -> str | None:
    """Return the class order to build the stream with; None for the benchmark's own."""
    return None if job.class_order == "default" else job.class_order


def make_backbone(plan: Plan, sources: tuple[Source, Source]) -> Backbone | GivenFeatures:
    """Build the backbone, or what stands in its place; refuses weights that were trained on the data evaluated here."""
    config = plan.training
    given = given_features(sources, config, plan.benchmark.training)
    if given is not None:
        return given
    if config.backbone.partition(":")[0].endswith(".py"):
        raise CmlBenchError(
            f"backbone={config.backbone} is a path, and backbones are timm models by name: register yours with "
            "timm.models.register_model in the benchmark's file and give that name (docs/how_to/own_backbone.md)"
        )
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
        return MultiLabelTemplate(
            **common, plugins=[*plugins_of(learner, run), *own], generator=run.generator("batches")
        )
    if inspect.isclass(learner) and issubclass(learner, SupervisedPlugin):
        plugin = learner(**plan.learner_options)
        check_plugins([plugin])
        return MultiLabelTemplate(**common, plugins=[plugin, *own], generator=run.generator("batches"))
    common.update(plan.learner_options, plugins=own, evaluator=EvaluationPlugin(loggers=[]))
    if inspect.isfunction(learner):
        accepted = inspect.signature(learner).parameters
        takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values())
        common = common if takes_all else {name: value for name, value in common.items() if name in accepted}
    made = learner(**common)
    if not isinstance(made, BaseSGDTemplate):
        raise CmlBenchError(f"{plan.method.strategy} returned {made!r}: a factory must return an Avalanche strategy")
    for each in (made, *made.plugins):
        refuse_unfit(type(each))
    for plugin in own:
        if plugin not in made.plugins:
            # Before Avalanche's clock, which must stay last.
            made.plugins.insert(0, plugin)
    return made
