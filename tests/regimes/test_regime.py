"""The regime contract: questions, chains, and what the annotators of a stream leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cml_bench.errors import CmlBenchError
from cml_bench.labels import UNMARKED
from cml_bench.regimes.chain import parse_regimes
from cml_bench.regimes.full import Full
from cml_bench.regimes.hapi import APISnapshot
from cml_bench.regimes.long_tail import LongTail
from cml_bench.regimes.missing_positives import MissingPositives
from cml_bench.regimes.regime import Question, Regime, RegimeMeta
from cml_bench.streams.annotating import annotate, images_reached


def ask(source: Any, rows: Any = None, columns: Any = None, seed: int = 0) -> Question:
    rows = np.arange(len(source)) if rows is None else np.array(rows)
    columns = np.arange(source.labels.shape[1]) if columns is None else np.array(columns)
    return Question(source, rows, columns, source.labels[np.ix_(rows, columns)], seed)


def test_draws_are_uniform_and_without_pattern(bare_source: Any) -> None:
    """Ids and names that count up are what a weak hash fails on."""
    drawn = ask(bare_source(np.zeros((3000, 40)))).uniform()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert stats.kstest(drawn.ravel(), "uniform").pvalue > 1e-3
    for axis in (0, 1):
        means = drawn.mean(axis=axis)
        spread = np.sqrt(1 / 12 / drawn.shape[axis])
        assert np.abs(means - 0.5).max() < 5 * spread
    neighbours = np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]
    assert abs(neighbours) < 5 / np.sqrt(drawn.size)


def test_draws_depend_on_id_name_and_seed_alone(bare_source: Any) -> None:
    drawn = ask(bare_source(np.zeros((6, 4)))).uniform()
    rows, columns = [4, 1, 3], [2, 0]
    part = bare_source(np.ones((3, 2)), ids=[1004, 1001, 1003], names=["label2", "label0"])
    assert (ask(part).uniform() == drawn[np.ix_(rows, columns)]).all()
    assert (ask(bare_source(np.zeros((6, 4))), rows, columns).uniform() == drawn[np.ix_(rows, columns)]).all()
    as_text = bare_source(np.zeros((6, 4)), ids=[str(1000 + i) for i in range(6)])
    assert (ask(as_text).uniform() == drawn).all(), "an id is the same as a number and as text"
    assert not (ask(bare_source(np.zeros((6, 4))), seed=1).uniform() == drawn).any()


def test_an_id_that_reads_like_a_label_name_is_no_accident(bare_source: Any) -> None:
    digits = [str(i) for i in range(10)]
    drawn = ask(bare_source(np.zeros((10, 10)), ids=digits, names=digits)).uniform()
    assert len(np.unique(drawn)) == 100


@dataclass(frozen=True)
class Drop(Regime):
    """Hides one label everywhere; lets images with even ids through."""

    name: str

    meta = RegimeMeta(name="drop", title="drop")

    def select(self, source: Any, seed: int) -> Any:
        return np.flatnonzero(source.ids % 2 == 0)

    def observe(self, question: Question) -> Any:
        names = np.array(question.source.label_names)[question.columns]
        return np.where(names == self.name, np.int8(UNMARKED), question.labels)


@dataclass(frozen=True)
class Flip(Regime):
    """Says the opposite, and keeps the seeds it is given."""

    seeds: list[int]

    meta = RegimeMeta(name="flip", title="flip")

    def observe(self, question: Question) -> Any:
        self.seeds.append(question.seed)
        return 1 - question.labels


def test_a_chain_is_applied_in_order_with_a_seed_for_each(bare_source: Any) -> None:
    source = bare_source([[1, 0, 1], [0, 0, 1]])
    truth = source.labels.copy()
    first, second = Flip([]), Flip([])
    asked = [np.array([2, 0]), np.array([1])]
    left = annotate([first, second, Drop("label2")], source, asked, seed=5)
    assert left.tolist() == [[1, 0, UNMARKED], [0, 0, UNMARKED]]
    assert (source.labels == truth).all(), "the truth was written into"
    assert len(set(first.seeds)) == len(set(second.seeds)) == 1
    assert first.seeds[0] != second.seeds[0]
    other = Flip([])
    annotate([other], source, asked, seed=6)
    assert other.seeds[0] != first.seeds[0]


def test_what_is_no_regime_is_refused_by_name() -> None:
    with pytest.raises(CmlBenchError, match=r"'cml_bench\.streams\.orders:divide' is no regime: give a subclass of"):
        parse_regimes("cml_bench.streams.orders:divide n_labels=2 base=0 increment=1")


def test_without_a_habit_the_truth_is_not_copied(bare_source: Any) -> None:
    source = bare_source([[1, 0]])
    assert annotate([], source, [np.arange(2)], 0) is source.labels
    assert annotate([Full(), Full()], source, [np.arange(2)], 0) is source.labels


def test_an_image_must_pass_every_regime(bare_source: Any) -> None:
    source = bare_source(np.ones((6, 1)))
    rows = np.array([1, 2, 4, 5])
    assert images_reached([Full(), Drop("x")], source, rows, 0).tolist() == [2, 4]
    assert images_reached([], source, rows, 0).tolist() == [1, 2, 4, 5]


def test_texts_name_chains() -> None:
    chain = parse_regimes("long_tail most=9 + missing_positives rate=0.4")
    assert chain == (LongTail(most=9), MissingPositives(rate=0.4))
    assert parse_regimes("full") == (Full(),)
    assert parse_regimes("long_tail most=9+missing_positives rate=0.4") == chain


@pytest.mark.parametrize("quoted", ['root="/data/c++"', "'root=/data/c++'", "root=/data/'c++'"])
def test_a_quoted_plus_joins_nothing(quoted: str) -> None:
    hapi, after = parse_regimes(f"hapi {quoted} dataset=coco api=google_mic date=20-10-28 + missing_positives rate=0.4")
    assert hapi == APISnapshot(root="/data/c++", dataset="coco", api="google_mic", date="20-10-28")
    assert after == MissingPositives(rate=0.4)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("partial_label known=0.1", "did you mean 'partial_labels'"),
        ("partial_labels knwn=0.1", "did you mean 'known'"),
        ("partial_labels", "add known=VALUE"),
        ("partial_labels known=1.5", "known=1.5 is no probability: give a number from 0 to 1"),
        ("partial_labels known=nan", "known=nan is no probability"),
        ("missing_positives rate=-0.1", "rate=-0.1 is no probability"),
        ("kept_positives share=2", "share=2.0 is no probability"),
        ("candidates noise=7", "noise=7.0 is no probability"),
        ("single_positive bias=sizes", "bias='sizes'.*'size'"),
        ("single_positive bias=semantic", "bias=semantic needs shares=FILE.json"),
        ("single_positive shares=a.json", "bias=semantic needs shares=FILE.json"),
        ("long_tail least=5 most=2", "0 <= least <= most"),
        ("long_tail alpha=0", "alpha=0.0 must be above 0"),
        ("full + ", "names nothing between two"),
        ("full ++ full", "names nothing between two"),
        ("+ full", "names nothing between two"),
        ('hapi root="/data', "close the quotes"),
    ],
)
def test_bad_texts_are_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(CmlBenchError, match=sentence):
        parse_regimes(text)
