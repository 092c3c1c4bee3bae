"""Label attributes of experiences: what has arrived, never what is still to come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from avalanche.benchmarks import CLExperience, CLScenario, CLStream, DatasetExperience
from avalanche.benchmarks.scenarios.generic_scenario import EagerCLStream

from cml_bench.streams.dataset import MultiLabelDataset

ScenarioOrStream = TypeVar("ScenarioOrStream", CLScenario, CLStream)


def set_label_attributes(experience: DatasetExperience) -> DatasetExperience:
    """Set ``label_names``, ``classes_in_this_experience``, ``previous_classes`` and ``classes_seen_so_far``.

    They are read off the dataset, so they survive every split of it. Class ids are columns, that is, positions in the
    arrival order; there is no attribute for future labels.
    """
    dataset = experience.dataset
    assert isinstance(dataset, MultiLabelDataset)
    labels = dataset.labels
    experience.label_names = labels.names
    experience.classes_seen_so_far = list(range(len(labels.names)))
    experience.previous_classes = list(range(labels.first_new))
    experience.classes_in_this_experience = list(range(labels.first_new, len(labels.names)))
    return experience


def begins_experience(experience: DatasetExperience) -> bool:
    """Return whether an experience is whole, or the first chunk of one in an online stream."""
    return bool(getattr(experience, "is_first_subexp", True))


def ends_experience(experience: DatasetExperience) -> bool:
    """Return whether an experience is whole, or the last chunk of one in an online stream."""
    return bool(getattr(experience, "is_last_subexp", True))


class _TimelineStream:
    """Sets the attributes of a lazy stream's experiences as they come."""

    def __init__(self, stream: CLStream[CLExperience]) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[CLExperience]:
        position = 0
        for experience in self.stream:
            position = 1 if begins_experience(experience) else position + 1
            # Avalanche 0.6.0 leaves the mark out where the size of the chunks divides the experience.
            if position == getattr(experience, "sub_stream_length", None):
                experience.is_last_subexp = True
            experience.sub_stream_position = position
            yield set_label_attributes(experience)


def with_label_timeline(obj: ScenarioOrStream) -> ScenarioOrStream:
    """Give back the label attributes that Avalanche's decorators strip from experiences.

    ``split_online_stream`` and ``benchmark_with_validation_stream`` build new experiences; their datasets keep labels
    and names, their attributes are gone. This is to multi-label streams what Avalanche's ``with_classes_timeline`` is
    to single-label ones, except that lazy streams stay lazy and ``stream.benchmark`` is set.

    Args:
        obj: A scenario or a stream whose datasets are ``MultiLabelDataset``.
    """
    if isinstance(obj, CLScenario):
        scenario = CLScenario([with_label_timeline(stream) for stream in obj.streams.values()])
        for stream in scenario.streams.values():
            stream.benchmark = scenario
        return scenario
    if isinstance(obj, EagerCLStream):
        return EagerCLStream(obj.name, [set_label_attributes(e) for e in obj], benchmark=obj.benchmark)
    return CLStream(obj.name, _TimelineStream(obj), benchmark=obj.benchmark)
