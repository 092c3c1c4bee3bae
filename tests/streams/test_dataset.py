"""The dataset: labels, ids and names follow their rows through every operation, upstream's included."""

from __future__ import annotations

import pickle
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks.utils import AvalancheDataset
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from cml_bench.data.inputs import ImageInputs, TensorInputs
from cml_bench.labels import OUT_OF_SCOPE, UNMARKED
from cml_bench.streams.dataset import LabelMatrix, MultiLabelDataset, Sample, collate, merge
from cml_bench.streams.loading import BatchLoader, join

LABELS = torch.tensor([[1, 0], [0, 1], [-1, 1], [-2, 0], [1, 1]], dtype=torch.int8)
ROWS = [7, 3, 9, 0, 5]


@pytest.fixture
def dataset(tiny_dataset: Any) -> MultiLabelDataset:
    return tiny_dataset(ROWS, LABELS)


def content(dataset: MultiLabelDataset) -> list[tuple[int, float, tuple[int, ...]]]:
    """What the items say, read one by one: id, input, labels."""
    return [
        (item.sample_id, float(item[0]), tuple(item[1].tolist())) for item in (dataset[i] for i in range(len(dataset)))
    ]


EXPECTED = [(row, float(row), tuple(labels)) for row, labels in zip(ROWS, LABELS.tolist(), strict=True)]


def test_items_hold_exactly_three_fields_and_their_id(dataset: MultiLabelDataset) -> None:
    assert content(dataset) == EXPECTED
    assert len(dataset[0]) == 3
    assert dataset[0][2] == 0
    assert dataset[-1].sample_id == ROWS[-1]


def test_iteration_ends(dataset: MultiLabelDataset) -> None:
    ids = []
    for count, item in enumerate(dataset):
        assert count < len(ROWS), "iteration runs past the last item"
        ids.append(item.sample_id)
    assert ids == ROWS
    with pytest.raises(IndexError):
        dataset[len(ROWS)]


@pytest.mark.parametrize("indices", [[4, 0, 2], [1, 1], []])
def test_subset(dataset: MultiLabelDataset, indices: list[int]) -> None:
    part = dataset.subset(indices)
    assert content(part) == [EXPECTED[i] for i in indices]
    assert part.labels.data.tolist() == [LABELS[i].tolist() for i in indices]
    assert part.labels.names == dataset.labels.names


def test_subset_of_a_subset_and_slices(dataset: MultiLabelDataset) -> None:
    assert content(dataset.subset([4, 3, 1]).subset([2, 0])) == [EXPECTED[1], EXPECTED[4]]
    assert content(dataset[1:4]) == EXPECTED[1:4]
    assert content(dataset[::-2]) == EXPECTED[::-2]


def test_concat_pads_the_narrower_with_out_of_scope(tiny_dataset: Any, dataset: MultiLabelDataset) -> None:
    wide = tiny_dataset([1, 2], [[0, 1, 1], [1, 0, 0]], first_new=2)
    for joined, first in ((dataset.concat(wide), True), (wide.concat(dataset), False)):
        padded = [(row, x, (*labels, OUT_OF_SCOPE)) for row, x, labels in EXPECTED]
        others = [(1, 1.0, (0, 1, 1)), (2, 2.0, (1, 0, 0))]
        assert content(joined) == (padded + others if first else others + padded)
        assert joined.labels.names == wide.labels.names
        assert joined.labels.first_new == 2


def test_concat_refuses_other_orders_and_other_images(tiny_dataset: Any, dataset: MultiLabelDataset) -> None:
    other = LabelMatrix(LABELS, ("label1", "label0"), 0)
    with pytest.raises(ValueError, match="different label orders"):
        dataset.concat(MultiLabelDataset.from_rows(dataset.inputs, torch.tensor(ROWS), other))
    elsewhere = MultiLabelDataset.from_rows(TensorInputs(torch.zeros(9, 1)), torch.arange(5), dataset.labels)
    with pytest.raises(ValueError, match="different images"):
        dataset.concat(elsewhere)


