"""The command that makes a row of a table again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from cml_bench.options import as_text
from cml_bench.report.figures.section import Run
from cml_bench.report.tables.grids import grids


def reproducing_command(benchmark: str, runs: Sequence[Run]) -> str:
    """Return the ``cml-bench run`` command for some jobs of one method, or one for each grid of them.

    Options that say where data lie on a machine are left for the reader to fill in.
    """
    options: list[str] = []
    for key, value in sorted(runs[0].history.options.items()):
        options += ["--set", f"{key}={as_text(value)}"]
    for key in runs[0].history.locations:
        options += ["--set", f"{key}=PATH_TO_{key.upper()}"]
    command = ["cml-bench", "run", benchmark, "--method", runs[0].method]
    return " && ".join(
        shlex.join([*command, "--seeds", seeds, "--class-orders", orders, *options])
        for orders, seeds in grids({(run.class_order, run.seed) for run in runs})
    )
