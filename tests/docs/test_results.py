"""The page on result files says what the schema says, and its snippets run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from cml_bench.metrics.evaluate import evaluate
from cml_bench.metrics.predictions import TEST_RULES, Predictions
from cml_bench.runs import schema
from cml_bench.runs.results import read_result
from cml_bench.runs.run import run_and_store

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "results.md").read_text(encoding="utf-8")
MODELS = [
    schema.Result,
    schema.JobRecord,
    schema.BenchmarkRecord,
    schema.MethodRecord,
    schema.Metrics,
    schema.ExperienceMetrics,
    schema.Cost,
    schema.Parameters,
    schema.MemoryCost,
    schema.DataRecord,
    schema.BackboneRecord,
    schema.Environment,
    schema.Device,
    schema.PredictionsRecord,
]
WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}


def spell(kind: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in kind:
        name = kind["$ref"].rpartition("/")[2]
        return "anything" if name == "JsonValue" else f"[{name}](#{name.lower()})"
    if "anyOf" in kind:
        return " or ".join(spell(each) for each in kind["anyOf"])
    if "const" in kind or "enum" in kind:
        return " or ".join(f"`{value}`" for value in kind.get("enum", [kind.get("const")]))
    if kind.get("type") == "array":
        return f"list of ({spell(kind['items'])})"
    if kind.get("type") == "object":
        return f"by name: {spell(kind['additionalProperties'])}"
    return WORDS[kind["type"]] if "type" in kind else "anything"


def section(model: type[BaseModel]) -> str:
    """What the page must say of a model."""
    fields = model.model_json_schema()["properties"]
    rows = [f"| `{name}` | {spell(field)} | {model.model_fields[name].description} |" for name, field in fields.items()]
    head = f"### {model.__name__}\n\n{model.__doc__}\n\n| field | holds | meaning |\n|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_is_on_the_page(model: type[BaseModel]) -> None:
    assert section(model) in PAGE, f"docs/reference/results.md must hold:\n\n{section(model)}"


def test_every_model_is_on_the_page_and_no_other() -> None:
    kinds = [kind for kind in vars(schema).values() if isinstance(kind, type) and issubclass(kind, BaseModel)]
    own = {kind.__name__ for kind in kinds if kind.__module__ == schema.__name__ and not kind.__name__.startswith("_")}
    assert own == {model.__name__ for model in MODELS} == set(re.findall(r"^### (\w+)$", PAGE, re.MULTILINE))
    assert f"**Version {schema.SCHEMA_VERSION}**" in PAGE


@pytest.fixture
def folder(small_jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (job,) = small_jobs(["er memory_size=20"])
    run_and_store(job, tmp_path / "results" / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results" / "runs"


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_five_lines_of_python_read_a_result(folder: Path) -> None:
    path = next(folder.rglob("*.json"))
    _, plain = snippets("python")
    assert len(plain.replace("\n\n", "\n").splitlines()) == 5
    assert "cml_bench" not in plain
    found: dict[str, Any] = {"path": str(path)}
    exec(plain, found)
    metrics = read_result(path).metrics
    assert metrics is not None
    assert found["last_map"] == metrics.summary["last_map"]
    assert found["logits"].shape == found["truth"].shape


def test_the_arrays_of_the_predictions_file(folder: Path) -> None:
    path = next(folder.rglob("*.npz"))
    rows = re.findall(r"^\| `(\w+)` \| (\w+), ", PAGE, re.MULTILINE)
    with np.load(path, allow_pickle=False) as stored:
        names = {re.sub(r"\d+", "T", name) for name in stored}
        assert names == {name for name, _ in rows}
        for name, kind in rows:
            array = stored[name.replace("_T", "_0")]
            assert kind == ("text" if array.dtype.kind == "U" else array.dtype.name), name
    for rule in TEST_RULES:
        assert f"`{rule}`" in PAGE
    stored = read_result(path.with_suffix(".json")).metrics
    assert stored is not None
    assert stored.model_dump(exclude={"users"}) == evaluate(Predictions.load(path))
    assert all(f"`{name.partition('_')[2].partition('@')[0]}`" in PAGE for name in stored.summary if name[:3] == "avg")
    assert all(f"`{name}`" in PAGE for name in stored.summary if name[:4] not in ("avg_", "last"))
