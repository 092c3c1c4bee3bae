"""The conformance kit catches each broken rule with the check that is meant for it, and with no other."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks import DatasetExperience
from avalanche.core import SupervisedPlugin
from torch.nn.functional import binary_cross_entropy_with_logits

from cml_bench import RunContext, Strategy, StrategyMeta
from cml_bench.errors import CmlBenchError
from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT
from cml_bench.memory.exemplars import SamplingMemory
from cml_bench.memory.reservoir import ReservoirBuffer
from cml_bench.streams.dataset import MultiLabelDataset
from cml_bench.testing import CHECKS, check_strategy
from cml_bench.testing.toy import N_LABELS
from cml_bench.training.rehearsal import Rehearsal
from cml_bench.training.replay import ReplayPlugin

META = StrategyMeta(name="broken", title="Broken", family="test")


class Base(Strategy):
    """Never checked itself."""

    meta = META
    event = ""

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        # A class of its own for each event: the loop asks the class which events a plugin handles.
        kind = type("Plugin", (SupervisedPlugin,), {self.event: lambda _, strategy, **kwargs: self.act(strategy)})
        return [kind()]

    def act(self, strategy: Any) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class LooksAhead(Strategy):
    """Train on the whole stream from the first experience on."""

    meta = META

    def curriculum(
        self, stream: Iterable[Sequence[DatasetExperience]], run: RunContext
    ) -> Iterator[Sequence[DatasetExperience]]:
        groups = list(stream)
        for _ in groups:
            yield groups[-1]


@dataclass(frozen=True)
class KnowsTheEnd(Strategy):
    """Train twice on the last experience."""

    meta = META

    def curriculum(
        self, stream: Iterable[Sequence[DatasetExperience]], run: RunContext
    ) -> Iterator[Sequence[DatasetExperience]]:
        groups = list(stream)
        for group in groups:
            yield [*group, *group] if group is groups[-1] else group


@dataclass(frozen=True)
class Hoards(Strategy):
    """Keep five images too many.

    Attributes:
        memory_size: Images in memory.
    """

    memory_size: int = 30
    meta = META

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        buffer = ReservoirBuffer(self.memory_size + 5, run.generator("reservoir"))
        return [ReplayPlugin(buffer, None, run.generator("replay"))]


class AssumingBuffer(ReservoirBuffer):
    def update_from_dataset(self, dataset: MultiLabelDataset) -> None:
        super().update_from_dataset(dataset)
        labels = self.buffer.labels.data
        labels[labels == OUT_OF_SCOPE] = ABSENT


@dataclass(frozen=True)
class Assumes(Strategy):
    """Store labels that nobody asked for as absent.

    Attributes:
        memory_size: Images in memory.
    """

    memory_size: int = 30
    meta = META

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        buffer = AssumingBuffer(self.memory_size, run.generator("reservoir"))
        return [ReplayPlugin(buffer, None, run.generator("replay"))]


@dataclass(frozen=True)
class Truthful(Strategy):
    """Replace the unknown labels of every batch by the truth, found behind the stream."""

    meta = META

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        class Plugin(SupervisedPlugin):
            def before_forward(self, strategy: Any, **kwargs: Any) -> None:
                truth = strategy.experience.origin_stream.benchmark.splits["train"].source.labels
                y = strategy.mbatch[1]
                strategy.mbatch[1] = torch.from_numpy(truth)[strategy.mb_sample_id, : y.shape[1]]

        return [Plugin()]


@dataclass(frozen=True)
class DrawsFromTorch(Base):
    """Draw from torch's generator."""

    meta = META
    event = "before_training_exp"

    def act(self, strategy: Any) -> None:
        torch.rand(1)


@dataclass(frozen=True)
class DrawsFromPython(Base):
    """Draw from Python's generator."""

    meta = META
    event = "after_eval"

    def act(self, strategy: Any) -> None:
        random.random()


@dataclass(frozen=True)
class DrawsFromNumpy(Base):
    """Draw from NumPy's generator."""

    meta = META
    event = "after_training_iteration"

    def act(self, strategy: Any) -> None:
        np.random.permutation(3)  # noqa: NPY002 - the mistake on purpose


@dataclass(frozen=True)
class Unrepeatable(Base):
    """Add noise that no seed determines."""

    meta = META
    event = "before_update"

    def act(self, strategy: Any) -> None:
        noise = float(np.random.default_rng().normal())
        for parameter in strategy.model.parameters():
            parameter.grad += 1e-3 * noise


@dataclass(frozen=True)
class SeedBlind(Base):
    """Set all parameters to one value."""

    meta = META
    event = "after_update"

    @torch.no_grad()
    def act(self, strategy: Any) -> None:
        for parameter in strategy.model.parameters():
            parameter.fill_(0.1)


@dataclass(frozen=True)
class GrowsInEvaluation(Base):
    """Grow the head for whatever is evaluated, as Avalanche's own adaptation does."""

    meta = META
    event = "before_eval_exp"

    def act(self, strategy: Any) -> None:
        head = strategy.model.head
        with torch.random.fork_rng(devices=[]):
            head.grow(strategy.experience.dataset.labels.names[head.n_labels :])


@dataclass(frozen=True)
class LearnsInEvaluation(Base):
    """Decay the parameters in evaluation."""

    meta = META
    event = "after_eval"

    @torch.no_grad()
    def act(self, strategy: Any) -> None:
        for parameter in strategy.model.parameters():
            parameter.mul_(0.9)


