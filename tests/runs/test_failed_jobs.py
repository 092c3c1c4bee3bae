"""How a job fails: in one sentence that is its result, before anything is trained where that can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cml_bench.errors import CmlBenchError
from cml_bench.runs.check import check_jobs
from cml_bench.runs.events import Event
from cml_bench.runs.job import make_jobs
from cml_bench.runs.results import result_path
from cml_bench.runs.run import run_and_store, run_job


def test_a_failed_job_leaves_its_sentence(small_jobs: Any, tmp_path: Path) -> None:
    (job,) = small_jobs(["naive lr=1e30"])
    events: list[Event] = []
    returned = run_and_store(job, tmp_path, report=events.append)
    path = result_path(tmp_path, job)
    assert json.loads(path.read_text()) == returned
    assert returned["status"] == "failed"
    assert "lower" in returned["error"]
    assert "\n" not in returned["error"]
    assert returned["traceback"] is None
    assert events[-1].kind == "failed"
    assert events[-1].message == returned["error"]
    assert not path.with_suffix(".npz").exists()


def plugin_file(folder: Path, body: str) -> str:
    path = folder / "plugin_under_test.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "from avalanche.core import SupervisedPlugin\n"
        "from cml_bench.training.strategy import Strategy, StrategyMeta\n"
        "@dataclass(frozen=True)\n"
        "class Mine(Strategy):\n"
        '    meta = StrategyMeta(name="mine", title="Mine", family="test")\n' + body
    )
    return f"{path}:Mine"


def test_a_strategy_that_cannot_be_made_is_a_failed_job(small_jobs: Any, tmp_path: Path) -> None:
    body = "    def __post_init__(self):\n        raise ValueError('never')\n"
    (job,) = small_jobs([plugin_file(tmp_path, body)])
    result = run_and_store(job, tmp_path / "results")
    assert result["error"].startswith("ValueError: never (plugin_under_test.py, line 8); ")
    assert result["data"] is None


@pytest.mark.parametrize(
    ("cut", "sentence"),
    [
        (
            '    meta = StrategyMeta(name="mine", title="Mine", family="test")\n',
            "has no meta: add meta = StrategyMeta(",
        ),
        ("@dataclass(frozen=True)\n", "has fields (power) that are no options, for want of @dataclass(frozen=True)"),
    ],
)
def test_a_strategy_without_its_declaration_is_refused_before_it_trains(
    small_jobs: Any, tmp_path: Path, cut: str, sentence: str
) -> None:
    path = Path(plugin_file(tmp_path, "    power: float = 2.0\n").partition(":")[0])
    path.write_text(path.read_text().replace(cut, ""))
    with pytest.raises(CmlBenchError) as caught:
        check_jobs(small_jobs([f"{path}:Mine"]))
    assert sentence in str(caught.value)


def test_a_bug_in_a_plugin_keeps_its_traceback(small_jobs: Any, tmp_path: Path) -> None:
    body = "    def plugins(self, run):\n        return [1 / 0]\n"
    (job,) = small_jobs([plugin_file(tmp_path, body)])
    result = run_and_store(job, tmp_path / "results")
    assert result["error"].startswith("ZeroDivisionError: division by zero (plugin_under_test.py, line 8); ")
    assert "plugin_under_test.py" in result["traceback"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("        yield next(iter(stream))\n", "yielded 1 items for 2 experiences"),
        ("        yield from stream\n        yield []\n", "yielded more than 2 items"),
    ],
)
def test_a_curriculum_of_another_length_is_refused(small_jobs: Any, tmp_path: Path, body: str, sentence: str) -> None:
    (job,) = small_jobs([plugin_file(tmp_path, "    def curriculum(self, stream, run):\n" + body)])
    with pytest.raises(CmlBenchError, match=sentence):
        run_job(job)


@pytest.mark.parametrize(
    ("methods", "options", "sentence"),
    [
        (["nave"], [], "did you mean 'naive'?"),
        (["er memory=5"], [], "strategy er has no option 'memory': did you mean 'memory_size'?"),
        (["er hed=dlfl"], [], "strategy er has no option 'hed': did you mean 'head'?"),
        (["er head=dlfl head.stps=2"], [], "did you mean 'steps'?"),
        (["er learning_rate=0.1"], [], "strategy er has no option 'learning_rate': did you mean 'lr'?"),
        (
            ["er"],
            ["learning_rate=0.1"],
            "neither benchmark digits nor the training has an option 'learning_rate': did you",
        ),
        (["er"], ["LR=0.1"], "has an option 'LR': did you mean 'lr'?"),
        (["ER"], [], "there is no strategy 'ER': did you mean 'er'?"),
        (["er,naive"], [], "there is no strategy 'er,naive': name each by itself (--method er --method naive)"),
        (["avalanche.training:Naive hed=dlfl"], [], "has no option 'hed': did you mean 'head'?"),
        (["er memory_size=many"], [], "option memory_size='many' of strategy er cannot be used"),
        (["er memory_size=-5"], [], "option memory_size='-5' of strategy er cannot be used"),
        (["er"], ["memory_size=5"], "write it with the method, as in 'er memory_size=5'"),
        (
            ["er"],
            ["loss.scope=seen"],
            "'loss.scope' is an option of methods: write it with the method, as in 'er loss.",
        ),
        (["naive"], ["frozen=true", "augment=true"], "frozen=true trains on cached features"),
        (["naive"], ["experiences=zero,one"], 'write it as JSON, as in [["a", "b"], ["c"]]'),
        (["./no_class.py"], [], "write ./no_class.py:ClassName"),
        (["naive head=linaer"], [], "did you mean 'linear'?"),
        (["naive loss=bec"], [], "did you mean 'bce'?"),
        (["naive head.width=3"], [], "head linear has no option 'width'"),
        (["naive loss.gamma=3"], [], "loss bce has no option 'gamma'"),
        (["naive"], ["incremnt=2"], "did you mean 'increment'?"),
        (["naive"], ["optimizer=sdg"], "sdg"),
        (["naive"], ["class_order=randm:1"], "class_order 'randm:1' is unknown"),
        (["naive"], ["device=cuda:99"], "device='cuda:99' cannot be used"),
        (["naive"], ["device=gpu"], "device='gpu' cannot be used"),
        (["naive"], ["backbone=resnet_18"], "did you mean 'resnet18'?"),
        (["naive"], ["backbone=mobilenet_v2"], "did you mean 'mobilenetv2_"),
        (
            ["naive"],
            ["backbone=./net.py:Net"],
            "register yours with timm.models.register_model in the benchmark's file",
        ),
    ],
)
def test_bad_input_ends_in_one_sentence(methods: list[str], options: list[str], sentence: str) -> None:
    with pytest.raises(CmlBenchError) as caught:
        check_jobs(make_jobs(["digits"], methods, ["default"], [0], ["n_train=40", "n_test=40", "epochs=1", *options]))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_base_of_a_criterion_is_found_before_training(small_jobs: Any) -> None:
    with pytest.raises(CmlBenchError, match="did you mean 'bce'"):
        check_jobs(small_jobs(["naive loss=assume_negative loss.base=bec"]))


def test_an_option_that_is_missing_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "wide.py"
    path.write_text(
        "from cml_bench.models.heads.linear import LinearHead\n"
        "class Wide(LinearHead):\n"
        "    def __init__(self, in_features, *, width: int):\n"
        "        super().__init__(in_features)\n"
    )
    for benchmark, method, told in (
        (
            "image_folder",
            "naive",
            "benchmark image_folder needs option 'root': add root=VALUE (--root VALUE on the command line, "
            "set: {root: VALUE} in a suite)",
        ),
        (
            "digits",
            "avalanche.training.plugins:EWCPlugin",
            "add ewc_lambda=VALUE to the method, as in 'avalanche.training.plugins:EWCPlugin ewc_lambda=VALUE'",
        ),
        ("digits", f"naive head={path}:Wide", "add head.width=VALUE to the method, as in 'naive head.width=VALUE'"),
    ):
        with pytest.raises(CmlBenchError) as caught:
            check_jobs(make_jobs([benchmark], [method], ["default"], [0]))
        assert str(caught.value).endswith(told)
