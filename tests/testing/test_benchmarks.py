"""Every built-in benchmark passes the kit for benchmarks as far as its data are here; broken rules are caught."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError
from cml_bench.registry import entries
from cml_bench.runs.benchmark import Benchmark, BenchmarkMeta
from cml_bench.testing import BENCHMARK_CHECKS, CheckOutcome, check, check_benchmark
from cml_bench.testing.toy import ToySource
from cml_bench.training.config import TrainingConfig

BENCHMARKS = (*entries("benchmarks"), "digits n_train=60 n_test=60")


@functools.cache
def outcomes(benchmark: str) -> dict[str, CheckOutcome]:
    return {outcome.name: outcome for outcome in check_benchmark(benchmark, raise_on_failure=False)}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_conforms(name: str) -> None:
    found = outcomes(name)
    assert list(found) == list(BENCHMARK_CHECKS)
    assert not {name: outcome.detail for name, outcome in found.items() if outcome.status == "failed"}
    assert found["metadata"].status == "passed"


def test_without_its_data_only_what_it_declares_is_looked_at() -> None:
    found = outcomes("split_coco")
    assert {name for name, outcome in found.items() if outcome.status == "passed"} == {"metadata"}
    assert found["runs"].detail == "its data lie on a disk: add root=..."


def test_all_of_it_is_looked_at_where_the_data_are() -> None:
    assert {outcome.status for outcome in outcomes("digits").values()} == {"passed"}
    changed = outcomes("digits n_train=60 n_test=60")["counts_as_declared"]
    assert (changed.status, changed.detail) == (
        "skipped",
        "n_train, n_test differ from the default that meta speaks of",
    )


META: dict[str, Any] = {"name": "broken", "title": "Broken", "version": 1, "source": "toy", "licence": "none"}
TRAINING = TrainingConfig(epochs=1)


@dataclass(frozen=True, kw_only=True)
class Sound(Benchmark):
    """Deal toy images."""

    increment: int = 2
    meta = BenchmarkMeta(
        name="broken", title="Broken", version=1, source="toy", licence="none", methods=("naive",), n_labels=6
    )
    training = TRAINING

    def sources(self) -> tuple[Source, Source]:
        return ToySource("train", 40, 0, 6), ToySource("test", 40, 1, 6)


@dataclass(frozen=True, kw_only=True)
class Miscounts(Sound):
    """Declare a label too many."""

    meta = BenchmarkMeta(
        name="broken", title="Broken", version=1, source="toy", licence="none", methods=("naive",), n_labels=7
    )


@dataclass(frozen=True, kw_only=True)
class Overstates(Sound):
    """Declare more images than there are."""

    meta = BenchmarkMeta(
        name="broken", title="Broken", version=1, source="toy", licence="none", methods=("naive",), images=(50, 50, 50)
    )


@dataclass(frozen=True, kw_only=True)
class Mistypes(Sound):
    """Name a method that there is not."""

    meta = BenchmarkMeta(name="broken", title="Broken", version=1, source="toy", licence="none", methods=("naiv",))


@dataclass(frozen=True, kw_only=True)
class Computes(Sound):
    """Compute its meta."""

    meta = BenchmarkMeta(**META, methods=("naive",))


@dataclass(frozen=True, kw_only=True)
class Halves(Sound):
    """Fail to read its images."""

    def sources(self) -> tuple[Source, Source]:
        class Grey(ToySource):
            def load(self, index: int) -> Tensor:
                return super().load(index)[0]

        return Grey("train", 40, 0, 6), Grey("test", 40, 1, 6)


TIMES = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Draws(Sound):
    """Draw other labels whenever they are read."""

    def sources(self) -> tuple[Source, Source]:
        return ToySource("train", 40, next(TIMES), 6), ToySource("test", 40, 1, 6)


@dataclass(frozen=True, kw_only=True)
class Doubles(Sound):
    """Give two images one id."""

    def sources(self) -> tuple[Source, Source]:
        train, test = super().sources()
        train.ids = np.where(train.ids == 1, 0, train.ids)
        return train, test


# Those without a meta of their own are told so as well.
BROKEN = {
    Miscounts: {"counts_as_declared"},
    Overstates: {"counts_as_declared"},
    Mistypes: {"methods"},
    Computes: {"metadata"},
    Halves: {"metadata", "images_load"},
    Draws: {"metadata", "builds_the_same"},
    Doubles: {"metadata", "runs"},
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_rule_is_caught(kind: type[Benchmark]) -> None:
    found = check_benchmark(kind, raise_on_failure=False)
    failed = {outcome.name: outcome.detail for outcome in found if outcome.status == "failed"}
    assert set(failed) == BROKEN[kind], failed


def test_a_sound_one_passes() -> None:
    assert {outcome.status for outcome in check_benchmark(Sound)} == {"passed"}


def test_specifications() -> None:
    with pytest.raises(CmlBenchError, match=r"there is no benchmark 'digit': did you mean 'digits'\?"):
        check("benchmark:digit")
    with pytest.raises(CmlBenchError, match="benchmark digits has no option 'n_trian'"):
        check("benchmark:digits n_trian=3")
    with pytest.raises(CmlBenchError, match="fails 1 of"):
        check_benchmark(Miscounts)


def test_chunks_of_an_online_stream_are_one_experience() -> None:
    found = outcomes("digits n_train=60 n_test=60 online_chunk=20")
    assert found["labels_in_scope"].status == "passed"
