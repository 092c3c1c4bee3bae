"""The training loop against a bare PyTorch loop and against upstream's own template."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import loss_metrics
from avalanche.evaluation.metrics.loss import LossPluginMetric
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.losses.bce import BCE
from cml_bench.models.heads.head import HeadOutput
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.model import MultiLabelModel
from cml_bench.registry import load
from cml_bench.training.context import private_generator
from cml_bench.training.template import MultiLabelTemplate

Naive = load("strategies", "naive")


# -- arithmetic ------------------------------------------------------------------------------------------------------


def bare_loop(scenario: Any, optimizer: str, *, seed: int, epochs: int, batch_size: int, lr: float) -> list[Tensor]:
    """The same training without Avalanche, templates, datasets, heads or criteria: tensors and torch alone."""
    table = scenario.splits["train"].inputs.table
    truth = torch.from_numpy(scenario.splits["train"].truth)
    generator = private_generator(seed, "batches")
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        learner: torch.optim.Optimizer | None = None
        before = 0
        for rows, width in zip(scenario.splits["train"].experiences, scenario.n_seen, strict=True):
            bound = table.shape[1] ** -0.5
            weights.append(torch.empty(width - before, table.shape[1]).uniform_(-bound, bound).requires_grad_())
            biases.append(torch.zeros(width - before).requires_grad_())
            if learner is None:
                parameters = [*weights, *biases]
                learner = (
                    torch.optim.SGD(parameters, lr=lr, momentum=0.9)
                    if optimizer == "sgd"
                    else torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01, fused=True)
                )
            else:
                learner.add_param_group({"params": [weights[-1], biases[-1]]})
            rows = torch.from_numpy(rows)
            y = truth[rows, :width].clone()
            known = torch.zeros_like(y, dtype=torch.bool)
            known[:, before:] = True
            for _ in range(epochs):
                for chunk in torch.randperm(len(rows), generator=generator).split(batch_size):
                    learner.zero_grad()
                    z = F.linear(table[rows[chunk]], torch.cat(weights), torch.cat(biases))
                    mask = known[chunk].float()
                    total = F.binary_cross_entropy_with_logits(z, y[chunk].float(), mask, reduction="sum")
                    (total / mask.sum()).backward()
                    learner.step()
            before = width
    return [torch.cat(weights).detach(), torch.cat(biases).detach()]


@pytest.mark.parametrize(("optimizer", "weight_decay"), [("sgd", 0.0), ("adamw", 0.01)])
def test_equals_a_bare_loop_bit_for_bit(tiny_scenario: Any, learn: Any, optimizer: str, weight_decay: float) -> None:
    scenario = tiny_scenario(spatial=False)
    settings = {"seed": 3, "epochs": 3, "batch_size": 7, "lr": 0.05}
    learnt = learn(Naive(), scenario, optimizer=optimizer, weight_decay=weight_decay, **settings)
    head = learnt.model.head
    expected = bare_loop(scenario, optimizer, **settings)
    assert torch.equal(torch.cat(list(head.weights)), expected[0])
    assert torch.equal(torch.cat(list(head.biases)), expected[1])


def test_training_learns(tiny_scenario: Any, learn: Any) -> None:
    """One experience of all labels: the truth is linear in the features, so nearly all of it can be learnt."""
    scenario = tiny_scenario(n=120, base=6)
    learnt = learn(Naive(), scenario, epochs=60, lr=0.5)
    dataset = scenario.train_stream[0].dataset
    x, y, _ = dataset.batch(torch.arange(len(dataset)))
    hits = ((learnt.model(x) > 0) == (y == 1)).float().mean()
    assert hits > 0.95


# -- events ----------------------------------------------------------------------------------------------------------

EVENTS = sorted(name for name in dir(SupervisedPlugin) if name.startswith(("before_", "after_")))


def logging_plugin(log: list[str]) -> Any:
    """A plugin that handles every event there is, and notes what a handler could read at the time."""

    def handler(event: str) -> Any:
        def call(self: Any, strategy: Any, **kwargs: Any) -> None:
            clock = strategy.clock
            fields = None if strategy.mbatch is None else len(strategy.mbatch)
            log.append(
                f"{event} epoch={clock.train_exp_epochs} iteration={clock.train_exp_iterations} "
                f"experience={clock.train_exp_counter} training={strategy.is_training} "
                f"mode={strategy.model.training} fields={fields} loader={len(strategy.dataloader)}"
            )

        return call

    return type("Logging", (SupervisedPlugin,), {event: handler(event) for event in EVENTS})()


def make(kind: type, scenario: Any, plugins: list[Any], **options: Any) -> Any:
    torch.manual_seed(0)
    model = MultiLabelModel(None, LinearHead(6))
    model.train()
    model.adaptation(scenario.train_stream[0])
    if kind is MultiLabelTemplate:
        options["generator"] = torch.Generator().manual_seed(0)
    else:
        options.setdefault("evaluator", EvaluationPlugin(loggers=[]))
    return kind(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        criterion=BCE(),
        train_mb_size=8,
        train_epochs=2,
        eval_mb_size=16,
        plugins=plugins,
        **options,
    )


@pytest.mark.filterwarnings("ignore")
def test_plugins_are_called_as_upstream_calls_them(tiny_scenario: Any) -> None:
    logs: list[list[str]] = []
    for kind in (MultiLabelTemplate, SupervisedTemplate):
        scenario, log = tiny_scenario(), list[str]()
        learner = make(kind, scenario, [logging_plugin(log)])
        for experience in scenario.train_stream:
            learner.train(experience, eval_streams=[])
            learner.eval(scenario.test_stream[:1])
        logs.append(log)
    assert len(EVENTS) > 20
    assert {line.split()[0] for line in logs[1]} == set(EVENTS), "upstream does not send every event"
    assert logs[0] == logs[1]


def test_plugins_that_handle_one_event_get_just_that(tiny_scenario: Any) -> None:
    class Counting(SupervisedPlugin):
        count = 0

        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            self.count += 1

    scenario, plugin = tiny_scenario(), Counting()
    make(MultiLabelTemplate, scenario, [plugin]).train(scenario.train_stream[0], eval_streams=[])
    assert plugin.count == 2 * math.ceil(len(scenario.train_stream[0].dataset) / 8)


class CountingMetric(LossPluginMetric):
    """A metric that is asked for after every training iteration."""

    def __init__(self) -> None:
        super().__init__("iteration", "iteration", "train")
        self.calls = 0

    def update(self, strategy: Any) -> None:
        self.calls += 1
        super().update(strategy)

    def __str__(self) -> str:
        return "counting"


@pytest.mark.filterwarnings("ignore")
def test_metrics_of_an_evaluation_plugin_are_called(tiny_scenario: Any) -> None:
    scenario, metric = tiny_scenario(), CountingMetric()
    evaluator = EvaluationPlugin(metric, loss_metrics(epoch=True, stream=True), loggers=[])
    learner = make(MultiLabelTemplate, scenario, [], evaluator=evaluator)
    learner.train(scenario.train_stream[0], eval_streams=[])
    assert metric.calls == 2 * math.ceil(len(scenario.train_stream[0].dataset) / 8)
    assert any(name.startswith("Loss_Epoch") for name in evaluator.get_all_metrics())
    results = learner.eval(scenario.test_stream[:1])
    x, y, _ = scenario.test_stream[0].dataset.batch(torch.arange(len(scenario.test_stream[0].dataset)))
    loss = next(value for name, value in results.items() if name.startswith("Loss_Stream"))
    assert loss == pytest.approx(float(BCE()(learner.model(x), y)), rel=1e-5)


# -- what the criterion and plugins can read -------------------------------------------------------------------------


def test_criterion_sees_output_ids_and_epoch(tiny_scenario: Any, learn: Any) -> None:
    seen = []

    class Watching(BCE):
        def judge(self, output: Any, labels: Tensor, sample_ids: Any, epoch: int, view: Any) -> Tensor:
            if torch.is_grad_enabled():
                seen.append((type(output), output.pooled.shape[0], sample_ids.tolist(), epoch))
            return super().judge(output, labels, sample_ids, epoch, view)

    scenario = tiny_scenario()
    learn(Naive(), scenario, criterion=Watching(), stop_after=1, epochs=2, batch_size=6)
    rows = sorted(scenario.train_stream[0].dataset.sample_ids.data.tolist())
    for epoch in (0, 1):
        of_epoch = [entry for entry in seen if entry[3] == epoch]
        assert sorted(row for entry in of_epoch for row in entry[2]) == rows
        assert all(kind is HeadOutput and count == len(ids) for kind, count, ids, _ in of_epoch)


def test_epoch_loss_is_the_mean_over_steps(tiny_scenario: Any, learn: Any) -> None:
    class Keeping(SupervisedPlugin):
        def __init__(self) -> None:
            super().__init__()
            self.losses: list[float] = []
            self.means: list[tuple[float, float]] = []

        def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            self.losses.append(strategy.loss.item())

        def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
            self.means.append((strategy.epoch_loss, sum(self.losses) / len(self.losses)))
            self.losses = []

    keeping = Keeping()
    learn(Naive(), tiny_scenario(), extra=[keeping])
    assert len(keeping.means) == 6
    for reported, expected in keeping.means:
        assert reported == pytest.approx(expected, rel=1e-5)


# -- a loss that is no number ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_named(tiny_scenario: Any, learn: Any, value: float) -> None:
    class Breaking(SupervisedPlugin):
        def before_backward(self, strategy: Any, **kwargs: Any) -> None:
            clock = strategy.clock
            if (clock.train_exp_counter, clock.train_exp_epochs, clock.train_epoch_iterations) == (1, 2, 1):
                strategy.loss += value

    scenario = tiny_scenario()
    steps = math.ceil(len(scenario.train_stream[1].dataset) / 8)
    with pytest.raises(CmlBenchError) as caught:
        learn(Naive(), scenario, extra=[Breaking()], epochs=4, lr=0.125)
    assert str(caught.value) == (
        f"the loss became {value} in experience 2, epoch 3, step 2 of {steps} with lr=0.125: lower lr"
    )


def test_a_loss_that_was_never_finite_is_not_laid_on_the_learning_rate(tiny_scenario: Any, learn: Any) -> None:
    class Breaking(SupervisedPlugin):
        def before_backward(self, strategy: Any, **kwargs: Any) -> None:
            strategy.loss += math.nan

    with pytest.raises(CmlBenchError, match=r"step 1 of .*: nothing was learnt yet, so look at inputs, checkpoint and"):
        learn(Naive(), tiny_scenario(), extra=[Breaking()], lr=0.125)


def test_an_absurd_learning_rate_ends_in_a_sentence(tiny_scenario: Any, learn: Any) -> None:
    with pytest.raises(
        CmlBenchError, match=r"loss became (nan|inf) in experience 1, epoch \d+, step \d+ of \d+ with lr=1e\+38"
    ):
        learn(Naive(), tiny_scenario(), lr=1e38, epochs=5)


class Shown(BCE):
    """Notes what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.datasets: list[list[int]] = []

    def start_experience(self, dataset: Any) -> None:
        self.datasets.append(dataset.sample_ids.data.tolist())


