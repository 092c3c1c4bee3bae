"""Large tables are gone through in blocks of rows; where these end changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cml_bench.losses.db import DB
from cml_bench.runs.record import _split_record


def summary(scenario: Any) -> dict[str, Any]:
    """All that a stream holds, and what is counted of it."""
    found: dict[str, Any] = {"names": scenario.label_names}
    for name, split in scenario.splits.items():
        found[f"{name} rows"] = [rows.tolist() for rows in split.experiences]
        found[f"{name} counts"] = _split_record(split)["label_counts"]
    criterion = DB()
    for t, experience in enumerate(scenario.train_stream):
        dataset = experience.dataset
        found[f"labels {t}"] = dataset.labels.data.tolist()
        criterion.start_experience(dataset)
        found[f"counted {t}"] = (criterion.present.tolist(), criterion.asked.tolist())
    return found


@pytest.mark.parametrize(
    "protocol",
    [
        {},
        {"assignment": "disjoint", "annotation": "seen"},
        {"annotation": "all", "class_order": "frequency"},
        {"regime": "missing_positives rate=0.5", "validation": 0.2},
        {"regime": "single_positive"},
    ],
)
def test_a_stream_does_not_depend_on_blocks(
    tiny_scenario: Any, monkeypatch: pytest.MonkeyPatch, protocol: dict[str, Any]
) -> None:
    whole = summary(tiny_scenario(**protocol))
    monkeypatch.setattr("cml_bench.labels.BLOCK_ENTRIES", 7 * 6)
    assert summary(tiny_scenario(**protocol)) == whole


def test_what_is_counted_of_blocks_is_what_is_there(tiny_scenario: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the same twice, but the counts of numpy."""
    monkeypatch.setattr("cml_bench.labels.BLOCK_ENTRIES", 7 * 6)
    scenario = tiny_scenario()
    train = scenario.splits["train"]
    assert list(_split_record(train)["label_counts"].values()) == (train.truth[train.rows] == 1).sum(axis=0).tolist()
    dataset = scenario.train_stream[0].dataset
    criterion = DB()
    criterion.start_experience(dataset)
    assert torch.equal(criterion.present, (dataset.labels.data == 1).sum(dim=0).float())
    most_first = tiny_scenario(class_order="frequency").label_names
    counts = dict(zip(train.source.label_names, np.sum(train.source.labels, axis=0), strict=True))
    assert sorted(counts, key=lambda name: (-counts[name], name)) == list(most_first)
