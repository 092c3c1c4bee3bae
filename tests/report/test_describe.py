"""Descriptions of streams: every figure against plain loops over the datasets that a learner gets."""

from __future__ import annotations

import dataclasses
import io
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rich.console import Console

import cml_bench
from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError
from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED, LabelArray
from cml_bench.regimes.regime import Question, Regime, RegimeMeta
from cml_bench.registry import load
from cml_bench.report.stream.describe import StreamDescription, count_stream
from cml_bench.report.stream.formats import to_csv, to_markdown, to_terminal
from cml_bench.runs.benchmark import Benchmark
from cml_bench.streams.builder import label_incremental_benchmark
from cml_bench.streams.dealing import Curated
from cml_bench.streams.scenario import MultiLabelScenario

PARTLY_KNOWN = np.eye(6, dtype=np.int8) + OUT_OF_SCOPE * np.eye(6, k=5, dtype=np.int8)
"""One label an image; of the first image nobody knows the last label."""


class Careless(Regime):
    """Leaves entries open, and calls some that are present absent."""

    meta = RegimeMeta(name="careless", title="careless")

    def observe(self, question: Question) -> LabelArray:
        left, drawn = question.labels.copy(), question.uniform()
        left[(drawn < 0.5) & (left == PRESENT)] = ABSENT
        left[drawn < 0.3] = UNMARKED
        return left


def brute_force(scenario: MultiLabelScenario) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[list[float]]]:
    """Count image by image and label by label what a learner gets from the training stream."""
    source = scenario.splits["train"].source
    truth = {name: source.labels[:, i].tolist() for i, name in enumerate(source.label_names)}
    names = scenario.label_names
    rows, labels, shares = [], [], []
    met: set[int] = set()
    chunks: dict[int, list[Any]] = {}
    for experience in scenario.train_stream:
        chunks.setdefault(len(experience.dataset.labels.names), []).append(experience.dataset)
    for t, (n_seen, datasets) in enumerate(chunks.items()):
        first = datasets[0].labels.first_new
        ids, now, later = [], {}, {}
        for dataset in datasets:
            for i, row in enumerate(dataset.sample_ids.data.tolist()):
                ids.append(row)
                now[row] = dict(zip(names[:n_seen], dataset.labels.data[i].tolist(), strict=True))
                wide = dataset.widened(names).labels.data[i].tolist()
                later[row] = dict(zip(names, wide, strict=True))
        asked = sum(now[row][name] != -2 for row in ids for name in names[:n_seen])
        positives = sum(now[row][name] == PRESENT for row in ids for name in names[:n_seen])
        hidden: dict[str, list[int]] = {}
        for part, some in (("old", names[:first]), ("future", names[n_seen:])):
            hidden[part] = [sum(truth[n][row] == PRESENT and later[row][n] != PRESENT for n in some) for row in ids]
        own = {name: sum(now[row][name] == PRESENT for row in ids) for name in names[first:n_seen]}
        ratios = [max(own.values()) / count for count in own.values() if count]
        rows.append(
            {
                "experience": t + 1,
                "new_labels": names[first:n_seen],
                "n_seen": n_seen,
                "images": len(ids),
                "positives": positives,
                "labels_per_image": positives / len(ids),
                "density": positives / asked,
                "unmarked": sum(state == UNMARKED for row in ids for state in now[row].values()),
                "hidden_old": sum(hidden["old"]),
                "hidden_old_share": sum(map(bool, hidden["old"])) / len(ids),
                "hidden_future": sum(hidden["future"]),
                "hidden_future_share": sum(map(bool, hidden["future"])) / len(ids),
                "mean_ir": sum(ratios) / len(ratios) if ratios else np.nan,
                "max_ir": max(ratios, default=np.nan),
                "empty_labels": sum(not count for count in own.values()),
                "repeated_images": len(met & set(ids)),
                "test_images": len(scenario.test_stream[t].dataset),
            }
        )
        shares.append(
            [
                sum(any(truth[name][row] == PRESENT for name in group) for row in ids) / len(ids)
                for group in np.split(np.array(names), scenario.n_seen[:-1])
            ]
        )
        labels += [{"label": name, "experience": t + 1, "positives": count} for name, count in own.items()]
        met |= set(ids)
    totals = {name: sum(truth[name][row] == PRESENT for row in met) for name in names}
    for label in labels:
        label["true_positives"] = totals[label["label"]]
        label["ir"] = max(totals.values()) / totals[label["label"]] if totals[label["label"]] else np.inf
        label["unknown"] = sum(truth[label["label"]][row] < 0 for row in met)
    return rows, labels, shares


