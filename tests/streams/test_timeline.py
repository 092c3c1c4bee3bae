"""Upstream's decorators on our streams, and what ``with_label_timeline`` gives back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avalanche.benchmarks import (
    CLScenario,
    CLStream,
    benchmark_with_validation_stream,
    split_online_stream,
    with_task_labels,
)
from avalanche.benchmarks.scenarios.generic_scenario import EagerCLStream
from avalanche.benchmarks.utils.data_loader import ReplayDataLoader
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.storage_policy import ReservoirSamplingBuffer
from avalanche.training.supervised import Naive

from cml_bench.losses.bce import BCE
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.model import MultiLabelModel
from cml_bench.streams.dataset import MultiLabelDataset
from cml_bench.streams.timeline import ends_experience, with_label_timeline

ATTRIBUTES = ("classes_in_this_experience", "previous_classes", "classes_seen_so_far", "label_names")


def table(dataset: MultiLabelDataset) -> dict[int, tuple[int, ...]]:
    return {
        int(row): tuple(labels)
        for row, labels in zip(dataset.sample_ids.data.tolist(), dataset.labels.data.tolist(), strict=True)
    }


@pytest.fixture
def scenario(tiny_scenario: Any) -> Any:
    return tiny_scenario()


def test_streams_know_their_benchmark(scenario: Any) -> None:
    assert isinstance(scenario, CLScenario)
    for stream in (scenario.train_stream, scenario.test_stream):
        assert stream.benchmark is scenario
        for t, experience in enumerate(stream):
            assert experience.origin_stream.benchmark is scenario
            assert experience.current_experience == t
    assert scenario.evaluation_experience(1).origin_stream is scenario.streams["test"]


def test_future_labels_have_no_attribute(scenario: Any) -> None:
    experience = scenario.train_stream[0]
    assert not hasattr(experience, "future_classes")
    assert max(experience.classes_seen_so_far) < scenario.n_seen[0]


def test_validation_split_keeps_labels_and_the_timeline_returns(scenario: Any) -> None:
    torch.manual_seed(0)
    split = benchmark_with_validation_stream(scenario, validation_size=0.25, shuffle=True, seed=0)
    restored = with_label_timeline(split)
    for t, original in enumerate(scenario.train_stream):
        parts = [split.train_stream[t].dataset, split.valid_stream[t].dataset]
        assert all(isinstance(part, MultiLabelDataset) for part in parts)
        assert all(part.labels.names == original.dataset.labels.names for part in parts)
        assert {**table(parts[0]), **table(parts[1])} == table(original.dataset)
        assert sum(len(part) for part in parts) == len(original.dataset)
        for stream in (restored.train_stream, restored.valid_stream):
            for name in ATTRIBUTES:
                assert getattr(stream[t], name) == getattr(original, name)
            assert stream.benchmark is restored
    assert set(restored.streams) == {"train", "valid", "test"}


def test_online_split_keeps_labels_and_stays_lazy(scenario: Any) -> None:
    torch.manual_seed(0)
    chunks = split_online_stream(scenario.train_stream, 4, access_task_boundaries=True, seed=0)
    pulled = []

    def watch(stream: Any) -> Any:
        for chunk in stream:
            pulled.append(chunk)
            yield chunk

    stream = with_label_timeline(CLStream("train", watch(chunks), set_stream_info=False))
    assert not isinstance(stream, EagerCLStream)
    assert not pulled, "a lazy stream was read through"
    tables: list[dict[int, tuple[int, ...]]] = [{}]
    for chunk in stream:
        assert len(pulled) >= 1
        assert len(chunk.dataset) <= 4
        original = scenario.train_stream[len(tables) - 1]
        for name in ATTRIBUTES:
            assert getattr(chunk, name) == getattr(original, name)
        tables[-1].update(table(chunk.dataset))
        if ends_experience(chunk):
            tables.append({})
    assert tables[:-1] == [table(experience.dataset) for experience in scenario.train_stream]


# The experiences have 17, 20 and 23 images: upstream does not mark the last chunk where the size divides them.
@pytest.mark.parametrize("size", [1, 4, 5, 17, 100])
def test_our_online_stream_has_the_same_images_and_labels(tiny_scenario: Any, size: int) -> None:
    whole, online = tiny_scenario(), tiny_scenario(online_chunk=size)
    assert online.train_stream.benchmark is online
    collected: list[dict[int, tuple[int, ...]]] = [{}]
    for chunk in online.train_stream:
        assert chunk.label_names == chunk.dataset.labels.names
        collected[-1].update(table(chunk.dataset))
        if ends_experience(chunk):
            collected.append({})
    assert collected[:-1] == [table(experience.dataset) for experience in whole.train_stream]
    again = [table(chunk.dataset) for chunk in online.train_stream]
    assert again == [table(chunk.dataset) for chunk in online.train_stream], "the stream can be read only once"
    assert sum(map(len, again)) == sum(map(len, collected))


def naive(model: MultiLabelModel, **options: Any) -> Any:
    """A plain Avalanche strategy, as a user would write it."""
    return Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        criterion=BCE(),
        train_mb_size=8,
        train_epochs=1,
        eval_mb_size=16,
        evaluator=EvaluationPlugin(loggers=[]),
        **options,
    )


@pytest.fixture
def model(scenario: Any) -> MultiLabelModel:
    torch.manual_seed(0)
    model = MultiLabelModel(None, LinearHead(6))
    model.train()
    model.adaptation(scenario.train_stream[0])
    return model


@pytest.mark.filterwarnings("ignore")
def test_plain_avalanche_naive_trains_and_evaluation_never_grows_the_head(
    scenario: Any, model: MultiLabelModel
) -> None:
    learner = naive(model)
    for t, experience in enumerate(scenario.train_stream):
        learner.train(experience)
        assert model.head.n_labels == scenario.n_seen[t]
        before = [p.clone() for p in model.parameters()]
        for test in scenario.test_stream:
            learner.eval([test])
        assert model.head.n_labels == scenario.n_seen[t], "evaluation grew the head"
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.filterwarnings("ignore")
def test_plain_avalanche_replay_runs_on_rows_of_unlike_width(scenario: Any, model: MultiLabelModel) -> None:
    buffer = ReservoirSamplingBuffer(10)
    learner = naive(model, plugins=[ReplayPlugin(10, storage_policy=buffer)])
    for experience in scenario.train_stream:
        learner.train(experience)
    assert len(buffer.buffer) == 10
    assert isinstance(buffer.buffer, MultiLabelDataset)
    loader = ReplayDataLoader(scenario.train_stream[2].dataset, buffer.buffer, batch_size=4, batch_size_mem=3)
    truth = scenario.splits["train"].truth
    for batch in loader:
        assert len(batch) == 3
        known = batch[1] >= 0
        rows = truth[batch.sample_id.numpy(), : batch[1].shape[1]]
        assert bool((torch.from_numpy(rows)[known] == batch[1][known]).all()), "an id lost its row"


@pytest.mark.filterwarnings("ignore")
def test_task_label_decorator_of_upstream_accepts_our_benchmark(scenario: Any) -> None:
    decorated = with_task_labels(scenario)
    assert [experience.task_labels for experience in decorated.train_stream] == [[0], [0], [0]]
