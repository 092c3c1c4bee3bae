"""The conformance kit catches each broken rule with the check that is meant for it, and with no other."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks import DatasetExperience
from avalanche.core import SupervisedPlugin

from cml_bench import RunContext, Strategy, StrategyMeta
from cml_bench.errors import CmlBenchError
from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT
from cml_bench.memory.reservoir import ReservoirBuffer
from cml_bench.streams.dataset import MultiLabelDataset
from cml_bench.testing import CHECKS, check_strategy
from cml_bench.testing_data import N_LABELS, Toy, ToySource, toy_scenario, turn_over_unknown
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

    event = "before_training_exp"

    def act(self, strategy: Any) -> None:
        torch.rand(1)


@dataclass(frozen=True)
class DrawsFromPython(Base):
    """Draw from Python's generator."""

    event = "after_eval"

    def act(self, strategy: Any) -> None:
        random.random()


@dataclass(frozen=True)
class DrawsFromNumpy(Base):
    """Draw from NumPy's generator."""

    event = "after_training_iteration"

    def act(self, strategy: Any) -> None:
        np.random.permutation(3)  # noqa: NPY002 - the mistake on purpose


@dataclass(frozen=True)
class Unrepeatable(Base):
    """Add noise that no seed determines."""

    event = "before_update"

    def act(self, strategy: Any) -> None:
        noise = float(np.random.default_rng().normal())
        for parameter in strategy.model.parameters():
            parameter.grad += 1e-3 * noise


@dataclass(frozen=True)
class SeedBlind(Base):
    """Set all parameters to one value."""

    event = "after_update"

    @torch.no_grad()
    def act(self, strategy: Any) -> None:
        for parameter in strategy.model.parameters():
            parameter.fill_(0.1)


@dataclass(frozen=True)
class GrowsInEvaluation(Base):
    """Grow the head for whatever is evaluated, as Avalanche's own adaptation does."""

    event = "before_eval_exp"

    def act(self, strategy: Any) -> None:
        head = strategy.model.head
        with torch.random.fork_rng(devices=[]):
            head.grow(strategy.experience.dataset.labels.names[head.n_labels :])


@dataclass(frozen=True)
class LearnsInEvaluation(Base):
    """Decay the parameters in evaluation."""

    event = "after_eval"

    @torch.no_grad()
    def act(self, strategy: Any) -> None:
        for parameter in strategy.model.parameters():
            parameter.mul_(0.9)


@dataclass(frozen=True)
class GrowsTooMuch(Base):
    """Add a label that the stream does not have."""

    event = "after_training_exp"

    def act(self, strategy: Any) -> None:
        if strategy.model.head.n_labels == N_LABELS:
            with torch.random.fork_rng(devices=[]):
                strategy.model.head.grow(["ghost"])


@dataclass(frozen=True)
class Stands(Base):
    """Learn nothing."""

    event = "before_update"

    def act(self, strategy: Any) -> None:
        strategy.optimizer.zero_grad()


@dataclass(frozen=True)
class DividesByPositives(Base):
    """Weigh the loss by the number of positives."""

    event = "before_backward"

    def act(self, strategy: Any) -> None:
        strategy.loss = strategy.loss / (strategy.mb_y == PRESENT).sum()


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

    event = "before_training_exp"

    def act(self, strategy: Any) -> None:
        1 / (1 - strategy.clock.train_exp_counter)


@dataclass(frozen=True)
class Silent(Strategy):
    meta = META


class Undecorated(Strategy):
    """Forget the decorator."""

    meta = META


@dataclass(frozen=True)
class Unexplained(Strategy):
    """Have an option that the docstring does not name."""

    alpha: float = 1.0
    meta = META


@dataclass(frozen=True)
class Misnamed(Strategy):
    """Bear a name that cannot be typed."""

    meta = StrategyMeta(name="My Strategy", title="Broken", family="test")


@dataclass(frozen=True)
class Nameless(Strategy):
    """Have no meta."""


@dataclass(frozen=True)
class WronglyExempt(Strategy):
    """Be exempt from a check that there is not."""

    meta = StrategyMeta(name="broken", title="Broken", family="test", exemptions={"future_label": "no reason"})


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


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Silent, "Silent has no docstring: its first sentence says what it does"),
        (Undecorated, "Undecorated is no dataclass of its own: decorate it with @dataclass(frozen=True)"),
        (Unexplained, "option 'alpha' is not described under 'Attributes:' in the docstring"),
        (Misnamed, "meta.name='My Strategy' is not snake_case"),
        (Nameless, "Nameless has no meta: add meta = StrategyMeta(name=..., title=..., family=...)"),
        (WronglyExempt, "meta.exemptions names 'future_label', which is no check: did you mean 'future_labels'?"),
    ],
)
def test_metadata_says_what_is_missing(kind: type[Strategy], sentence: str) -> None:
    found = {outcome.name: outcome for outcome in check_strategy(kind, raise_on_failure=False)}
    assert (found["metadata"].status, found["metadata"].detail) == ("failed", sentence)


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
    assert "test_testing.py, line" in outcomes["runs"].detail
    assert outcomes["metadata"].status == "passed"
    assert {outcomes[name].status for name in CHECKS if name not in {"metadata", "config_round_trip", "runs"}} == {
        "skipped"
    }