@pytest.mark.parametrize("protocol", [{}, {"online_chunk": 6}])
def test_a_criterion_is_shown_each_experience_or_chunk_once(
    tiny_scenario: Any, learn: Any, protocol: dict[str, int]
) -> None:
    """Upstream makes the optimiser twice for the first experience, and for no chunk but the first."""
    criterion = Shown()
    learn(Naive(), tiny_scenario(**protocol), criterion=criterion, epochs=1)
    streamed = [e.dataset.sample_ids.data.tolist() for e in tiny_scenario(**protocol).train_stream]
    assert criterion.datasets == streamed


@pytest.mark.parametrize("protocol", [{}, {"online_chunk": 6}])
def test_labels_are_counted_once_and_estimates_share_a_group(
    tiny_scenario: Any, learn: Any, protocol: dict[str, int]
) -> None:
    scenario = tiny_scenario(**protocol)
    counted, estimating = (load("criteria", name)() for name in ("db", "role"))
    learn(Naive(), scenario, criterion=counted, epochs=1)
    present = torch.zeros(6)
    for experience in scenario.train_stream:
        present[: experience.dataset.labels.data.shape[1]] += (experience.dataset.labels.data == 1).sum(dim=0)
    assert counted.present.tolist() == present.tolist()
    learnt = learn(Naive(), scenario, criterion=estimating, epochs=1, stop_after=2)
    groups = learnt.template.optimizer.param_groups
    assert len(groups) == 2
    assert {id(p) for p in groups[1]["params"]} == {id(p) for p in estimating.parameters()}


