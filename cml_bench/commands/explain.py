"""The command line's ``explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cml_bench.runs.events import DEFAULT_RESULTS


def explain(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RESULT",
            help="Result (.json) of a job run with --save-models, a folder with one, or the first digits of a key.",
        ),
    ],
    image: Annotated[str, typer.Option(help="Image file, or the id or file name of an image of the data set.")],
    labels: Annotated[
        str | None, typer.Option(help="Labels, as cat,dog; by default the first that the image shows.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(help="Experiences, as 1,3,6, or all; by default when the labels came, and the last.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Picture to draw: a .png, .pdf or .svg file.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Where data or weights lie now: root=..., checkpoint=...; repeat it."),
    ] = None,
    results: Annotated[Path, typer.Option("--results", help="Folder where keys are looked for.")] = DEFAULT_RESULTS,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run code that the result names outside the suite (./file.py:Class).")
    ] = False,
) -> None:
    """Draw where each label looks in an image.

    After its experience, and after later ones.
    """
    from cml_bench.report.explanation.explain import explain as explain_run
    from cml_bench.report.picture_file import check_suffix
    from cml_bench.report.stored.terminal import find_result

    output = output or Path(f"explain_{Path(image).stem}.png")
    check_suffix(output)
    explanation = explain_run(
        run if Path(run).exists() else find_result(run, results),
        image,
        labels=labels.split(",") if labels else None,
        after=None if after is None else after if after == "all" else after.split(","),
        options=set_,
        trust=trust,
    )
    explanation.draw(output)
    typer.echo(explanation.table().to_string(index=False))
    typer.echo(f"picture: {output}")
