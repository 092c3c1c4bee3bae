"""A federation goes through a stream: clients learn in rounds, a server averages."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks import DatasetExperience
from avalanche.core import SupervisedPlugin
from avalanche.training.templates.base_sgd import BaseSGDTemplate
from torch import Tensor

from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError
from cml_bench.models.model import MultiLabelModel, nothing_learnt
from cml_bench.runs.client import Client, Received
from cml_bench.runs.learn import Course, progress
from cml_bench.runs.plan import Plan
from cml_bench.streams.dataset import MultiLabelDataset
from cml_bench.streams.dealing import Rows
from cml_bench.streams.scenario import MultiLabelScenario
from cml_bench.streams.timeline import set_label_attributes
from cml_bench.training.averaging import Average, label_tensors
from cml_bench.training.context import RunContext, private_generator
from cml_bench.training.federation import Federation, deal_clients, parse_federation
from cml_bench.training.state import LearnerState, Stored
from cml_bench.training.strategy import Strategy
from cml_bench.training.template import MultiLabelTemplate, SafePoint, pass_by


def make_course(
    plan: Plan,
    run: RunContext,
    scenario: MultiLabelScenario,
    extra: Sequence[SupervisedPlugin],
    at_safe_point: Callable[[SafePoint], None],
) -> Course | FederatedCourse:
    """Return the course of one learner, or of a federation if the plan asks for one; arguments as for both."""
    kind = FederatedCourse if plan.training.federated is not None else Course
    return kind(plan, run, scenario, extra, at_safe_point)


class FederatedCourse(Iterator[BaseSGDTemplate[Any, Any, Any]]):
    """Trains clients in rounds and gives a learner with the server's model out after each experience.

    One model is trained by all clients in turn, which begin with the server's weights; every client has its own
    learner: plugins, memory, criterion, optimiser, generators. To a strategy an experience is one experience, however
    many rounds it takes: what it does when one begins and ends, it does once, at the end with the averaged model. Where
    it then changes the model, the changes are averaged. What a criterion learns stays with its client (inferred). A
    client that is drawn in no round of an experience learns nothing of it. The server's model is evaluated by the
    first client's learner.

    With one client this is training without a federation, for the epochs of all rounds, bit for bit: the first client
    has the seed of the job, its optimiser state is kept, and the mean of one model is that model.

    All clients that are drawn in some round are made at the start, which takes about 0.03 s and 0.1 MB each; between
    rounds they hold no weights.

    Args:
        plan: The resolved method.
        run: The run's context.
        scenario: The stream.
        extra: Plugins of the caller (recording, progress).
        at_safe_point: Called after each round and each experience: the course can be stored then.

    Raises:
        CmlBenchError: If clients cannot be dealt, or the strategy cannot be trained in rounds.
    """

    def __init__(
        self,
        plan: Plan,
        run: RunContext,
        scenario: MultiLabelScenario,
        extra: Sequence[SupervisedPlugin],
        at_safe_point: Callable[[SafePoint], None] = pass_by,
    ) -> None:
        self.settings = settings_of(plan)
        self._run = run
        self._at_safe_point = at_safe_point
        # Stages that have begun; of the last one, how many rounds have been learnt, its end counted as one more.
        self._begun = 0
        self._learnt: int | None = None
        self._experiences = list(scenario.train_stream)
        # The optimisers need a parameter to start with, and a linear head without labels has none.
        run.model.train()
        run.model.adaptation(self._experiences[0])
        shares = shards(self._experiences, _clients(plan, scenario))
        looks_back = isinstance(plan.learner, Strategy) and type(plan.learner).curriculum is not Strategy.curriculum
        self._present = [
            [
                number
                for number, share in enumerate(shares)
                if looks_back or self._share(number, share, stage) is not None
            ]
            for stage in range(len(self._experiences))
        ]
        self._rounds = [self._draw(stage) for stage in range(len(self._experiences))]
        # The first one's learner evaluates; one that is never drawn is not made.
        drawn = {0}.union(*(numbers for rounds in self._rounds for numbers in rounds))
        self.clients = {
            number: Client(
                plan, _context_of(number, run, plan), self._stream(number, shares[number]), extra, self.settings
            )
            for number in sorted(drawn)
        }
        known = [*self.learners, [client.hooks for client in self.clients.values()]]
        self._state = LearnerState(known, run, scenario, extra)

    def _share(self, number: int, share: Sequence[Tensor], stage: int) -> Tensor | None:
        """Return which images of its experience a client has at a stage; None if none."""
        own = stage - number % (self.settings.lag + 1)
        return share[own] if own >= 0 and len(share[own]) else None

    def _stream(self, number: int, share: Sequence[Tensor]) -> Iterator[Sequence[DatasetExperience]]:
        """Yield what a client has at each stage, as wide as the labels that have arrived by then for anyone."""
        for stage, newest in enumerate(self._experiences):
            rows = self._share(number, share, stage)
            own = self._experiences[max(0, stage - number % (self.settings.lag + 1))]
            dataset = _part(own.dataset, torch.zeros(0, dtype=torch.int64) if rows is None else rows)
            if own is not newest:
                dataset = dataset.widened(newest.dataset.labels.names)
            yield [set_label_attributes(DatasetExperience(dataset=dataset))]

    @property
    def learners(self) -> list[BaseSGDTemplate[Any, Any, Any]]:
        """All that learn: one a client that is ever drawn."""
        return [client.learner for client in self.clients.values()]

    def __next__(self) -> BaseSGDTemplate[Any, Any, Any]:
        """Let the clients learn their next experience, or what is left of it."""
        if self._learnt is None:
            if self._begun == len(self._experiences):
                raise StopIteration
            self._begun, self._learnt = self._begun + 1, 0
            self._prepare()
            self._grow()
        parts: list[tuple[list[int], Callable[[Client, Received], None]]]
        parts = [(drawn, Client.train) for drawn in self._rounds[self._begun - 1]]
        parts.append((self._drawn(), Client.end))
        while self._learnt < len(parts):
            self._exchange(*parts[self._learnt])
            self._learnt += 1
            self._at_safe_point("round" if self._learnt < len(parts) else "experience")
        self._learnt = None
        return self.clients[0].learner

    def _drawn(self, rounds: int | None = None) -> list[int]:
        """Return the clients that are drawn in the first rounds of the current stage, in all if not said otherwise."""
        return sorted({number for drawn in self._rounds[self._begun - 1][:rounds] for number in drawn})

    def _prepare(self) -> None:
        """Let the clients look at what there is to train on at the current stage."""
        assert self._learnt is not None
        rounds = self._rounds[self._begun - 1]
        for number in self._drawn():
            drawn = [number in numbers for numbers in rounds]
            self.clients[number].prepare(self._begun - 1, sum(drawn), sum(drawn[: self._learnt]))

    def _grow(self) -> None:
        """Widen the model for the current stage: before anyone trains, so that all start from the same new rows."""
        model = self._run.model
        model.train()
        with nothing_learnt(model) if self._begun == 1 else nullcontext():
            model.adaptation(self._experiences[self._begun - 1])
            for number in self._drawn():
                for experience in self.clients[number].experiences:
                    model.adaptation(experience)
        model.to(self._run.training.device)

    def _draw(self, stage: int) -> list[list[int]]:
        """Return the clients of each round, ascending, out of those who have images."""
        present, generator = self._present[stage], private_generator(self._run.seed, f"clients {stage}")
        count = min(self.settings.per_round or len(present), len(present))
        draws = [torch.randperm(len(present), generator=generator)[:count] for _ in range(self.settings.rounds)]
        return [[present[i] for i in draw.sort().values.tolist()] for draw in draws]

    def _exchange(self, numbers: Iterable[int], act: Callable[[Client, Received], None]) -> None:
        """Hand the server's model out, let clients act on it one after the other, and take their mean."""
        model = self._run.model
        received = {name: value.detach().clone() for name, value in model.state_dict().items()}
        average = Average(label_tensors(model))
        for client in (self.clients[number] for number in numbers):
            if client.experiences:
                _load(model, received)
                act(client, received)
                average.add(model.state_dict(), client.images, client.learnt.labels)
        if average.images:
            _load(model, average.result())

    def store(self) -> Stored:
        """Return all that the clients know by now; see ``Course.store``."""
        with ExitStack() as at_rest:
            for learner in self.learners:
                if learner.experience is not None and isinstance(learner, MultiLabelTemplate):
                    at_rest.enter_context(learner.at_rest())
            stored = self._state.store(self._under_way())
        return Stored({**stored.tree, "begun": self._begun, "learnt": self._learnt}, stored.blocks)

    def resume(self, stored: Stored, done: int) -> str:
        """Go on where another course over the same stream was stored; see ``Course.resume``."""
        begun, learnt = progress(stored, done, len(self._experiences))
        rounds = self.settings.rounds
        if learnt is not None and learnt > rounds + 1:
            raise CmlBenchError(f"{learnt} of {rounds} rounds had been learnt")
        self._begun, self._learnt = begun, learnt
        if learnt is not None:
            self._prepare()
        self._state.restore(stored, self._under_way())
        return f"experience {begun}" + (f", round {learnt}" if learnt is not None and learnt <= rounds else "")

    def _under_way(self) -> list[DatasetExperience]:
        """Return what clients are training on between two rounds."""
        if self._learnt is None or self._learnt > self.settings.rounds:
            return []
        return [experience for number in self._drawn(self._learnt) for experience in self.clients[number].experiences]