def assert_as_counted(scenario: MultiLabelScenario, annotation: str) -> None:
    rows, labels, shares = count_stream(scenario, annotation)  # type: ignore[arg-type]
    expected_rows, expected_labels, expected_shares = brute_force(scenario)
    pd.testing.assert_frame_equal(rows, pd.DataFrame(expected_rows), check_exact=False, check_dtype=False)
    pd.testing.assert_frame_equal(labels, pd.DataFrame(expected_labels), check_exact=False, check_dtype=False)
    assert np.allclose(shares, expected_shares)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(12, 40),
    n_labels=st.integers(2, 7),
    base=st.integers(0, 2),
    increment=st.integers(1, 4),
    assignment=st.sampled_from(["overlap", "disjoint"]),
    annotation=st.sampled_from(["current", "seen", "all"]),
    test=st.sampled_from(["seen_images", "all_images", "per_experience"]),
    careless=st.booleans(),
    online_chunk=st.sampled_from([None, 7]),
    validation=st.sampled_from([0.0, 0.2]),
)
def test_every_figure_is_what_plain_loops_count(
    tiny_source: Any,
    tiny_labels: Any,
    seed: int,
    n: int,
    n_labels: int,
    careless: bool,
    annotation: str,
    **protocol: Any,
) -> None:
    try:
        scenario = label_incremental_benchmark(
            tiny_source(tiny_labels(n, n_labels, seed)),
            tiny_source(tiny_labels(20, n_labels, seed + 1), split="test"),
            class_order=f"random:{seed}",
            annotation=annotation,  # type: ignore[arg-type]
            regime=[Careless()] if careless else [],
            seed=seed,
            **protocol,
        )
    except CmlBenchError as error:
        assume("has no image" not in str(error))
        raise
    assert_as_counted(scenario, annotation)