def test_transform_groups_reach_the_inputs(tiny_source: Any) -> None:
    inputs = ImageInputs(tiny_source(np.eye(4)), lambda x: x.float(), lambda x: -x.float())
    labels = LabelMatrix(torch.eye(4, dtype=torch.int8), tuple("abcd"), 0)
    dataset = MultiLabelDataset.from_rows(inputs, torch.arange(4), labels)
    for made in (dataset.subset([2]), dataset[2:3], dataset.concat(dataset)[2:3]):
        assert float(made.train()[0][0].mean()) == -2.0
        assert float(made.eval()[0][0].mean()) == 2.0
        assert float(made.eval().subset([0])[0][0].mean()) == 2.0


def test_a_batch_is_fetched_again_from_where_its_items_came_from(tiny_dataset: Any, dataset: MultiLabelDataset) -> None:
    """A worker of a loader sends the batch alone, not the table behind it."""
    batch = join(dataset.batch(torch.tensor([0, 2])), tiny_dataset([4], [[1, 1]]).batch(torch.tensor([0])))
    assert batch.again is not None
    assert torch.equal(batch.again(), batch[0])
    sent = pickle.loads(pickle.dumps(batch))
    assert sent.again is None
    assert torch.equal(sent.sample_id, batch.sample_id)
    assert all(torch.equal(*pair) for pair in zip(sent, batch, strict=True))


@pytest.mark.parametrize("own", [True, False], ids=["own collate", "torch default collate"])
def test_ids_follow_rows_through_a_plain_loader(tiny_dataset: Any, dataset: MultiLabelDataset, own: bool) -> None:
    mixed = dataset.concat(tiny_dataset([1], [[0, 1, 1]]))
    loader = DataLoader(
        mixed,
        batch_size=4,
        shuffle=True,
        generator=torch.Generator().manual_seed(0),
        collate_fn=mixed.collate_fn if own else None,
    )
    found = []
    for batch in loader:
        assert len(batch) == 3
        x, y, task = batch
        assert task.tolist() == [0] * len(x)
        found += list(zip(batch.sample_id.tolist(), x[:, 0].tolist(), map(tuple, y.tolist()), strict=True))
    truth = [(row, x, (*labels, OUT_OF_SCOPE)) for row, x, labels in EXPECTED] + [(1, 1.0, (0, 1, 1))]
    assert sorted(found) == sorted(truth)
    assert found != truth, "the loader did not shuffle"


def test_collate_pads_rows_of_unlike_width() -> None:
    samples = []
    for number, labels in enumerate(([1], [0, 1, -1], [])):
        sample = Sample([torch.full((2,), float(number)), torch.tensor(labels, dtype=torch.int8), 0])
        sample.sample_id = 10 + number
        samples.append(sample)
    batch = collate(samples)
    assert batch[1].tolist() == [[1, -2, -2], [0, 1, -1], [-2, -2, -2]]
    assert batch[1].dtype == torch.int8
    assert batch.sample_id.tolist() == [10, 11, 12]
    assert batch[0].tolist() == [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]


def test_whole_batches_equal_collated_items(dataset: MultiLabelDataset) -> None:
    indices = torch.tensor([4, 4, 0, 2])
    whole, items = dataset.batch(indices), collate([dataset[i] for i in indices.tolist()])
    assert all(torch.equal(a, b) for a, b in zip(whole, items, strict=True))
    assert torch.equal(whole.sample_id, items.sample_id)


def test_upstream_operations_keep_the_attributes(dataset: MultiLabelDataset) -> None:
    assert isinstance(dataset, AvalancheDataset)
    assert [attribute.name for attribute in dataset._data_attributes.values()] == [
        "labels",
        "targets_task_labels",
        "sample_ids",
    ]
    frozen = dataset.freeze_transforms().subset([3, 1]).concat(dataset.train().subset([0]).eval())
    assert isinstance(frozen, MultiLabelDataset)
    assert content(frozen) == [EXPECTED[3], EXPECTED[1], EXPECTED[0]]
    assert list(frozen.targets_task_labels.data) == [0, 0, 0]
    assert (dataset + dataset).sample_ids.data.tolist() == ROWS + ROWS


