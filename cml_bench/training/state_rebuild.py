"""From plain data to live objects: what a walk has written down is put back into a freshly built learner."""

from __future__ import annotations

import functools
import inspect
import random
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks.utils.utils import concat_datasets
from torch import Tensor, nn

from cml_bench.errors import CmlBenchError
from cml_bench.streams.dataset import LabelMatrix, MultiLabelDataset
from cml_bench.training.optimizer import hang_hooks
from cml_bench.training.state_memory import MemoryReader
from cml_bench.training.state_nodes import CONTAINERS, LEFT_OUT, NAMED, Walk, class_name

_BIT_GENERATORS = {
    f"numpy {kind.__name__}": kind
    for kind in (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64)
}


class Rebuild:
    """Puts nodes back: objects that a fresh learner has are filled, others are made.

    Nothing that the nodes hold is run. A class is looked up by ``Walk.find_class``, and an instance gets its attributes
    without ``__init__``; functions are those of the fresh learner.

    Args:
        nodes: Nodes of a ``Walk``.
        memory: What lies under tensors and arrays.
        given: Name to objects, as the walk had them.
        fresh: The walk through the freshly built learner.
    """

    def __init__(
        self, nodes: Sequence[Mapping[str, Any]], memory: MemoryReader, given: Mapping[str, object], fresh: Walk
    ) -> None:
        self._nodes = nodes
        self._memory = memory
        self._given = given
        self._fresh = fresh
        self._made: dict[int, Any] = {}
        for number in range(len(nodes)):
            self._object(number)
        # Hashes may depend on attributes, and a generator is set from its state as a whole.
        stages = {"dict": 1, "set": 1, "generator": 2}
        for stage in range(3):
            for number, node in enumerate(nodes):
                if stages.get(node["kind"], 0) == stage:
                    self._fill(node, self._made[number])

    def value(self, stored: Any) -> Any:
        """Return the object that a stored value stands for."""
        if not isinstance(stored, Mapping):
            return stored
        ((tag, content),) = stored.items()
        return self._object(content) if tag == "#" else self._tagged(tag, content)

    def _tagged(self, tag: str, content: Any) -> Any:
        makers: dict[str, Callable[[], Any]] = {
            "float": lambda: float(content),
            "complex": lambda: complex(*map(float, content)),
            "bytes": lambda: bytes.fromhex(content),
            "scalar": lambda: np.frombuffer(bytes.fromhex(content[1]), np.dtype(content[0]))[0],
            "dtype": lambda: _dtype(content),
            "device": lambda: torch.device(content),
            "size": lambda: torch.Size(content),
            "path": lambda: Path(content),
            "named": lambda: NAMED[content],
            "given": lambda: self._given[content],
        }
        return makers[tag]()

    def _object(self, number: int) -> Any:
        if number not in self._made:
            self._made[number] = self._make(self._nodes[number])
        return self._made[number]

    # -- making --------------------------------------------------------------------------------------------------

    def _make(self, node: Mapping[str, Any]) -> Any:
        """Return the object of a node: complete if it cannot be changed later, else still to be filled."""
        kind = node["kind"]
        there = self._there(node) if "fresh" in node else None
        if kind in ("tensor", "parameter"):
            return self._tensor(node, there)
        if kind == "array":
            return self._memory.array(node["memory"], node["dtype"], node["shape"], node["strides"])
        if kind in ("tuple", "frozenset"):
            # The base's own __new__: that of a named tuple takes fields.
            return CONTAINERS[kind].__new__(self._class(node, CONTAINERS[kind]), self._items(node))
        if kind in ("dataset", "labels", "no_data"):
            return self._data(kind, node)
        if kind == "method":
            owner = self.value(node["self"])
            function = inspect.getattr_static(type(owner), node["name"])
            if not isinstance(function, types.FunctionType):
                raise CmlBenchError(f"{node['name']!r} is no method of {class_name(type(owner))}")
            return types.MethodType(function, owner)
        if there is not None:
            return there
        if kind == "partial":
            keywords = {self.value(key): self.value(part) for key, part in node["keywords"]}
            return functools.partial(self.value(node["function"]), *map(self.value, node["arguments"]), **keywords)
        if kind == "generator":
            return _new_generator(node["of"])
        if kind == "deque":
            return deque(maxlen=node["maxlen"])
        if kind in CONTAINERS or kind == "object":
            base: Any = CONTAINERS.get(kind, object)
            made = base.__new__(self._class(node, base))
            if isinstance(made, torch.optim.Optimizer):
                # Hooks are no state, and this one takes the place of another that the fresh learner had.
                hang_hooks(made)
            return made
        raise CmlBenchError(f"a stored object is of the kind {kind!r}, which is not known")

    def _there(self, node: Mapping[str, Any]) -> Any:
        """Return the fresh learner's own object."""
        path = node["fresh"]
        if path not in self._fresh.by_path:
            raise CmlBenchError(f"a freshly built learner has no {path}")
        there = self._fresh.by_path[path]
        if "class" in node and class_name(type(there)) != node["class"]:
            raise CmlBenchError(f"{path} is of the class {class_name(type(there))}, stored was {node['class']}")
        return there

    def _class(self, node: Mapping[str, Any], base: type) -> type[Any]:
        if "class" not in node:
            return base
        found = self._fresh.find_class(node["class"])
        if found is None or not issubclass(found, base):
            raise CmlBenchError(f"a stored object is of the class {node['class']!r}, which no learner may hold")
        return found

    def _items(self, node: Mapping[str, Any]) -> list[Any]:
        return [self.value(item) for item in node["items"]]

    def _tensor(self, node: Mapping[str, Any], there: Tensor | None) -> Tensor:
        made = self._memory.tensor(node["memory"], node["dtype"], node["shape"], node["stride"])
        if there is not None:
            # The same object with other content, so that whoever refers to it sees the change.
            there.data = made
            return there.requires_grad_(node["requires_grad"])
        if node["kind"] == "parameter":
            return nn.Parameter(made, requires_grad=node["requires_grad"])
        return made.requires_grad_(node["requires_grad"])

    def _data(self, kind: str, node: Mapping[str, Any]) -> Any:
        if kind == "no_data":
            return concat_datasets([])
        if kind == "labels":
            names, record = tuple(node["names"]), self.value(node["record"])
            return LabelMatrix(self.value(node["data"]), names, node["first_new"], record)
        dataset = MultiLabelDataset.from_rows(
            self.value(node["inputs"]), self.value(node["ids"]), self.value(node["labels"])
        )
        return dataset.with_transforms(node["group"])

    # -- filling -------------------------------------------------------------------------------------------------

    def _fill(self, node: Mapping[str, Any], made: Any) -> None:
        """Put into an object what it refers to."""
        kind = node["kind"]
        if kind in ("tensor", "parameter"):
            made.grad = self.value(node["grad"])
        elif kind == "generator":
            _set_generator(made, self.value(node["state"]))
        elif kind == "atom":
            for cell, content in zip(getattr(made, "__closure__", None) or (), node.get("cells", ()), strict=True):
                cell.cell_contents = self.value(content)
        elif kind == "list":
            list.__setitem__(made, slice(None), self._items(node))
        elif kind == "deque":
            made.clear()
            made.extend(self._items(node))
        elif kind == "set":
            set.clear(made)
            set.update(made, self._items(node))
        elif kind == "dict":
            self._fill_dict(node, made)
        if "attributes" in node:
            self._fill_attributes(node, made)

    def _fill_dict(self, node: Mapping[str, Any], made: Any) -> None:
        # An OrderedDict keeps an order of its own, beside the dict's.
        base: Any = OrderedDict if isinstance(made, OrderedDict) else dict
        if isinstance(made, defaultdict):
            made.default_factory = self.value(node["factory"])
        base.clear(made)
        for key, part in node["items"]:
            base.__setitem__(made, self.value(key), self.value(part))

    def _fill_attributes(self, node: Mapping[str, Any], made: Any) -> None:
        attributes = object.__getattribute__(made, "__dict__")
        left = {name for kind, name in LEFT_OUT if isinstance(made, kind)}
        kept = {name: part for name, part in attributes.items() if name in left}
        attributes.clear()
        attributes.update(kept)
        attributes.update({name: self.value(part) for name, part in node["attributes"].items()})


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


def _new_generator(kind: str) -> Any:
    if kind == "random":
        return random.Random(0)  # noqa: S311 - restores a learner's own
    if kind == "numpy RandomState":
        return np.random.RandomState(0)
    if kind in _BIT_GENERATORS:
        return np.random.Generator(_BIT_GENERATORS[kind](0))
    return torch.Generator(kind)


def _set_generator(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)
