"""Result files: what they may hold, what older ones become, and that a damaged one gives one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from cml_bench import compare
from cml_bench.errors import CmlBenchError
from cml_bench.report.stored.collect import collect
from cml_bench.report.stored.export import export_results
from cml_bench.report.stored.history import read_history
from cml_bench.report.stored.terminal import list_results, page
from cml_bench.report.stored.verify import verify_results
from cml_bench.runs import schema
from cml_bench.runs.results import ResultError, parse_result, read_result

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=8)
NUMBERS = st.floats(-1e15, 1e15)
COUNTS = st.integers(0, 2**40)
PLAIN = st.recursive(st.none() | st.booleans() | st.integers() | NUMBERS | TEXTS, lambda deeper: st.lists(deeper))
FIGURES = st.dictionaries(TEXTS.map(lambda text: f"m_{text}"), st.none() | NUMBERS, max_size=3)
SERIES = st.lists(st.none() | NUMBERS, max_size=3)


def records(model: type[BaseModel], **fields: Any) -> Any:
    """Trees of a model, with any of its other optional fields left out."""
    required = {name: value for name, value in fields.items() if model.model_fields[name].is_required()}
    optional = {name: value for name, value in fields.items() if name not in required}
    assert set(fields) == set(model.model_fields), "a field of the schema is not drawn"
    return st.fixed_dictionaries(required, optional=optional)


OPTIONS = st.dictionaries(TEXTS, PLAIN, max_size=2)
OR_NONE = st.none() | TEXTS
JOBS = records(
    schema.JobRecord,
    **dict.fromkeys(("benchmark", "method", "class_order"), TEXTS),
    **dict.fromkeys(("benchmark_options", "resolved"), OPTIONS),
    locations=st.dictionaries(TEXTS, TEXTS, max_size=2),
    seed=st.integers(0, 2**31 - 1),
    code_version=OR_NONE,
    plug_in_files=st.lists(OR_NONE, max_size=2),
    files=st.none() | st.dictionaries(TEXTS, TEXTS, max_size=2),
)
BENCHMARKS = records(
    schema.BenchmarkRecord,
    name=TEXTS,
    title=OR_NONE,
    version=st.none() | COUNTS | TEXTS,
    protocol=OR_NONE,
    label_names=st.lists(TEXTS, max_size=3),
    n_seen=st.lists(COUNTS, max_size=3),
    images_per_experience=st.lists(COUNTS, max_size=3),
    unassigned_images=st.dictionaries(TEXTS, COUNTS, max_size=2),
    label_groups=st.dictionaries(TEXTS, st.lists(TEXTS, max_size=2), max_size=2),
)
METHODS = records(
    schema.MethodRecord,
    **dict.fromkeys(("title", "family", "head", "loss", "wrap", "replay_labels"), OR_NONE),
    **dict.fromkeys(("head_options", "loss_options", "wrap_options", "options"), OPTIONS),
)
AFTER = st.builds(
    lambda counts, figures: {**figures, **counts},
    st.fixed_dictionaries({"n_seen": COUNTS, "n_images": COUNTS, "dropped_labels": st.lists(TEXTS, max_size=2)}),
    FIGURES,
)
METRICS = records(
    schema.Metrics,
    summary=FIGURES.filter(bool),
    per_experience=st.lists(AFTER, max_size=2),
    per_label_ap=st.dictionaries(TEXTS, SERIES, max_size=2),
    performance=st.lists(SERIES, max_size=2),
    users=st.none() | st.dictionaries(TEXTS, COUNTS, max_size=2),
)
COSTS = records(
    schema.Cost,
    **dict.fromkeys(
        ("seconds", "peak_memory_mb", "peak_gpu_memory_mb"), st.dictionaries(TEXTS, NUMBERS.map(abs), max_size=2)
    ),
    images=st.none() | COUNTS,
    parameters=st.none() | records(schema.Parameters, total=COUNTS, trainable=st.none() | COUNTS),
    memory=st.none() | records(schema.MemoryCost, images=COUNTS, bytes=COUNTS),
)
DATA = records(
    schema.DataRecord,
    name=OR_NONE,
    fingerprint=TEXTS,
    content=OR_NONE,
    counts=st.dictionaries(TEXTS, COUNTS, max_size=2),
    label_counts=st.none() | st.dictionaries(TEXTS, COUNTS, max_size=2),
)
BACKBONES = records(
    schema.BackboneRecord,
    name=TEXTS,
    options=OPTIONS,
    parameters=st.none() | COUNTS,
    **dict.fromkeys(("checkpoint", "sha256", "pretraining"), OR_NONE),
    image_size=st.none() | COUNTS | st.lists(COUNTS, max_size=2),
    **dict.fromkeys(("mean", "std"), st.lists(NUMBERS, max_size=3)),
)
ENVIRONMENTS = records(
    schema.Environment,
    **dict.fromkeys(("code_version", "python", "platform"), TEXTS),
    packages=st.dictionaries(TEXTS, TEXTS, max_size=2),
    device=records(schema.Device, kind=TEXTS, name=TEXTS),
)


def fit(benchmark: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Cut and fill figures so that they are of the experiences that the benchmark has."""
    labels, seen = benchmark.get("label_names", []), benchmark.get("n_seen", [])
    seen[:] = sorted(min(count, len(labels)) for count in seen)
    for name in ("per_experience", "performance"):
        rows = metrics.get(name, [])
        del rows[len(seen) if len(rows) >= len(seen) else 0 :]
    for series in (*metrics.get("performance", []), *metrics.get("per_label_ap", {}).values()):
        series[:] = [*series, None, None, None][: len(seen)]


