"""MIR: which candidates a virtual step harms most, against copies of the model that take that step."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import MIRPlugin as UpstreamMIR
from torch import nn

from cml_bench.errors import CmlBenchError
from cml_bench.losses.assume_negative import AssumeNegative
from cml_bench.losses.bce import BCE
from cml_bench.registry import entries, load

MIR, Naive = load("strategies", "mir"), load("strategies", "naive")
interference = load("strategies", "cml_bench.strategies.mir:interference")
look_ahead = load("strategies", "cml_bench.strategies.mir:look_ahead")


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_worked_example() -> None:
    labels = torch.tensor([[1, 0], [1, 0]])
    now, then = torch.tensor([[2.0, -2.0], [0.0, 0.0]]), torch.tensor([[0.0, -2.0], [0.5, 0.0]])
    assert interference(BCE(), now, then, labels).tolist() == pytest.approx([0.283, -0.110], abs=5e-4)


def test_an_image_without_a_known_label_comes_last() -> None:
    labels = torch.tensor([[-1, -2], [1, -2], [-2, -1]])
    harm = interference(BCE(), torch.zeros(3, 2), torch.ones(3, 2), labels)
    assert harm[[0, 2]].tolist() == [-torch.inf] * 2
    assert harm[1] < 0


def test_open_labels_count_where_the_criterion_learns_from_them() -> None:
    """Taken for absent, they make the first image the one that a step harms most."""
    labels = torch.tensor([[-1, -1], [1, 0], [-2, -2]])
    now, then = torch.zeros(3, 2), torch.tensor([[2.0, 2.0], [-0.1, 0.1], [3.0, 3.0]])
    harm = interference(AssumeNegative("bce"), now, then, labels)
    assert int(harm.argmax()) == 0
    assert harm[2] == -torch.inf


@pytest.mark.parametrize(
    "name", [entry.name for entry in entries("criteria").values() if entry.facts.get("reads", "logits") == "logits"]
)
def test_each_image_has_the_criterions_own_loss(name: str) -> None:
    criterion = load("criteria", name)()
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(-2, 2, (20, 5), generator=generator).to(torch.int8)
    labels[:, 0] = torch.arange(20) % 2
    now, then = torch.randn(2, 20, 5, generator=generator)
    expected = [
        float(criterion(b[None], y[None]) - criterion(a[None], y[None]))
        for a, b, y in zip(now, then, labels, strict=True)
    ]
    assert interference(criterion, now, then, labels).tolist() == pytest.approx(expected, abs=1e-6)


class Net(nn.Module):
    """Batch norm, a parameter out of use, a frozen one."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear, self.idle = nn.BatchNorm1d(4), nn.Linear(4, 3), nn.Linear(2, 2)
        self.linear.bias.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(self.norm(x))
        return logits


@pytest.mark.parametrize("lr", [0.0, 0.3])
def test_looking_ahead_is_a_gradient_step_on_a_copy(lr: float) -> None:
    torch.manual_seed(0)
    model, x, y = Net(), torch.randn(8, 4), torch.randn(5, 4)
    with torch.random.fork_rng(devices=[]):
        loss = model(x).square().mean()
    before = copy.deepcopy(model.state_dict())
    now, then = look_ahead(model, loss, y, lr)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    copied = copy.deepcopy(model)
    optimizer = torch.optim.SGD([p for p in copied.parameters() if p.requires_grad], lr=lr)
    start = copy.deepcopy(copied.norm.state_dict())
    copied(x).square().mean().backward()
    optimizer.step()
    for name in ("running_mean", "running_var"):
        getattr(copied.norm, name).copy_(start[name])
    with torch.no_grad():
        assert torch.allclose(then, copied.eval()(y), atol=1e-6)
        assert torch.allclose(now, model.eval()(y), atol=1e-6)
    assert torch.equal(now, then) == (lr == 0.0)
    loss.backward()  # the graph is still there


