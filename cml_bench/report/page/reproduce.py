"""The command that makes a row of a table again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from cml_bench.options import as_text
from cml_bench.report.figures.section import Run
from cml_bench.runs.job import class_orders_text, seeds_text


def reproducing_command(benchmark: str, runs: Sequence[Run]) -> str:
    """Return the ``cml-bench run`` command for the seeds and class orders of some jobs of one method.

    Options that say where data lie on a machine are left for the reader to fill in.
    """
    words = ["cml-bench", "run", benchmark, "--method", runs[0].method]
    words += ["--seeds", seeds_text(run.seed for run in runs)]
    words += ["--class-orders", class_orders_text(run.class_order for run in runs)]
    for key, value in sorted(runs[0].history.options.items()):
        words += ["--set", f"{key}={as_text(value)}"]
    for key in runs[0].history.locations:
        words += ["--set", f"{key}=PATH_TO_{key.upper()}"]
    return shlex.join(words)
