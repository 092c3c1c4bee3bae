"""The crop memory: its insert rule against a list of crops, its budget in pixels, and what a crop is known to show."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cml_bench.data.inputs import TensorInputs
from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED
from cml_bench.memory.crops import CropMemory, Crops, around_zero
from cml_bench.memory.exemplars import uniform
from cml_bench.streams.dataset import LabelMatrix, MultiLabelDataset

SIDE = 10


def dataset(labels: list[list[int]], first_new: int = 0) -> MultiLabelDataset:
    """Images of 10 x 10 in which image r is r + 1 everywhere."""
    table = TensorInputs(torch.arange(1, 201, dtype=torch.float32)[:, None, None, None].expand(200, 2, SIDE, SIDE))
    states = torch.tensor(labels, dtype=torch.int8)
    names = tuple(f"label{i}" for i in range(states.shape[1]))
    return MultiLabelDataset.from_rows(table, torch.arange(len(labels)), LabelMatrix(states, names, first_new))


def cutting(boxes: list[list[int]], shown: list[int]) -> Any:
    """Cut one given crop out of each image."""

    def cut(data: MultiLabelDataset, held: torch.Tensor) -> Crops:
        count = len(data)
        cut_boxes = torch.tensor(boxes[:count], dtype=torch.int64).reshape(-1, 4)
        own = slice(len(cut_boxes))
        shown_by = torch.tensor(shown[:count], dtype=torch.int64)
        return Crops(data.sample_ids.data[own], cut_boxes, shown_by, data.labels.data[own])

    return cut


def test_of_a_crop_one_label_is_known_to_be_there() -> None:
    """Other labels of the image may be outside the box; what the image does not show, no part of it shows."""
    labels = [[PRESENT, PRESENT, ABSENT, UNMARKED, OUT_OF_SCOPE]]
    memory = CropMemory(4, torch.Generator(), cutting([[1, 2, 5, 4]], [1]))
    memory.update_from_dataset(dataset(labels))
    row = [OUT_OF_SCOPE, PRESENT, ABSENT, UNMARKED, OUT_OF_SCOPE]
    assert memory.buffer.labels.data.tolist() == [row]
    assert memory.pixels.tolist() == [8]
    memory.cut = cutting([], [])
    memory.update_from_dataset(dataset([[ABSENT] * 6]))
    assert memory.buffer.labels.data.tolist() == [[*row, OUT_OF_SCOPE]]


def test_a_draw_is_the_box_with_zeros_around() -> None:
    memory = CropMemory(4, torch.Generator(), cutting([[0, 2, 3, 4], [5, 5, 10, 6]], [0, 0]))
    memory.update_from_dataset(dataset([[PRESENT], [PRESENT]]))
    batch = memory.draw(5, torch.Generator().manual_seed(0))
    assert sorted(batch.sample_id.tolist()) == [0, 1]
    for x, sample in zip(batch[0], batch.sample_id.tolist(), strict=True):
        expected = torch.zeros(2, SIDE, SIDE)
        top, left, bottom, right = ([0, 2, 3, 4], [5, 5, 10, 6])[sample]
        expected[:, top:bottom, left:right] = sample + 1
        assert torch.equal(x, expected)
    assert len(memory.draw(1, torch.Generator())[0]) == 1


@given(st.integers(0, 9), st.integers(1, 10), st.integers(0, 9), st.integers(1, 10))
def test_around_zero(top: int, bottom: int, left: int, right: int) -> None:
    images = torch.ones(1, 3, SIDE, SIDE)
    found = around_zero(images, torch.tensor([[top, left, bottom, right]]))
    assert float(found.sum()) == 3 * max(0, bottom - top) * max(0, right - left)


class Plain:
    """The rule as written down, on a list of (sample, box, label)."""

    def __init__(self, room: int, generator: torch.Generator) -> None:
        self.room, self.generator = room, generator
        self.crops: list[tuple[int, tuple[int, ...], int]] = []

    def held(self) -> dict[int, int]:
        total: dict[int, int] = {}
        for _, (top, left, bottom, right), label in self.crops:
            total[label] = total.get(label, 0) + (bottom - top) * (right - left)
        return total

    def drop(self, label: int) -> None:
        own = [crop for crop in self.crops if crop[2] == label]
        self.crops.remove(own[int(uniform(self.generator) * len(own))])

    def show(self, sample: int, box: tuple[int, ...], label: int, share: int) -> None:
        size = (box[2] - box[0]) * (box[3] - box[1])
        held = self.held()
        if size > self.room:
            return
        if sum(held.values()) + size <= self.room:
            if held.get(label, 0) >= share:
                self.drop(label)
        else:
            most = max(held.values())
            if not uniform(self.generator) < 1 - held.get(label, 0) / most:
                return
            while sum(self.held().values()) + size > self.room:
                now = self.held()
                self.drop(min(c for c in now if now[c] == max(now.values())))
        self.crops.append((sample, box, label))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_against_the_rule_on_a_list(data: st.DataObject) -> None:
    size, seed = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 99))
    plain = Plain(size * SIDE**2, torch.Generator().manual_seed(seed))
    memory = CropMemory(size, torch.Generator().manual_seed(seed), cutting([], []))
    width = 0
    for _ in range(data.draw(st.integers(1, 4))):
        first_new, width = width, width + data.draw(st.integers(1, 2))
        count = data.draw(st.integers(1, 12))
        corner, length = st.integers(0, 6), st.integers(1, 4)
        boxes = []
        for _ in range(count):
            top, left, height, across = (data.draw(s) for s in (corner, corner, length, length))
            boxes.append([top, left, top + height, left + across])
        shown = [data.draw(st.integers(0, width - 1)) for _ in range(count)]
        memory.cut = cutting(boxes, shown)
        memory.update_from_dataset(dataset([[PRESENT] * width] * count, first_new))
        for sample, (box, label) in enumerate(zip(boxes, shown, strict=True)):
            plain.show(sample, tuple(box), label, max(1, plain.room // (width - first_new)))
        stored = zip(memory.ids.tolist(), map(tuple, memory.boxes.tolist()), memory.shown.tolist(), strict=True)
        assert list(stored) == plain.crops
        assert int(memory.pixels.sum()) <= size * SIDE**2
        assert memory.labels.shape == (len(memory), width)


def test_shrinking_takes_from_the_label_that_holds_most() -> None:
    boxes = [[0, 0, 5, 10]] * 3 + [[0, 0, 5, 5]]
    memory = CropMemory(4, torch.Generator(), cutting(boxes, [0, 0, 0, 1]))
    memory.update_from_dataset(dataset([[PRESENT, PRESENT]] * 4))
    assert memory.held.tolist() == [150, 25]
    memory.resize(None, 1)
    assert memory.held.tolist() == [50, 25]


def test_as_many_a_label() -> None:
    memory = CropMemory("1/label", torch.Generator(), cutting([[0, 0, 10, 10]] * 9, [0] * 9))
    memory.update_from_dataset(dataset([[PRESENT]] * 9))
    assert len(memory) == 1
    memory.update_from_dataset(dataset([[PRESENT, ABSENT, ABSENT]] * 9, 1))
    assert len(memory) == 2, "half of three images' pixels is the share of a label, which the second crop passes"
    assert memory.max_size == 3


@pytest.mark.parametrize("size", [0, 1])
def test_a_crop_that_has_no_place(size: int) -> None:
    memory = CropMemory(size, torch.Generator(), cutting([[0, 0, 10, 11]], [0]))
    memory.update_from_dataset(dataset([[PRESENT]]))
    assert len(memory) == 0


def test_the_cutter_is_told_what_labels_hold() -> None:
    """Scarce labels are cut out where one is less sure."""
    told: list[list[int]] = []
    inner = cutting([[0, 0, 2, 3]], [0])

    def cut(data: MultiLabelDataset, held: torch.Tensor) -> Crops:
        told.append(held.tolist())
        return inner(data, held)

    memory = CropMemory(4, torch.Generator(), cut)
    for _ in range(2):
        memory.update_from_dataset(dataset([[PRESENT, ABSENT]]))
    assert told[0] == [0, 0]
    assert told[1][0] > 0 == told[1][1]


def test_an_experience_is_shown_in_batches_in_random_order() -> None:
    shown: list[list[int]] = []
    inner = cutting([], [])

    def cut(data: MultiLabelDataset, held: torch.Tensor) -> Crops:
        shown.append(data.sample_ids.data.tolist())
        return inner(data, held)

    memory = CropMemory(4, torch.Generator(), cut)
    memory.post_adapt(SimpleNamespace(train_mb_size=8), SimpleNamespace(dataset=dataset([[PRESENT]] * 30)))
    order = [number for batch in shown for number in batch]
    assert [len(batch) for batch in shown] == [8, 8, 8, 6]
    assert sorted(order) == list(range(30)) != order
