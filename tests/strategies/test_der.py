"""DER: DER++ without labels, and the logits of the step in an online stream."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training import supervised as upstream

from cml_bench.registry import load

DER, DERpp, Naive = (load("strategies", name) for name in ("der", "derpp", "naive"))


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("protocol", [{}, {"online_chunk": 6}])
def test_is_derpp_without_labels(tiny_scenario: Any, learn: Any, protocol: dict[str, int]) -> None:
    options = {"memory_size": 12, "replay_batch_size": 5, "alpha": 0.7}
    der = learn(DER(**options), tiny_scenario(**protocol), epochs=1)
    assert same(der, learn(DERpp(**options, beta=0.0), tiny_scenario(**protocol), epochs=1))
    assert not same(der, learn(DERpp(**options), tiny_scenario(**protocol), epochs=1))


@pytest.mark.parametrize("protocol", [{}, {"online_chunk": 6}])
def test_zero_strength_is_naive(tiny_scenario: Any, learn: Any, protocol: dict[str, int]) -> None:
    naive = learn(Naive(), tiny_scenario(**protocol), epochs=1)
    assert same(learn(DER(alpha=0.0), tiny_scenario(**protocol), epochs=1), naive)
    assert same(learn(DER(memory_size=0), tiny_scenario(**protocol), epochs=1), naive)
    assert not same(learn(DER(), tiny_scenario(**protocol), epochs=1), naive)
    assert same(learn(DER(), tiny_scenario(base=6)), learn(Naive(), tiny_scenario(base=6)))


class Steps(SupervisedPlugin):
    """Notes what the model said of each stream image when the memory first took it in."""

    def __init__(self) -> None:
        super().__init__()
        self.said: dict[int, torch.Tensor] = {}
        self.widths: set[int] = set()

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        plugin = strategy.plugins[0]
        assert len(strategy.mb_output) == len(strategy.mbatch.sample_id), "memory rows pass on their own"
        stored = plugin.buffer.buffer.sample_ids.data.tolist()
        now = dict(zip(strategy.mbatch.sample_id.tolist(), strategy.mb_output.detach().clone(), strict=True))
        self.said = {row: self.said[row] if row in self.said else now[row] for row in stored}
        assert set(plugin.logits) == set(stored)
        assert all(torch.equal(plugin.logits[row], logits) for row, logits in self.said.items())
        assert not any(logits.requires_grad for logits in plugin.logits.values())
        assert all(logits.untyped_storage().nbytes() == logits.nbytes for logits in plugin.logits.values())
        self.widths |= {len(logits) for logits in plugin.logits.values()}


@pytest.mark.parametrize("size", [1000, 7, "2/label"])
def test_an_online_stream_stores_the_logits_of_the_step(tiny_scenario: Any, learn: Any, size: int | str) -> None:
    steps = Steps()
    learn(DER(memory_size=size), tiny_scenario(online_chunk=6), extra=[steps], epochs=1, batch_size=4)
    assert steps.widths == {2, 4, 6}


def test_upstream_needs_one_class_an_image(tiny_scenario: Any) -> None:
    model = torch.nn.Linear(6, 6)
    learner = upstream.DER(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(RuntimeError, match="multi-target not supported"):
        learner.train(tiny_scenario(spatial=False).train_stream[0])
