"""From live objects to plain data: every object that can be reached from a learner, each once."""

from __future__ import annotations

import functools
import inspect
import io
import logging
import math
import random
import struct
import sys
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks.utils import AvalancheDataset
from torch import Tensor, nn

from cml_bench.errors import CmlBenchError
from cml_bench.streams.dataset import LabelMatrix, MultiLabelDataset
from cml_bench.training.state_memory import MemoryWriter

NAMED: dict[str, Any] = {
    **{kind.__name__: kind for kind in (dict, list, set, tuple, int, float, str, bool)},
    **{"torch.zeros": torch.zeros, "torch.ones": torch.ones},
}
"""Types and functions that may themselves be values: factories of ``defaultdict`` and of Avalanche's ``ParamData``."""

_NAMES = {id(value): name for name, value in NAMED.items()}

CONTAINERS: dict[str, type] = {
    "list": list,
    "tuple": tuple,
    "dict": dict,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
}

_NUMBERS = "biufcSU"
"""Kinds of numpy types that are nothing but bytes."""

_OWN_CLASSES = {
    "torch:Size": torch.Size,
    "collections:OrderedDict": OrderedDict,
    "collections:defaultdict": defaultdict,
}
_LIBRARIES = ("cml_bench", "avalanche", "timm", "torch.nn", "torch.optim")

_ATOMS = (
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodWrapperType, types.WrapperDescriptorType),
    *(types.MethodDescriptorType, types.MethodType, types.ModuleType, type, property, weakref.ReferenceType, Enum),
    *(np.ufunc, torch.jit.ScriptModule, torch.memory_format, logging.Logger, io.IOBase),
)
"""What has no state, or talks to the world outside: a freshly built learner has its own."""

LEFT_OUT: tuple[tuple[type, str], ...] = (
    *((torch.optim.Optimizer, "step"), (torch.optim.Optimizer, "_optimizer_step_pre_hooks")),
    (nn.Module, "_compiled_call_impl"),
)
"""Attributes that are no state: schedulers put a wrapper that counts calls in the place of ``step``; hooks bear the
numbers of their process; ``Module.compile`` keeps the compiled function."""


class UnknownStateError(CmlBenchError):
    """Something that a learner keeps cannot be stored."""


def class_name(kind: type) -> str:
    """Return ``module:qualname``."""
    return f"{kind.__module__}:{kind.__qualname__}"