@dataclass(frozen=True)
class GrowsTooMuch(Base):
    """Add a label that the stream does not have."""

    meta = META
    event = "after_training_exp"

    def act(self, strategy: Any) -> None:
        if strategy.model.head.n_labels == N_LABELS:
            with torch.random.fork_rng(devices=[]):
                strategy.model.head.grow(["ghost"])


@dataclass(frozen=True)
class Stands(Base):
    """Learn nothing."""

    meta = META
    event = "before_update"

    def act(self, strategy: Any) -> None:
        strategy.optimizer.zero_grad()


@dataclass(frozen=True)
class DividesByPositives(Base):
    """Weigh the loss by the number of positives."""

    meta = META
    event = "before_backward"

    def act(self, strategy: Any) -> None:
        strategy.loss = strategy.loss / (strategy.mb_y == PRESENT).sum()


@dataclass(frozen=True)
class ReadsCodes(Base):
    """Take the labels for targets, the codes of unknown entries with them."""

    meta = META
    event = "before_backward"

    def act(self, strategy: Any) -> None:
        targets = strategy.mb_y.float()
        strategy.loss = strategy.loss + 1e-3 * binary_cross_entropy_with_logits(strategy.mb_output, targets)


class CodeMemory(SamplingMemory):
    """Gives up the place that the sum of all codes points to."""

    def _spare(self) -> int:
        return int(abs(int(self.labels.sum())) * 7 % len(self.labels))

    def _choose(self, shown: Any) -> int:
        return self._spare()


@dataclass(frozen=True)
class ChoosesByCodes(Rehearsal):
    """Replay from a memory that, once it is full, calculates with the codes of unknown entries."""

    meta = META

    def memory(self, run: RunContext) -> CodeMemory:
        return CodeMemory(self.memory_size, run.generator("codes"))


@dataclass(frozen=True)
class NeedsLabelFeatures(Base):
    """Shrink the label features, without saying that there must be some."""

    meta = StrategyMeta(name="broken", title="Broken", family="test", head="dlfl")
    event = "before_backward"

    def act(self, strategy: Any) -> None:
        strategy.loss = strategy.loss + 1e-3 * strategy.head_output.label_features.square().mean()


@dataclass(frozen=True)
class Crashes(Base):
    """Divide by zero in the second experience."""

    meta = META
    event = "before_training_exp"

    def act(self, strategy: Any) -> None:
        1 / (1 - strategy.clock.train_exp_counter)


@dataclass(frozen=True)
class Doubles(Strategy):
    """Be something else than what was written.

    Attributes:
        alpha: A number.
    """

    alpha: float = 1.0
    meta = META

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", 2 * self.alpha)


BROKEN = {
    LooksAhead: {"future_labels", "grows_once_per_experience"},
    KnowsTheEnd: {"future_labels"},
    Hoards: {"memory_within_budget"},
    Assumes: {"memory_labels_as_stored"},
    Truthful: {"unknown_entries_unread"},
    DrawsFromTorch: {"global_rng_untouched"},
    DrawsFromPython: {"global_rng_untouched"},
    DrawsFromNumpy: {"global_rng_untouched"},
    Unrepeatable: {"same_seed_same_result"},
    SeedBlind: {"different_seed_differs", "learns"},
    GrowsInEvaluation: {"evaluation_changes_nothing"},
    LearnsInEvaluation: {"evaluation_changes_nothing"},
    GrowsTooMuch: {"grows_once_per_experience"},
    Stands: {"learns"},
    DividesByPositives: {"no_positives_in_batch"},
    ReadsCodes: {"codes_not_calculated_with"},
    ChoosesByCodes: {"codes_not_calculated_with"},
    NeedsLabelFeatures: {"both_heads"},
    Crashes: {"runs"},
    Doubles: {"config_round_trip"},
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_rule_is_caught(kind: type[Strategy]) -> None:
    outcomes = check_strategy(kind, raise_on_failure=False)
    failed = {outcome.name for outcome in outcomes if outcome.status == "failed"}
    assert BROKEN[kind] <= failed
    # Whatever compares two runs sees it, too, when runs cannot be repeated.
    assert failed == BROKEN[kind] or kind is Unrepeatable


def test_an_oracle_is_caught_where_it_is_no_bound() -> None:
    failed = {o.name for o in check_strategy("er relabel=oracle", raise_on_failure=False) if o.status == "failed"}
    assert failed == {"unknown_entries_unread", "memory_labels_as_stored"}


def test_a_failure_raises_and_says_why() -> None:
    with pytest.raises(CmlBenchError, match=r"Stands fails 1 of \d+ checks \(learns: mAP .* at least") as caught:
        check_strategy(Stands)
    assert "\n" not in str(caught.value)


def test_a_crash_names_the_line_of_the_strategy_and_stops_the_rest() -> None:
    outcomes = {outcome.name: outcome for outcome in check_strategy(Crashes, raise_on_failure=False)}
    assert outcomes["runs"].detail.startswith("ZeroDivisionError: ")
    assert "test_rules.py, line" in outcomes["runs"].detail
    assert outcomes["metadata"].status == "passed"
    assert {outcomes[name].status for name in CHECKS if name not in {"metadata", "config_round_trip", "runs"}} == {
        "skipped"
    }