def test_figures_do_not_depend_on_the_size_of_blocks(
    tiny_scenario: Callable[..., MultiLabelScenario], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cml_bench.labels.BLOCK_ENTRIES", 10)
    assert_as_counted(tiny_scenario(regime=[Careless()]), "current")


def test_curated_lists(tiny_source: Any, tiny_labels: Any) -> None:
    ids = np.arange(1000, 1030)
    scenario = label_incremental_benchmark(
        tiny_source(tiny_labels(30, 5, 0)),
        tiny_source(tiny_labels(30, 5, 1), split="test"),
        assignment="curated",
        curated=Curated((("label3", "label0"), ("label1", "label2", "label4")), (ids[:9], ids[5:]), (ids[:4], ids[:7])),
    )
    assert_as_counted(scenario, "current")
    rows, _, _ = count_stream(scenario, "current")
    assert rows[["images", "repeated_images", "test_images"]].to_numpy().tolist() == [[9, 0, 4], [25, 4, 7]]


def test_a_stream_counted_by_hand(tiny_source: Any) -> None:
    # Images by row: a, ab, bc, c, none; experiences: (a, b), (c).
    truth = [[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0]]
    train, test = (tiny_source(truth, ["a", "b", "c"], split=split) for split in ("train", "test"))
    scenario = label_incremental_benchmark(train, test, base=2)
    rows, labels, shares = count_stream(scenario, "current")
    first, second = rows.to_dict("records")
    assert (first["images"], first["positives"], first["labels_per_image"], first["density"]) == (3, 4, 4 / 3, 4 / 6)
    assert (first["hidden_old"], first["hidden_future"], first["hidden_future_share"]) == (0, 1, 1 / 3)
    assert (second["images"], second["positives"], second["repeated_images"]) == (2, 2, 1)
    assert (second["hidden_old"], second["hidden_old_share"], second["test_images"]) == (1, 1 / 2, 4)
    assert (first["mean_ir"], first["max_ir"], labels["ir"].tolist()) == (1, 1, [1, 1, 1])
    assert shares.tolist() == [[1, 1 / 3], [1 / 2, 1]]


def test_what_nobody_knows_is_neither_present_nor_absent(tiny_source: Any) -> None:
    # The first two images are known for a and b only, the next for all, the last for c only.
    train = tiny_source([[1, 0, -2], [1, 1, -2], [0, 1, 0], [-2, -2, 1]], ["a", "b", "c"])
    test = tiny_source([[1, 1, 1]], ["a", "b", "c"], split="test")
    scenario = label_incremental_benchmark(train, test, base=2)
    rows, labels, shares = count_stream(scenario, "current")
    first, second = rows.to_dict("records")
    assert (first["images"], first["density"], second["density"]) == (3, 4 / 6, 1)
    assert (first["hidden_old"], second["hidden_future"]) == (0, 0), "there is nothing that could be unknown"
    assert rows[["hidden_old", "hidden_future"]].isna().to_numpy().tolist() == [[False, True], [True, False]]
    assert rows[["hidden_old_share", "hidden_future_share"]].isna().to_numpy().tolist() == [
        [False, True],
        [True, False],
    ]
    assert labels["unknown"].tolist() == [1, 1, 2]
    assert np.array_equal(shares, [[1, np.nan], [np.nan, 1]], equal_nan=True)
    # Asked for all labels that are seen, the annotator answers one of three entries of the last image.
    rows, _, _ = count_stream(label_incremental_benchmark(train, test, base=2, annotation="seen"), "seen")
    assert rows["density"].tolist() == [4 / 6, 1]


def test_unknown_entries_are_told_and_shown(tiny_scenario: Callable[..., MultiLabelScenario]) -> None:
    description = sample(truth=PARTLY_KNOWN)(tiny_scenario)
    assert to_markdown(description).count(" ? ") == 1
    read = pd.read_csv(io.StringIO(to_csv(description)))
    assert read["hidden_future"].isna().tolist() == read["hidden_future_share"].isna().tolist() == [True, False, False]


def test_the_facts_count_unknown_entries(monkeypatch: pytest.MonkeyPatch, tiny_source: Any) -> None:
    # Of the last image nobody knows anything: it is in no experience, and not counted.
    truth = np.array([[1, 0], [1, 1], [0, 1], [-2, 1], [-2, -2]])

    def sources(self: Benchmark) -> tuple[Source, Source]:
        return tiny_source(truth), tiny_source([[1, 1]], split="test")

    half_known = type("HalfKnown", (load("benchmarks", "digits"),), {"sources": sources})
    monkeypatch.setattr("cml_bench.report.stream.describe.load_benchmark", lambda name: half_known)
    facts = cml_bench.describe("half_known").facts
    assert facts["unknown entries"] == "1 of 8 (12%)"
    assert facts["cardinality"] == "1.250 known labels an image"
    assert facts["density"] == f"{5 / 7:.4f} of known entries"
    truth[truth < 0] = 0
    facts = cml_bench.describe("half_known", n_train=1).facts
    assert "unknown entries" not in facts
    assert (facts["cardinality"], facts["density"]) == ("1.250 labels an image", "0.6250")


def test_imbalance_is_that_of_the_literature(tiny_source: Any) -> None:
    # IRLbl = commonest / own: 8/8, 8/4, 8/1; MeanIR their mean (Charte et al. 2015).
    truth = np.zeros((9, 4), dtype=np.int8)
    for column, count in enumerate((8, 4, 1, 0)):
        truth[:count, column] = 1
    scenario = label_incremental_benchmark(tiny_source(truth), tiny_source(truth, split="test"), increment=4)
    rows, labels, _ = count_stream(scenario, "current")
    assert rows["mean_ir"].tolist() == [pytest.approx((1 + 2 + 8) / 3)]
    assert rows[["max_ir", "empty_labels"]].to_numpy().tolist() == [[8, 1]]
    assert labels["ir"].tolist() == [1, 2, 8, np.inf]


def test_counting_keeps_no_label_table(tiny_source: Any, tiny_labels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cml_bench.labels.BLOCK_ENTRIES", 2**17)
    truth = tiny_labels(100_000, 40, 0, 0.1)
    scenario = label_incremental_benchmark(tiny_source(truth), tiny_source(truth[:50], split="test"), increment=2)
    tracemalloc.start()
    try:
        count_stream(scenario, "current")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Three arrays of a block, the members of an experience and one number an image; the table alone has 4 MB.
    assert peak < 0.5 * truth.nbytes
    assert all("data" not in vars(experience.dataset.labels) for experience in scenario.train_stream)


def test_an_order_that_nobody_named_is_the_default() -> None:
    facts = cml_bench.describe("digits", n_train=100, n_test=40).facts
    assert facts["class order"] == "default (as in the data set)"


def test_describe_is_a_python_call() -> None:
    description = cml_bench.describe("digits", increment=5, n_train=100, n_test=40, class_order="random:1")
    assert len(description.rows) == 2
    assert description.rows["n_seen"].tolist() == [5, 10]
    assert description.rows["published_images"].isna().all()
    assert description.facts["class order"] == "random:1"
    assert description.facts["options"] == "increment=5, n_train=100, n_test=40, class_order=random:1"
    assert str(description) == to_markdown(description)
    scenario = load("benchmarks", "digits")(increment=5, n_train=100, n_test=40).build(class_order="random:1")
    pd.testing.assert_frame_equal(
        description.rows.drop(columns=["published_images", "published_test_images"]),
        count_stream(scenario, "current")[0],
    )
    source = scenario.splits["train"].source
    in_stream = int(source.labels.any(axis=1).sum())
    assert description.facts["training images"] == f"100, {in_stream} of them in the stream"
    assert description.facts["unassigned images"].startswith(f"{100 - in_stream} (train)")
    assert description.facts["cardinality"] == f"{source.labels.sum() / in_stream:.3f} labels an image"
    assert description.facts["fingerprint"].startswith(source.fingerprint[:16])
    with pytest.raises(CmlBenchError, match="benchmark digits has no option 'incremnt': did you mean 'increment'"):
        cml_bench.describe("digits", incremnt=5)


@pytest.mark.parametrize(
    ("images", "options", "fact"),
    [
        ((60, 61), {}, "NOT AS PUBLISHED: images of experience 1, 2 differ"),
        ((60, 61, 62), {}, "NOT AS PUBLISHED: images are published for 3 experiences, these are 2"),
        ((60, 61), {"annotation": "seen"}, "no figures are published of this protocol"),
        ((60, 61), {"class_order": "random:1"}, "no figures are published of this protocol"),
    ],
)
def test_published_figures_hold_for_the_published_protocol(
    monkeypatch: pytest.MonkeyPatch, images: tuple[int, ...], options: dict[str, Any], fact: str
) -> None:
    kind = load("benchmarks", "digits")
    meta = dataclasses.replace(kind.meta, images=images)
    small = type("Small", (kind,), {"meta": meta, "increment": 5, "__annotations__": {"increment": int}})
    small = dataclasses.dataclass(frozen=True, kw_only=True)(small)
    monkeypatch.setattr("cml_bench.report.stream.describe.load_benchmark", lambda name: small)
    assert cml_bench.describe("small", n_train=100, n_test=40, **options).facts["published"] == fact


def sample(n_labels: int = 6, **options: Any) -> Callable[..., StreamDescription]:
    def make(tiny_scenario: Callable[..., MultiLabelScenario]) -> StreamDescription:
        scenario = tiny_scenario(n_labels=n_labels, **options)
        rows, labels, shares = count_stream(scenario, "current")
        rows["new_labels"] = rows["new_labels"].map(lambda names: tuple(f"[bold]a|{name}" for name in names))
        empty = pd.Series(pd.NA, index=rows.index, dtype="Int64")
        rows = rows.assign(published_images=empty, published_test_images=empty)
        return StreamDescription("Title", {"fact": "[red]value"}, rows, labels, shares)

    return make


def test_formats(tiny_scenario: Callable[..., MultiLabelScenario]) -> None:
    description = sample()(tiny_scenario)
    for width in (80, 120, 200):
        console = Console(width=width, file=io.StringIO())
        console.print(to_terminal(description, width))
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        text = "\n".join(lines)
        assert max(map(len, lines)) <= width
        assert "[bold]a|l" in text
        assert "[red]value" in text
        assert ("Left out for lack of width" in text) == (width == 80)
        assert not [line for line in lines[2:] if "…" in line and "[bold]" not in line], "a figure is cut short"
    markdown = to_markdown(description)
    assert r"[bold]a\|label0, [bold]a\|label1" in markdown
    assert "- fact: [red]value\n" in markdown
    read = pd.read_csv(io.StringIO(to_csv(description)))
    assert read["new_labels"].str.split("; ").map(tuple).tolist() == description.rows["new_labels"].tolist()
    assert read["density"].tolist() == description.rows["density"].tolist()
    assert list(read) == list(description.rows)


@pytest.mark.parametrize(
    "make",
    [
        sample(),
        sample(increment=6),
        sample(n_labels=130, increment=5, n=200),
        sample(regime=[Careless()]),
        sample(truth=PARTLY_KNOWN),
    ],
)
def test_pictures(
    make: Callable[..., StreamDescription], tiny_scenario: Callable[..., MultiLabelScenario], tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(tiny_scenario).plot(tmp_path / "stream.png")
    assert (tmp_path / "stream.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_another_kind_is_refused_before_it_is_drawn(
    tiny_scenario: Callable[..., MultiLabelScenario], tmp_path: Path
) -> None:
    description = sample()(tiny_scenario)
    for name in ("stream.bmp", "stream"):
        with pytest.raises(CmlBenchError, match=rf"{name} is no kind .*ends in .png, .pdf or .svg"):
            description.plot(tmp_path / name)
    with pytest.raises(CmlBenchError, match=r"cannot be written \(No such file or directory\)"):
        description.plot(tmp_path / "nowhere" / "stream.png")


def test_a_picture_says_how_the_stream_differs_from_the_defaults(
    tiny_scenario: Callable[..., MultiLabelScenario], tmp_path: Path
) -> None:
    description = sample()(tiny_scenario)
    for options, shown in (("default", False), ("regime=careless, class_order=random:1", True)):
        facts = {**description.facts, "options": options}
        dataclasses.replace(description, facts=facts).plot(tmp_path / "stream.svg")
        assert (f"<!-- {options} -->" in (tmp_path / "stream.svg").read_text()) == shown
