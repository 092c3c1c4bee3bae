"""What is done stays done while all that it stands on is as it was, and no longer."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from rich.console import Console
from safetensors.torch import save_file

from cml_bench.api import run_jobs
from cml_bench.errors import CmlBenchError
from cml_bench.report.forecast import forecast, to_terminal
from cml_bench.runs.benchmark import load_sources
from cml_bench.runs.events import Event
from cml_bench.runs.freshness import judge
from cml_bench.runs.job import Job, make_jobs
from cml_bench.runs.results import checkpoint_folder, result_path
from cml_bench.runs.run import run_and_store, store_failure

AGAIN = "The data have changed since 1 job ran; running again."
RNG = np.random.default_rng(0)
LABELS = (RNG.random((60, 4)) < 0.5).astype(np.int8)
FEATURES = RNG.normal(size=(60, 6)).astype(np.float32)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "features"
    folder.mkdir()
    return write(folder)


def write(root: Path, features: Any = FEATURES, labels: Any = LABELS) -> Path:
    for split in ("train", "test"):
        np.savez(root / f"{split}.npz", features=features, labels=labels, label_names=np.array(["a", "b", "c", "d"]))
    return root


def table_job(root: Path, method: str = "naive", **options: Any) -> Job:
    settings = {"root": root, "increment": 2, "epochs": 2, **options}
    (job,) = make_jobs(["feature_table"], [method], ["default"], [0], [f"{k}={v}" for k, v in settings.items()])
    return job


def run(jobs: Job | list[Job], results: Path, **options: Any) -> str:
    """Run as the command does, in this process; return what the user is told."""
    console = Console(file=io.StringIO(), width=300, record=True)
    run_jobs([jobs] if isinstance(jobs, Job) else jobs, results, workers=1, console=console, **options)
    return console.export_text()


def stored(job: Job, results: Path) -> Any:
    return json.loads(result_path(results, job).read_text())


def edit(job: Job, results: Path, change: Callable[[Any], object]) -> None:
    tree = stored(job, results)
    change(tree)
    result_path(results, job).write_text(json.dumps(tree))


# -- what a result stands on -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["features", "labels"])
def test_data_that_change_are_seen_within_one_process(root: Path, results: Path, what: str) -> None:
    """The same call after a correction runs again; where the data cannot be read, results stand."""
    job = table_job(root)
    run(job, results)
    assert "1 of 1 job done already" in run(job, results)
    before = stored(job, results)
    labels = LABELS.copy()
    labels[0, 0] ^= 1
    write(root, **({"features": -FEATURES} if what == "features" else {"labels": labels}))
    assert AGAIN in run(job, results)
    after = stored(job, results)
    assert after["data"] != before["data"]
    assert (after["data"]["train"]["fingerprint"] == before["data"]["train"]["fingerprint"]) == (what == "features")
    shutil.rmtree(root)
    assert "the data of finished jobs cannot be looked at" in run(job, results)
    assert stored(job, results) == after


def test_a_stopped_job_does_not_go_on_with_other_features(root: Path, tmp_path: Path) -> None:
    job = table_job(root, increment=2, epochs=2)

    class Stopped(BaseException):
        """The job is interrupted."""

    def stop(event: Event) -> None:
        if event.kind == "epoch" and event.experience == 1:
            raise Stopped

    with pytest.raises(Stopped):
        run_and_store(job, tmp_path / "stopped", report=stop)
    assert list(checkpoint_folder(result_path(tmp_path / "stopped", job)).iterdir())
    write(root, features=-FEATURES)
    load_sources.cache_clear()
    notes: list[str] = []
    run_and_store(job, tmp_path / "stopped", report=lambda event: notes.append(event.message))
    run_and_store(job, tmp_path / "fresh")
    assert any("is of another state of data: not used, starting anew" in note for note in notes)
    assert stored(job, tmp_path / "stopped")["metrics"] == stored(job, tmp_path / "fresh")["metrics"]


def weights(path: Path, seed: int) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        save_file(timm.create_model("test_resnet", channels=(24, 32, 32, 64), output_stride=8).state_dict(), path)
    return path


def test_weights_that_are_replaced_make_another_result(small_jobs: Any, tmp_path: Path, results: Path) -> None:
    """Also for results of before other files were kept: they have the checksum of the weights."""
    path = weights(tmp_path / "w.safetensors", 0)
    (job,) = small_jobs(["naive"], checkpoint=path, pretrained_on="nothing", frozen="true")
    run(job, results)
    before = stored(job, results)
    edit(job, results, lambda tree: tree["job"].pop("files"))
    assert "1 of 1 job done already" in run(job, results)
    weights(path, 1)
    assert AGAIN in run(job, results)
    assert stored(job, results)["backbone"]["sha256"] != before["backbone"]["sha256"]
    path.unlink()
    assert judge([job], results).having("done") == [job], "weights that are not there are no others"


def test_other_files_that_options_name_are_looked_at(root: Path, tmp_path: Path, results: Path) -> None:
    vectors = tmp_path / "vectors.npz"

    def draw(seed: int) -> None:
        values = np.random.default_rng(seed).normal(size=(4, 300)).astype(np.float32)
        np.savez(vectors, names=np.array(list("abcd")), vectors=values)

    draw(0)
    jobs = [table_job(root, f"naive head=dlfl head.query_init={vectors}", epochs=1), table_job(root, epochs=1)]
    run(jobs, results)
    assert list(stored(jobs[0], results)["job"]["files"]) == [str(vectors)]
    assert stored(jobs[1], results)["job"]["files"] == {}
    assert "2 of 2 jobs done already" in run(jobs, results)
    draw(1)
    assert judge(jobs, results).having("changed") == jobs[:1]


def test_files_are_found_within_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cml_bench.runs.basis import named_files

    monkeypatch.chdir(tmp_path)
    for name in ("shares.json", "tower.bin", "1", "reg.py"):
        (tmp_path / name).write_text(name)
    regime = "long_tail + single_positive bias=semantic shares=./shares.json + ./reg.py:R"
    options = (("epochs", "1"), ("regime", regime), ("root", "shares.json"))
    job = Job("digits", "er head=hsvlt head.text=open_clip:ViT:tower.bin:'a {name}' lr=0.1", options=options)
    assert list(named_files(job)) == ["./shares.json", "tower.bin"]


def test_a_key_is_of_the_code_that_ran(small_jobs: Any, tmp_path: Path, results: Path) -> None:
    """A file that is edited while its job runs is another job."""
    path = tmp_path / "mine.py"
    code = (
        "from dataclasses import dataclass\nfrom cml_bench import Strategy, StrategyMeta\n@dataclass(frozen=True)\n"
        "class Mine(Strategy):\n    meta = StrategyMeta(name='mine', title='Mine', family='test')\n"
        "    def plugins(self, run):\n        return []\n"
    )
    path.write_text(code)
    (job,) = small_jobs([f"{path}:Mine"])
    key = job.key

    def report(event: Event) -> None:
        if event.kind == "experience":
            path.write_text(code + "# edited\n")

    result = run_and_store(job, results, report=report)
    assert result is not None
    assert result["key"] == key != job.key
    assert judge([job], results).having("missing") == [job]


# -- results that are none -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way", [("data",), ("data", "train"), ("metrics",), ("job",), ("benchmark",), ("cost",), ("schema_version",)]
)
@pytest.mark.parametrize("to", ["gone", None, {}])
def test_an_edited_result_runs_again(root: Path, results: Path, way: tuple[str, ...], to: Any) -> None:
    job = table_job(root, epochs=1)
    run(job, results)
    before = stored(job, results)

    def change(tree: Any) -> None:
        *above, last = way
        for name in above:
            tree = tree[name]
        tree.pop(last) if to == "gone" else tree.update({last: to})

    edit(job, results, change)
    # Empty records of what it took are records.
    assert judge([job], results).to_run() == ([] if (way, to) == (("cost",), {}) else [job])
    run(job, results)
    assert stored(job, results)["metrics"] == before["metrics"]


def test_a_newer_result_is_not_written_over(root: Path, results: Path) -> None:
    job = table_job(root, epochs=1)
    run(job, results)
    edit(job, results, lambda tree: tree.update(schema_version=3, something="new"))
    text = result_path(results, job).read_text()
    with pytest.raises(CmlBenchError, match=r"schema version 3, and this version .* up to 2: upgrade cml_bench"):
        run(job, results)
    assert result_path(results, job).read_text() == text


def test_only_failures_are_kept(root: Path, results: Path) -> None:
    jobs = [table_job(root, f"naive lr=0.{n}", epochs=1) for n in range(1, 6)]
    failed, without, cut, good, no_models = jobs
    run(jobs[1:], results)
    store_failure(failed, results, "as it was")
    result_path(results, without).with_suffix(".npz").unlink()
    result_path(results, cut).write_text(result_path(results, cut).read_text()[:100])
    jobs[-1] = dataclasses.replace(no_models, save_models=True)
    assert judge(jobs, results).to_run(retry_failed=False) == [without, cut, jobs[-1]]
    assert judge(jobs, results).to_run() == [failed, without, cut, jobs[-1]]
    run(jobs[:-1], results, retry_failed=False)
    assert judge(jobs[:-1], results).having("done") == [without, cut, good]
    assert stored(failed, results)["error"] == "as it was"


# -- what a command does with it -------------------------------------------------------------------------------------


def test_a_forecast_is_what_a_run_would_do(root: Path, results: Path) -> None:
    jobs = [table_job(root, epochs=1), table_job(root, "lwf", epochs=1)]
    run(jobs[:1], results)
    write(root, features=-FEATURES)
    load_sources.cache_clear()
    rows = forecast(jobs, results)
    assert rows["status"].tolist() == ["changed", "missing"]
    assert rows["runs"].tolist() == [True, True]
    console = Console(file=io.StringIO(), width=200, record=True)
    console.print(to_terminal(rows, 1))
    assert "2 jobs: 0 done, 1 done with data that have changed since, 0 failed, 2 to run" in console.export_text()


def test_checkpoints_of_a_job_that_is_done_go(root: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was killed between its result and the end of its checkpoints."""

    class Killed(BaseException):
        """The process ends."""

    def die(folder: Path) -> None:
        raise Killed

    job = table_job(root)
    monkeypatch.setattr("cml_bench.runs.run.remove_checkpoints", die)
    with pytest.raises(Killed):
        run(job, results)
    monkeypatch.undo()
    folder = checkpoint_folder(result_path(results, job))
    assert list(folder.iterdir())
    before = result_path(results, job).read_bytes()
    run(job, results)
    assert not folder.exists()
    assert result_path(results, job).read_bytes() == before
    assert not list(results.rglob("*.lock"))


def test_data_that_cannot_be_read_are_tried_once(root: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken file of minutes would else be read again for every finished job."""
    jobs = [table_job(root, "naive"), table_job(root, "er memory_size=10")]
    for job in jobs:
        run_and_store(job, results)
    tried: list[Job] = []

    def fails(job: Job) -> Any:
        tried.append(job)
        raise CmlBenchError("the disk is gone")

    monkeypatch.setattr("cml_bench.runs.freshness.present_data", fails)
    judged = judge(jobs, results)
    assert len(tried) == 1
    assert str(judged.doubt) == "the disk is gone"
    assert judged.to_run() == []