class Copies(SupervisedPlugin):
    """Chooses anew: a copy of the model takes the step, each candidate's loss is read by itself."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.steps = 0
        self.elsewhere = 0

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        plugin = strategy.plugins[0]

        def draw(*args: Any) -> Any:
            batch = type(plugin).draw(plugin, *args)
            self.choose(strategy, batch)
            return batch

        def loss(strategy: Any, batch: Any) -> Any:
            assert batch.sample_id.tolist() == self.chosen
            return type(plugin).loss(plugin, strategy, batch)

        plugin.draw, plugin.loss = draw, loss

    def choose(self, strategy: Any, batch: Any) -> None:
        moved = copy.deepcopy(strategy.model)
        strategy._criterion(moved(strategy.mb_x), strategy.mb_y).backward()
        torch.optim.SGD(moved.parameters(), lr=self.lr).step()
        rise = []
        for x, y in zip(batch[0], batch[1], strict=True):
            then, now = (strategy._criterion(model.eval()(x[None]), y[None]) for model in (moved, strategy.model))
            rise.append((then - now).item())
        strategy.model.train()
        order = sorted(range(len(rise)), key=lambda i: -rise[i])[:3]
        self.chosen = batch.sample_id[order].tolist()
        self.elsewhere += self.chosen != batch.sample_id[:3].tolist()
        self.steps += 1


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_most_harmed_are_replayed(tiny_scenario: Any, learn: Any, optimizer: str) -> None:
    copies = Copies(0.1)
    strategy = MIR(memory_size=30, replay_batch_size=3, candidates=9)
    learn(strategy, tiny_scenario(annotation="seen"), extra=[copies], epochs=1, lr=0.1, optimizer=optimizer)
    assert copies.steps > 5
    assert copies.elsewhere > copies.steps // 2


def test_by_default_one_in_five_is_replayed(tiny_scenario: Any, learn: Any) -> None:
    """The learner's batch is 8."""
    learnt = learn(MIR(memory_size=30), tiny_scenario(), stop_after=2, epochs=1)
    plugin, drawn, replayed = learnt.plugins[0], [], []
    plugin.draw = lambda *args: drawn.append(type(plugin).draw(plugin, *args)) or drawn[-1]
    plugin.loss = lambda strategy, batch: replayed.append(batch) or type(plugin).loss(plugin, strategy, batch)
    learnt.template.train(tiny_scenario().train_stream[2], eval_streams=[])
    assert 8 < len(plugin.memory) < 40, "else the number of candidates would show"
    assert {len(batch[0]) for batch in drawn} == {len(plugin.memory)}
    assert {len(batch[0]) for batch in replayed} == {8}


def test_candidates_that_leave_no_choice_are_refused(tiny_scenario: Any, learn: Any) -> None:
    with pytest.raises(CmlBenchError, match=r"candidates=8 leaves nothing to choose .* set candidates=40"):
        learn(MIR(candidates=8), tiny_scenario())


def test_of_equals_the_first(tiny_scenario: Any, learn: Any) -> None:
    learnt = learn(MIR(replay_batch_size=4), tiny_scenario(), stop_after=1)
    plugin, chosen, drawn = learnt.plugins[0], list[list[int]](), list[list[int]]()

    def draw(*args: Any) -> Any:
        batch = type(plugin).draw(plugin, *args)
        drawn.append(batch.sample_id[:4].tolist())
        return batch

    def loss(strategy: Any, batch: Any) -> Any:
        chosen.append(batch.sample_id.tolist())
        return type(plugin).loss(plugin, strategy, batch)

    plugin.draw, plugin.loss = draw, loss

    class Still(SupervisedPlugin):
        def before_forward(self, strategy: Any, **kwargs: Any) -> None:
            strategy.optimizer.param_groups[0]["lr"] = 0.0

    learnt.template.plugins.insert(0, Still())
    learnt.template.train(tiny_scenario().train_stream[1], eval_streams=[])
    assert chosen == drawn
    assert drawn


def test_scoring_leaves_batch_norm_alone(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    """Statistics move with the stream's pass and the chosen rows', not with the look at the candidates."""
    calls: list[tuple[bool, int]] = []

    class Passes(SupervisedPlugin):
        def before_training(self, strategy: Any, **kwargs: Any) -> None:
            if not calls:
                strategy.model.backbone.register_forward_hook(
                    lambda module, inputs, output: calls.append((module.training, len(inputs[0])))
                )

    learn(on_backbone(MIR(candidates=11, replay_batch_size=2)), tiny_scenario(), extra=[Passes()], stop_after=2)
    training = [size for mode, size in calls if mode]
    assert 11 not in training
    assert 2 in training
    assert (False, 11) in calls


@pytest.mark.parametrize("protocol", [{}, {"online_chunk": 6}])
def test_naive_without_a_memory(tiny_scenario: Any, learn: Any, protocol: dict[str, int]) -> None:
    naive = learn(Naive(), tiny_scenario(**protocol), epochs=1)
    assert same(learn(MIR(memory_size=0), tiny_scenario(**protocol), epochs=1), naive)
    assert not same(learn(MIR(), tiny_scenario(**protocol), epochs=1), naive)
    assert same(learn(MIR(), tiny_scenario(base=6)), learn(Naive(), tiny_scenario(base=6)))


def test_upstream_sorts_labels_not_images() -> None:
    """Of three images the third alone is harmed; upstream replays the first two, the positions of the two labels."""
    model, replayed = nn.Linear(2, 2, bias=False), []
    nn.init.eye_(model.weight)
    x = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 3.0]])
    plugin = UpstreamMIR(batch_size_mem=1, mem_size=3)
    plugin.replay_loader = iter([(x, torch.ones(3, 2), torch.zeros(3, dtype=torch.int64))])
    model.register_forward_hook(lambda module, inputs, output: replayed.append(inputs[0]))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    strategy = SimpleNamespace(model=model, device="cpu", optimizer=optimizer, _criterion=nn.BCEWithLogitsLoss())
    strategy.loss = model(torch.ones(1, 2)).sum()
    plugin.before_backward(strategy)
    assert replayed[-1].tolist() == [[[0.0, 0.0], [0.0, 0.0]]]
    labels = torch.ones(3, 2, dtype=torch.int8)
    assert int(interference(BCE(), *look_ahead(model, strategy.loss, x, 1.0), labels).argmax()) == 2
