"""Methods of the same settings are one row, whatever they were called; others never are."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from cml_bench.report.page.write import write_page
from cml_bench.report.stored.collect import collect
from cml_bench.report.tables.compare import compare
from cml_bench.report.tables.same_methods import by_shortest_name
from cml_bench.runs.run import run_and_store

ER = {"memory_size": 2000}


def came_to(job: Any, method: str, seed: int = 0, level: float = 0.5, **settings: Any) -> dict[str, Any]:
    """A job with what its result says of its settings."""
    head, loss = settings.pop("head", ["linear", {}]), settings.pop("loss", ["BCE", {}])
    return job(
        method,
        seed,
        level,
        strategy_options=json.dumps(settings.pop("options", {})),
        parts=json.dumps([*head, *loss, None, {}]),
        training=json.dumps({"lr": 0.01, "epochs": 3, "augment": True} | settings.pop("training", {})),
        **{"head": head[0], **settings},
    )


def names(*jobs: dict[str, Any], frame_of: Any) -> list[str]:
    found: list[str] = by_shortest_name(frame_of(*jobs))["method"].tolist()
    return found


def test_defaults_that_are_named_make_no_other_row(frame_of: Any, job: Any) -> None:
    frame = frame_of(
        *(came_to(job, "naive", seed, 0.5) for seed in (0, 1)),
        *(came_to(job, "naive head=linear", seed, 0.5) for seed in (1, 2)),
        *(came_to(job, "er head=linear memory_size=2000", seed, 0.7, options=ER) for seed in range(3)),
        came_to(job, "er", 3, 0.7, options=ER),
    )
    (table,) = compare(frame, ["last_map"], baseline="naive head=linear").benchmarks
    assert table.rows["method"].tolist() == ["er", "naive"]
    assert table.rows["n"].tolist() == [4, 3]
    assert table.rows.loc[1, "notes"] == "incomplete: 3 of 4 jobs; 1 older result left out"
    assert table.baseline == "naive"
    told = "The same under a longer name, and counted as what stands in brackets: er head=linear memory_size=2000 (er)"
    assert f"{told}, naive head=linear (naive)." in table.notes


def test_what_is_no_default_stays_apart(frame_of: Any, job: Any) -> None:
    jobs = [
        came_to(job, "er", options=ER),
        came_to(job, "er memory_size=500", options={"memory_size": 500}),
        came_to(job, "er head=dlfl", options=ER, head=["dlfl", {}]),
        came_to(job, "er head=dlfl head.steps=3", options=ER, head=["dlfl", {"steps": 3}]),
        came_to(job, "er loss=asl", options=ER, loss=["ASL", {}]),
        came_to(job, "er lr=0.1", options=ER, training={"lr": 0.1}),
        came_to(job, "er loss=./mine.py:BCE", options=ER),
        came_to(job, "er_two", options=ER),
        # A name that came to two things, as the code changed, is not known to be either.
        came_to(job, "er memory_size=2000", options=ER),
        came_to(job, "er memory_size=2000", 1, options=ER, head=["dlfl", {}]),
        # A result that does not say what it came to.
        job("er head=linear", 0, 0.5),
    ]
    assert names(*jobs, frame_of=frame_of) == [each["method"] for each in jobs]


def test_training_settings_are_defaults_where_they_are(frame_of: Any, job: Any) -> None:
    there = {"benchmark": "voc", "title": "VOC"}
    jobs = [
        came_to(job, "naive"),
        came_to(job, "naive epochs=3 head=linear"),
        came_to(job, "naive", training={"epochs": 20}, **there),
        came_to(job, "naive epochs=3 head=linear", **there),
        came_to(job, "naive epochs=3", **there),
        # That it is frozen turns augmentation off, too.
        came_to(job, "naive frozen=true", training={"augment": False}),
        # Failed jobs go with those that were not.
        came_to(job, "naive epochs=3 head=linear", 1)
        | dict.fromkeys(("strategy_options", "parts", "training"))
        | {"status": "failed"},
    ]
    short = ["naive", "naive", "naive", "naive epochs=3", "naive epochs=3", "naive frozen=true", "naive"]
    assert names(*jobs, frame_of=frame_of) == short


def test_strategies_pair_whatever_they_were_called(frame_of: Any, job: Any) -> None:
    jobs = [came_to(job, "er", seed, 0.5, options=ER) for seed in range(3)]
    jobs += [
        came_to(job, "er head=dlfl memory_size=2000", seed, 0.6, options=ER, head=["dlfl", {}]) for seed in range(3)
    ]
    (table,) = compare(frame_of(*jobs), ["last_map"], rows="head").benchmarks
    assert table.blocks.shape == (3, 2)
    assert table.blocks.notna().all(axis=None)
    assert not [note for note in table.notes if "Left out" in note]


@pytest.fixture(scope="module")
def stored(small_jobs: Any, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("runs")
    methods = [
        "naive",
        "naive head=linear",
        "naive lr=0.006",
        "naive head=dlfl",
        "naive head=dlfl head.steps=1",
        "naive loss=an",
    ]
    for job in small_jobs(methods):
        run_and_store(job, folder)
    return collect(folder)


def test_what_runs_write_is_merged(stored: pd.DataFrame, tmp_path: Any) -> None:
    """Jobs of one name after the other have the same predictions, so the settings are truly the same."""
    short = by_shortest_name(stored)
    assert set(short["method"]) == {"naive", "naive head=dlfl", "naive loss=an"}
    metrics = short[["last_map", "avg_map", "forgetting"]].groupby(short["method"]).nunique()
    assert (metrics <= 1).all(axis=None)
    assert (short.loc[short["method"] == "naive", "named"].nunique(), len(stored)) == (3, 6)
    page = write_page(stored, tmp_path / "report.html", figures=False).read_text()
    assert "naive head=linear (naive)" in page
