"""The whole state of a learner, as tensors and plain data, and back into a freshly built one.

What a strategy keeps is found by going through its objects, so nobody writes code for saving: attributes, lists,
dicts, tensors, arrays, generators, datasets, objects made of these, and copies of the model. What cannot be stored is
refused with its name. Not looked at are variables of modules and attributes of classes; a learner keeps its state in
its objects.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks import DatasetExperience
from torch import Tensor

from cml_bench.errors import CmlBenchError, in_one_line
from cml_bench.streams.scenario import MultiLabelScenario
from cml_bench.training.context import RunContext
from cml_bench.training.state_memory import MemoryReader
from cml_bench.training.state_nodes import Walk
from cml_bench.training.state_rebuild import Rebuild

_MALFORMED = (
    *(LookupError, TypeError, ValueError, AttributeError, RuntimeError, BufferError, AssertionError),
    *(OverflowError, MemoryError),
)


@dataclass(frozen=True)
class Stored:
    """State of a learner, ready to be written.

    Attributes:
        tree: JSON-ready data.
        blocks: Name to (n,) uint8 tensor.
    """

    tree: dict[str, Any]
    blocks: dict[str, Tensor]


class LearnerState:
    """Stores a learner and puts what was stored back.

    Build it right after the learner: what the learner is built with, functions for example, is not stored but taken
    from the next one that is built in the same way.

    Args:
        learner: The Avalanche strategy object.
        run: Its context.
        scenario: Its stream, which is not part of the state; what a memory holds of it is stored as ids and labels.
        others: What is not the learner's own (plugins that record or report).
    """

    def __init__(
        self, learner: object, run: RunContext, scenario: MultiLabelScenario, others: Sequence[object] = ()
    ) -> None:
        self._given: dict[str, object] = {"scenario": scenario}
        for name, stream in scenario.streams.items():
            self._given[f"stream {name}"] = stream
        for name, split in scenario.splits.items():
            self._given.update({f"source {name}": split.source, f"inputs {name}": split.inputs})
        if scenario.record is not None:
            self._given["record"] = scenario.record
        self._given.update({f"other {number}": other for number, other in enumerate(others)})
        # Augmentation draws as training goes on.
        augmentation = getattr(scenario.splits["train"].inputs, "training", None)
        self._roots = {"learner": learner, "run": run, "augmentation": augmentation}
        self._fresh = Walk(self._roots, self._given)

    def store(self, experiences: Sequence[DatasetExperience] = ()) -> Stored:
        """Return the learner as it is now, and the process's generators.

        Args:
            experiences: What it is training on, of which its state is no part.

        Raises:
            UnknownStateError: If the learner keeps something that cannot be stored.
        """
        roots = {**self._roots, "generators": _generator_states()}
        walk = Walk(roots, self._given_with(experiences), self._fresh)
        blocks, places = walk.memory.blocks()
        return Stored({"nodes": walk.nodes, "roots": walk.roots, "places": places}, blocks)

    def restore(self, stored: Stored, experiences: Sequence[DatasetExperience] = ()) -> None:
        """Make the learner, and the process's generators, what they were when they were stored.

        Args:
            stored: As ``store`` gave it.
            experiences: What it was training on then, in the same order, from the stream of this process.

        Raises:
            CmlBenchError: If it was another learner.
        """
        try:
            memory = MemoryReader(stored.blocks, stored.tree["places"])
            rebuilt = Rebuild(stored.tree["nodes"], memory, self._given_with(experiences), self._fresh)
            _set_generators(rebuilt.value(stored.tree["roots"]["generators"]))
        except _MALFORMED as error:
            raise CmlBenchError(f"what was stored is no state of this learner ({in_one_line(error)})") from error

    def _given_with(self, experiences: Sequence[DatasetExperience]) -> dict[str, object]:
        given = dict(self._given)
        for number, experience in enumerate(experiences):
            dataset, name = experience.dataset, f"experience {number}"
            given |= {name: experience, f"{name}'s labels": dataset.labels, f"{name}'s ids": dataset.sample_ids.data}
        return given


def _generator_states() -> dict[str, Any]:
    """Return the states of the global generators; upstream code and layers draw from these."""
    return {
        "random": random.getstate(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002 - the global state is the point
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_generators(states: Mapping[str, Any]) -> None:
    random.setstate(states["random"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
