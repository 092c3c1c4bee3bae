"""Federations: against averaging written out by hand, against no federation, and what strategies see of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from cml_bench.errors import CmlBenchError
from cml_bench.losses.bce import BCE
from cml_bench.metrics.per_user import per_user
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.model import MultiLabelModel
from cml_bench.registry import load
from cml_bench.runs.check import check_jobs
from cml_bench.runs.federated import FederatedCourse, shards
from cml_bench.runs.isolation import isolated
from cml_bench.runs.job import make_jobs
from cml_bench.runs.method import parse_method
from cml_bench.runs.plan import plan_method
from cml_bench.runs.run import run_job
from cml_bench.streams.dataset import MultiLabelDataset
from cml_bench.streams.orders import divide, protocol_name
from cml_bench.testing.toy import Toy
from cml_bench.training.context import RunContext
from cml_bench.training.template import MultiLabelTemplate

LR = 0.5


def course_on(scenario: Any, federated: str, method: str = "naive", **settings: Any) -> FederatedCourse:
    """A federation on features and a linear head; an epoch is one step of gradient descent, unless told else."""
    typed = {"federated": federated, "epochs": 2, "batch_size": 1000, "lr": LR, "optimizer": "sgd", "weight_decay": 0}
    typed |= {"schedule": "constant", "frozen": "true", **settings}
    parsed = parse_method(method)
    plan = plan_method(
        parsed, load("strategies", parsed.strategy), Toy(), {key: str(value) for key, value in typed.items()}
    )
    model = MultiLabelModel(None, LinearHead(6))
    return FederatedCourse(plan, RunContext(0, plan.training, model, BCE(), scenario.oracle), scenario, [])


def weights(course: FederatedCourse) -> torch.Tensor:
    """The linear head as one (n, 7) matrix, intercepts last."""
    head = course._run.model.head
    return torch.cat([torch.cat(list(head.weights)), torch.cat(list(head.biases))[:, None]], dim=1).detach().clone()


def descend(start: torch.Tensor, dataset: MultiLabelDataset, epochs: int, mu: float, momentum: torch.Tensor) -> Any:
    """Return the matrix after a round of gradient descent with momentum 0.9, and the momentum."""
    features = dataset.inputs.fetch(dataset.sample_ids.data, training=False).mean(dim=(2, 3))
    features = torch.cat([features, torch.ones(len(features), 1)], dim=1)
    labels, matrix = dataset.labels.data, start.clone()
    for _ in range(epochs):
        matrix.requires_grad_(True)
        known = (labels >= 0).float()
        logits = (features @ matrix.T)[:, : labels.shape[1]]
        loss = bce(logits, labels.float(), known, reduction="sum") / known.sum()
        (gradient,) = torch.autograd.grad(loss + mu / 2 * (matrix - start).square().sum(), matrix)
        momentum = 0.9 * momentum + gradient
        matrix = (matrix - LR * momentum).detach()
    return matrix, momentum


def part(experience: Any, rows: torch.Tensor) -> MultiLabelDataset:
    whole = experience.dataset
    return MultiLabelDataset.from_rows(whole.inputs, whole.sample_ids.data[rows], whole.labels.subset(rows))


@pytest.mark.parametrize("mu", [0.0, 0.3])
@pytest.mark.parametrize("optimizer", ["kept", "fresh"])
def test_against_rounds_written_out(tiny_scenario: Any, mu: float, optimizer: str) -> None:
    scenario = tiny_scenario(increment=6)
    with isolated(0, 1):
        course = course_on(scenario, f"clients=3 rounds=4 mu={mu} optimizer={optimizer}")
        matrix = weights(course)
        momenta = [torch.zeros_like(matrix)] * 3
        (experience,) = scenario.train_stream
        images = scenario.splits["train"].rows
        dealt = np.array_split(np.random.default_rng([0, 4]).permutation(images), 3)
        own = [part(experience, torch.from_numpy(np.flatnonzero(np.isin(images, rows)))) for rows in dealt]
        for _ in range(4):
            trained = []
            for client, dataset in enumerate(own):
                momentum = momenta[client] if optimizer == "kept" else torch.zeros_like(matrix)
                after, momenta[client] = descend(matrix, dataset, 2, mu, momentum)
                trained.append(len(dataset) / len(images) * after)
            matrix = torch.stack(trained).sum(dim=0)
        learner = next(course)
        torch.testing.assert_close(weights(course), matrix, rtol=1e-4, atol=1e-5)
        assert learner.model is course._run.model
        assert next(course, None) is None


def test_a_label_is_averaged_over_those_who_learn_it(tiny_scenario: Any) -> None:
    """Two clients, the second an experience behind: each brings the rows of the labels it learns by then."""
    scenario = tiny_scenario(increment=3, n=60)
    with isolated(0, 1):
        course = course_on(scenario, "clients=2 rounds=1 lag=1 optimizer=fresh")
        first, second = scenario.train_stream
        images = scenario.splits["train"].rows
        clients = np.array_split(np.random.default_rng([0, 4]).permutation(images), 2)
        zero = torch.zeros(3, 7)

        def of(experience: Any, client: int) -> MultiLabelDataset:
            return part(
                experience,
                torch.from_numpy(np.flatnonzero(np.isin(experience.dataset.sample_ids.data, clients[client]))),
            )

        # The second client has nothing to learn yet.
        after_first, _ = descend(weights(course), of(first, 0), 2, 0.0, zero)
        next(course)
        torch.testing.assert_close(weights(course), after_first, rtol=1e-4, atol=1e-5)
        seen: list[torch.Tensor] = []
        learner = course.clients[0].learner
        spy = SupervisedPlugin()
        spy.before_training_exp = lambda strategy, **kwargs: seen.append(weights(course))  # type: ignore[method-assign]
        learner.plugins.insert(0, spy)
        next(course)
        (start,) = seen
        ahead, _ = descend(start, of(second, 0), 2, 0.0, torch.zeros(6, 7))
        behind, _ = descend(start, of(first, 1), 2, 0.0, torch.zeros(6, 7))
        torch.testing.assert_close(weights(course), torch.cat([behind[:3], ahead[3:]]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("naive", {"augment": "true", "schedule": "one_cycle"}),
        ("er memory_size=20 head=dlfl", {"schedule": "cosine"}),
        pytest.param("lwf head=ctran", {}, marks=pytest.mark.slow),
        pytest.param("ewc fisher_samples=20", {}, marks=pytest.mark.slow),
        pytest.param("feature_distillation", {}, marks=pytest.mark.slow),
        ("ridge", {}),
        pytest.param("joint", {}, marks=pytest.mark.slow),
        pytest.param("joint head=krt", {}, marks=pytest.mark.slow),
        ("cumulative loss=clml+bce", {}),
        pytest.param("avalanche.training.supervised:Replay mem_size=10", {}, marks=pytest.mark.slow),
        pytest.param("avalanche.training.plugins:EWCPlugin ewc_lambda=0.1", {}, marks=pytest.mark.slow),
    ],
)
def test_one_client_is_no_federation(small_jobs: Any, method: str, options: dict[str, Any]) -> None:
    """Bit for bit, in any number of rounds: the optimiser goes on, and the mean of one model is that model."""
    (alone,) = small_jobs([method], increment=4, **{**options, "epochs": 3})
    (one_round,) = small_jobs([method], increment=4, **{**options, "epochs": 3}, federated="clients=1 rounds=1")
    (three,) = small_jobs([method], increment=4, **options, federated="clients=1 rounds=3")
    reference, *others = (run_job(job).predictions.logits for job in (alone, one_round, three))
    for logits in others:
        assert all(np.array_equal(a, b) for a, b in zip(reference, logits, strict=True))


def test_one_round_of_one_client_is_label_masking_with_its_own_model(small_jobs: Any) -> None:
    """Later rounds ask the model of the round, so only one round is alike."""
    (alone,) = small_jobs(["label_mask eps=0.05"])
    (one_round,) = small_jobs(["label_mask eps=0.05"], federated="clients=1 rounds=1")
    (twice,) = small_jobs(["label_mask eps=0.05"], epochs=2)
    (two_rounds,) = small_jobs(["label_mask eps=0.05"], federated="clients=1 rounds=2")
    a, b, c, d = (run_job(job).predictions.logits[-1] for job in (alone, one_round, twice, two_rounds))
    assert np.array_equal(a, b)
    assert not np.array_equal(c, d)


@pytest.mark.parametrize(
    "method",
    [
        *("er memory_size=9", "label_mask eps=0.02"),
        *(
            pytest.param(method, marks=pytest.mark.slow)
            for method in ("naive", "lwf", "podnet", "krt", "agcn", "joint")
        ),
        pytest.param("cumulative", marks=pytest.mark.slow),
    ],
)
def test_the_same_job_gives_the_same(small_jobs: Any, method: str) -> None:
    (job,) = small_jobs([method], increment=4, federated="clients=3 rounds=2 per_round=2 mu=0.01 lag=1")
    torch.manual_seed(5)
    first = run_job(job)
    torch.manual_seed(6)
    second = run_job(job)
    assert all(np.array_equal(a, b) for a, b in zip(first.predictions.logits, second.predictions.logits, strict=True))
    assert all(np.isfinite(block).all() for block in first.predictions.logits)
    record = first.result["federation"]
    assert (record["n_clients"], record["per_round"], record["lag"]) == (3, 2, 1)


def test_what_the_loss_of_one_client_froze_the_next_one_trains(
    small_jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ProbMCL freezes the encoder in its second phase, and the model is shared."""
    (job,) = small_jobs(["naive loss=probmcl"], federated="clients=2 rounds=1", epochs=2)
    seen: list[tuple[int, bool]] = []
    train = MultiLabelTemplate.training_epoch

    def watched(self: MultiLabelTemplate, **kwargs: Any) -> None:
        learns = all(parameter.requires_grad for parameter in self.model.parameters())
        seen.append((self.clock.train_exp_epochs, learns))
        train(self, **kwargs)

    monkeypatch.setattr(MultiLabelTemplate, "training_epoch", watched)
    run_job(job)
    assert len(seen) > 4
    assert all(learns for epoch, learns in seen if epoch == 0)


