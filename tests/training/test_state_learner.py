"""Whole learners are stored: any criterion and head, and a conformance check that sees what is kept elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from cml_bench.registry import entries, load
from cml_bench.runs.learn import Course
from cml_bench.testing import CHECKS
from cml_bench.testing.outcome import run_checks
from cml_bench.testing.strategies import StrategyCase
from cml_bench.testing.toy import toy_backbone, toy_scenario
from cml_bench.testing.trial import interrupted, try_out
from cml_bench.training.context import RunContext


def outcome(strategy: str) -> tuple[str, str]:
    check = {"resumes_exactly": CHECKS["resumes_exactly"]}
    (found,) = run_checks(check, StrategyCase(strategy), raise_on_failure=False)
    return found.status, found.detail


def sampled(names: Iterable[str], sample: set[str]) -> list[Any]:
    """All of them as parameters, those beyond a sample as slow tests."""
    return [pytest.param(name, marks=() if name in sample else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("loss", sampled(entries("criteria"), {"c_gmvae", "em_apl", "kmcl", "probmcl", "role"}))
def test_criteria_go_on_with_what_they_keep(loss: str) -> None:
    """Parameters of their own, buffers, and what is kept by image and label."""
    meta = load("criteria", loss).meta
    head = meta.head or "dlfl"
    plan = StrategyCase(f"er memory_size=10 head={head} loss={loss} lr=0.003").brief
    assert interrupted(plan).differs_from(try_out(plan)) is None


@pytest.mark.parametrize("head", sampled(entries("heads"), {"agcn", "ctran", "dlfl", "krt"}))
def test_heads_go_on(head: str) -> None:
    plan = StrategyCase(f"lwf head={head} lr=0.003").brief
    assert interrupted(plan).differs_from(try_out(plan)) is None


def written(folder: Path, body: str, *, top: str = "") -> str:
    path = folder / "mine.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "import threading\n"
        "from avalanche.core import SupervisedPlugin\n"
        "from cml_bench.training.strategy import Strategy, StrategyMeta\n"
        f"{top}\n"
        "@dataclass(frozen=True)\n"
        "class Mine(Strategy):\n"
        '    """Learn."""\n\n'
        '    meta = StrategyMeta(name="mine", title="Mine", family="test")\n\n'
        f"{body}"
    )
    return f"{path}:Mine"


PLUGIN = """
class Slower(SupervisedPlugin):
    def __init__(self):
        super().__init__()
        {start}

    def before_training_exp(self, strategy, **kwargs):
        {count}

    def before_training_epoch(self, strategy, **kwargs):
        for group in strategy.optimizer.param_groups:
            group["lr"] = 0.03 / {value}
"""
RETURN = "    def plugins(self, run):\n        return [Slower()]\n"


def test_a_count_in_an_attribute_goes_on(tmp_path: Path) -> None:
    """Helper objects as well, if their class is in the file of the strategy."""
    helper = "class Count:\n    def __init__(self, n):\n        self.n = n\n"
    count = "self.c = Count(self.c.n + 1 if self.c else 1)"
    top = helper + PLUGIN.format(start="self.c = None", count=count, value="self.c.n")
    assert outcome(written(tmp_path, RETURN, top=top)) == ("passed", "5 interruptions change no bit")


@pytest.mark.parametrize(
    ("plugin", "sentence"),
    [
        (
            {"start": "n.clear()", "count": "n.append(1)", "value": "(len(n) + 1)"},
            "logits after experience 2 differ if the run is interrupted before: keep state in attributes alone",
        ),
        (
            {"start": "self.lock = threading.Lock()", "count": "pass", "value": "2"},
            "in the middle of experience 1 the run goes on after whole experiences only, should it be interrupted: "
            "learner.plugins[0].lock is of the kind _thread:lock, which a checkpoint cannot hold: keep numbers, "
            "tensors, generators, datasets or objects made of these",
        ),
    ],
)
def test_the_check_sees_what_is_kept_elsewhere(tmp_path: Path, plugin: dict[str, str], sentence: str) -> None:
    strategy = written(tmp_path, RETURN, top="n = []\n" + PLUGIN.format(**plugin))
    assert outcome(strategy) == ("failed", sentence)


def test_the_check_sees_a_curriculum_that_looks_at_training(tmp_path: Path) -> None:
    """What it has not trained on when it is asked again, it remembers otherwise."""
    body = (
        "    def curriculum(self, stream, run):\n"
        "        trained = []\n"
        "        for chunks in stream:\n"
        "            trained.append(bool(run.model.head.biases[0].any()))\n"
        "            yield [*chunks, *chunks] if sum(trained) > 1 else chunks\n"
    )
    status, detail = outcome(written(tmp_path, body))
    assert status == "failed"
    assert detail.startswith("logits after experience 3 differ")


@pytest.mark.parametrize("method", ["er memory_size=40", "krt memory_size=40", "prs memory_size=40", "derpp"])
def test_a_stored_learner_has_no_images_in_it(method: str) -> None:
    """Memories are ids and labels; the last batch is let go of, gradients too."""
    plan, scenario = StrategyCase(method).plan, toy_scenario()
    backbone, width = toy_backbone("any")
    model = plan.learner.build_model(backbone, plan.head(width))
    course = Course(plan, RunContext(0, plan.training, model, plan.criterion(), scenario.oracle), scenario, [])
    next(course)
    next(course)
    tensors = [node for node in course.store().tree["nodes"] if node["kind"] in ("tensor", "parameter")]
    image = list(scenario.splits["train"].inputs.fetch(torch.tensor([0]), training=False)[0].shape)
    assert tensors
    assert not any(node["shape"][1:] == image for node in tensors)
    assert all(node["grad"] is None for node in tensors)
