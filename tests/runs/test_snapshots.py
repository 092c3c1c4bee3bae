"""Models kept beside a result: what is written, what is built again, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cml_bench.errors import CmlBenchError
from cml_bench.metrics.predictions import Predictions
from cml_bench.report.explanation.explain import head_output
from cml_bench.runs.job import Job, make_jobs
from cml_bench.runs.results import is_done, result_path, snapshot_path
from cml_bench.runs.run import run_and_store
from cml_bench.runs.snapshots import find_run, open_run

CASES = {
    "frozen": ("naive head=dlfl", ["frozen=true"]),
    "trained": ("er head=dlfl memory_size=10", ["frozen=false"]),
    "another head": ("l3a", ["frozen=false"]),
    "all at once": ("joint head=csra", ["frozen=true"]),
    "pyramid": ("naive head=hsvlt", ["frozen=true", "backbone_options=[]", "backbone=mobilenetv3_small_050"]),
    "prompts": (
        "dualprompt epochs=1",
        [
            "frozen=false",
            "backbone=vit_tiny_patch16_224",
            'backbone_options=[["depth",5],["embed_dim",24],["num_heads",2]]',
        ],
    ),
}


def make_job(method: str, options: list[str]) -> Job:
    settings = ["n_train=40", "n_test=30", "epochs=1", "increment=4", "image_size=32", *options]
    (job,) = make_jobs(["digits"], [method], ["default"], [0], settings)
    return dataclasses.replace(job, save_models=True)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path


def stored(folder: Path, job: Job) -> Path:
    result = run_and_store(job, folder)
    assert result["status"] == "ok", result["error"]
    return result_path(folder, job)


@pytest.mark.parametrize("case", CASES)
def test_a_model_built_again_says_what_the_run_has_stored(case, cache):
    job = make_job(*CASES[case])
    path = stored(cache, job)
    predictions, saved = Predictions.load(path.with_suffix(".npz")), open_run(cache)
    assert saved.path == path
    test = saved.sources[1]
    rows = {str(key): row for row, key in enumerate(test.ids)}
    for t, logits in enumerate(predictions.logits):
        model = saved.model(t)
        for place in (0, 7, 19):
            row = rows[str(predictions.sample_ids[place])]
            found = head_output(saved, model, test.load(row), test.id_keys[row : row + 1]).logits[0]
            expected = torch.from_numpy(logits[place].astype(np.float32))
            assert torch.allclose(found[: len(expected)], expected, atol=5e-3), case
    written = load_file(snapshot_path(path, 0))
    has_backbone = any(name.startswith("backbone.") for name in written)
    assert has_backbone == (case in ("trained", "another head"))


def test_keeping_models_is_no_part_of_the_job(cache):
    job = make_job(*CASES["frozen"])
    plain = dataclasses.replace(job, save_models=False)
    assert (plain.key, plain.slug) == (job.key, job.slug)
    run_and_store(plain, cache)
    path = result_path(cache, plain)
    without = Predictions.load(path.with_suffix(".npz")).logits
    assert (is_done(cache, plain), is_done(cache, job)) == (True, False)
    with pytest.raises(CmlBenchError, match="no models beside it: run the same command again with --save-models"):
        find_run(path)
    stored(cache, job)
    assert is_done(cache, job)
    kept = Predictions.load(path.with_suffix(".npz")).logits
    assert all(np.array_equal(one, other) for one, other in zip(without, kept, strict=True))
    snapshot_path(path, 1).unlink()
    assert (is_done(cache, plain), is_done(cache, job)) == (True, False)


def test_what_does_not_fit_is_one_sentence(cache):
    path = stored(cache, make_job(*CASES["frozen"]))
    file = snapshot_path(path, 0)
    whole = file.read_bytes()
    tensors = load_file(file)

    def refused(match):
        with pytest.raises(CmlBenchError, match=match) as caught:
            open_run(path).model(0)
        assert "\n" not in str(caught.value)

    file.write_bytes(whole[:200])
    refused("cannot be read")
    save_file(tensors, file)
    refused("does not say its labels")
    about = {"labels": json.dumps(["zero", "one"]), "growth": "[2]", "backbone": "0"}
    save_file(tensors, file, about)
    refused("comes out with other weights")
    file.unlink()
    with pytest.raises(CmlBenchError, match="no models beside it"):
        open_run(path)
    file.write_bytes(whole)
    saved = open_run(path)
    right = {**about, "backbone": _backbone_of(file)}
    for unfit in (tensors, {"other": torch.ones(2)}):
        save_file(unfit, file, right)
        with pytest.raises(CmlBenchError, match="does not fit the model of its job"):
            saved.model(0)


def _backbone_of(path: Path) -> str:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return str(file.metadata()["backbone"])


def test_another_checkpoint_is_refused(cache):
    job = make_job(*CASES["frozen"])
    path = stored(cache, job)
    result = json.loads(path.read_text())
    result["backbone"]["sha256"] = "0123"
    path.write_text(json.dumps(result))
    with pytest.raises(CmlBenchError, match=r"is not the file that .* was made with .*, not 0123"):
        open_run(path)


def test_which_run_is_meant(cache):
    first = stored(cache, make_job(*CASES["frozen"]))
    assert find_run(cache) == find_run(first) == first
    stored(cache, make_job("naive head=csra", ["frozen=true"]))
    with pytest.raises(CmlBenchError, match="2 results with models"):
        find_run(cache)
    with pytest.raises(CmlBenchError, match=r"nothing\.json does not exist"):
        find_run(cache / "nothing.json")
    (cache / "empty").mkdir()
    with pytest.raises(CmlBenchError, match=r"no result with models \(0 without\)"):
        find_run(cache / "empty")
