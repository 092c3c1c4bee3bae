"""Which results a table or a report is about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunsArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="RUNS", help="Folders with result files; results/runs by default."),
]
BenchmarkOption = Annotated[list[str] | None, typer.Option(help="Show this benchmark alone; repeat it for several.")]
MethodOption = Annotated[
    list[str] | None,
    typer.Option(help="Show methods with these words alone: er, or 'er head=dlfl' whatever its memory; repeat it."),
]
