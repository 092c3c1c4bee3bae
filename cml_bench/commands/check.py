"""The command line's ``check``."""

from __future__ import annotations

from typing import Annotated

import typer

from cml_bench.errors import CmlBenchError


def check(
    subject: Annotated[
        str,
        typer.Argument(
            help="Strategy name, ./file.py:Class or module:Class, with options; or head:NAME, criterion:NAME, "
            "benchmark:NAME (a path may stand in the name's place)."
        ),
    ],
) -> None:
    """Check that a plug-in keeps the rules of the suite.

    A strategy learns, repeats, keeps within its memory and looks at nothing it may not see; a head grows without
    disturbing; a criterion keeps to what was asked; a benchmark deals what it declares.
    """
    from cml_bench.testing import check as check_plugin

    outcomes = check_plugin(subject, raise_on_failure=False)
    width = max(len(outcome.name) for outcome in outcomes)
    for outcome in outcomes:
        typer.echo(f"{outcome.status:<7} {outcome.name:<{width}}  {outcome.detail}")
    failed = [outcome.name for outcome in outcomes if outcome.status == "failed"]
    if failed:
        raise CmlBenchError(f"{subject} fails {len(failed)} of {len(outcomes)} checks: {', '.join(failed)}")
