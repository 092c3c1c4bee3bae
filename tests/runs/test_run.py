"""One job, one result: determinism, what is recorded, other ways to run."""

from __future__ import annotations

import dataclasses
import json
import platform
import random
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cml_bench.data.digits import digits_sources
from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError
from cml_bench.metrics.evaluate import evaluate
from cml_bench.metrics.predictions import Predictions
from cml_bench.runs import run
from cml_bench.runs.benchmark import Benchmark
from cml_bench.runs.check import check_jobs
from cml_bench.runs.events import Event
from cml_bench.runs.job import Job
from cml_bench.runs.results import is_done, result_path
from cml_bench.runs.run import run_and_store, run_job
from cml_bench.training import context


def stored(job: Job, folder: Path) -> tuple[dict[str, Any], bytes]:
    run_and_store(job, folder)
    path = result_path(folder, job)
    return json.loads(path.read_text()), path.with_suffix(".npz").read_bytes()


# -- determinism -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        *("er memory_size=20", "ewc", "dlfl"),
        *(pytest.param(method, marks=pytest.mark.slow) for method in ("naive", "lwf", "derpp memory_size=20")),
    ],
)
def test_the_same_job_gives_the_same_bytes(small_jobs: Any, tmp_path: Path, method: str) -> None:
    first, other = small_jobs([method], seeds=[0, 1], n_train=24, n_test=16)
    before = stored(first, tmp_path / "a")
    # The process's generators are in another state now, and another job has run in between.
    torch.manual_seed(999)
    different = stored(other, tmp_path / "c")
    again = stored(first, tmp_path / "b")
    assert before[1] == again[1]
    assert before[0]["metrics"] == again[0]["metrics"]
    assert different[1] != before[1]


def test_results_do_not_depend_on_what_is_loaded_in_which_order(small_jobs: Any) -> None:
    """Threads that read images, and another benchmark in the cache of sources, change nothing."""
    (job,) = small_jobs()
    (more_threads,) = small_jobs(num_workers=3)
    (other,) = small_jobs(n_train=48)
    alone = run_job(job).predictions
    run_job(other)
    for made in (run_job(job).predictions, run_job(more_threads).predictions):
        assert all(np.array_equal(a, b) for a, b in zip(alone.logits, made.logits, strict=True))


def states() -> tuple[Any, ...]:
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002


@pytest.mark.parametrize("method", ["naive", "naive lr=1e30"])
def test_the_process_is_left_as_it_was(small_jobs: Any, method: str) -> None:
    (job,) = small_jobs([method])
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        before = states()
        if "lr" in method:
            with pytest.raises(CmlBenchError):
                run_job(job)
        else:
            run_job(job)
        assert states() == before
        assert torch.get_num_threads() == 2
        assert torch.is_grad_enabled()
    finally:
        torch.set_num_threads(threads)


# -- what is recorded ------------------------------------------------------------------------------------------------


