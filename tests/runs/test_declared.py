"""Slips in a plug-in's class that would train something else in silence are told before, or when, it trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from cml_bench.errors import CmlBenchError
from cml_bench.runs.engines.serial import Serial
from cml_bench.runs.job import make_jobs
from cml_bench.runs.plan import plan
from cml_bench.testing.strategies import check_strategy

HEAD = """
from dataclasses import dataclass
from avalanche.core import SupervisedPlugin
from cml_bench import Criterion, CriterionMeta, Strategy, StrategyMeta
from cml_bench.strategies.er import ER
from cml_bench.training.replay import MemoryPlugin

class Misspelt(SupervisedPlugin):
    def before_backwards(self, strategy, **kwargs):
        pass

class Bare(MemoryPlugin):
    def __init__(self, *parts):
        self.count = 0

@dataclass(frozen=True)
class Mine(Strategy):
    '''Do it.'''
    meta = StrategyMeta(name="mine", title="Mine", family="replay")
"""
SHORT = ("epochs=1", "n_train=60", "n_test=40")


def written(folder: Path, body: str) -> str:
    path = folder / "mine.py"
    path.write_text(HEAD + body, encoding="utf-8")
    return str(path)


def failure(method: str, results: Path) -> str:
    """Run a job and return the error that it records."""
    told: list[str] = []
    jobs = make_jobs(["digits"], [method], ["default"], [0], SHORT)
    Serial().execute(
        jobs, results, lambda event: told.append(event.message) if event.kind == "failed" else None, 1, "never"
    )
    (sentence,) = told
    return sentence


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("    def plugins(self, run): return [Misspelt()]", "Misspelt.before_backwards is no event of training"),
        ("    def plugins(self, run): return [Misspelt()]", "did you mean 'before_backward'?"),
        ("    def plugins(self, run): return Misspelt()", "return a list of SupervisedPlugin objects"),
        ("    def plugins(self): return []", "write def plugins(self, run)"),
    ],
)
def test_plugins_that_would_do_nothing_are_refused(tmp_path: Path, body: str, sentence: str) -> None:
    assert sentence in failure(f"{written(tmp_path, body)}:Mine", tmp_path / "results")


def test_a_plugin_class_is_asked_too(tmp_path: Path) -> None:
    assert "did you mean 'before_backward'?" in failure(f"{written(tmp_path, '')}:Misspelt", tmp_path / "results")


def test_a_memory_without_its_parts_is_refused(tmp_path: Path) -> None:
    body = """
@dataclass(frozen=True)
class Replay(ER):
    '''Do it.'''
    meta = StrategyMeta(name="replay", title="Mine", family="replay")

    def plugins(self, run):
        return [Bare(*self.parts(run))]
"""
    assert "Bare.__init__ must call super().__init__" in failure(
        f"{written(tmp_path, body)}:Replay", tmp_path / "results"
    )


@pytest.mark.parametrize(
    ("body", "name", "sentence"),
    [
        (
            "@dataclass(frozen=True)\nclass Heir(ER):\n    '''Do it.'''",
            "Heir",
            "no meta of its own, and tables would call it ER",
        ),
        (
            "@dataclass(frozen=True)\nclass Heir(ER):\n    '''Do it.'''\n    meta = Mine.meta\n    relabel = 'oracle'",
            "Heir",
            "write relabel: str = 'oracle', or _relabel for a constant",
        ),
        ("    weight = 1.5", "Mine", r"write weight: float = 1.5, or _weight for a constant"),
    ],
)
def test_a_class_that_would_bear_anothers_title_or_lose_an_option_is_refused(
    tmp_path: Path, body: str, name: str, sentence: str
) -> None:
    method = f"{written(tmp_path, body)}:{name}"
    (job,) = make_jobs(["digits"], [method], ["default"], [0], SHORT)
    with pytest.raises(CmlBenchError, match=sentence):
        plan(job)
    outcomes = {outcome.name: outcome for outcome in check_strategy(method, raise_on_failure=False)}
    assert outcomes["metadata"].status == "failed"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (
            "def __init__(self): self.a = 1\n    def loss(self, logits, labels): return logits.sum()",
            r"call super\(\).__init__\(\)",
        ),
        ("def losses(self, logits, labels): return logits.sum()", r"give it loss\(self, logits, labels\)"),
    ],
)
def test_a_criterion_that_computes_nothing_is_refused(tmp_path: Path, body: str, sentence: str) -> None:
    path = written(
        tmp_path, f"\nclass Loss(Criterion):\n    meta = CriterionMeta(name='mine', title='Mine')\n    {body}"
    )
    (job,) = make_jobs(["digits"], [f"naive loss={path}:Loss"], ["default"], [0], SHORT)
    with pytest.raises(CmlBenchError, match=sentence):
        plan(job)


def test_a_loss_of_many_numbers_is_refused(tmp_path: Path) -> None:
    body = """
class Loss(Criterion):
    meta = CriterionMeta(name='mine', title='Mine')

    def loss(self, logits, labels):
        return logits
"""
    sentence = failure(f"naive loss={written(tmp_path, body)}:Loss", tmp_path / "results")
    assert "Loss returned a loss of shape (32, 2): return one number" in sentence
