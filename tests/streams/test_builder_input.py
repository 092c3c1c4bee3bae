"""The stream builder: explicit lists, defaults, and bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cml_bench.errors import CmlBenchError
from cml_bench.streams.builder import label_incremental_benchmark


def build(tiny_source: Any, train: Any, **protocol: Any) -> Any:
    return label_incremental_benchmark(tiny_source(train), tiny_source(train, split="test"), **protocol)


def rows_of(stream: Any) -> list[list[int]]:
    return [experience.dataset.sample_ids.data.tolist() for experience in stream]


@pytest.mark.parametrize(
    ("lists", "sentence"),
    [
        ([["label0", "label1"], ["label1", "label2"]], "label 'label1' occurs twice"),
        ([["label0"], ["label1"]], "leave out 1 of 3 labels (first: label2)"),
        ([["label0", "label1"], ["lable2"]], "label 'lable2' is not a label of the data: did you mean 'label2'?"),
    ],
)
def test_lists_that_are_no_partition(tiny_source: Any, lists: Any, sentence: str) -> None:
    with pytest.raises(CmlBenchError) as caught:
        build(tiny_source, np.ones((4, 3)), experiences=lists)
    assert sentence in str(caught.value)


def test_a_plain_torch_data_set_is_refused_with_what_to_give(tiny_source: Any) -> None:
    plain: Any = torch.utils.data.TensorDataset(torch.rand(4, 3, 8, 8), torch.ones(4, 2))
    with pytest.raises(
        CmlBenchError, match=r"test_source is a TensorDataset, .*: give a cml_bench\.Source.* holds your tensors"
    ):
        label_incremental_benchmark(tiny_source(np.eye(4)), plain)


def test_explicit_lists_are_taken_as_they_are(tiny_source: Any) -> None:
    lists = [["label2"], ["label0", "label3"], ["label1"]]
    scenario = build(tiny_source, np.eye(4), experiences=lists)
    assert scenario.label_names == ("label2", "label0", "label3", "label1")
    assert scenario.n_seen == (1, 3, 4)
    assert rows_of(scenario.train_stream) == [[2], [0, 3], [1]]


@pytest.mark.parametrize(
    ("beside", "sentence"),
    [
        ({"base": 3}, "base=3 contradicts the explicit label lists: give one of the two"),
        (
            {"class_order": "random:3"},
            "class_order='random:3' contradicts the explicit label lists: give one of the two",
        ),
        ({"base": 1, "increment": 2}, "base=1, increment=2 contradict the explicit label lists: give one of the two"),
    ],
)
def test_options_that_lists_overrule_are_refused(tiny_source: Any, beside: Any, sentence: str) -> None:
    """A result would bear them as if they had acted."""
    with pytest.raises(CmlBenchError) as caught:
        build(tiny_source, np.eye(3), experiences=[["label0", "label2"], ["label1"]], **beside)
    assert str(caught.value) == sentence


def test_an_empty_list_among_the_experiences_is_refused(tiny_source: Any) -> None:
    with pytest.raises(CmlBenchError, match="experience 2 has no image"):
        build(tiny_source, np.ones((4, 2)), experiences=[["label0"], [], ["label1"]])


def test_an_experience_without_an_image_is_named(tiny_source: Any) -> None:
    truth = np.array([[1, 0, 0], [1, 0, 1]])
    with pytest.raises(CmlBenchError, match=r"experience 2 has no image.*\(label1\)"):
        build(tiny_source, truth)
    assert rows_of(build(tiny_source, truth, base=1, increment=2).train_stream) == [[0, 1], [1]]


@pytest.mark.parametrize(
    ("protocol", "sentence"),
    [
        ({"assignment": "disjont"}, "assignment='disjont' is unknown: did you mean 'disjoint'?"),
        ({"annotation": "full"}, "annotation='full' is unknown"),
        ({"test": "seen_image"}, "test='seen_image' is unknown: did you mean 'seen_images'?"),
        ({"validation": 1.0}, "validation=1.0 is no fraction"),
        ({"validation": -0.1}, "validation=-0.1 is no fraction"),
        ({"validation": float("nan")}, "validation=nan is no fraction"),
        ({"increment": 0}, "increment=0 do not fit 3 labels"),
        ({"base": 4}, "base=4"),
        ({"base": -1}, "base=-1"),
        ({"class_order": "alphabet"}, "class_order 'alphabet' is unknown: did you mean 'alphabetical'?"),
        ({"class_order": "random:x"}, "class_order 'random:x' is unknown"),
        ({"online_chunk": -3}, "online_chunk=-3"),
        ({"online_chunk": 0}, "online_chunk=0"),
    ],
)
def test_bad_options_end_in_one_sentence(tiny_source: Any, protocol: Any, sentence: str) -> None:
    with pytest.raises(CmlBenchError) as caught:
        build(tiny_source, np.ones((4, 3)), **protocol)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("train", "test", "sentence"),
    [
        (["a", "b"], ["b", "a"], r"the training data's labels in another order \(b, a\)"),
        (["a", "B"], ["a", "b"], "label 'B' of the training data is none of the test data, whose labels are a, b"),
        (["caf\u00e9"], ["cafe\u0301"], r"label names 'caf\\xe9' and 'cafe\\u0301' of the two splits look alike"),
        (["a"], ["a", "c|d"], r"label 'c\|d' of the test data is none of the training data, whose labels are a:"),
    ],
)
def test_splits_of_unlike_names_are_refused(tiny_source: Any, train: list[str], test: list[str], sentence: str) -> None:
    sources = [tiny_source(np.ones((2, len(names))), names) for names in (train, test)]
    with pytest.raises(CmlBenchError, match=sentence):
        label_incremental_benchmark(*sources)


def test_inputs_default_to_the_images(tiny_source: Any) -> None:
    scenario = build(tiny_source, np.eye(5))
    x = scenario.train_stream[3].dataset[0][0]
    assert x.shape == (3, 4, 4)
    assert torch.equal(x, torch.full((3, 4, 4), 3 / 255))