def test_epochs_of_all_rounds_are_those_of_an_experience(small_jobs: Any) -> None:
    """ProbMCL needs two."""
    (job,) = small_jobs(["naive loss=probmcl"], federated="clients=2 rounds=3", epochs=1)
    run_job(job)
    (refused,) = small_jobs(["naive loss=probmcl"], federated="clients=3 rounds=3 per_round=1", epochs=1)
    with pytest.raises(CmlBenchError, match="experiences have epochs=1"):
        run_job(refused)


class Counter(SupervisedPlugin):
    """Counts what a strategy is told."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.events.append("begins")
        assert strategy.train_epochs == 6

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self.events.append("epoch")

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.events.append("ends")


def test_an_experience_is_one_experience(tiny_scenario: Any) -> None:
    with isolated(0, 1):
        course = course_on(tiny_scenario(), "clients=2 rounds=3")
        counters = [Counter(), Counter()]
        for client, counter in zip(course.clients.values(), counters, strict=True):
            client.learner.plugins.append(counter)
        for stage, _ in enumerate(course):
            expected = ["begins", *["epoch"] * 6, "ends"] * (stage + 1)
            assert [counter.events for counter in counters] == [expected] * 2


def test_a_memory_holds_the_images_of_its_client(tiny_scenario: Any) -> None:
    with isolated(0, 1):
        course = course_on(tiny_scenario(), "clients=3 rounds=2", "er memory_size=100", batch_size=4)
        owned = course.clients[0].learner.plugins[0].buffer
        list(course)
        memories = [
            set(client.learner.plugins[0].buffer.buffer.sample_ids.data.tolist()) for client in course.clients.values()
        ]
    assert owned is course.clients[0].learner.plugins[0].buffer
    images = set(course._experiences[0].dataset.sample_ids.data.tolist())
    assert all(a.isdisjoint(b) for i, a in enumerate(memories) for b in memories[i + 1 :])
    assert images <= set().union(*memories)


def test_clients_are_drawn_for_each_round(tiny_scenario: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cml_bench.runs import client as module

    with isolated(0, 1):
        course = course_on(tiny_scenario(), "clients=5 rounds=20 per_round=2", epochs=1)
        trained: list[int] = []
        train = module.Client.train
        numbers = {id(client): number for number, client in course.clients.items()}

        def spy(self: Any, received: Any) -> None:
            trained.append(numbers[id(self)])
            train(self, received)

        monkeypatch.setattr(module.Client, "train", spy)
        next(course)
    pairs = [tuple(trained[i : i + 2]) for i in range(0, len(trained), 2)]
    assert len(pairs) == 20
    assert all(a < b for a, b in pairs)
    assert len(set(pairs)) > 5


def test_clients_that_are_never_drawn_are_not_made(tiny_scenario: Any) -> None:
    """Of 30 clients, three experiences of two rounds draw one each; the first one's learner evaluates."""
    with isolated(0, 1):
        course = course_on(tiny_scenario(), "clients=30 rounds=2 per_round=1", epochs=1)
        drawn = {number for rounds in course._rounds for numbers in rounds for number in numbers}
        assert set(course.clients) == drawn | {0}
        assert len(drawn) <= 6
        assert [learner.model for learner in course] == [course._run.model] * 3


