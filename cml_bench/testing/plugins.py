"""The public conformance kit for a plug-in of any kind."""

from __future__ import annotations

from cml_bench.errors import CmlBenchError
from cml_bench.testing.benchmarks import check_benchmark
from cml_bench.testing.criteria import check_criterion
from cml_bench.testing.heads import check_head
from cml_bench.testing.outcome import CheckOutcome
from cml_bench.testing.strategies import check_strategy


def check(subject: str, *, raise_on_failure: bool = True) -> list[CheckOutcome]:
    """Check a plug-in of any kind that the kit knows.

    Args:
        subject: ``head:NAME``, ``criterion:NAME`` or ``benchmark:NAME``; anything else is a strategy, which
            ``strategy:NAME`` says, too. Options follow, as in ``"head:dlfl width=16"``; a path or an import name goes
            in the name's place, as in ``"head:./my_head.py:MyHead"``.
        raise_on_failure: Raise if a check fails, instead of only returning what was found.

    Raises:
        CmlBenchError: If nothing bears the name, an option is wrong, or a check fails.
    """
    kind, _, rest = subject.partition(":")
    makers = {"benchmark": check_benchmark, "criterion": check_criterion, "head": check_head}
    if kind in makers:
        return makers[kind](rest, raise_on_failure=raise_on_failure)
    if kind in ("regime", "wrapper", "dataset"):
        raise CmlBenchError(
            f"{subject!r:.100} cannot be checked: there are checks for a strategy (NAME), head:NAME, criterion:NAME "
            "and benchmark:NAME" + (f"; for a data set write cml-bench data verify {rest}" if kind == "dataset" else "")
        )
    if "+" in subject.partition(" ")[0]:
        raise CmlBenchError(
            f"{subject!r:.100} is no strategy, a criterion stands on another: write criterion:{subject}"
        )
    return check_strategy(rest if kind == "strategy" else subject, raise_on_failure=raise_on_failure)
