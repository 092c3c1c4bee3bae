"""What a plug-in must declare, asked before anything is trained: a slip there trains something else in silence."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from avalanche.core import SupervisedPlugin
from avalanche.training.templates import SupervisedTemplate

from cml_bench.errors import CmlBenchError, suggest
from cml_bench.losses.criterion import Criterion
from cml_bench.runs.upstream import refuse_unfit
from cml_bench.training.context import RunContext
from cml_bench.training.replay import MemoryPlugin
from cml_bench.training.strategy import Strategy, StrategyMeta


def check_strategy_class(name: str, target: Any) -> None:
    """Refuse a strategy that would bear another one's title, or lose its options.

    Raises:
        CmlBenchError: If it has no meta of its own, is no dataclass, or has a field without a type.
    """
    if not (inspect.isclass(target) and issubclass(target, Strategy)):
        return
    declared = "meta = StrategyMeta(name=..., title=..., family=...)"
    meta = getattr(target, "meta", None)
    if not isinstance(meta, StrategyMeta):
        raise CmlBenchError(f"strategy {name} has no meta: add {declared} to the class")
    if "meta" not in vars(target):
        raise CmlBenchError(
            f"strategy {name} has no meta of its own, and tables would call it {meta.title}: add {declared} to the "
            "class"
        )
    fields = inspect.get_annotations(target)
    if fields and "__dataclass_fields__" not in vars(target):
        names = ", ".join(fields)
        raise CmlBenchError(
            f"strategy {name} has fields ({names}) that are no options, for want of @dataclass(frozen=True) above it"
        )
    inherited = {key for base in target.__mro__[1:] for key in getattr(base, "__dataclass_fields__", ())}
    for key, value in vars(target).items():
        # A text may well be a constant, unless it would be the default of an option and is not.
        is_meant = isinstance(value, (int, float)) or (isinstance(value, str) and key in inherited)
        if is_meant and not key.startswith("_") and key not in fields:
            raise CmlBenchError(
                f"{key} of strategy {name} has no type, and so is no option: write {key}: {type(value).__name__} = "
                f"{value!r}, or _{key} for a constant"
            )


def check_criterion(name: str, criterion: Criterion) -> None:
    """Refuse a criterion that was built without its base, or that computes nothing.

    Raises:
        CmlBenchError: If it does not call ``super().__init__()``, or overrides neither ``loss`` nor ``judge``.
    """
    kind = type(criterion)
    if "_modules" not in vars(criterion):
        raise CmlBenchError(f"loss={name}: {kind.__name__}.__init__ must call super().__init__() first")
    if all(getattr(kind, method) is getattr(Criterion, method) for method in ("loss", "judge", "forward")):
        raise CmlBenchError(
            f"loss={name}: {kind.__name__} computes nothing: give it loss(self, logits, labels), or judge for what "
            "else a head says"
        )


def plugins_of(strategy: Strategy, run: RunContext) -> Sequence[SupervisedPlugin]:
    """Return the plugins of a strategy.

    Raises:
        CmlBenchError: If it returns something else, or plugins that would not do what they seem to do.
    """
    owner = type(strategy).__name__
    try:
        inspect.signature(strategy.plugins).bind(run)
    except TypeError:
        raise CmlBenchError(f"{owner}.plugins takes no run: write def plugins(self, run)") from None
    made: Any = strategy.plugins(run)
    if not isinstance(made, Sequence) or not all(isinstance(plugin, SupervisedPlugin) for plugin in made):
        raise CmlBenchError(f"{owner}.plugins returned {made!r:.80}: return a list of SupervisedPlugin objects")
    check_plugins(made)
    return made


def check_plugins(plugins: Iterable[SupervisedPlugin]) -> None:
    """Refuse plugins with a method that looks like an event and is none: it would never be called.

    Raises:
        CmlBenchError: If there is one, a memory's plugin was built without its base, or it is one of Avalanche's that
            do not run here.
    """
    events = {name for name in dir(SupervisedTemplate.PLUGIN_CLASS) if name.startswith(("before_", "after_"))}
    for plugin in plugins:
        kind = type(plugin)
        refuse_unfit(kind)
        for name in dir(kind):
            if name.startswith(("before_", "after_")) and name not in events and callable(getattr(kind, name)):
                raise CmlBenchError(
                    f"{kind.__name__}.{name} is no event of training, and would never be called: "
                    f"{suggest(name, events)}"
                )
        if isinstance(plugin, MemoryPlugin) and "buffer" not in vars(plugin):
            raise CmlBenchError(f"{kind.__name__}.__init__ must call super().__init__ with the memory's parts first")
