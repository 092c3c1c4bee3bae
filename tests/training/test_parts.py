"""The smaller parts of training: generators, settings, recorder, teacher, rehearsal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from cml_bench.errors import CmlBenchError
from cml_bench.labels import OUT_OF_SCOPE
from cml_bench.memory.reservoir import ReservoirBuffer
from cml_bench.registry import load
from cml_bench.streams.loading import BatchLoader
from cml_bench.training.config import TRAINING_KEYS, TrainingConfig
from cml_bench.training.context import private_generator
from cml_bench.training.optimizer import make_optimizer
from cml_bench.training.recorder import LogitRecorder
from cml_bench.training.relabel import TrueLabels
from cml_bench.training.replay import ReplayLoader, ReplayPlugin, draw, read_memory
from cml_bench.training.strategy import Strategy, StrategyMeta
from cml_bench.training.teacher import TeacherPlugin

Naive = load("strategies", "naive")


# -- private generators ----------------------------------------------------------------------------------------------


def test_generators_differ_by_seed_and_purpose_and_repeat() -> None:
    draws = {
        (seed, purpose): tuple(torch.rand(4, generator=private_generator(seed, purpose)).tolist())
        for seed in range(20)
        for purpose in ("batches", "reservoir", "replay", "fisher")
    }
    assert len(set(draws.values())) == len(draws)
    assert tuple(torch.rand(4, generator=private_generator(3, "replay")).tolist()) == draws[3, "replay"]


def test_generators_are_the_same_in_every_process() -> None:
    """Seed and purpose through crc32, by hand: a salted hash would differ from process to process."""
    checksum = 0xFFFFFFFF
    for byte in b"5:batches":
        checksum ^= byte
        for _ in range(8):
            checksum = checksum >> 1 ^ (0xEDB88320 if checksum & 1 else 0)
    expected = torch.Generator().manual_seed((5 << 32) + (checksum ^ 0xFFFFFFFF))
    found = private_generator(5, "batches")
    assert torch.equal(torch.rand(3, generator=expected), torch.rand(3, generator=found))


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"optimizer": "adan"}, "optimizer='adan' is unknown: did you mean 'adam'?"),
        ({"schedule": "cosin"}, "schedule='cosin' is unknown: did you mean 'cosine'?"),
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"batch_size": -4}, "batch_size=-4 must be at least 1"),
        ({"threads": 0}, "threads=0 must be at least 1"),
        ({"num_workers": 0}, "num_workers=0 must be at least 1"),
        ({"image_size": 0}, "image_size=0 must be at least 1"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0 must be at least 0"),
        ({"lr": 0.0}, "lr=0.0 must be positive"),
        ({"lr": float("nan")}, "lr=nan must be positive"),
        ({"frozen": True, "augment": True}, "set augment=false"),
    ],
)
def test_settings_that_cannot_train(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CmlBenchError) as caught:
        TrainingConfig(**settings)
    assert sentence in str(caught.value)


def test_training_keys_are_the_fields() -> None:
    assert set(vars(TrainingConfig())) == TRAINING_KEYS


# -- recorder --------------------------------------------------------------------------------------------------------


def test_recorder_keeps_the_last_evaluation_with_its_ids(tiny_scenario: Any, learn: Any) -> None:
    scenario = tiny_scenario()
    recorder = LogitRecorder()
    learnt = learn(Naive(), scenario, extra=[recorder], stop_after=2)
    for t in (0, 1):
        experience = scenario.evaluation_experience(t)
        learnt.template.eval([experience])
        ids, logits = recorder.result()
        assert ids.tolist() == experience.dataset.sample_ids.data.tolist()
        x = experience.dataset.batch(torch.arange(len(ids)))[0]
        with torch.no_grad():
            assert torch.allclose(logits, learnt.model(x), atol=1e-6)


# -- teacher ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Taught(Strategy):
    """Naive with a teacher that only watches."""

    meta = StrategyMeta(name="taught", title="Taught", family="test")

    def plugins(self, run: Any) -> list[SupervisedPlugin]:
        return [TeacherPlugin()]


def test_nobody_teaches_in_the_first_experience() -> None:
    with pytest.raises(CmlBenchError, match="no teacher in the first experience: ask it only where n_old is not 0"):
        TeacherPlugin().teach(torch.zeros(1, 3))


class Forgetful(TeacherPlugin):
    """A subclass that does not call ``super().__init__``."""

    def __init__(self) -> None:
        self.weight = 0.5


def test_a_teacher_works_without_a_call_of_its_init(tiny_scenario: Any, learn: Any) -> None:
    teacher = Forgetful()
    learn(Naive(), tiny_scenario(), extra=[teacher])
    assert teacher.n_old == 6


class TeacherWatcher(SupervisedPlugin):
    def __init__(self) -> None:
        super().__init__()
        self.teacher: TeacherPlugin
        self.widths: list[int] = []
        self.start: dict[str, torch.Tensor] = {}

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.teacher = next(p for p in strategy.plugins if isinstance(p, TeacherPlugin))
        self.widths.append(self.teacher.n_old)
        assert strategy._criterion.spare == self.teacher.n_old
        if self.teacher.teacher is not None and self.teacher.n_old not in self.widths[:-1]:
            assert not any(module.training for module in self.teacher.teacher.modules())
            assert not any(p.requires_grad for p in self.teacher.teacher.parameters())
            self.start = {name: value.clone() for name, value in self.teacher.teacher.state_dict().items()}
            for name, value in self.start.items():
                assert torch.equal(value, strategy.model.state_dict()[name]), "the teacher is not the old model"

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        if self.teacher.teacher is not None:
            state = self.teacher.teacher.state_dict()
            assert all(torch.equal(value, state[name]) for name, value in self.start.items())
            moved = strategy.model.state_dict()
            assert any(not torch.equal(value, moved[name]) for name, value in self.start.items())


def test_teacher_is_the_old_model_and_never_moves(tiny_scenario: Any, learn: Any) -> None:
    watcher = TeacherWatcher()
    scenario = tiny_scenario(annotation="seen")
    learn(Taught(), scenario, extra=[watcher])
    assert watcher.widths == [0, 2, 4]


@pytest.mark.parametrize("size", [4, 5, 17])
def test_chunks_of_one_experience_share_a_teacher(tiny_scenario: Any, learn: Any, size: int) -> None:
    """An online stream: the model of a moment ago would be no teacher."""
    scenario = tiny_scenario(online_chunk=size)
    watcher = TeacherWatcher()
    learn(Taught(), scenario, extra=[watcher], epochs=1)
    per_experience = [-(-len(rows) // size) for rows in scenario.splits["train"].experiences]
    assert watcher.widths == [0] * per_experience[0] + [2] * per_experience[1] + [4] * per_experience[2]


# -- rehearsal -------------------------------------------------------------------------------------------------------


def test_draws_are_distinct_and_uniform(tiny_dataset: Any) -> None:
    memory = tiny_dataset(range(10, 22), torch.zeros(12, 2))
    generator = torch.Generator().manual_seed(0)
    counts: Counter[int] = Counter()
    for _ in range(2000):
        ids = draw(memory, 3, generator).sample_id.tolist()
        assert len(set(ids)) == 3
        counts.update(ids)
    deviation = (2000 * 0.25 * 0.75) ** 0.5
    assert all(abs(counts[row] - 500) < 4.5 * deviation for row in range(10, 22))
    assert sorted(draw(memory, 99, generator).sample_id.tolist()) == list(range(10, 22))


def test_replay_loader_ends_each_stream_batch_with_memory_rows(tiny_dataset: Any) -> None:
    stream = tiny_dataset(range(7), torch.ones(7, 3))
    memory = tiny_dataset(range(100, 104), torch.zeros(4, 2))
    loader = ReplayLoader(BatchLoader(stream, 3), memory, 2, torch.Generator().manual_seed(0))
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert [batch.sample_id.tolist()[:-2] for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    for batch in batches:
        assert set(batch.sample_id.tolist()[-2:]) <= set(range(100, 104))
        assert batch[1][-2:].tolist() == [[0, 0, OUT_OF_SCOPE]] * 2
        assert batch[0][:, 0].tolist() == [float(row) for row in batch.sample_id.tolist()]


def test_memory_reads_as_stored_or_by_oracle(tiny_scenario: Any) -> None:
    scenario = tiny_scenario()
    memory = scenario.train_stream[1].dataset.subset([2, 0])
    names = scenario.label_names[:6]
    assert (read_memory(memory, names).labels.data[:, 4:] == OUT_OF_SCOPE).all()
    rows = memory.sample_ids.data.numpy()
    told = read_memory(memory, names, TrueLabels(scenario.oracle)).labels.data
    assert (told.numpy()[:, 2:] == scenario.splits["train"].truth[rows, 2:6]).all()
    # What came before the experience of an image, nobody tells.
    assert (told[:, :2] == OUT_OF_SCOPE).all()


def test_replay_plugin_shows_each_experience_once_and_rehearses_the_past(tiny_scenario: Any, learn: Any) -> None:
    scenario = tiny_scenario(assignment="disjoint")
    rehearsed: list[set[int]] = []

    @dataclass(frozen=True)
    class Rehearsing(Strategy):
        meta = StrategyMeta(name="rehearsing", title="R", family="test")

        def plugins(self, run: Any) -> list[SupervisedPlugin]:
            buffer = ReservoirBuffer(100, run.generator("reservoir"))
            return [ReplayPlugin(buffer, 4, run.generator("replay"))]

    class Watcher(SupervisedPlugin):
        def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            rehearsed.append(set())

        def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            own = set(strategy.experience.dataset.sample_ids.data.tolist())
            ids = strategy.mb_sample_id.tolist()
            stream = [row for row in ids if row in own]
            assert ids[: len(stream)] == stream, "memory rows come last"
            rehearsed[-1].update(ids[len(stream) :])
            assert strategy.mb_y.shape[1] == len(strategy.experience.dataset.labels.names)

    learn(Rehearsing(), scenario, extra=[Watcher()], epochs=20)
    experiences = [set(rows.tolist()) for rows in scenario.splits["train"].experiences]
    assert rehearsed == [set(), experiences[0], experiences[0] | experiences[1]]


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_an_optimizer_is_what_it_is_called(name: Any, kind: type[torch.optim.Optimizer]) -> None:
    config = TrainingConfig(optimizer=name, lr=0.3, weight_decay=0.07)
    optimizer = make_optimizer(config, torch.nn.Linear(2, 2))
    assert type(optimizer) is kind
    assert {group["lr"] for group in optimizer.param_groups} == {0.3}
    assert max(group["weight_decay"] for group in optimizer.param_groups) == 0.07
