"""Strategies from elsewhere run beside the built-in ones: plain Avalanche, by path, by factory, by entry point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cml_bench import registry
from cml_bench.cli import main
from cml_bench.errors import CmlBenchError
from cml_bench.runs.job import make_jobs
from cml_bench.runs.run import Run, run_job

SAMPLES = Path(__file__).with_name("sample_learners.py")
NAIVE = "avalanche.training.supervised:Naive"
EWC = {"ewc_lambda": 0.5, "mode": "separate", "keep_importance_data": True}
SMALL = ("n_train=60", "n_test=40", "epochs=1")
LOADERS = """
from avalanche.training.supervised import Naive
from cml_bench.streams.loading import BatchLoader
from cml_bench.training.context import private_generator

class OurLoaders(Naive):
    def __init__(self, **given):
        super().__init__(**given)
        self.order = private_generator(0, "batches")

    def make_train_dataloader(self, **kwargs):
        self.dataloader = BatchLoader(self.adapted_dataset, self.train_mb_size, generator=self.order)

    def make_eval_dataloader(self, **kwargs):
        self.dataloader = BatchLoader(self.adapted_dataset, self.eval_mb_size)
"""


def run(method: str) -> Run:
    (job,) = make_jobs(["digits"], [method], ["default"], [0], SMALL)
    return run_job(job)


def logits(made: Run) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float16]]]:
    return list(made.predictions.logits)


def same(one: Run, other: Run) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(logits(one), logits(other), strict=True))


@pytest.fixture(scope="module")
def upstream() -> Run:
    return run(NAIVE)


def test_upstream_naive_differs_from_ours_by_its_draws_alone(tmp_path: Path) -> None:
    """With the suite's loaders it shuffles, and starts new labels, as ours does: the same logits to the bit."""
    path = tmp_path / "ours.py"
    path.write_text(LOADERS)
    assert same(run(f"{path}:OurLoaders"), run("naive"))


@pytest.mark.parametrize(
    ("method", "title", "options"),
    [
        (NAIVE, "Naive", {}),
        (f"{SAMPLES}:Halfway factor=0.5", "Halfway", {"factor": 0.5}),
        (f"{SAMPLES}:ClipGradients max_norm=0.1", "ClipGradients", {"max_norm": 0.1}),
        (f"{SAMPLES}:clipped_naive max_norm=0.1", "clipped_naive", {"max_norm": 0.1}),
        (
            "avalanche.training.plugins:EWCPlugin ewc_lambda=0.5 mode=separate keep_importance_data=true",
            "EWCPlugin",
            EWC,
        ),
        ("avalanche.training.supervised:Replay mem_size=20 head=dlfl", "Replay", {"mem_size": 20}),
    ],
)
def test_avalanche_learners_are_rows_like_any_other(method: str, title: str, options: object) -> None:
    made = run(method)
    assert [part.shape for part in logits(made)] == [(len(made.predictions.sample_ids), n) for n in (2, 4, 6, 8, 10)]
    described = made.result["method"]
    assert (described["title"], described["family"]) == (title, "avalanche")
    assert described["options"] == options
    assert made.result["status"] == "ok"
    assert same(made, run(method))


def test_a_subclass_and_a_factory_that_change_nothing_equal_upstream(upstream: Run) -> None:
    assert same(run(f"{SAMPLES}:Halfway"), upstream)
    assert not same(run(f"{SAMPLES}:Halfway factor=0.1"), upstream)
    assert same(run(f"{SAMPLES}:clipped_naive max_norm=1e9"), upstream)
    assert not same(run(f"{SAMPLES}:clipped_naive max_norm=1e-3"), upstream)


def test_predictions_do_not_depend_on_the_order_of_evaluation(upstream: Run) -> None:
    for backwards, forwards in zip(logits(run(f"{SAMPLES}:Backwards")), logits(upstream), strict=True):
        assert np.allclose(backwards, forwards, rtol=1e-2, atol=1e-3)


