"""Criteria that are put on another one: what the inner one needs, the outer one asks for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from cml_bench.data.inputs import TensorInputs
from cml_bench.errors import CmlBenchError
from cml_bench.losses.role import ROLE
from cml_bench.losses.similarity_dissimilarity import SimilarityDissimilarity
from cml_bench.losses.specification import as_criterion
from cml_bench.registry import load
from cml_bench.runs.method import parse_method
from cml_bench.runs.plan import Plan, plan_method
from cml_bench.testing.toy import Toy

Naive = load("strategies", "naive")


def planned(method: str) -> Plan:
    parsed = parse_method(method)
    return plan_method(parsed, load("strategies", parsed.strategy), Toy(), {})


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ("er_ace loss=assume_negative+splc", "loss=splc reads more than logits, and strategy er_ace gives no more"),
        ("avalanche.training:Naive loss=assume_negative+role", "loss=role reads more than logits"),
        ("naive loss=assume_negative+mulcon", "loss=mulcon compares features of labels, and head=linear has one"),
        ("naive loss=clml+c_gmvae", "loss=c_gmvae is about what head=c_gmvae has and head=linear has not"),
        ("naive head=dlfl loss=mulcon+prompt_consistency", "loss=prompt_consistency is about what head=hp_dval has"),
        ("naive loss=assume_negative+clml+mulcon", "loss=mulcon compares features of labels"),
        ("naive head=dlfl loss=clml+mulcon epochs=1", "loss=mulcon contrasts from epoch 1 on, but experiences have"),
        ("naive loss=probmcl epochs=1", "loss=probmcl trains in two phases, but experiences have epochs=1"),
        ("naive loss=clml loss.base=torch.nn:BCELoss", "'torch.nn:BCELoss' is no criterion: give a subclass of"),
        ("naive loss=clml loss.base='asl clip=2'", "asl: clip=2.0 must be at least 0 and below 1"),
    ],
)
def test_a_base_that_would_not_get_what_it_reads_is_refused(method: str, sentence: str) -> None:
    with pytest.raises(CmlBenchError) as caught:
        planned(method)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("method", ["naive loss=clml+role", "naive head=dlfl loss=clml+mulcon", "er_ace loss=an"])
def test_a_base_that_gets_what_it_reads_is_planned(method: str) -> None:
    planned(method)


def test_the_layers_of_a_criterion() -> None:
    names = [layer.meta.name for layer in as_criterion("clml+assume_negative+asl").with_bases]
    assert names == ["clml", "assume_negative", "asl"]
    assert [as_criterion(text).views for text in ("clml+bce", "mulcon+bce", "clml+mulcon")] == [1, 2, 2]


def test_a_base_that_compares_views_gets_two(tiny_scenario: Any, learn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that are augmented, each in its own way."""
    views, fetched, original = [], [], TensorInputs.fetch

    class Look(SupervisedPlugin):
        def after_forward(self, strategy: Any, **kwargs: Any) -> None:
            views.append(strategy.second_view)
            assert not torch.allclose(strategy.second_view.pooled, strategy.head_output.pooled)

    def fetch(self: TensorInputs, rows: torch.Tensor, *, training: bool) -> torch.Tensor:
        fetched.append(training)
        images = original(self, rows, training=training)
        return images + len(fetched) if training else images

    monkeypatch.setattr(TensorInputs, "augments", True)
    monkeypatch.setattr(TensorInputs, "fetch", fetch)
    learn(Naive(), tiny_scenario(), criterion=as_criterion("clml+similarity_dissimilarity"), extra=[Look()])
    assert views
    assert fetched.count(True) == 2 * len(views)


def test_each_layer_is_trained_at_its_own_rate(tiny_scenario: Any, learn: Any) -> None:
    role = ROLE(k=2)
    criterion = SimilarityDissimilarity(role)
    rates: dict[str, set[float]] = {"role": set(), "contrast": set()}

    class Look(SupervisedPlugin):
        def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            for group in strategy.optimizer.param_groups:
                held = {id(parameter) for parameter in group["params"]}
                assert len(held) == len(group["params"])
                for name, part in (("role", role), ("contrast", criterion.projector)):
                    own = {id(parameter) for parameter in part.parameters()}
                    assert own <= held or not own & held
                    if own <= held:
                        rates[name].add(group["lr"])

    learn(Naive(), tiny_scenario(), criterion=criterion, extra=[Look()], lr=0.01, schedule="constant")
    assert rates == {"role": {10 * 0.01}, "contrast": {0.01}}
    assert len(role.blocks) == 3


def test_spare_is_that_of_the_base() -> None:
    criterion = as_criterion("clml+assume_negative+hill")
    criterion.spare = 2
    assert [layer.spare for layer in criterion.with_bases] == [2, 2, 2]
    labels = torch.full((3, 2), -1, dtype=torch.int8)
    assert float(as_criterion("an")(torch.randn(3, 2), labels)) > 0
    assert as_criterion("an").title == as_criterion("assume_negative").title == "AN (BCE)"