@st.composite
def results(draw: st.DrawFn) -> dict[str, Any]:
    done = draw(st.booleans())
    parts = {"benchmark": BENCHMARKS, "method": METHODS, "metrics": METRICS, "cost": COSTS}
    tree = {
        "schema_version": 2,
        "key": draw(TEXTS),
        "status": "ok" if done else "failed",
        "job": draw(JOBS),
        "data": draw(st.dictionaries(TEXTS, DATA, max_size=2)),
        **{name: draw(part if done else st.none() | part) for name, part in parts.items()},
    }
    if tree["benchmark"] is not None and tree["metrics"] is not None:
        fit(tree["benchmark"], tree["metrics"])
    others = {
        **dict.fromkeys(("error", "traceback", "finished"), OR_NONE),
        "missing": st.lists(TEXTS, max_size=2),
        "backbone": st.none() | BACKBONES,
        "environment": st.none() | ENVIRONMENTS,
        "federation": st.none() | OPTIONS,
        "predictions": st.none() | records(schema.PredictionsRecord, sha256=TEXTS),
    }
    assert set(tree) | set(others) == set(schema.Result.model_fields)
    return tree | draw(st.fixed_dictionaries({}, optional=others))


def says(whole: Any, part: Any) -> bool:
    """Whether a tree says all that another says, and perhaps more."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(name in whole and says(whole[name], part[name]) for name in part)
    if isinstance(part, list):
        return len(whole) == len(part) and all(says(*pair) for pair in zip(whole, part, strict=True))
    return bool(whole == part)


@settings(max_examples=60)
@given(results())
def test_a_result_comes_back_as_it_was_written(tree: dict[str, Any]) -> None:
    result = parse_result(json.dumps(tree, allow_nan=False).encode())
    written = result.model_dump(mode="json")
    assert says(written, tree)
    assert parse_result(json.dumps(written, allow_nan=False).encode()) == result


def test_version_1_is_upgraded_in_memory(store: Any, tmp_path: Path) -> None:
    path = store(tmp_path)
    tree = json.loads(path.read_text())
    tree["schema_version"] = 1
    for way in (["finished"], ["predictions"], ["cost", "memory"], ["data", "train", "label_counts"]):
        node = tree
        for step in way[:-1]:
            node = node[step]
        del node[way[-1]]
    for name in ("code_version", "plug_in_files"):
        del tree["job"][name]
    before = json.dumps(tree)
    path.write_text(before)
    result = read_result(path)
    assert result.schema_version == 2
    assert result.metrics == parse_result(json.dumps({**tree, "schema_version": 2}).encode()).metrics
    assert result.cost is not None
    assert result.cost.parameters is not None
    assert (result.cost.memory, result.cost.parameters.trainable, result.predictions) == (None, None, None)
    assert path.read_text() == before
    row = collect(path).iloc[0]
    assert [math.isnan(row[name]) for name in ("stored_images", "memory_mb", "trainable_parameters")] == [True] * 3
    assert row["training_seconds"] == 3.0


def test_costs_are_columns(store: Any, tmp_path: Path) -> None:
    row = collect(store(tmp_path)).iloc[0]
    names = ["seconds", "training_seconds", "images_per_second", "peak_memory_mb", "peak_gpu_memory_mb"]
    assert [row[name] for name in names] == [4.5, 3.0, 400.0, 1000.0, 2500.0]
    assert [row[name] for name in ("stored_images", "memory_mb", "trainable_parameters")] == [50, 3.0, 600]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "it breaks off at line 1"),
        (b'{"schema_version": 2, "key": "a', "it breaks off at line 1"),
        (b'{"schema_version": 2,\n "key"; 1}', "it is no JSON at line 2"),
        (b"\xff\xfe{", "it is no UTF-8 text"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "it holds no fields"),
        (b"{}", "field 'schema_version' is missing"),
        (b'{"schema_version": "2"}', "schema version '2' is none"),
        (b'{"schema_version": true}', "schema version True is none"),
        (b'{"schema_version": 0}', "schema version 0 is none"),
        (b'{"schema_version": 3}', "it has schema version 3, and this version of cml_bench knows versions up to 2: up"),
        (b'{"schema_version": 2, "a": NaN}', "it holds NaN, which is no number"),
        (b'{"schema_version": 2, "a": -Infinity}', "it holds -Infinity, which is no number"),
        (b'{"schema_version": 2, "a": 1e999}', "it holds 1e999, which is no number"),
        (b'{"schema_version": 2}', "field 'key' is missing"),
    ],
)
def test_what_is_no_result_is_told_in_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(ResultError) as caught:
        read_result(path)
    assert str(caught.value).startswith(f"result {path} cannot be read: ")
    assert caught.value.reason.startswith(sentence) or sentence in caught.value.reason
    assert "\n" not in str(caught.value)
    assert collect(tmp_path)["error"][0] == caught.value.reason


@pytest.mark.parametrize(
    ("way", "to", "sentence"),
    [
        (["status"], "done", "field 'status': input should be 'ok' or 'failed'"),
        (["status"], "ok", "status is 'ok' but there is no metrics"),
        (["job", "seed"], "0", "field 'job.seed': input should be a valid integer"),
        (["job", "mehtod"], "er", "field 'job.mehtod': extra inputs are not permitted"),
        (["metrics", "summary", "last_map"], "0.5", "field 'metrics.summary.last_map': input should be a valid number"),
        (["cost", "seconds", "training"], -1, "field 'cost.seconds.training': input should be greater than"),
        (["key"], "x" * 10_001, "field 'key': string should have at most 10000 characters"),
        (["metrics", "per_experience", 0, "map"], [], "field 'metrics.per_experience.0.map': input should be"),
    ],
)
def test_an_invalid_field_is_named(
    store: Any, change: Any, tmp_path: Path, way: list[Any], to: Any, sentence: str
) -> None:
    path = store(tmp_path)
    if way == ["status"] and to == "ok":
        change(path, "metrics", to=None)
    change(path, *way, to=to)
    with pytest.raises(ResultError) as caught:
        read_result(path)
    assert caught.value.reason.startswith(sentence)


@pytest.fixture
def whole(store: Any, tmp_path: Path) -> tuple[Path, bytes]:
    """A result file and what it holds; examples write over it in turn."""
    path = store(tmp_path)
    return path, path.read_bytes()


def look_everywhere(path: Path) -> None:
    """All that reads results, on one that is damaged: our error, or none."""
    collect(path)
    list_results(path)
    export_results(path)
    verify_results(path)
    with suppress(CmlBenchError):
        page(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_give_our_error_alone(whole: tuple[Path, bytes], data: st.DataObject) -> None:
    path, content = whole
    start = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(start, min(len(content), start + 40)))
    path.write_bytes(content[:start] + data.draw(st.binary(max_size=4)) + content[end:])
    look_everywhere(path)
    # Without its last line break it is whole.
    path.write_bytes(content[: min(start, len(content) - 2)])
    with pytest.raises(ResultError):
        read_result(path)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_field_gives_our_error_alone(whole: tuple[Path, bytes], data: st.DataObject) -> None:
    path, content = whole
    tree = json.loads(content)
    ways = list(every_way(tree))
    way = data.draw(st.sampled_from(ways))
    node = tree
    for step in way[:-1]:
        node = node[step]
    if data.draw(st.booleans()):
        node[way[-1]] = data.draw(PLAIN | st.just({}))
    else:
        del node[way[-1]]
    path.write_text(json.dumps(tree))
    look_everywhere(path)


def every_way(tree: Any) -> Iterator[list[Any]]:
    steps = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for step, deeper in steps:
        yield [step]
        yield from ([step, *way] for way in every_way(deeper))


def test_two_results_of_one_job_are_both_set_apart(store: Any, change: Any, tmp_path: Path) -> None:
    one, other = store(tmp_path / "a"), store(tmp_path / "b")
    store(tmp_path / "b", seed=1)
    change(other, "cost", "seconds", "training", to=9.0)
    assert collect(tmp_path)["status"].tolist() == ["ok"] * 3, "the same figures twice are no conflict"
    change(other, "metrics", "summary", "last_map", to=0.25)
    frame = collect(tmp_path).set_index("path")
    assert frame["status"].tolist() == ["unreadable", "unreadable", "ok"]
    for path, twin in ((one, other), (other, one)):
        assert str(twin) in frame.loc[str(path), "error"]
        assert "last_map: 0." in frame.loc[str(path), "error"]
    table = compare(tmp_path)
    assert len(table.unreadable) == 2
    assert table.benchmarks[0].rows["n"].tolist() == [1]
    assert len(compare([tmp_path / "a", tmp_path / "b"]).unreadable) == 2


def test_a_failed_job_has_no_history(store: Any, tmp_path: Path) -> None:
    path = store(tmp_path, status="failed", error="NaN loss", metrics=None)
    with pytest.raises(CmlBenchError, match="is the result of a job that failed: run it again"):
        read_history(path)