def settings_of(plan: Plan) -> Federation:
    """Return the federation that a plan asks for.

    Raises:
        CmlBenchError: If the method or the stream cannot be trained in rounds.
    """
    assert plan.training.federated is not None
    meta = getattr(plan.learner, "meta", None)
    if meta is not None and not meta.federated:
        raise CmlBenchError(
            f"strategy {plan.method.strategy} puts a new module into the model, which clients cannot do in turn: leave "
            "federated out, or take another strategy"
        )
    if plan.benchmark.online_chunk:
        raise CmlBenchError("federated trains each experience in rounds, not in chunks: leave online_chunk out")
    return parse_federation(plan.training.federated)


def clients_of(plan: Plan, source: Source, rows: Rows) -> list[Rows]:
    """Return the training rows of each client: the same for every method and seed.

    Args:
        plan: The resolved method.
        source: The training images.
        rows: Those of them that the stream holds.

    Raises:
        CmlBenchError: If clients cannot be dealt, or the method or the stream not be trained in rounds.
    """
    return deal_clients(settings_of(plan), source, rows, plan.benchmark.stream_seed)


def _clients(plan: Plan, scenario: MultiLabelScenario) -> list[Rows]:
    split = scenario.splits["train"]
    return clients_of(plan, split.source, split.rows)