def forbid(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_a_result_holds_all_that_is_promised(small_jobs: Any, tmp_path: Path) -> None:
    (job,) = small_jobs(["er memory_size=20 head=dlfl loss=asl"])
    run_and_store(job, tmp_path)
    path = result_path(tmp_path, job)
    result = json.loads(path.read_text(), parse_constant=forbid)
    train, test = digits_sources(n_train=40, n_test=40)
    assert isinstance(result["schema_version"], int)
    assert result["key"] == job.key
    assert (result["status"], result["error"]) == ("ok", None)
    assert result["job"]["method"] == "er head=dlfl loss=asl memory_size=20"
    assert result["job"]["resolved"]["training"]["epochs"] == 1
    assert result["job"]["resolved"]["benchmark"]["increment"] == 5
    assert result["job"]["seed"] == 0
    assert result["method"]["options"] == {
        "memory_size": 20,
        "replay_batch_size": None,
        "relabel": "as_stored",
        "store": "ids",
    }
    assert (result["method"]["head"], result["method"]["loss"]) == ("dlfl", "ASL")
    assert result["environment"]["packages"]["torch"]
    assert result["environment"]["code_version"]
    name = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    assert result["environment"]["device"] == {"kind": "cpu", "name": name}
    assert result["data"]["train"]["fingerprint"] == train.fingerprint
    assert result["data"]["test"]["fingerprint"] == test.fingerprint
    assert result["missing"] == []
    assert (result["backbone"]["sha256"], result["backbone"]["pretraining"]) == (None, "none")
    for phase in ("data", "cache", "training", "evaluation", "metrics"):
        assert result["cost"]["seconds"][phase] > 0
        assert result["cost"]["peak_memory_mb"][phase] > 0
    assert result["cost"]["peak_gpu_memory_mb"] == {}
    # The one step of the second experience draws the 20 images in memory as well.
    first, second = result["benchmark"]["images_per_experience"]
    assert second <= 32
    assert result["cost"]["images"] == first + second + 20
    assert set(result["metrics"]["per_label_ap"]) == set(train.label_names)
    assert all(len(values) == 2 for values in result["metrics"]["per_label_ap"].values())
    shows = (train.labels == 1).reshape(40, 2, 5).any(axis=2)
    assert result["benchmark"]["images_per_experience"] == shows.sum(axis=0).tolist()
    assert result["benchmark"]["unassigned_images"]["train"] == int((~shows.any(axis=1)).sum())
    assert result["benchmark"]["protocol"] == "B0-C5"


def test_a_result_is_its_predictions(small_jobs: Any, tmp_path: Path) -> None:
    (job,) = small_jobs(class_order="random:3")
    result = run_and_store(job, tmp_path)
    predictions = Predictions.load(result_path(tmp_path, job).with_suffix(".npz"))
    assert json.loads(json.dumps(evaluate(predictions))) == json.loads(json.dumps(result["metrics"]))
    test = digits_sources(n_train=40, n_test=40)[1]
    columns = [test.label_names.index(name) for name in predictions.label_names]
    assert columns != list(range(10))
    rows = [test.ids.tolist().index(sample) for sample in predictions.sample_ids.tolist()]
    assert (predictions.truth == test.labels[rows][:, columns]).all()
    assert [block.shape for block in predictions.logits] == [(len(rows), 5), (len(rows), 10)]
    assert all(block.dtype == np.float16 for block in predictions.logits)
    seen = [(predictions.truth[:, :n] == 1).any(axis=1) for n in (5, 10)]
    assert (predictions.test_images == np.stack(seen)).all()


def test_stored_logits_are_those_of_the_model(small_jobs: Any) -> None:
    """Replayed by hand through the pieces of the run: the last model's logits on each image of the test set."""
    from cml_bench.runs.inputs import make_inputs
    from cml_bench.runs.isolation import isolated
    from cml_bench.runs.learn import Course
    from cml_bench.runs.plan import plan
    from cml_bench.runs.setup import make_backbone, make_model
    from cml_bench.training.context import RunContext

    (job,) = small_jobs()
    predictions = run_job(job).predictions
    resolved = plan(job)
    sources = resolved.benchmark.sources()
    with isolated(job.seed, 1):
        backbone = make_backbone(resolved, sources)
        train, test = make_inputs(resolved, backbone, sources, job.seed, lambda message: None)
        scenario = resolved.benchmark.build(train_inputs=train, test_inputs=test)
        model = make_model(resolved, backbone)
        run = RunContext(job.seed, resolved.training, model, resolved.criterion(), scenario.oracle)
        for _ in Course(resolved, run, scenario, []):
            pass
        model.eval()
        with torch.no_grad():
            one_by_one = torch.cat([model(test.fetch(torch.tensor([i]), training=False)) for i in range(40)])
    rows = predictions.sample_ids
    assert np.allclose(one_by_one.numpy()[rows], predictions.logits[-1].astype(np.float32), atol=2e-2, rtol=2e-3)


def test_signs_of_life(small_jobs: Any, tmp_path: Path) -> None:
    events: list[Event] = []
    (job,) = small_jobs(epochs=3)

    def report(event: Event) -> None:
        # What is reported as done must be on disk.
        assert event.kind != "done" or is_done(tmp_path, job)
        events.append(event)

    run_and_store(job, tmp_path, index=7, report=report)
    assert all(event.job == 7 for event in events)
    kinds = [event.kind for event in events]
    assert (kinds[0], kinds[-1]) == ("start", "done")
    epochs = [(event.experience, event.epoch) for event in events if event.kind == "epoch"]
    assert epochs == [(t, epoch) for t in (0, 1) for epoch in (1, 2, 3)]
    fractions = [event.fraction for event in events if event.kind == "epoch"]
    assert fractions == pytest.approx([(t * 3 + epoch) / 6 for t, epoch in epochs])
    assert all(event.loss is not None and event.loss > 0 for event in events if event.kind == "epoch")


def test_label_counts_are_of_their_labels_under_any_order(small_jobs: Any) -> None:
    (job,) = small_jobs()
    job = dataclasses.replace(job, class_order="random:3")
    train, _ = digits_sources(n_train=40, n_test=40)
    shown = (train.labels == 1).sum(axis=0).tolist()
    counts = run_job(job).result["data"]["train"]["label_counts"]
    assert counts == dict(zip(train.label_names, shown, strict=True))
    assert list(counts) != list(train.label_names)


def test_all_private_draws_follow_the_seed(small_jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the first weights alone: the order of batches, what a memory keeps, and how images are augmented."""
    seeds: set[int] = set()
    draw, inputs = context.private_generator, run.make_inputs

    def drawn(seed: int, purpose: str) -> torch.Generator:
        seeds.add(seed)
        return draw(seed, purpose)

    def made(plan: Any, backbone: Any, sources: Any, seed: int, progress: Any) -> Any:
        seeds.add(seed)
        return inputs(plan, backbone, sources, seed, progress)

    monkeypatch.setattr(context, "private_generator", drawn)
    monkeypatch.setattr(run, "make_inputs", made)
    (job,) = small_jobs(["er memory_size=10"], seeds=[3], augment="true")
    run_job(job)
    assert seeds == {3}


@pytest.mark.parametrize(("said", "stored"), [(1e5, 60000), (-1e5, -60000), (500.0, 500)])
def test_logits_beyond_float16_are_bounded(
    small_jobs: Any, monkeypatch: pytest.MonkeyPatch, said: float, stored: float
) -> None:
    predict = run.predict
    monkeypatch.setattr(run, "predict", lambda *args: torch.full_like(predict(*args), said))
    (job,) = small_jobs()
    assert (run_job(job).predictions.logits[0] == np.float16(stored)).all()


def test_predictions_are_in_order_of_ids_whatever_a_learner_shuffles() -> None:
    recorder = SimpleNamespace(result=lambda: (torch.tensor([2, 0, 1]), torch.tensor([[2.0], [0.0], [1.0]])))
    scenario = SimpleNamespace(n_seen=(1,), evaluation_experience=lambda *which: None)
    found = run.predict(SimpleNamespace(eval=lambda streams: None), recorder, scenario, 0)
    assert found.flatten().tolist() == [0, 1, 2]


@pytest.mark.parametrize(("schedule", "falls"), [("constant", False), ("cosine", True)])
def test_a_job_learns_at_the_rates_of_its_schedule(
    small_jobs: Any, monkeypatch: pytest.MonkeyPatch, schedule: str, falls: bool
) -> None:
    rates: list[float] = []
    step = torch.optim.SGD.step

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    (job,) = small_jobs(epochs=3, schedule=schedule, optimizer="sgd", lr=0.02, batch_size=8)
    run_job(job)
    assert max(rates) == pytest.approx(0.02, rel=0.05)
    assert (min(rates) < 0.01) == falls


def test_progress_goes_on_from_chunk_to_chunk(small_jobs: Any) -> None:
    events: list[Event] = []
    (job,) = small_jobs(online_chunk=7)
    images = run_job(job, report=events.append).result["benchmark"]["images_per_experience"]
    chunks = [-(-count // 7) for count in images]
    assert min(chunks) > 2
    expected = [(t + (chunk + 1) / count) / 2 for t, count in enumerate(chunks) for chunk in range(count)]
    assert [event.fraction for event in events if event.kind == "epoch"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("naive", {"epochs": 2}),
        ("naive", {"online_chunk": 7}),
        ("gdumb memory_epochs=3", {"epochs": 2}),
        ("gdumb memory_epochs=3", {"online_chunk": 7}),
        ("joint", {"epochs": 2}),
        ("naive", {"epochs": 2, "federated": "clients=2 rounds=2"}),
    ],
)
def test_trackers_see_epochs_in_the_order_of_training(small_jobs: Any, method: str, options: dict[str, Any]) -> None:
    events: list[Event] = []
    (job,) = small_jobs([method], **options)
    run_job(job, report=events.append)
    told = [(event.kind, event.step) for event in events if event.kind in ("epoch", "experience")]
    step, trained, expected = 0, False, []
    for kind, _ in told:
        # What is learnt by then is tested where it was learnt; a test without training stands apart.
        step += kind == "epoch" or not trained
        trained = kind == "epoch"
        expected.append((kind, step))
    assert told == expected


# -- other ways to run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        "avalanche.training.supervised:Naive",
        "avalanche.training.plugins:EWCPlugin ewc_lambda=0.1",
        "avalanche.training.supervised:Cumulative",
    ],
)
def test_plain_avalanche_code_is_a_method(small_jobs: Any, method: str) -> None:
    (job,) = small_jobs([method])
    made = run_job(job)
    assert [block.shape[1] for block in made.predictions.logits] == [5, 10]
    assert made.result["method"]["family"] == "avalanche"


@pytest.mark.parametrize("size", [4, 5, 7])
def test_online_streams_run_whatever_the_size_of_the_chunks(small_jobs: Any, size: int) -> None:
    (job,) = small_jobs(["er memory_size=10"], online_chunk=size, n_train=30)
    assert [block.shape[1] for block in run_job(job).predictions.logits] == [5, 10]


def test_online_streams_are_a_single_pass(small_jobs: Any) -> None:
    (job,) = small_jobs(online_chunk=5, epochs=2)
    with pytest.raises(CmlBenchError, match="set epochs=1 schedule=constant"):
        run_job(job)


def test_hyper_parameters_can_be_chosen_without_the_test_set(small_jobs: Any) -> None:
    (job,) = small_jobs(validation=0.5, evaluate_on="valid", test="all_images")
    made = run_job(job)
    assert len(made.predictions.sample_ids) == 20
    train = digits_sources(n_train=40, n_test=40)[0]
    rows = made.predictions.sample_ids.tolist()
    assert (made.predictions.truth == train.labels[rows]).all()
    (unheld,) = small_jobs(evaluate_on="valid")
    with pytest.raises(CmlBenchError, match=r"set validation=0\.2"):
        run_job(unheld)


@pytest.mark.parametrize("test", ["seen_images", "per_experience", "all_images"])
def test_images_to_evaluate_on_are_looked_for_before_training(small_jobs: Any, test: str) -> None:
    (job,) = small_jobs(validation=0.01, evaluate_on="valid", test=test)
    with pytest.raises(CmlBenchError, match=r"validation=0\.01 of 40 .* holds out none that experiences 1 to 2 test"):
        check_jobs([job])


def test_a_test_split_may_show_nothing_of_the_stream(tiny_source: Any, tiny_labels: Any) -> None:
    """It is refused only where nothing at all is tested: an experience without a test image has undefined metrics."""

    @dataclass(frozen=True, kw_only=True)
    class Late(Benchmark):
        def sources(self) -> tuple[Source, Source]:
            seen = tiny_labels(20, 4, 0)
            later = seen.copy()
            later[:, :2] = 0
            return tiny_source(seen), tiny_source(later, split="test")

    assert len(Late(increment=2).build().splits["test"].experiences[0]) == 0
    with pytest.raises(CmlBenchError, match="no image that experience 1 tests under test=seen_images"):
        Late(increment=2, first_experiences=1).build()
    Late(increment=2, first_experiences=1, test="all_images").build()