def test_label_columns_must_match_their_names() -> None:
    with pytest.raises(ValueError, match="2 label columns for 1 names"):
        LabelMatrix(LABELS, ("a",), 0)


def test_widened_without_a_record_is_out_of_scope(dataset: MultiLabelDataset) -> None:
    names = (*dataset.labels.names, "label2", "label3")
    wide = dataset.widened(names)
    assert torch.equal(wide.labels.data[:, :2], LABELS)
    assert (wide.labels.data[:, 2:] == OUT_OF_SCOPE).all()
    assert dataset.labels.data.shape[1] == 2


def test_widened_with_a_record_reads_it_by_id(tiny_dataset: Any) -> None:
    record = torch.arange(40).reshape(10, 4).remainder(2).to(torch.int8)
    record[:, 2] = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 1, 1], dtype=torch.int8)
    stored = tiny_dataset(ROWS, LABELS, record=record)
    wide = stored.widened(("label0", "label1", "label2"))
    assert wide.labels.data[:, 2].tolist() == [int(record[row, 2]) for row in ROWS]
    assert torch.equal(wide.labels.data[:, :2], LABELS), "what was annotated at the time must not change"


@pytest.mark.parametrize("narrow_first", [True, False])
def test_concat_with_a_record_reads_what_merge_reads(tiny_dataset: Any, narrow_first: bool) -> None:
    """Memories of upstream join what they hold to new images; no label that is annotated from the start is lost."""
    record = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 0]], dtype=torch.int8)
    narrow = tiny_dataset([2, 0], record[[2, 0], :1], record=record)
    wide = tiny_dataset([1], record[[1]], first_new=1, record=record)
    parts = (narrow, wide) if narrow_first else (wide, narrow)
    joined = parts[0].concat(parts[1])
    assert torch.equal(joined.labels.data, record[joined.sample_ids.data])
    assert torch.equal(merge(parts).labels.data, record)
    assert joined.labels.first_new == 1
    assert torch.equal(narrow.labels.data, record[[2, 0], :1]), "the parts stay as they are"


# -- merge -----------------------------------------------------------------------------------------------------------

TRUTH = np.random.default_rng(0).integers(0, 2, (12, 4))


@st.composite
def annotations(draw: st.DrawFn) -> list[tuple[list[int], list[list[int]]]]:
    """Datasets of unlike width whose known entries all tell the same truth."""
    made = []
    for _ in range(draw(st.integers(1, 4))):
        width = draw(st.integers(1, 4))
        rows = draw(st.lists(st.integers(0, 11), unique=True, max_size=8))
        state = st.sampled_from([None, UNMARKED, OUT_OF_SCOPE])
        labels = [
            [int(TRUTH[row, c]) if (hidden := draw(state)) is None else hidden for c in range(width)] for row in rows
        ]
        made.append((rows, labels))
    if not any(rows for rows, _ in made):
        made.append(([0], [[UNMARKED]]))
    return made


@settings(max_examples=60, deadline=None)
@given(annotations())
def test_merge_equals_a_dictionary(tiny_dataset: Any, parts: list[tuple[list[int], list[list[int]]]]) -> None:
    filled = [(rows, labels) for rows, labels in parts if rows]
    width = max(len(labels[0]) for _, labels in filled)
    expected: dict[int, list[int]] = {}
    for rows, labels in filled:
        for row, states in zip(rows, labels, strict=True):
            entry = expected.setdefault(row, [OUT_OF_SCOPE] * width)
            for column, state in enumerate(states):
                # Known wins over unmarked, unmarked over not asked.
                if state >= 0 or (state == UNMARKED and entry[column] == OUT_OF_SCOPE):
                    entry[column] = state
    merged = merge([tiny_dataset(rows, labels) for rows, labels in filled])
    assert merged.sample_ids.data.tolist() == sorted(expected)
    assert merged.labels.data.tolist() == [expected[row] for row in sorted(expected)]
    assert [float(merged[i][0]) for i in range(len(merged))] == [float(row) for row in sorted(expected)]
    assert merged.labels.names == tuple(f"label{i}" for i in range(width))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_merge_refuses_a_contradiction(tiny_dataset: Any, order: tuple[int, int]) -> None:
    parts = [tiny_dataset([3, 4], [[1, 0], [0, 0]]), tiny_dataset([3], [[0, 0]])]
    with pytest.raises(ValueError, match="contradict"):
        merge([parts[i] for i in order])