def shards(experiences: Sequence[DatasetExperience], clients: Sequence[Rows]) -> list[list[Tensor]]:
    """Return, for each client and experience, the ascending positions of the client's images in the experience."""
    found: list[list[Tensor]] = [[] for _ in clients]
    rows = np.concatenate(list(clients))
    owner = np.full(rows.max() + 1, -1)
    owner[rows] = np.repeat(np.arange(len(clients)), [len(own) for own in clients])
    for experience in experiences:
        of = owner[experience.dataset.sample_ids.data.numpy()]
        order = np.argsort(of, kind="stable")
        for share, part in zip(
            found, np.split(order, np.cumsum(np.bincount(of, minlength=len(clients)))[:-1]), strict=True
        ):
            share.append(torch.from_numpy(part))
    return found


def _part(dataset: MultiLabelDataset, rows: Tensor) -> MultiLabelDataset:
    """Return some images of a dataset."""
    return MultiLabelDataset.from_rows(dataset.inputs, dataset.sample_ids.data[rows], dataset.labels.subset(rows))


def federation_record(plan: Plan, scenario: MultiLabelScenario) -> dict[str, Any]:
    """Return what a result says of its federation: settings, and how many images its clients have."""
    sizes = [len(rows) for rows in _clients(plan, scenario)]
    return {
        **dataclasses.asdict(settings_of(plan)),
        "n_clients": len(sizes),
        "images": {"least": min(sizes), "mean": float(np.mean(sizes)), "most": max(sizes)},
    }


def _context_of(number: int, run: RunContext, plan: Plan) -> RunContext:
    """Return a client's context: the run's own for the first, else one with a seed and a criterion of its own."""
    if number == 0:
        return run
    criterion = plan.criterion(**plan.criterion_options).to(run.training.device)
    seed = zlib.crc32(f"{run.seed}:client {number}".encode()) >> 1
    return dataclasses.replace(run, seed=seed, criterion=criterion)


def _load(model: MultiLabelModel, state: Received) -> None:
    """Write weights into a model.

    Raises:
        CmlBenchError: If a client has changed its shape.
    """
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        raise CmlBenchError(
            f"the strategy changes the shape of the model while it trains ({error}): leave federated out"
        ) from None
