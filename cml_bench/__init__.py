"""cml_bench: the benchmark suite for continual multi-label image classification.

Everything public is imported from here, each name when it is first used: importing the package loads neither torch nor
Avalanche.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cml_bench.api import compare, run, sweep, write_report
    from cml_bench.data.data_set import DataCard, DataSet
    from cml_bench.data.source import Source
    from cml_bench.data.table import Boxes, LabelTable
    from cml_bench.errors import CmlBenchError
    from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED
    from cml_bench.losses.criterion import Criterion, CriterionMeta
    from cml_bench.metrics.evaluate import evaluate
    from cml_bench.metrics.predictions import Predictions
    from cml_bench.models.angles import angle_law, head_angles, label_angles
    from cml_bench.models.heads.head import Head, HeadMeta, HeadOutput
    from cml_bench.regimes.regime import Question, Regime, RegimeMeta
    from cml_bench.report.explanation.explain import Explanation, explain
    from cml_bench.report.stored.export import export_results
    from cml_bench.report.stored.rescore import rescore
    from cml_bench.report.stored.terminal import list_results
    from cml_bench.report.stored.verify import verify_results
    from cml_bench.report.stream.describe import describe
    from cml_bench.report.tables.by_job import export_jobs
    from cml_bench.runs.benchmark import Benchmark, BenchmarkMeta, DataSetBenchmark
    from cml_bench.runs.merge import merge_results
    from cml_bench.runs.results import read_result
    from cml_bench.streams.builder import label_incremental_benchmark
    from cml_bench.streams.timeline import with_label_timeline
    from cml_bench.testing import check_benchmark, check_criterion, check_head, check_strategy
    from cml_bench.training.config import TrainingConfig
    from cml_bench.training.context import RunContext
    from cml_bench.training.strategy import Strategy, StrategyMeta

__version__ = "0.1.0"

# Avalanche imports qpsolvers, which warns at import that it found no solver; only Avalanche's GEM would need one.
warnings.filterwarnings("ignore", message="no QP solver found")

_HOMES = {
    "cml_bench.api": ("compare", "run", "sweep", "write_report"),
    "cml_bench.data.data_set": ("DataCard", "DataSet"),
    "cml_bench.data.source": ("Source",),
    "cml_bench.data.table": ("Boxes", "LabelTable"),
    "cml_bench.errors": ("CmlBenchError",),
    "cml_bench.labels": ("ABSENT", "OUT_OF_SCOPE", "PRESENT", "UNMARKED"),
    "cml_bench.losses.criterion": ("Criterion", "CriterionMeta"),
    "cml_bench.metrics.evaluate": ("evaluate",),
    "cml_bench.metrics.predictions": ("Predictions",),
    "cml_bench.models.angles": ("angle_law", "head_angles", "label_angles"),
    "cml_bench.models.heads.head": ("Head", "HeadMeta", "HeadOutput"),
    "cml_bench.regimes.regime": ("Question", "Regime", "RegimeMeta"),
    "cml_bench.report.stream.describe": ("describe",),
    "cml_bench.report.explanation.explain": ("Explanation", "explain"),
    "cml_bench.report.stored.export": ("export_results",),
    "cml_bench.report.stored.rescore": ("rescore",),
    "cml_bench.report.stored.terminal": ("list_results",),
    "cml_bench.report.stored.verify": ("verify_results",),
    "cml_bench.report.tables.by_job": ("export_jobs",),
    "cml_bench.runs.benchmark": ("Benchmark", "BenchmarkMeta", "DataSetBenchmark"),
    "cml_bench.runs.merge": ("merge_results",),
    "cml_bench.runs.results": ("read_result",),
    "cml_bench.streams.builder": ("label_incremental_benchmark",),
    "cml_bench.streams.timeline": ("with_label_timeline",),
    "cml_bench.testing": ("check_benchmark", "check_criterion", "check_head", "check_strategy"),
    "cml_bench.training.config": ("TrainingConfig",),
    "cml_bench.training.context": ("RunContext",),
    "cml_bench.training.strategy": ("Strategy", "StrategyMeta"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ABSENT",
    "OUT_OF_SCOPE",
    "PRESENT",
    "UNMARKED",
    "Benchmark",
    "BenchmarkMeta",
    "Boxes",
    "CmlBenchError",
    "Criterion",
    "CriterionMeta",
    "DataCard",
    "DataSet",
    "DataSetBenchmark",
    "Explanation",
    "Head",
    "HeadMeta",
    "HeadOutput",
    "LabelTable",
    "Predictions",
    "Question",
    "Regime",
    "RegimeMeta",
    "RunContext",
    "Source",
    "Strategy",
    "StrategyMeta",
    "TrainingConfig",
    "angle_law",
    "check_benchmark",
    "check_criterion",
    "check_head",
    "check_strategy",
    "compare",
    "describe",
    "evaluate",
    "explain",
    "export_jobs",
    "export_results",
    "head_angles",
    "label_angles",
    "label_incremental_benchmark",
    "list_results",
    "merge_results",
    "read_result",
    "rescore",
    "run",
    "sweep",
    "verify_results",
    "with_label_timeline",
    "write_report",
]

_CHECKOUT = Path(__file__).resolve().parent.parent
if (_CHECKOUT / "setup.cfg").is_file() and (_CHECKOUT / "strategies").is_dir():
    # A regular install is shadowed by the checkout when Python starts in its root; there the plug-in folders lie
    # beside this package, not inside it.
    __path__.append(str(_CHECKOUT))


def __getattr__(name: str) -> Any:
    """Import a public name from its home (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'cml_bench' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """List the public names without importing them, and not what this file imports for itself."""
    return sorted([*(name for name in globals() if name.startswith("__")), *__all__])