class Walk:
    """Goes through everything that can be reached from some roots.

    Args:
        roots: Name to object.
        given: Name to objects that are there before a learner is built, and are no part of it.
        fresh: The walk through the same learner when it was built; None for that walk itself.

    Attributes:
        nodes: What each object is made of, as JSON-ready data; ``{"#": n}`` refers to the n-th.
        roots: Name to value.
        objects: The objects, alive as long as the walk.
        memory: What lies under tensors and arrays.
        classes: Name to class of all objects that were met.
    """

    def __init__(self, roots: Mapping[str, object], given: Mapping[str, object], fresh: Walk | None = None) -> None:
        self.fresh = fresh
        self.nodes: list[dict[str, Any]] = []
        self.objects: list[object] = []
        self.memory = MemoryWriter()
        self.classes: dict[str, type] = {}
        self._paths: list[str] = []
        self._numbers: dict[int, int] = {}
        self._given = given
        self._given_names = {id(value): name for name, value in given.items()}
        self.roots = {name: self._value(value, name) for name, value in roots.items()}
        # Breadth first, and without recursion: a chain of objects may be longer than Python's stack.
        while len(self.nodes) < len(self.objects):
            self.nodes.append(self._node(self.objects[len(self.nodes)], self._paths[len(self.nodes)]))

    @functools.cached_property
    def by_path(self) -> dict[str, object]:
        """The objects by the path on which each was met first."""
        return dict(zip(self._paths, self.objects, strict=True))

    @functools.cached_property
    def _modules(self) -> set[str]:
        return {kind.__module__ for kind in self.classes.values()}

    def path_of(self, value: object) -> str | None:
        """Return the path on which an object was met, None if it was not."""
        number = self._numbers.get(id(value))
        return None if number is None else self._paths[number]

    def find_class(self, name: str) -> type | None:
        """Return a class that a learner may hold, by name; imports nothing and runs nothing.

        Found are the classes of the freshly built learner's objects, others that are defined in the same modules, and
        those of the libraries that learners are made of.
        """
        known = _OWN_CLASSES.get(name) or self.classes.get(name)
        if known is not None:
            return known
        module, _, qualname = name.partition(":")
        # The modules of plug-ins: a plugin's own classes live beside it.
        if module not in self._modules and not any(
            module == library or module.startswith(f"{library}.") for library in _LIBRARIES
        ):
            return None
        found: Any = sys.modules.get(module)
        for part in qualname.split("."):
            # Not getattr: a module may import what it is asked for.
            found = getattr(found, "__dict__", {}).get(part)
        return found if isinstance(found, type) and class_name(found) == name else None

    # -- values --------------------------------------------------------------------------------------------------

    def _value(self, value: Any, path: str) -> Any:
        """Return plain data as they are, and a reference to anything else."""
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if kind is complex:
            return {"complex": [repr(value.real), repr(value.imag)]}
        if kind is bytes:
            return {"bytes": value.hex()}
        if isinstance(value, np.generic) and kind is value.dtype.type and value.dtype.kind in _NUMBERS:
            return {"scalar": [value.dtype.str, value.tobytes().hex()]}
        if kind is torch.dtype:
            return {"dtype": str(value).removeprefix("torch.")}
        if kind is torch.device:
            return {"device": str(value)}
        if kind is torch.Size:
            return {"size": list(value)}
        if isinstance(value, PurePath):
            return {"path": str(value)}
        for named, names in (("named", _NAMES), ("given", self._given_names)):
            if id(value) in names:
                return {named: names[id(value)]}
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self.objects)
            self.objects.append(value)
            self._paths.append(path)
        return {"#": self._numbers[id(value)]}

    def _pairs(self, items: Mapping[Any, Any], path: str) -> list[list[Any]]:
        pairs = []
        for number, (key, value) in enumerate(items.items()):
            label = f"{path}[{key!r}]" if type(key) in (str, int) else f"{path}{{{number}}}"
            pairs.append([self._value(key, f"{label}.key"), self._value(value, label)])
        return pairs

    def _sequence(self, items: Any, path: str) -> list[Any]:
        return [self._value(item, f"{path}[{number}]") for number, item in enumerate(items)]

    def _attributes(self, value: object, path: str) -> dict[str, Any]:
        left = {name for kind, name in LEFT_OUT if isinstance(value, kind)}
        # Avalanche's evaluator answers for attributes that it does not have.
        attributes = object.__getattribute__(value, "__dict__")
        return {name: self._value(part, f"{path}.{name}") for name, part in attributes.items() if name not in left}

    # -- nodes ---------------------------------------------------------------------------------------------------

    def _node(self, value: Any, path: str) -> dict[str, Any]:
        self.classes.setdefault(class_name(type(value)), type(value))
        node = self._describe(value, path)
        if self.fresh is None:
            return node or {"kind": "unknown"}
        before = self.fresh.path_of(value)
        if node is None:
            with_graph = isinstance(value, Tensor) and value.grad_fn is not None
            raise UnknownStateError(
                f"{path} is a tensor with a graph, which a checkpoint cannot hold: keep it detached"
                if with_graph
                else f"{path} is of the kind {class_name(type(value))}, which a checkpoint cannot hold: keep numbers, "
                "tensors, generators, datasets or objects made of these"
            )
        if node["kind"] == "atom" and before is None:
            raise UnknownStateError(
                f"{path} is {value!r:.80}, which came after the learner was built and cannot be stored: keep it from "
                "the start, or let go of it at the end of an experience"
            )
        if before is not None:
            return {**node, "fresh": before}
        if "class" in node and self.fresh.find_class(node["class"]) is not type(value):
            raise UnknownStateError(
                f"{path} is of the class {node['class']}, which a freshly built learner does not know: define it in "
                "the file of the strategy"
            )
        return node

    def _describe(self, value: Any, path: str) -> dict[str, Any] | None:
        """Return what an object is made of; None if that is not known."""
        kind = type(value)
        if isinstance(value, Tensor):
            return self._tensor(value, path)
        if kind is np.ndarray:
            return self._array(value)
        if kind is MultiLabelDataset:
            ids, labels = self._value(value.sample_ids.data, f"{path}.ids"), self._value(value.labels, f"{path}.labels")
            inputs = self._value(value.inputs, f"{path}.inputs")
            return {"kind": "dataset", "inputs": inputs, "ids": ids, "labels": labels, "group": value.group}
        if kind is LabelMatrix:
            data, record = (self._value(part, path) for part in (value.data, value.record))
            return {
                "kind": "labels",
                "data": data,
                "names": value.names,
                "first_new": value.first_new,
                "record": record,
            }
        if kind is AvalancheDataset and len(value) == 0:
            return {"kind": "no_data"}
        return self._generator(value, path) or self._code(value, path) or self._composite(value, path)

    def _tensor(self, value: Tensor, path: str) -> dict[str, Any] | None:
        known = type(value) in (Tensor, nn.Parameter) and value.layout is torch.strided and not value.is_meta
        if not known or value.is_quantized or value.is_conj() or value.is_neg() or value.grad_fn is not None:
            return None
        return {
            "kind": "parameter" if type(value) is nn.Parameter else "tensor",
            "memory": self.memory.add_tensor(value),
            "dtype": str(value.dtype).removeprefix("torch."),
            "shape": list(value.shape),
            "stride": list(value.stride()),
            "requires_grad": value.requires_grad,
            "grad": self._value(value.grad, f"{path}.grad"),
            "attributes": self._attributes(value, path),
        }

    def _array(self, value: np.ndarray[Any, Any]) -> dict[str, Any] | None:
        if value.dtype.kind not in _NUMBERS:
            return None
        memory, shape, strides = self.memory.add_array(value), list(value.shape), list(value.strides)
        return {"kind": "array", "memory": memory, "dtype": value.dtype.str, "shape": shape, "strides": strides}

    def _generator(self, value: Any, path: str) -> dict[str, Any] | None:
        state: Any
        if type(value) is torch.Generator:
            kind, state = str(value.device), value.get_state()
        elif type(value) is np.random.Generator:
            kind, state = f"numpy {type(value.bit_generator).__name__}", value.bit_generator.state
        elif type(value) is np.random.RandomState:
            kind, state = "numpy RandomState", value.get_state(legacy=False)
        elif type(value) is random.Random:
            kind, state = "random", value.getstate()
        else:
            return None
        return {"kind": "generator", "of": kind, "state": self._value(state, f"{path}.state")}

    def _code(self, value: Any, path: str) -> dict[str, Any] | None:
        """Describe functions and the like: what they refer to may have a state, they themselves have none."""
        if type(value) is types.MethodType:
            name, owner = value.__func__.__name__, type(value.__self__)
            if inspect.getattr_static(owner, name, None) is value.__func__:
                return {"kind": "method", "self": self._value(value.__self__, f"{path}.self"), "name": name}
            return {"kind": "atom", "refers": [self._value(value.__self__, f"{path}.self")]}
        if type(value) is functools.partial:
            function = self._value(value.func, f"{path}.func")
            arguments = self._sequence(value.args, f"{path}.args")
            return {
                "kind": "partial", "function": function, "arguments": arguments,
                "keywords": self._pairs(value.keywords, f"{path}.keywords"),
            }  # fmt: skip
        if isinstance(value, types.FunctionType) and value.__closure__:
            cells = [
                self._value(cell.cell_contents, f"{path}.closure[{i}]") for i, cell in enumerate(value.__closure__)
            ]
            return {"kind": "atom", "cells": cells}
        return {"kind": "atom"} if isinstance(value, _ATOMS) else None

    def _composite(self, value: Any, path: str) -> dict[str, Any] | None:
        kind = type(value)
        base = next((name for name, container in CONTAINERS.items() if isinstance(value, container)), None)
        node: dict[str, Any] = {"kind": base or "object"}
        if base is None and not _is_plain_object(value):
            return None
        if base is None or kind is not CONTAINERS[base]:
            node["class"] = class_name(kind)
        if base == "dict":
            node["items"] = self._pairs(value, path)
        elif base is not None:
            node["items"] = self._sequence(value, path)
        if kind is deque:
            node["maxlen"] = value.maxlen
        if kind is defaultdict:
            node["factory"] = self._value(value.default_factory, f"{path}.default_factory")
        if hasattr(value, "__dict__"):
            node["attributes"] = self._attributes(value, path)
        return node


def _is_plain_object(value: object) -> bool:
    """Return whether all that an object holds are attributes in its ``__dict__``: no slots, nothing kept in C."""
    kind = type(value)
    pointers = (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0)
    bare = kind.__basicsize__ - object.__basicsize__ == pointers * struct.calcsize("P") and not kind.__itemsize__
    return bare and hasattr(value, "__dict__")