def test_merge_of_one_image_listed_twice(tiny_dataset: Any) -> None:
    merged = merge([tiny_dataset([5, 5], [[1, -2], [-2, 0]])])
    assert merged.labels.data.tolist() == [[1, 0]]


# -- loading ---------------------------------------------------------------------------------------------------------


def test_loader_covers_every_row_once_an_epoch(dataset: MultiLabelDataset) -> None:
    loader = BatchLoader(dataset, 2, generator=torch.Generator().manual_seed(3))
    epochs = [[batch.sample_id.tolist() for batch in loader] for _ in range(6)]
    for epoch in epochs:
        assert [len(batch) for batch in epoch] == [2, 2, 1]
        assert sorted(chain.from_iterable(epoch)) == sorted(ROWS)
    assert len({tuple(chain.from_iterable(epoch)) for epoch in epochs}) > 1, "every epoch has the same order"
    again = BatchLoader(dataset, 2, generator=torch.Generator().manual_seed(3))
    assert [[batch.sample_id.tolist() for batch in again] for _ in range(6)] == epochs


@pytest.mark.parametrize(("size", "expected"), [(1, [1, 1, 1, 1, 1]), (2, [2, 2, 1]), (5, [5]), (9, [5])])
def test_loader_keeps_order_without_generator(dataset: MultiLabelDataset, size: int, expected: list[int]) -> None:
    loader = BatchLoader(dataset, size)
    batches = [batch.sample_id.tolist() for batch in loader]
    assert [len(batch) for batch in batches] == expected
    assert len(loader) == len(expected)
    assert list(chain.from_iterable(batches)) == ROWS


def test_loader_leaves_the_global_generator(dataset: MultiLabelDataset) -> None:
    before = torch.get_rng_state()
    list(BatchLoader(dataset, 2, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(before, torch.get_rng_state())


def test_join_pads_and_keeps_ids(tiny_dataset: Any, dataset: MultiLabelDataset) -> None:
    wide = tiny_dataset([1, 2], [[0, 1, 1], [1, 0, 0]])
    both = join(wide.batch(torch.tensor([1])), dataset.batch(torch.tensor([2, 0])))
    assert both[1].tolist() == [[1, 0, 0], [-1, 1, -2], [1, 0, -2]]
    assert both.sample_id.tolist() == [2, 9, 7]
    assert both[0][:, 0].tolist() == [2.0, 9.0, 7.0]
    assert len(both) == 3


def test_the_label_index_names_the_positives_of_each_label(tiny_dataset: Any) -> None:
    labels = tiny_dataset([7, 3, 9], [[1, 0, -2], [1, -1, 1], [0, 0, 1]]).labels
    assert {name: rows.tolist() for name, rows in labels.val_to_idx.items()} == {
        "label0": [0, 1],
        "label1": [],
        "label2": [1, 2],
    }
    assert labels.count == {"label0": 2, "label1": 0, "label2": 2}
    assert labels.uniques == {"label0", "label1", "label2"}


def test_labels_are_made_when_first_read_and_travel_as_plain_data(tiny_scenario: Any) -> None:
    calls = []

    def make() -> torch.Tensor:
        calls.append(1)
        return torch.tensor([[1, 0], [0, -2]], dtype=torch.int8)

    matrix = LabelMatrix.deferred(make, 2, ("a", "b"), 1)
    assert (len(matrix), calls) == (2, [])
    assert matrix.data.tolist() == matrix.data.tolist() == [[1, 0], [0, -2]]
    assert calls == [1]
    for experience in tiny_scenario().train_stream:
        labels = pickle.loads(pickle.dumps(experience.dataset.labels))
        assert torch.equal(labels.data, experience.dataset.labels.data)
        assert labels.names == experience.dataset.labels.names
        assert not hasattr(labels, "_make"), "what labels are made from knows the future"