# -- growth ----------------------------------------------------------------------------------------------------------


class StateWatcher(SupervisedPlugin):
    """Copies the optimiser's state before growth and compares it after."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: dict[Any, dict[str, Tensor]] = {}
        self.growths = 0

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.stored = {
            parameter: {name: value.clone() for name, value in state.items() if isinstance(value, Tensor)}
            for parameter, state in strategy.optimizer.state.items()
        }

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        if not self.stored:
            return
        self.growths += 1
        listed = [parameter for group in strategy.optimizer.param_groups for parameter in group["params"]]
        assert len({id(parameter) for parameter in listed}) == len(listed)
        assert {id(parameter) for parameter in listed} == {id(p) for p in strategy.model.parameters()}
        assert len(listed) == len(self.stored) + 2, "growth adds one weight and one bias block"
        for parameter, state in self.stored.items():
            assert state
            now = strategy.optimizer.state[parameter]
            assert all(torch.equal(now[name], value) for name, value in state.items())


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_optimiser_state_outlives_growth(tiny_scenario: Any, learn: Any, optimizer: str) -> None:
    watcher = StateWatcher()
    learn(Naive(), tiny_scenario(), optimizer=optimizer, extra=[watcher])
    assert watcher.growths == 2


def test_evaluation_of_future_experiences_never_grows(tiny_scenario: Any, learn: Any) -> None:
    scenario = tiny_scenario()
    learnt = learn(Naive(), scenario, stop_after=1)
    before = {name: value.clone() for name, value in learnt.state().items()}
    learnt.template.eval(scenario.test_stream)
    after = learnt.state()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert learnt.model.head.n_labels == 2


def test_a_stream_in_another_order_than_the_head_is_refused(tiny_scenario: Any, learn: Any) -> None:
    learnt = learn(Naive(), tiny_scenario(), stop_after=1)
    other = tiny_scenario(class_order="random:1")
    with pytest.raises(ValueError, match="not in the order"):
        learnt.template.train(other.train_stream[1], eval_streams=[])
