"""What holds for every regime, over random label tables and in built streams."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cml_bench.data.table import Boxes
from cml_bench.errors import CmlBenchError
from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED
from cml_bench.regimes.chain import parse_regimes
from cml_bench.regimes.regime import Question
from cml_bench.registry import entries
from cml_bench.streams.builder import label_incremental_benchmark

HIDES = {(PRESENT, UNMARKED), (ABSENT, UNMARKED)}
CHANGES: dict[str, set[tuple[int, int]]] = {
    "full": set(),
    "missing_positives rate=0.4": HIDES,
    "missing_positives rate=1": HIDES,
    "kept_positives share=0.3": HIDES,
    "partial_labels known=0.5": HIDES,
    "candidates noise=0.5": {(ABSENT, PRESENT)},
    "single_positive": HIDES,
    "single_positive bias=size": HIDES,
    "single_positive bias=location": HIDES,
    "single_positive bias=semantic shares={shares}": HIDES,
    "long_tail": set(),
}
"""What each may do to an entry; all else stays as it is."""
POSITIVES_ONLY = ("missing_positives", "kept_positives", "single_positive")
BY_GROUP = ("kept_positives", "single_positive")
"""These draw among the labels asked for together; the others look at one entry at a time."""
ELSEWHERE = {"hapi": "marks what a stored snapshot says; it needs files"}

STATES = st.sampled_from([PRESENT, ABSENT, UNMARKED, OUT_OF_SCOPE])
TABLES = arrays.arrays(np.int8, st.tuples(st.integers(1, 9), st.integers(1, 6)), elements=STATES)
every_regime = pytest.mark.parametrize("text", CHANGES)
tries = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def regime_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    path = tmp_path_factory.mktemp("shares") / "shares.json"
    path.write_text(json.dumps({f"label{i}": i for i in range(8)}), encoding="utf-8")

    def make(text: str) -> Any:
        (regime,) = parse_regimes(text.format(shares=path))
        return regime

    return make


def boxes_for(truth: Any, ids: Any, names: Any) -> Boxes:
    """A box for every positive, its place and area a function of id and name alone."""
    rows, columns = np.nonzero(truth == PRESENT)
    mixed = (np.asarray(ids)[rows] * 7 + np.array([int(names[c][5:]) for c in columns], dtype=np.int64) * 13) % 29 + 1
    xywh = np.stack([mixed, mixed % 11, mixed % 5 + 1, mixed % 3 + 1], axis=1).astype(np.float32)
    return Boxes(rows, columns, xywh, mixed.astype(np.float32))


def observe(bare_source: Any, regime: Any, labels: Any, ids: Any = None, names: Any = None, seed: int = 3) -> Any:
    n, c = labels.shape
    ids = np.arange(1000, 1000 + n) if ids is None else ids
    names = [f"label{i}" for i in range(c)] if names is None else names
    sizes = np.full((n, 2), 31, dtype=np.int32)
    source = bare_source(labels, ids=ids, names=names, boxes=boxes_for(labels, ids, names), sizes=sizes)
    before = labels.copy()
    left = regime.observe(Question(source, np.arange(n), np.arange(c), labels, seed))
    assert (labels == before).all(), "the question was written into"
    assert left.dtype == np.int8
    return left


def test_no_regime_goes_untested() -> None:
    tested = {text.split()[0] for text in CHANGES}
    assert tested <= set(entries("regimes"))
    assert set(entries("regimes")) <= tested | set(ELSEWHERE)


@every_regime
@tries
@given(labels=TABLES)
def test_it_changes_only_what_it_says(bare_source: Any, regime_of: Any, text: str, labels: Any) -> None:
    left = observe(bare_source, regime_of(text), labels)
    changed = {
        (int(before), int(after)) for before, after in zip(labels.ravel(), left.ravel(), strict=True) if before != after
    }
    assert changed <= CHANGES[text]
    if text.startswith(POSITIVES_ONLY):
        assert ABSENT not in left, "a positives-only annotator says what is absent"
    positives, marked = (labels == PRESENT).sum(axis=1), (left == PRESENT).sum(axis=1)
    if text.startswith("single_positive"):
        assert (marked == (positives > 0)).all()
    if text.startswith("kept_positives"):
        assert ((marked > 0) == (positives > 0)).all()


@every_regime
@tries
@given(labels=TABLES, data=st.data())
def test_order_and_absent_images_do_not_matter(
    bare_source: Any, regime_of: Any, text: str, labels: Any, data: st.DataObject
) -> None:
    regime, (n, c) = regime_of(text), labels.shape
    left = observe(bare_source, regime, labels)
    rows = np.array(data.draw(st.lists(st.integers(0, n - 1), unique=True, min_size=1)))
    columns = np.array(data.draw(st.permutations(range(c))))
    part = labels[np.ix_(rows, columns)]
    found = observe(bare_source, regime, part, ids=1000 + rows, names=[f"label{i}" for i in columns])
    assert (found == left[np.ix_(rows, columns)]).all()


@every_regime
def test_seeds_decide(bare_source: Any, regime_of: Any, tiny_labels: Any, text: str) -> None:
    labels = tiny_labels(200, 6, 0, 0.5)
    regime = regime_of(text)
    first = observe(bare_source, regime, labels, seed=1)
    assert (first == observe(bare_source, regime, labels, seed=1)).all()
    fixed = not CHANGES[text] or text.endswith("rate=1")
    assert (first == observe(bare_source, regime, labels, seed=2)).all() == fixed


# -- in streams ------------------------------------------------------------------------------------------------------

ENTRYWISE = [text for text in CHANGES if not text.startswith(BY_GROUP) and text != "long_tail"]
IN_STREAMS = [*(text for text in CHANGES if "bias" not in text), "candidates noise=0.3 + partial_labels known=0.5"]


def build(tiny_source: Any, text: str, labels: Any, **protocol: Any) -> Any:
    sources = tiny_source(labels), tiny_source(labels, split="test")
    return label_incremental_benchmark(*sources, regime=text, **{"increment": 2, **protocol})


def answers_of(scenario: Any) -> dict[tuple[int, str], set[int]]:
    """What each image and label was marked as, over all experiences that ask."""
    marked: dict[tuple[int, str], set[int]] = {}
    for experience in scenario.train_stream:
        for row, labels in zip(
            experience.dataset.sample_ids.data.tolist(), experience.dataset.labels.data.tolist(), strict=True
        ):
            for name, state in zip(experience.label_names, labels, strict=True):
                if state != OUT_OF_SCOPE:
                    marked.setdefault((row, name), set()).add(state)
    return marked


@pytest.mark.parametrize("text", IN_STREAMS)
@pytest.mark.parametrize("annotation", ["current", "seen", "all"])
def test_test_labels_stay_full_and_answers_are_given_once(
    tiny_source: Any, tiny_labels: Any, text: str, annotation: str
) -> None:
    labels = tiny_labels(60, 6, 0)
    scenario = build(tiny_source, text, labels, annotation=annotation)
    for t, experience in enumerate(scenario.test_stream):
        rows = experience.dataset.sample_ids.data.numpy()
        assert (experience.dataset.labels.data.numpy() == labels[rows][:, : scenario.n_seen[t]]).all()
    assert all(len(states) == 1 for states in answers_of(scenario).values()), "experiences disagree on an entry"


@pytest.mark.parametrize("text", ENTRYWISE)
def test_entries_are_answered_alike_under_every_class_order(tiny_source: Any, tiny_labels: Any, text: str) -> None:
    labels = tiny_labels(60, 6, 0)
    first = answers_of(build(tiny_source, text, labels))
    other = answers_of(build(tiny_source, text, labels, class_order="random:4", increment=3, assignment="disjoint"))
    both = first.keys() & other.keys()
    assert len(both) > 50
    assert all(first[entry] == other[entry] for entry in both)


@pytest.mark.parametrize("text", [text for text in IN_STREAMS if text != "long_tail"])
@pytest.mark.parametrize("annotation", ["current", "seen"])
def test_later_labels_leave_no_trace(tiny_source: Any, tiny_labels: Any, text: str, annotation: str) -> None:
    """The truth of the labels to come is changed; what was annotated before they came is the same."""
    labels = tiny_labels(60, 6, 0)
    changed = labels.copy()
    changed[:, 4:] = tiny_labels(60, 6, 9)[:, 4:]
    streams = [build(tiny_source, text, table, annotation=annotation).train_stream for table in (labels, changed)]
    for t in range(2):
        one, other = (stream[t].dataset for stream in streams)
        assert one.sample_ids.data.tolist() == other.sample_ids.data.tolist()
        assert one.labels.data.tolist() == other.labels.data.tolist()
    one, other = (stream[2].dataset for stream in streams)
    assert one.sample_ids.data.tolist() != other.sample_ids.data.tolist(), "the change was none"


def test_a_long_tail_with_missing_labels(tiny_source: Any, tiny_labels: Any) -> None:
    labels = tiny_labels(400, 6, 0)
    text = "long_tail most=60 least=4 + missing_positives rate=0.4"
    scenario = build(tiny_source, text, labels)
    chosen = scenario.splits["train"].rows
    counts = labels[chosen].sum(axis=0)
    assert counts.max() > 2 * counts.min()
    assert len(chosen) < 200
    known = {state for states in answers_of(scenario).values() for state in states}
    assert known == {PRESENT, UNMARKED}
    assert len(scenario.splits["test"].rows) == np.count_nonzero(labels.any(axis=1))


def test_an_error_of_a_regime_reaches_the_user(tiny_source: Any, tiny_labels: Any) -> None:
    with pytest.raises(CmlBenchError, match="needs object boxes and tiny has none"):
        build(tiny_source, "single_positive bias=size", tiny_labels(20, 4, 0))


def test_a_missing_file_of_shares_reaches_the_user(tiny_source: Any, tiny_labels: Any, tmp_path: Path) -> None:
    with pytest.raises(CmlBenchError, match=r"none\.json cannot be read"):
        build(tiny_source, f"single_positive bias=semantic shares={tmp_path}/none.json", tiny_labels(20, 4, 0))


@pytest.mark.parametrize(
    ("regime", "truth", "state", "share"),
    [
        ("missing_positives rate=0.25", 1, PRESENT, 0.75),
        ("partial_labels known=0.25", 1, PRESENT, 0.25),
        ("partial_labels known=0.25", 0, ABSENT, 0.25),
        ("candidates noise=0.25", 0, PRESENT, 0.25),
    ],
)
def test_a_rate_is_a_probability(
    bare_source: Any, answers: Any, regime: str, truth: int, state: int, share: float
) -> None:
    """Of 20,000 entries within 4.5 standard deviations."""
    found = answers(regime, bare_source(np.full((4000, 5), truth))) == state
    assert abs(found.mean() - share) < 4.5 * np.sqrt(share * (1 - share) / found.size)
