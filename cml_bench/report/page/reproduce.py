"""The command that makes a row of a table again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from cml_bench.options import as_text
from cml_bench.report.figures.section import Run


def reproducing_command(benchmark: str, runs: Sequence[Run]) -> str:
    """Return the ``cml-bench run`` command for the seeds and class orders of some jobs of one method.

    Options that say where data lie on a machine are left for the reader to fill in.
    """
    words = ["cml-bench", "run", benchmark, "--method", runs[0].method]
    words += ["--seeds", _seeds(sorted({run.seed for run in runs}))]
    orders = sorted({run.class_order for run in runs}, key=lambda order: (order != "default", order))
    # A single number would read as a count.
    words += ["--class-orders", ",".join(orders) + ("," if len(orders) == 1 and orders[0].isdigit() else "")]
    for key, value in sorted(runs[0].history.options.items()):
        words += ["--set", f"{key}={as_text(value)}"]
    for key in runs[0].history.locations:
        words += ["--set", f"{key}=PATH_TO_{key.upper()}"]
    return shlex.join(words)


def _seeds(seeds: Sequence[int]) -> str:
    if list(seeds) == list(range(len(seeds))):
        return str(len(seeds))
    return ",".join(map(str, seeds)) + ("," if len(seeds) == 1 else "")
