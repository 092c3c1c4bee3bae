"""The stream builder against brute force over random label matrices."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cml_bench.errors import CmlBenchError
from cml_bench.labels import OUT_OF_SCOPE
from cml_bench.streams.builder import label_incremental_benchmark

ASSIGNMENTS = ("overlap", "disjoint")
ANNOTATIONS = ("current", "seen", "all")
TESTS = ("seen_images", "all_images", "per_experience")


@st.composite
def tables(draw: st.DrawFn, rows: int = 14) -> Any:
    """Truth of up to six labels, images without labels and labels without positives among them."""
    n_labels = draw(st.integers(1, 6))
    bits = st.integers(0, 2**n_labels - 1)
    numbers = draw(st.lists(bits, min_size=1, max_size=rows))
    return np.array([[number >> c & 1 for c in range(n_labels)] for number in numbers], dtype=np.int8)


def build(tiny_source: Any, train: Any, tested: Any = None, **protocol: Any) -> Any:
    tested = train if tested is None else tested
    return label_incremental_benchmark(tiny_source(train), tiny_source(tested, split="test"), **protocol)


def rows_of(stream: Any) -> list[list[int]]:
    return [experience.dataset.sample_ids.data.tolist() for experience in stream]


def groups_of(n_labels: int, base: int, increment: int) -> list[list[int]]:
    """Columns of each experience, dealt out one by one."""
    groups: list[list[int]] = []
    room = 0
    for column in range(n_labels):
        if not room:
            room = base if base and not groups else increment
            groups.append([])
        groups[-1].append(column)
        room -= 1
    return groups


# -- what arrives when -----------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    train=tables(),
    base=st.integers(0, 3),
    increment=st.integers(1, 4),
    assignment=st.sampled_from(ASSIGNMENTS),
    annotation=st.sampled_from(ANNOTATIONS),
    seed=st.integers(0, 5),
    order=st.sampled_from(["published", "frequency", "random:3"]),
)
def test_training_stream_equals_brute_force(
    tiny_source: Any,
    train: Any,
    base: int,
    increment: int,
    assignment: str,
    annotation: str,
    seed: int,
    order: str,
) -> None:
    n_labels = train.shape[1]
    assume(base <= n_labels)
    groups = groups_of(n_labels, base, increment)
    protocol = {"base": base, "increment": increment, "class_order": order, "seed": seed}
    try:
        scenario = build(tiny_source, train, assignment=assignment, annotation=annotation, **protocol)
    except CmlBenchError as error:
        if "has no image" not in str(error):
            raise
        if assignment == "overlap" and order == "published":
            assert any(not train[:, group].any() for group in groups)
        return
    names = scenario.label_names
    assert sorted(names) == sorted(f"label{i}" for i in range(n_labels)), "some label is lost or arrives twice"
    truth = train[:, [int(name.removeprefix("label")) for name in names]]
    assert scenario.n_seen == tuple(group[-1] + 1 for group in groups)

    dealt = rows_of(scenario.train_stream)
    shows = [[bool(truth[row, group].any()) for group in groups] for row in range(len(truth))]
    for row, eligible in enumerate(shows):
        where = [row in rows for rows in dealt]
        if assignment == "overlap":
            assert where == eligible
        else:
            assert sum(where) == any(eligible)
            assert all(not here or may for here, may in zip(where, eligible, strict=True))
    assert scenario.unassigned["train"] == sum(not any(eligible) for eligible in shows)

    for t, (experience, group) in enumerate(zip(scenario.train_stream, groups, strict=True)):
        assert experience.classes_in_this_experience == group
        assert experience.previous_classes == [c for earlier in groups[:t] for c in earlier]
        assert experience.classes_seen_so_far == list(range(scenario.n_seen[t]))
        assert experience.label_names == names[: scenario.n_seen[t]], "the seen labels are no prefix"
        assert experience.dataset.labels.names == experience.label_names
        assert len(set(dealt[t])) == len(dealt[t])
        for row, labels in zip(dealt[t], experience.dataset.labels.data.tolist(), strict=True):
            asked = group if annotation == "current" else range(scenario.n_seen[t])
            expected = [int(truth[row, c]) if c in asked else OUT_OF_SCOPE for c in range(scenario.n_seen[t])]
            assert labels == expected


@settings(max_examples=60, deadline=None)
@given(train=tables(), test=tables(), increment=st.integers(1, 4), rule=st.sampled_from(TESTS))
def test_test_stream_equals_brute_force(tiny_source: Any, train: Any, test: Any, increment: int, rule: str) -> None:
    n_labels = train.shape[1]
    train[0] = 1  # every experience has an image
    test = np.resize(test, (len(test), n_labels))
    scenario = build(tiny_source, train, test, increment=increment, test=rule)
    groups = groups_of(n_labels, 0, increment)
    for t, rows in enumerate(rows_of(scenario.test_stream)):
        wanted = {"all_images": None, "seen_images": range(groups[t][-1] + 1), "per_experience": groups[t]}[rule]
        expected = [row for row in range(len(test)) if wanted is None or any(test[row, c] for c in wanted)]
        assert rows == expected
        labels = scenario.test_stream[t].dataset.labels.data
        assert labels.tolist() == test[expected, : groups[t][-1] + 1].tolist(), "test images are fully labelled"
    tested = sorted({row for rows in rows_of(scenario.test_stream) for row in rows})
    assert scenario.unassigned["test"] == len(test) - len(tested)
    evaluated = scenario.evaluation_experience(0)
    assert evaluated.dataset.sample_ids.data.tolist() == tested
    assert evaluated.dataset.labels.data.shape[1] == groups[0][-1] + 1


@settings(max_examples=40, deadline=None)
@given(
    train=tables(rows=30),
    fraction=st.sampled_from([0.1, 0.3, 0.5]),
    seed=st.integers(0, 9),
    assignment=st.sampled_from(ASSIGNMENTS),
)
def test_held_out_images_are_never_trained_on(
    tiny_source: Any, train: Any, fraction: float, seed: int, assignment: str
) -> None:
    train = np.concatenate([np.ones((8, train.shape[1]), dtype=np.int8), train])
    try:
        scenario = build(tiny_source, train, validation=fraction, seed=seed, assignment=assignment, test="all_images")
    except CmlBenchError as error:
        if "has no image" not in str(error):
            raise
        return
    held_out, *others = rows_of(scenario.valid_stream)
    assert all(rows == held_out for rows in others)
    assert len(held_out) == round(fraction * len(train))
    learnt = {row for rows in rows_of(scenario.train_stream) for row in rows}
    assert learnt.isdisjoint(held_out)
    assert learnt == {row for row in range(len(train)) if train[row].any()} - set(held_out)
    assert (scenario.valid_stream[-1].dataset.labels.data.numpy() == train[held_out]).all()


# Many a drawn table leaves a split without images, which the builder refuses.
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(
    train=tables(),
    increment=st.integers(1, 3),
    first=st.integers(1, 6),
    assignment=st.sampled_from(ASSIGNMENTS),
    annotation=st.sampled_from(ANNOTATIONS),
    regime=st.sampled_from(["full", "missing_positives rate=0.5", "single_positive"]),
    test=st.sampled_from(TESTS),
)
def test_a_stream_that_ends_early_is_the_beginning_of_the_whole_one(
    tiny_source: Any, train: Any, increment: int, first: int, **protocol: Any
) -> None:
    """Whoever chooses hyper-parameters on it sees what the whole stream will show, and nothing of what comes later."""
    protocol |= {"increment": increment, "class_order": "random:2", "seed": 3, "validation": 0.3}
    try:
        whole = build(tiny_source, train, **protocol)
    except CmlBenchError:
        assume(False)
    first = min(first, len(whole.n_seen))
    cut = build(tiny_source, train, first_experiences=first, **protocol)
    assert cut.n_seen == whole.n_seen[:first]
    assert cut.label_names == whole.label_names[: cut.n_seen[-1]]
    for name, stream in cut.streams.items():
        assert len(stream) == first
        for short, long in zip(stream, whole.streams[name], strict=False):
            assert short.dataset.sample_ids.data.tolist() == long.dataset.sample_ids.data.tolist()
            assert short.dataset.labels.names == long.dataset.labels.names
            assert torch.equal(short.dataset.labels.data, long.dataset.labels.data)
    if protocol["annotation"] == "all":
        assert torch.equal(cut.record, whole.record[:, : cut.n_seen[-1]])


@pytest.mark.parametrize("first", [0, 4])
def test_a_stream_ends_after_one_experience_at_least_and_its_last_at_most(tiny_scenario: Any, first: int) -> None:
    with pytest.raises(CmlBenchError, match=f"first_experiences={first} of 3 experiences: give 1 to 3"):
        tiny_scenario(first_experiences=first)


def test_the_default_has_no_validation_stream(tiny_scenario: Any) -> None:
    assert set(tiny_scenario().streams) == {"train", "test"}


# -- annotation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("annotation", ANNOTATIONS)
def test_a_stored_image_gains_later_labels_only_where_all_are_annotated(tiny_scenario: Any, annotation: str) -> None:
    scenario = tiny_scenario(annotation=annotation)
    first = scenario.train_stream[0].dataset
    truth = scenario.splits["train"].truth
    stored = first.subset([3, 0, 5])
    for made in (stored, stored.concat(first[:1])[:3], stored.train().eval()):
        wide = made.widened(scenario.label_names).labels.data
        rows = made.sample_ids.data.numpy()
        assert (wide[:, :2].numpy() == truth[rows, :2]).all()
        if annotation == "all":
            assert (wide[:, 2:].numpy() == truth[rows, 2:]).all()
        else:
            assert (wide[:, 2:] == OUT_OF_SCOPE).all()


def test_only_training_data_carry_what_the_annotator_wrote(tiny_scenario: Any) -> None:
    scenario = tiny_scenario(annotation="all", validation=0.3)
    carried = {name: stream[0].dataset.labels.record is not None for name, stream in scenario.streams.items()}
    assert carried == {"train": True, "test": False, "valid": False}


def test_data_without_a_label_make_no_stream(tiny_source: Any) -> None:
    with pytest.raises(CmlBenchError, match="tiny names no label: there is nothing to divide into experiences"):
        label_incremental_benchmark(tiny_source(np.zeros((4, 0))), tiny_source(np.zeros((4, 0))), increment=1)


@pytest.mark.parametrize("annotation", ["current", "seen"])
def test_nothing_of_later_labels_reaches_a_training_dataset(
    tiny_scenario: Any, tiny_labels: Any, tiny_features: Any, annotation: str
) -> None:
    """Poison: whatever the truth of later labels is, the datasets of earlier experiences are the same."""
    truth = tiny_labels(40, 6, 0)
    honest = tiny_scenario(truth=truth, annotation=annotation)
    for t, known in enumerate(honest.n_seen):
        poisoned = truth.copy()
        poisoned[:, known:] = 1 - poisoned[:, known:]
        other = tiny_scenario(truth=poisoned, annotation=annotation, features=tiny_features(truth))
        for mine, its in zip(honest.train_stream[: t + 1], other.train_stream[: t + 1], strict=True):
            assert torch.equal(mine.dataset.labels.data, its.dataset.labels.data)
            assert torch.equal(mine.dataset.sample_ids.data, its.dataset.sample_ids.data)
            assert all(torch.equal(a, b) for a, b in zip(mine.dataset[0][:2], its.dataset[0][:2], strict=True))
            assert mine.dataset.labels.record is None
        later = honest.train_stream[t + 1 :]
        changed = [
            not torch.equal(mine.dataset.sample_ids.data, its.dataset.sample_ids.data)
            for mine, its in zip(later, other.train_stream[t + 1 :], strict=True)
        ]
        assert all(changed), "the poison changed nothing: the test shows nothing"


def test_oracle_gives_the_truth_for_the_names_asked(tiny_scenario: Any) -> None:
    scenario = tiny_scenario(class_order="random:1")
    part = scenario.train_stream[1].dataset.subset([4, 2])
    rows = part.sample_ids.data.numpy()
    told = scenario.oracle(part, scenario.label_names[:4])
    assert (told.labels.data.numpy() == scenario.splits["train"].truth[rows, :4]).all()
    assert told.sample_ids.data.tolist() == rows.tolist()
    assert torch.equal(told.batch(torch.arange(2))[0], part.batch(torch.arange(2))[0])


# -- randomness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("online", [None, 7])
def test_global_generators_are_left_alone(tiny_scenario: Any, online: int | None) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    scenario = tiny_scenario(assignment="disjoint", validation=0.2, class_order="random:4", online_chunk=online)
    list(scenario.train_stream)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    assert before[2] == random.getstate()


def test_the_seed_decides_the_disjoint_assignment(tiny_scenario: Any) -> None:
    truth = np.ones((40, 6))
    first, again, other = (
        rows_of(tiny_scenario(truth=truth, assignment="disjoint", seed=seed).train_stream) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    "protocol",
    [
        {"validation": 0.3},
        {"online_chunk": 7},
        {"regime": "missing_positives rate=0.5"},
        {"regime": "long_tail"},
    ],
)
def test_the_seed_decides_all_that_is_drawn(tiny_scenario: Any, protocol: dict[str, Any]) -> None:
    """Which images are held out or left to an annotator, what that one marks, and the order of an online stream."""

    def drawn(seed: int) -> tuple[Any, ...]:
        scenario = tiny_scenario(n=120, base=6, seed=seed, **protocol)
        rows = {name: [part.tolist() for part in split.experiences] for name, split in scenario.splits.items()}
        stream = [(ids, part.dataset.labels.data.tolist()) for part in scenario.train_stream for ids in rows_of([part])]
        return rows, stream

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)


def test_disjoint_assignment_is_uniform(tiny_source: Any) -> None:
    """4,000 images that show all three labels: each experience gets a third, within five standard deviations."""
    scenario = build(tiny_source, np.ones((4000, 3)), assignment="disjoint")
    sizes = [len(rows) for rows in rows_of(scenario.train_stream)]
    assert sum(sizes) == 4000
    assert all(abs(size - 4000 / 3) < 5 * (4000 * 2 / 9) ** 0.5 for size in sizes)
    # Neighbours in the source must not travel together.
    first = np.isin(np.arange(4000), rows_of(scenario.train_stream)[0])
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.08
