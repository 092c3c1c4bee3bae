"""The public conformance kit: does a strategy, or a plug-in of another kind, keep the rules of the suite?"""

from cml_bench.testing.benchmarks import BENCHMARK_CHECKS, check_benchmark
from cml_bench.testing.criteria import CRITERION_CHECKS, check_criterion
from cml_bench.testing.heads import HEAD_CHECKS, check_head
from cml_bench.testing.outcome import CheckOutcome
from cml_bench.testing.plugins import check
from cml_bench.testing.strategies import CHECKS, check_strategy

__all__ = [
    "BENCHMARK_CHECKS",
    "CHECKS",
    "CRITERION_CHECKS",
    "HEAD_CHECKS",
    "CheckOutcome",
    "check",
    "check_benchmark",
    "check_criterion",
    "check_head",
    "check_strategy",
]