def test_an_exemption_is_reported_with_its_reason() -> None:
    outcomes = {outcome.name: outcome for outcome in check_strategy("joint")}
    assert (outcomes["future_labels"].status, outcomes["future_labels"].detail) == (
        "exempt",
        "an upper bound reads the whole stream at once",
    )


def test_options_of_a_specification_are_used() -> None:
    outcomes = {outcome.name: outcome for outcome in check_strategy("er memory_size=20 lr=0.01 head=dlfl")}
    assert "memory_size=20" in outcomes["config_round_trip"].detail
    # A 2 x 2 convolution from 3 to 8 channels; six queries, rows and biases of the dlfl head.
    assert f"{3 * 8 * 4 + 8 + 6 * (8 + 8 + 1)} parameters" in outcomes["cost_reported"].detail


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("lwff", "there is no strategy 'lwff': did you mean 'lwf'?"),
        ("er memroy_size=3", "strategy er has no option 'memroy_size': did you mean 'memory_size'?"),
        ("./nowhere.py:Mine", "./nowhere.py does not exist: give the path of a Python file, as ./file.py:Class"),
        ("builtins:int", "'builtins:int' is no strategy"),
    ],
)
def test_a_wrong_specification_is_one_sentence(spec: str, sentence: str) -> None:
    with pytest.raises(CmlBenchError) as caught:
        check_strategy(spec)
    assert str(caught.value).startswith(sentence)


def test_an_avalanche_class_is_checked_where_it_makes_sense() -> None:
    outcomes = check_strategy("avalanche.training.supervised:Naive")
    skipped = {outcome.name for outcome in outcomes if outcome.status == "skipped"}
    assert skipped == {
        *("metadata", "config_round_trip", "global_rng_untouched"),
        *("memory_within_budget", "memory_labels_as_stored"),
    }


@dataclass(frozen=True)
class Listing(Strategy):
    """Have options whose text needs care.

    Attributes:
        names: Words with blanks and quotes.
        rates: Numbers, or none.
        flag: A switch.
        word: May be empty.
    """

    names: tuple[str, ...] = ("a b", 'say "hi"', "it's")
    rates: tuple[float, ...] | None = None
    flag: bool = True
    word: str = ""
    meta = META


def test_awkward_options_survive_as_text() -> None:
    assert len(fields(Listing)) == 4
    check_strategy(Listing)


# -- the toy stream ----------------------------------------------------------------------------------------------------


def test_the_toy_stream_begins_the_same_when_it_ends_earlier() -> None:
    whole, short = toy_scenario(), toy_scenario(4)
    assert (whole.n_seen, short.n_seen) == ((2, 4, 6), (2, 4))
    for long_one, short_one in zip(whole.train_stream, short.train_stream, strict=False):
        assert torch.equal(long_one.dataset.sample_ids.data, short_one.dataset.sample_ids.data)
        assert torch.equal(long_one.dataset.labels.data, short_one.dataset.labels.data)
        rows = torch.arange(5)
        assert torch.equal(long_one.dataset.batch(rows)[0], short_one.dataset.batch(rows)[0])


def test_only_entries_that_no_experience_annotates_are_turned_over() -> None:
    truth = toy_scenario().splits["train"].truth
    turned, count = turn_over_unknown(toy_scenario())
    annotated = np.zeros(truth.shape, dtype=bool)
    for experience in toy_scenario().train_stream:
        for row, labels in zip(experience.dataset.sample_ids.data, experience.dataset.labels.data, strict=True):
            for column, state in enumerate(labels.tolist()):
                if state >= 0:
                    assert state == truth[row, column]
                    annotated[row, column] = True
    assert count == (~annotated).sum() > 0
    assert np.array_equal(turned.splits["train"].truth != truth, ~annotated)
    assert np.array_equal(turned.splits["train"].source.labels, turned.splits["train"].truth)


def test_toy_images_show_their_labels() -> None:
    """Least squares on the pixels of one split, read off patch by patch, finds the labels of the other."""
    train, test = Toy().sources()
    assert isinstance(train, ToySource)
    assert isinstance(test, ToySource)
    pooled = [
        source.inputs().table.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(2, 3)).flatten(1) for source in (train, test)
    ]
    weights = np.linalg.lstsq(np.c_[pooled[0], np.ones(len(train))], train.labels, rcond=None)[0]
    found = np.c_[pooled[1], np.ones(len(test))] @ weights > 0.5
    assert (found == test.labels).mean() > 0.9
