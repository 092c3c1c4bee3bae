"""The toy stream of the conformance kit, and what is watched on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cml_bench.streams.scenario import MultiLabelScenario
from cml_bench.testing.strategies import StrategyCase
from cml_bench.testing.toy import Toy, ToySource, annotated_so_far, toy_scenario, turn_over_unknown
from cml_bench.testing.trial import try_out


def test_the_toy_stream_begins_the_same_when_it_ends_earlier() -> None:
    whole, short = toy_scenario(), toy_scenario(4)
    assert (whole.n_seen, short.n_seen) == ((2, 4, 6), (2, 4))
    for long_one, short_one in zip(whole.train_stream, short.train_stream, strict=False):
        assert torch.equal(long_one.dataset.sample_ids.data, short_one.dataset.sample_ids.data)
        assert torch.equal(long_one.dataset.labels.data, short_one.dataset.labels.data)
        rows = torch.arange(5)
        assert torch.equal(long_one.dataset.batch(rows)[0], short_one.dataset.batch(rows)[0])


def test_only_entries_that_no_experience_annotates_are_turned_over() -> None:
    truth = toy_scenario().splits["train"].truth
    turned, count = turn_over_unknown(toy_scenario())
    annotated = np.zeros(truth.shape, dtype=bool)
    for experience in toy_scenario().train_stream:
        for row, labels in zip(experience.dataset.sample_ids.data, experience.dataset.labels.data, strict=True):
            for column, state in enumerate(labels.tolist()):
                if state >= 0:
                    assert state == truth[row, column]
                    annotated[row, column] = True
    assert count == (~annotated).sum() > 0
    assert np.array_equal(turned.splits["train"].truth != truth, ~annotated)
    assert np.array_equal(turned.splits["train"].source.labels, turned.splits["train"].truth)


def test_toy_images_show_their_labels() -> None:
    """Least squares on the pixels of one split, read off patch by patch, finds the labels of the other."""
    train, test = Toy().sources()
    assert isinstance(train, ToySource)
    assert isinstance(test, ToySource)
    pooled = [
        source.inputs().table.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(2, 3)).flatten(1) for source in (train, test)
    ]
    weights = np.linalg.lstsq(np.c_[pooled[0], np.ones(len(train))], train.labels, rcond=None)[0]
    found = np.c_[pooled[1], np.ones(len(test))] @ weights > 0.5
    assert (found == test.labels).mean() > 0.9


def in_chunks(size: int) -> MultiLabelScenario:
    """The toy stream in a single pass."""
    toy = Toy(online_chunk=size)
    train, test = (source.inputs() for source in toy.sources() if isinstance(source, ToySource))
    return toy.build(train_inputs=train, test_inputs=test)


@pytest.mark.parametrize("size", [7, 24, 72])
def test_what_was_annotated_goes_by_experiences_not_by_chunks(size: int) -> None:
    whole, chunks = annotated_so_far(toy_scenario()), annotated_so_far(in_chunks(size))
    assert len(chunks) == len(whole)
    for one, other in zip(whole, chunks, strict=True):
        assert torch.equal(one, other)


def test_the_watcher_finds_nothing_altered_in_chunks() -> None:
    trial = try_out(StrategyCase("er memory_size=10 epochs=1").plan, scenario=in_chunks(7))
    assert trial.watcher.widest == {0: 2, 1: 4, 2: 6}
    assert not trial.watcher.altered
