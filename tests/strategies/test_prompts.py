"""Prompt strategies on a stream: what moves, what stays, what is read of the labels."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.training.supervised import LearningToPrompt
from torch import Tensor
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT
from cml_bench.losses.assume_negative import AssumeNegative
from cml_bench.losses.bce import BCE
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.prompts.model import PromptedModel
from cml_bench.registry import load
from cml_bench.runs.check import check_jobs
from cml_bench.runs.isolation import isolated
from cml_bench.runs.job import make_jobs
from cml_bench.runs.learn import Course, predict
from cml_bench.runs.method import parse_method
from cml_bench.runs.plan import plan_method
from cml_bench.runs.run import run_job
from cml_bench.runs.setup import assemble
from cml_bench.streams.scenario import MultiLabelScenario
from cml_bench.testing.strategies import StrategyCase
from cml_bench.testing.toy import Toy, ToySource, toy_backbone, toy_scenario
from cml_bench.testing.trial import try_out
from cml_bench.training.context import RunContext
from cml_bench.training.recorder import LogitRecorder

METHODS = (
    "l2p",
    "dualprompt",
    "coda_prompt",
    "multilane",
    pytest.param("dualprompt route=all", marks=pytest.mark.slow),
)
KEPT = {
    "l2p": ("backbone.", "head."),
    "dualprompt": ("backbone.", "head.", "prompts.experts.", "prompts.keys."),
    "coda_prompt": ("backbone.", "head.", "prompts."),
    "multilane": ("backbone.", "head.", "prompts."),
}
"""What no later experience may move by a bit."""


def toy(**options: Any) -> MultiLabelScenario:
    benchmark = Toy(**options)
    train, test = (source.inputs() for source in benchmark.sources() if isinstance(source, ToySource))
    return benchmark.build(train_inputs=train, test_inputs=test)


@dataclasses.dataclass
class Step:
    """After an experience: the live model, a copy of its parameters, logits of the test images."""

    model: PromptedModel
    state: dict[str, Tensor]
    logits: Tensor


def steps(
    method: str, scenario: MultiLabelScenario | None = None, criterion: Any = None, **settings: Any
) -> list[Step]:
    scenario = scenario or toy_scenario()
    plan = plan_method(parse_method(method), load("strategies", method.split()[0]), Toy(), {})
    training = dataclasses.replace(plan.training, epochs=2, weight_decay=0.1, **settings)
    plan = dataclasses.replace(plan, training=training)
    with isolated(0, 1):
        backbone, width = toy_backbone("vit")
        model = assemble(plan.learner, backbone, LinearHead(width))
        assert isinstance(model, PromptedModel)
        recorder = LogitRecorder()
        run = RunContext(0, training, model, criterion or BCE(), scenario.oracle)
        found = []
        for t, learner in enumerate(Course(plan, run, scenario, [recorder])):
            logits = predict(learner, recorder, scenario, t)
            state = {name: value.detach().clone() for name, value in model.state_dict().items()}
            found.append(Step(model, state, logits))
    return found


@pytest.mark.parametrize("method", METHODS)
def test_what_is_old_stays_to_the_bit(method: str) -> None:
    kept = KEPT[method.split()[0]]
    states = [step.state for step in steps(method)]
    for before, after in pairwise(states):
        moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
        assert not {name for name in moved if name.startswith(kept)}
        # The pool and the general prompts are everybody's.
        assert bool(moved) == (method.split()[0] in ("l2p", "dualprompt"))
    assert set(states[0]) < set(states[2]), "an experience must bring parameters of its own"


@pytest.mark.parametrize("method", METHODS)
def test_what_is_new_trains(method: str) -> None:
    trained, untrained = steps(method), steps(method, lr=1e-12)
    assert trained[-1].model.growth == [2, 2, 2]
    new: set[str] = set()
    for t in range(3):
        now = {name for name in trained[t].state if name.startswith("prompts.")}
        for name in now - new:
            far = (trained[t].state[name] - untrained[t].state[name]).abs().max()
            # A lane starts as a copy of a trained one, so that later ones differ in any case.
            assert far > 1e-3, name
        new |= now


def test_old_lanes_say_what_they_said() -> None:
    ran = list(steps("multilane"))
    for before, after in pairwise(ran):
        width = before.logits.shape[1]
        torch.testing.assert_close(after.logits[:, :width], before.logits, atol=1e-5, rtol=1e-5)
    # To the bit where the arithmetic is the same: the lanes alone, without the newer ones beside them.
    model, images = ran[-1].model.eval(), torch.randn(5, 3, 4, 4)
    lanes, stream = model.prompts, model.backbone.embed(images)
    old = slice(2)
    now = lanes.run(model.backbone, stream, list(lanes.selectors)[old], list(lanes.prefixes)[old])
    then = lanes.run(
        model.backbone,
        stream,
        [ran[1].state[f"prompts.selectors.{t}"] for t in range(2)],
        [ran[1].state[f"prompts.prefixes.{t}"] for t in range(2)],
    )
    assert torch.equal(now, then)


def test_coda_components_of_old_experiences_shape_prompts_but_do_not_train() -> None:
    *_, last = steps("coda_prompt")
    prompts = last.model.prompts.eval()
    query = last.model.backbone(torch.randn(4, 3, 4, 4))
    whole = prompts.select(query).prefixes[0]
    with torch.no_grad():
        prompts.components[0].zero_()
    assert not torch.allclose(prompts.select(query).prefixes[0], whole)


# -- labels --------------------------------------------------------------------------------------------------------


def turned_over(scenario: MultiLabelScenario) -> MultiLabelScenario:
    """Turn over every known entry of an old label."""
    for experience in scenario.train_stream:
        labels = experience.dataset.labels
        old = labels.data[:, : labels.first_new]
        old[old >= 0] = 1 - old[old >= 0]
    return scenario


@pytest.mark.parametrize("method", METHODS)
def test_old_labels_are_not_learnt_from_even_where_they_are_known(method: str) -> None:
    plain, other = toy(annotation="all"), turned_over(toy(annotation="all"))
    assert bool((plain.train_stream[1].dataset.labels.data[:, :2] >= 0).all())
    for one, two in zip(steps(method, plain), steps(method, other), strict=True):
        assert torch.equal(one.logits, two.logits)


def test_labels_of_the_experience_are_learnt_from() -> None:
    scenario = toy()
    labels = scenario.train_stream[2].dataset.labels.data
    labels[labels >= 0] = 1 - labels[labels >= 0]
    one, two = steps("multilane"), steps("multilane", scenario)
    assert [torch.equal(a.logits, b.logits) for a, b in zip(one, two, strict=True)] == [True, True, False]


def test_a_criterion_that_assumes_negatives_spares_old_labels() -> None:
    # Annotated for all that it brings, so that only old labels are open.
    seen = steps("multilane", criterion=AssumeNegative(scope="seen"))
    plain = steps("multilane")
    for one, two in zip(seen, plain, strict=True):
        assert torch.equal(one.logits, two.logits)


@pytest.mark.parametrize("method", METHODS)
def test_without_a_known_entry_the_head_stays(method: str) -> None:
    scenario = toy()
    for experience in scenario.train_stream:
        experience.dataset.labels.data[:] = OUT_OF_SCOPE
    plan = plan_method(parse_method(method), load("strategies", method.split()[0]), Toy(), {})
    training = dataclasses.replace(plan.training, epochs=1, lr=0.1)
    with isolated(0, 1):
        backbone, width = toy_backbone("vit")
        model = assemble(plan.learner, backbone, LinearHead(width))
        run = RunContext(0, training, model, BCE(), scenario.oracle)
        learner = Course(dataclasses.replace(plan, training=training), run, scenario, [])
        model.train()
        model.adaptation(scenario.train_stream[0])
        before = [parameter.detach().clone() for parameter in model.head.parameters()]
        next(learner)
        assert all(torch.equal(a, b) for a, b in zip(before, model.head.parameters(), strict=True))


def test_an_online_stream_brings_one_lane_an_experience() -> None:
    scenario = toy(online_chunk=20)
    assert len(list(scenario.train_stream)) > 3
    *_, last = steps("multilane", scenario)
    assert last.model.growth == [2, 2, 2]
    assert len(last.model.prompts.selectors) == 3


def test_the_published_multilane_loss_is_ours_times_a_factor_plus_a_constant() -> None:
    torch.manual_seed(0)
    n_new, n = 10, 80
    logits = torch.randn(6, n_new, requires_grad=True)
    labels = torch.where(torch.rand(6, n_new) < 0.3, PRESENT, ABSENT)
    ours = BCE().loss(logits, labels)
    # As released: logits and targets of other experiences are 0, and the mean goes over all labels of the stream.
    filled = F.pad(logits, (0, n - n_new))
    published = F.binary_cross_entropy_with_logits(filled, F.pad(labels, (0, n - n_new)).float())
    constant = math.log(2) * (n - n_new) / n
    assert constant == pytest.approx(0.6065, abs=5e-5)
    assert float(published.detach()) == pytest.approx(n_new / n * float(ours.detach()) + constant, rel=1e-5)
    (slope,) = torch.autograd.grad(published, logits)
    torch.testing.assert_close(slope, torch.autograd.grad(ours, logits)[0] * n_new / n)


def test_upstream_l2p_is_not_for_several_labels() -> None:
    # Avalanche fills the logits of other experiences with -inf: right before a softmax, NaN with one sigmoid a label.
    logits = torch.zeros(2, 4)
    stub = SimpleNamespace(
        experience=SimpleNamespace(classes_in_this_experience=[2, 3]),
        **{"use_cls_features": False, "use_vit": False, "use_mask": True, "is_training": True},
        **{"model": lambda x: logits, "mb_x": None, "num_classes": 4, "device": "cpu"},
    )
    filled = LearningToPrompt.forward(stub)
    assert filled[:, :2].isinf().all()
    assert F.binary_cross_entropy_with_logits(filled, torch.zeros(2, 4)).isnan()
    assert BCE().loss(logits, torch.tensor([[-2, -2, 0, 1]] * 2, dtype=torch.int8)).isfinite()


# -- the runner ----------------------------------------------------------------------------------------------------

OPTIONS = '[["depth", 5], ["embed_dim", 16], ["num_heads", 2]]'
SMALL_VIT = f"backbone=vit_tiny_patch16_224 'backbone_options={OPTIONS}'"


@pytest.mark.parametrize("method", METHODS)
def test_runs_on_images(method: str, small_jobs: Any) -> None:
    (job,) = small_jobs([f"{method} {SMALL_VIT}"])
    result = run_job(job).result
    assert result["status"] == "ok"
    assert result["backbone"]["name"] == "vit_tiny_patch16_224"
    assert result["cost"]["parameters"]["trainable"] < result["backbone"]["parameters"]


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ("multilane", "prompts the blocks of a Vision Transformer with a class token, and backbone 'test_resnet'"),
        ("coda_prompt frozen=true", "set frozen=false"),
        (f"l2p {SMALL_VIT} blocks=6", "prompts the first 6 blocks, and backbone 'vit_tiny_patch16_224' has 5"),
        (f"l2p {SMALL_VIT} top=8 pool_size=7", "top=8 prompts cannot be chosen from pool_size=7"),
        (f"dualprompt {SMALL_VIT} expert_length=5", "expert_length='5' of strategy dualprompt cannot be used"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_runs(method: str, sentence: str) -> None:
    with pytest.raises(CmlBenchError, match=sentence):
        check_jobs(make_jobs(["digits"], [method], ["default"], [0], ["n_train=40", "n_test=40"]))


@pytest.mark.parametrize("methods", [("l2p", "feature_distillation"), ("feature_distillation", "l2p")])
def test_a_sweep_is_checked_whatever_the_order_of_its_methods(small_jobs: Any, methods: tuple[str, ...]) -> None:
    """What one freezes of a backbone that jobs share is not frozen for the next."""
    check_jobs(small_jobs([f"{method} {SMALL_VIT}" for method in methods]))


@pytest.mark.parametrize(
    ("spec", "name", "shape"),
    [
        ("l2p pool_size=7 length=6 top=2 blocks=3", "prompts", (3, 7, 2, 3)),
        ("dualprompt general_length=4 expert_length=8", "general", (2, 2, 2)),
        ("coda_prompt components_per_experience=3 length=4 blocks=2", "components.0", (2, 3, 2, 2)),
        ("multilane selectors=3 prompts=4 blocks=2", "prefixes.0", (2, 2, 4)),
    ],
)
def test_sizes_of_prompts_are_those_asked_for(spec: str, name: str, shape: tuple[int, ...]) -> None:
    state = try_out(StrategyCase(spec).plan).learner.model.prompts.state_dict()
    assert state[name].shape[:-1] == shape
