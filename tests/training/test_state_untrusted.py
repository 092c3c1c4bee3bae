"""A checkpoint is data: what it names is not run, and what it does not know is refused."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch

from cml_bench.errors import CmlBenchError
from cml_bench.training.state_memory import MemoryReader
from cml_bench.training.state_nodes import Walk
from cml_bench.training.state_rebuild import Rebuild


class Holder:
    """An object with any attributes."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("something that a file named was run")


class Trap:
    """A class of a learner whose every hook gives an alarm."""

    __init__ = __setstate__ = __reduce__ = __reduce_ex__ = __getstate__ = __setattr__ = __delattr__ = refuse
    __new__ = refuse
    __getattr__ = __eq__ = __del__ = __call__ = refuse
    __hash__ = None  # type: ignore[assignment]

    def method(self) -> None:
        refuse()

    @property
    def value(self) -> int:
        return refuse()

    @value.setter
    def value(self, to: int) -> None:
        refuse()


TRAP = f"{__name__}:Trap"


def rebuilt(nodes: list[dict[str, Any]], *, places: Any = (), blocks: Any = None, **attributes: Any) -> Holder:
    fresh = Holder(**attributes)
    root = {"kind": "object", "class": f"{__name__}:Holder", "fresh": "root", "attributes": {"value": {"#": 1}}}
    Rebuild([root, *nodes], MemoryReader(blocks or {}, list(places)), {}, Walk({"root": fresh}, {}))
    return fresh


def test_making_an_object_runs_none_of_its_methods(monkeypatch: Any) -> None:
    # What is made dies in the end; that is Python's doing.
    monkeypatch.delattr(Trap, "__del__")
    made = rebuilt([{"kind": "object", "class": TRAP, "attributes": {"value": 3, "__class__": "x", "__init__": 1}}])
    assert type(made.value) is Trap
    assert object.__getattribute__(made.value, "__dict__") == {"value": 3, "__class__": "x", "__init__": 1}
    bound = rebuilt([{"kind": "method", "self": {"#": 2}, "name": "method"}, {"kind": "object", "class": TRAP}])
    assert bound.value.__func__ is Trap.method


@pytest.mark.parametrize(
    "name",
    [
        *("subprocess:Popen", "builtins:object", "builtins:eval", "os:_wrap_close", "pathlib:PosixPath"),
        *("antigravity:anything", "cml_bench.training.state:json", "cml_bench.runs.run:run_job", "torch.nn:Linear"),
        *("torch.nn.modules.linear:Linear.forward", "cml_bench.nowhere:Nothing", "", ":", "torch.nn", TRAP + ".value"),
    ],
)
def test_other_classes_are_refused_and_nothing_is_imported(name: str) -> None:
    import sys

    before = set(sys.modules)
    with pytest.raises(CmlBenchError, match="no learner may hold"):
        rebuilt([{"kind": "object", "class": name, "attributes": {}}])
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    "node",
    [
        {"kind": "atom"},
        {"kind": "function", "name": "os:system"},
        {"kind": "object", "class": f"{__name__}:Holder", "fresh": "root.elsewhere", "attributes": {}},
        {"kind": "method", "self": {"#": 0}, "name": "__class__"},
        {"kind": "tensor", "memory": 0, "dtype": "load", "shape": [1], "stride": [1]},
        {"kind": "tensor", "memory": 0, "dtype": "float32", "shape": [17], "stride": [1]},
        {"kind": "tensor", "memory": 0, "dtype": "float32", "shape": [2], "stride": [-1]},
        {"kind": "tensor", "memory": 0, "dtype": "float32", "shape": [1], "stride": [1], "requires_grad": 1},
        {"kind": "tensor", "memory": 1, "dtype": "int8", "shape": [1], "stride": [1]},
        {"kind": "array", "memory": 0, "dtype": "<f4", "shape": [17], "strides": [4]},
        {"kind": "array", "memory": 0, "dtype": "|O", "shape": [2], "strides": [8]},
        {"kind": "generator", "of": "numpy SystemRandom", "state": 1},
        {"kind": "list", "items": [{"named": "eval"}]},
        {"kind": "list", "items": [{"given": "scenario"}]},
        {"kind": "list", "items": [{"#": 99}]},
        {"kind": "list", "items": [{"__reduce__": "os.system"}]},
    ],
    ids=lambda node: json.dumps(node)[:60],
)
def test_what_makes_no_sense_is_refused(node: dict[str, Any]) -> None:
    known = (CmlBenchError, LookupError, TypeError, ValueError, RuntimeError)
    places, blocks = [["block0", "cpu", 0], ["block0", "cpu", -8]], {"block0": torch.zeros(64, dtype=torch.uint8)}
    with pytest.raises(known):
        rebuilt([node], places=places, blocks=blocks)


def test_every_cut_of_a_tree_is_refused_or_harmless() -> None:
    """Whatever is missing, nothing but an error that the loader turns into a sentence comes of it."""
    learnt = Holder(a=[1, {"b": torch.ones(2)}], c=torch.Generator())
    walk = Walk({"root": learnt}, {}, Walk({"root": Holder()}, {}))
    blocks, places = walk.memory.blocks()
    for number, node in enumerate(walk.nodes):
        for key in node:
            nodes = copy.deepcopy(walk.nodes)
            del nodes[number][key]
            fresh = Holder()
            try:
                Rebuild(nodes, MemoryReader(blocks, places), {}, Walk({"root": fresh}, {}))
            except (CmlBenchError, LookupError, TypeError, ValueError, AttributeError, RuntimeError):
                continue