def test_a_plugin_that_changes_nothing_equals_the_built_in() -> None:
    naive = run("naive")
    assert same(run(f"{SAMPLES}:ClipGradients max_norm=1e9"), naive)
    assert not same(run(f"{SAMPLES}:ClipGradients max_norm=1e-3"), naive)


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        (f"{SAMPLES}:Halfwy", "did you mean 'Halfway'?"),
        (f"{SAMPLES}:ClipGradients max_nrm=1", "has no option 'max_nrm': did you mean 'max_norm'?"),
        (f"{SAMPLES}:ClipGradients max_norm=much", "option max_norm='much' of"),
        (f"{SAMPLES}:torch", "is no strategy"),
        ("avalanche.training.plugins:EWCPlugin", "needs option 'ewc_lambda': add ewc_lambda=VALUE"),
        ("avalanche.training.nowhere:Naive", "module 'avalanche.training.nowhere' cannot be found"),
        ("naife", "there is no strategy 'naife': did you mean 'naive'?"),
        ("naive head=linaer", "there is no head 'linaer': did you mean 'linear'?"),
        (
            "naive loss=torch.nn:BCEWithLogitsLoss",
            "'torch.nn:BCEWithLogitsLoss' is no criterion: give a subclass of cml_bench.Criterion, as docs/",
        ),
        (
            "naive loss=torch.nn.functional:mse_loss",
            "' is no criterion: give a subclass of cml_bench.Criterion, as docs",
        ),
        ("naive head=torch.nn:Linear", "'torch.nn:Linear' is no head: give a subclass of cml_bench.Head"),
        ("naive wrap=torch.nn:Linear", "'torch.nn:Linear' is no wrapper: give a subclass of"),
        ("naive loss=assume-negativ", "there is no criterion 'assume_negativ': did you mean 'assume_negative'?"),
    ],
)
def test_what_cannot_be_named_is_one_sentence(method: str, sentence: str) -> None:
    with pytest.raises(CmlBenchError) as caught:
        run(method)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_factory_must_return_a_learner() -> None:
    with pytest.raises(CmlBenchError, match="not_a_learner returned 1: a factory must return an Avalanche strategy"):
        run(f"{SAMPLES}:not_a_learner")


# -- entry points ------------------------------------------------------------------------------------------------------

STRATEGY = '''
from dataclasses import dataclass

from cml_bench import Strategy, StrategyMeta


@dataclass(frozen=True)
class Visiting(Strategy):
    """Do what naive does.

    Attributes:
        patience: Not used.
    """

    patience: int = 3
    meta = StrategyMeta(name="visiting", title="Visiting", family="test")
'''

Install = Callable[[str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution ``far-away`` with the given entry points, as pip would lay it out."""

    def lay_out(entry_points: str) -> None:
        (tmp_path / "far_away.py").write_text(STRATEGY)
        folder = tmp_path / "far_away-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: far-away\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(entry_points)
        monkeypatch.syspath_prepend(tmp_path)
        registry.entries.cache_clear()

    yield lay_out
    registry.entries.cache_clear()


def test_an_entry_point_is_named_like_a_built_in(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("[cml_bench.strategies]\nvisiting = far_away:Visiting\n")
    entry = registry.entries("strategies")["visiting"]
    assert (entry.target, entry.origin) == ("far_away:Visiting", "far-away")
    made = run("visiting patience=5")
    assert (made.result["method"]["title"], made.result["method"]["options"]) == ("Visiting", {"patience": 5})
    assert same(made, run("naive"))
    with pytest.raises(SystemExit) as done:
        main(["list", "strategies"])
    assert done.value.code == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines() if "visiting" in line] == [
        ["visiting", "[far-away]"]
    ]
    with pytest.raises(CmlBenchError, match="did you mean 'visiting'"):
        run("visting")


def test_two_plugins_of_one_name_are_refused(install: Install) -> None:
    install("[cml_bench.strategies]\nnaive = far_away:Visiting\n")
    with pytest.raises(CmlBenchError) as caught:
        registry.entries("strategies")
    assert str(caught.value) == (
        "two strategies are named 'naive' (cml_bench.strategies.naive:Naive and far_away:Visiting): rename one"
    )


def test_an_entry_point_without_its_module_is_one_sentence(install: Install) -> None:
    install("[cml_bench.strategies]\nlost = far_away_lost:Lost\n")
    with pytest.raises(CmlBenchError, match="module 'far_away_lost' cannot be found"):
        run("lost")


def test_another_group_is_not_mixed_in(install: Install) -> None:
    install("[cml_bench.benchmarks]\nvisiting = far_away:Visiting\n")
    assert "visiting" in registry.entries("benchmarks")
    assert "visiting" not in registry.entries("strategies")
    job = make_jobs(["visiting"], ["naive"], ["default"], [0])[0]
    with pytest.raises(CmlBenchError, match="'visiting' is no benchmark"):
        run_job(job)
