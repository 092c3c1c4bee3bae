"""A commercial service as annotator: a stored snapshot, matched by id and name, with its errors."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cml_bench.errors import CmlBenchError
from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED
from cml_bench.regimes.hapi import APISnapshot, _match
from cml_bench.streams.builder import label_incremental_benchmark

NAMES = ["person", "dining table", "tvmonitor"]
Say = Callable[..., str]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def say(tmp_path: Path) -> Say:
    """Write a snapshot and return the regime's text."""

    def write(answers: dict[str, list[str]], date: str = "20-10-28") -> str:
        folder = tmp_path / "tasks/mic/coco/google_mic"
        folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tasks/meta.csv").write_text(f"task,dataset,api,date\nmic,coco,google_mic,{date}\n")
        content = [{"example_id": i, "confidence": 0.5, "predicted_label": names} for i, names in answers.items()]
        (folder / f"{date}.json").write_text(json.dumps(content))
        return f"hapi root={tmp_path} dataset=coco api=google_mic date={date}"

    return write


def test_what_was_said_is_present_and_all_else_is_open(say: Say, bare_source: Any, answers: Any) -> None:
    """One true and one false answer, a repeated one; an answer of no image here; an image without answer."""
    source = bare_source([[1, 1, 0], [0, 1, 0], [1, 0, 0]], ids=[57870, 9, 42], names=NAMES)
    text = say(
        {
            "COCO_train2014_000000057870": ["person", "TV monitor", "person"],
            "COCO_val2014_000000000009": ["Dining_Table", "unicorn"],
            "COCO_val2014_000000000011": ["person"],
        }
    )
    with pytest.warns(
        UserWarning, match=r"holds 2 of 3 images of bare; 1 of its 4 names are no label \(unicorn; said 1 ti"
    ):
        left = answers(text, source)
    assert left.tolist() == [[PRESENT, UNMARKED, PRESENT], [UNMARKED, PRESENT, UNMARKED], [UNMARKED] * 3]


def test_coverage_counts_both_sides(say: Say, bare_source: Any, tmp_path: Path) -> None:
    source = bare_source([[1, 1, 0], [0, 1, 0]], ids=["im1.jpg", "im2.png"], names=NAMES)
    say({"im1": ["person", "cat"], "im3": ["cat", "cow"]})
    regime = APISnapshot(root=str(tmp_path), dataset="coco", api="google_mic", date="20-10-28")
    with pytest.warns(UserWarning, match="holds 1 of 2 images"):
        found = _match(regime, source).counts
    assert found == {
        "images": 1,
        "images_without_answer": 1,
        "names": 1,
        "names_without_label": 2,
        "answers_without_label": 3,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _match(regime, source).counts == found, "told once"


def test_names_that_differ_are_mapped(say: Say, bare_source: Any, answers: Any, tmp_path: Path) -> None:
    source = bare_source([[0, 0, 0]], ids=["a"], names=NAMES)
    mapping = tmp_path / "names.json"
    mapping.write_text(json.dumps({"television": "tvmonitor", "screen": "tvmonitor", "human": "person"}))
    text = say({"a": ["television", "screen"], "b": ["human"]}) + f" names={mapping}"
    assert answers(text, source).tolist() == [[UNMARKED, UNMARKED, PRESENT]]
    mapping.write_text(json.dumps({"television": "tvmoniter"}))
    with pytest.raises(CmlBenchError, match=r"names\.json maps 'television' to 'tvmoniter', no label of bare: did you"):
        answers(text, bare_source([[0, 0, 0]], ids=["a"], names=NAMES))


STATES = st.sampled_from([PRESENT, ABSENT, UNMARKED, OUT_OF_SCOPE])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_against_brute_force(say: Say, bare_source: Any, answers: Any, data: st.DataObject) -> None:
    names = ["a", "b", "c", "d"]
    n = data.draw(st.integers(1, 6))
    labels = np.array(
        data.draw(st.lists(st.lists(STATES, min_size=4, max_size=4), min_size=n, max_size=n)), dtype=np.int8
    )
    said = {str(i): data.draw(st.lists(st.sampled_from([*names, "x"]), max_size=5)) for i in range(n + 2)}
    said["0"].append("a")
    order = data.draw(st.permutations(range(n)))
    source = bare_source(labels, ids=order, names=names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        left = answers(say(said, date=f"20-{data.draw(st.integers())}"), source, asked=[[2, 0], [1], [3]])
    for row, image in enumerate(order):
        for column, name in enumerate(names):
            known = labels[row, column] >= 0
            answer = PRESENT if name in said[str(image)] else UNMARKED
            assert left[row, column] == (answer if known else labels[row, column])


def test_in_a_stream_with_another_regime(say: Say, bare_source: Any) -> None:
    """Test labels stay the truth; the next regime of the chain works on what the service said."""
    labels = [[1, 0, 1], [1, 1, 0], [0, 1, 1]]
    text = say({"1000": ["person", "dining table", "tvmonitor"], "1001": ["tvmonitor"], "1002": ["person"]})

    def build(regime: str) -> Any:
        sources = bare_source(labels, names=NAMES), bare_source(labels, names=NAMES)
        return label_incremental_benchmark(*sources, increment=3, regime=regime)

    scenario = build(text)
    assert scenario.train_stream[0].dataset.labels.data.tolist() == [[1, 1, 1], [-1, -1, 1], [1, -1, -1]]
    assert scenario.test_stream[0].dataset.labels.data.tolist() == labels
    dropped = build(text + " + missing_positives rate=1").train_stream[0].dataset.labels.data
    assert (dropped == UNMARKED).all()


@pytest.mark.parametrize(
    ("ids", "names", "sentence"),
    [
        (["a"], NAMES, r"coco/google_mic/20-10-28 holds no image of bare \(ids there: im1; here: a\): use the images"),
        (["im1"], ["x", "y", "z"], r"coco/google_mic/20-10-28 names no label of bare \(person\): give names=FILE"),
    ],
)
def test_a_snapshot_of_other_data_is_refused(
    say: Say, bare_source: Any, answers: Any, ids: list[str], names: list[str], sentence: str
) -> None:
    text = say({"im1": ["person"]})
    with pytest.raises(CmlBenchError, match=sentence):
        answers(text, bare_source([[1, 0, 0]], ids=ids, names=names))


def test_ids_that_end_alike_are_refused(say: Say, bare_source: Any, answers: Any) -> None:
    text = say({"2008_000001": ["person"], "2011_000001": ["person"]})
    with pytest.raises(CmlBenchError, match="has ids that end in the same number: they cannot be those of bare"):
        answers(text, bare_source([[1, 0, 0]], ids=[1], names=NAMES))
