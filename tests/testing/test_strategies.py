"""What the conformance kit says of strategies: of what they declare, of their options, and of checks left out."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest

from cml_bench import Strategy, StrategyMeta
from cml_bench.errors import CmlBenchError
from cml_bench.testing import CHECKS, check_strategy
from cml_bench.testing.outcome import run_checks
from cml_bench.testing.strategies import StrategyCase

META = StrategyMeta(name="broken", title="Broken", family="test")


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
    (found,) = run_checks({"metadata": CHECKS["metadata"]}, StrategyCase(kind), raise_on_failure=False)
    assert (found.status, found.detail) == ("failed", sentence)


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
        (
            "cml_bench.losses.asl:ASL",
            "'cml_bench.losses.asl:ASL' is a criterion: a method takes it as loss=cml_bench.losses.asl:ASL, a check as "
            "criterion:cml_bench.losses.asl:ASL",
        ),
        ("cml_bench.models.heads.dlfl:DLFLHead", "'cml_bench.models.heads.dlfl:DLFLHead' is a head: "),
        (
            "cml_bench.benchmarks.digits:Digits",
            "'cml_bench.benchmarks.digits:Digits' is a benchmark: cml-bench run cml_bench.benchmarks.digits:Digits "
            "runs methods on it, a check takes it as benchmark:cml_bench.benchmarks.digits:Digits",
        ),
        (
            "cml_bench.data.sets.coco:COCO",
            "'cml_bench.data.sets.coco:COCO' is a data set: a benchmark reads it, and cml-bench data verify "
            "cml_bench.data.sets.coco:COCO checks it",
        ),
        (
            "cml_bench.regimes.long_tail:LongTail",
            "'cml_bench.regimes.long_tail:LongTail' is a regime: it is set as regime=cml_bench.regimes",
        ),
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
    run_checks({"config_round_trip": CHECKS["config_round_trip"]}, StrategyCase(Listing), raise_on_failure=True)