def test_shards_are_the_clients_images_of_each_experience(tiny_scenario: Any) -> None:
    scenario = tiny_scenario()
    experiences = list(scenario.train_stream)
    rows = scenario.splits["train"].rows
    clients = [rows[::3], rows[1::3], rows[2::3]]
    found = shards(experiences, clients)
    for client, own in zip(clients, found, strict=True):
        for experience, positions in zip(experiences, own, strict=True):
            ids = experience.dataset.sample_ids.data
            assert ids[positions].tolist() == sorted(set(ids.tolist()) & set(client.tolist()))


# -- what is refused, what is stored -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options", "sentence"),
    [
        ("from_scratch", {}, "strategy from_scratch puts a new module into the model"),
        ("gdumb", {}, "strategy gdumb puts a new module into the model"),
        ("l3a", {}, "strategy l3a puts a new module into the model"),
        ("naive", {"online_chunk": 8, "schedule": "constant"}, "leave online_chunk out"),
        ("naive", {"federated": "clients=user rounds=1"}, "neither a number nor a group of digits (groups: none)"),
        ("naive", {"federated": "clients=41 rounds=1"}, "clients=41 cannot share"),
        ("naive", {"federated": "clients=3"}, "needs option 'rounds'"),
        ("naive federated='clients=3 round=1'", {}, "has no option 'round'"),
    ],
)
def test_what_cannot_be_federated_is_said_before_anything_runs(
    small_jobs: Any, method: str, options: dict[str, Any], sentence: str
) -> None:
    jobs = small_jobs([method], **{"federated": "clients=2 rounds=1", **options})
    with pytest.raises(CmlBenchError) as caught:
        check_jobs(jobs)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_method_may_bring_its_federation(small_jobs: Any) -> None:
    """So that a table can compare federations; the job is another one then."""
    plain, mine = small_jobs(["naive", "naive federated='clients=2 rounds=1'"])
    (shared,) = small_jobs(["naive"], federated="clients=2 rounds=1")
    assert len({plain.key, mine.key, shared.key}) == 3
    own, common = run_job(mine), run_job(shared)
    assert own.result["federation"] == common.result["federation"]
    assert "federation" not in run_job(plain).result
    assert np.array_equal(own.predictions.logits[-1], common.predictions.logits[-1])


def test_the_command_line(tmp_path: Path) -> None:
    words = ["run", "digits", "--method", "naive", "--seeds", "1", "--workers", "1", "--results", str(tmp_path)]
    words += ["--federated", "clients=3 rounds=2 mu=0.01"]
    for setting in ("n_train=40", "n_test=40", "epochs=1", "increment=5"):
        words += ["--set", setting]
    done = subprocess.run([sys.executable, "-m", "cml_bench.cli", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "federated=clients=3" in "".join(done.stdout.split())
    (path,) = tmp_path.rglob("*.json")
    result = json.loads(path.read_text())
    assert result["federation"]["mu"] == 0.01
    assert result["job"]["benchmark_options"]["federated"] == "clients=3 rounds=2 mu=0.01"
    assert path.with_suffix(".npz").is_file()


def test_users_of_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FLAIR's users are clients, and metrics are averaged over the users of the test images, federation or not."""
    from PIL import Image

    rng, photos = np.random.default_rng(0), []
    (tmp_path / "small_images").mkdir()
    for number in range(60):
        shown = [name for name in ("art", "food", "plant", "animal") if rng.random() < 0.5] or ["art"]
        partition = "train" if number < 40 else "test"
        entry = {"image_id": str(number), "user_id": f"{partition}{number % 7}", "partition": partition}
        photos.append({**entry, "labels": shown, "fine_grained_labels": shown})
        pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "small_images" / f"{number}.jpg")
    (tmp_path / "labels_and_metadata.json").write_text(json.dumps(photos))
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))
    options = [
        f"root={tmp_path}",
        "base=2",
        "increment=2",
        "epochs=1",
        "backbone=test_resnet",
        "image_size=32",
        "augment=false",
    ]
    alone, apart = (
        make_jobs(["flair"], ["naive"], ["default"], [0], [*options, *more])[0]
        for more in ([], ["federated=clients=user rounds=2 per_round=3"])
    )
    result = run_job(apart).result
    assert result["federation"]["n_clients"] == 7
    assert protocol_name(divide(17, 5, 4)) == load("benchmarks", "flair").meta.protocol
    for found in (result, run_job(alone).result):
        assert found["metrics"]["users"] == {"tested": 7, "undefined": 0}
        assert 0 < found["metrics"]["summary"]["last_user_map"] <= 1
    made = run_job(alone)
    users = np.array([photos[int(number)]["user_id"] for number in made.predictions.sample_ids])
    expected = per_user(made.predictions, users)["summary"]
    assert {name: made.result["metrics"]["summary"][name] for name in expected} == expected
