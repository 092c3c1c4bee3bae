"""All pictures of one benchmark configuration, and why one is not there."""

from __future__ import annotations

from collections.abc import Callable

from cml_bench.errors import CmlBenchError
from cml_bench.report.figures import cost, experiences, labels, ranks, reliability, retention, thresholds
from cml_bench.report.figures.calibration import calibrate
from cml_bench.report.figures.picture import Picture
from cml_bench.report.figures.section import Section
from cml_bench.report.figures.style import drawing, make_looks
from cml_bench.report.tables.table import BenchmarkTable


def draw_all(section: Section) -> tuple[list[Picture], list[str]]:
    """Draw every picture of a section, and say for each that cannot be drawn what it lacks."""
    if not section.runs:
        return [], ["No job has finished, so there is nothing to draw."]
    pictures: list[Picture] = []
    lacking: list[str] = []

    def keep(draw: Callable[[], Picture | None], otherwise: str) -> None:
        picture = draw()
        if picture is None:
            lacking.append(otherwise)
        else:
            pictures.append(picture)

    with drawing():
        keep(lambda: experiences.draw(section), "mAP over experiences is not drawn: no result holds it.")
        keep(
            lambda: retention.draw(section),
            "Plasticity and forgetting are not drawn: they need two experiences whose labels have positives.",
        )
        keep(lambda: labels.draw(section), "Average precision of labels is not drawn: no result holds it.")
        for column, (what, _) in cost.COSTS.items():
            keep(
                lambda column=column: cost.draw(section, column),  # type: ignore[misc]
                f"Accuracy against {what} is not drawn: it was not measured, or is the same for all methods.",
            )
        found = calibrate(section)
        if found is None:
            lacking.append(
                "Thresholds and reliability are not drawn: no predictions file (.npz) lies beside the results of "
                "methods in colour."
            )
        else:
            pictures += [thresholds.draw(section, found), reliability.draw(section, found)]
        try:
            pictures.append(ranks.draw(section.table, section.looks))
        except CmlBenchError as error:
            lacking.append(f"Average ranks are not drawn: {error}.")
    return pictures, lacking


def draw_overall(table: BenchmarkTable) -> tuple[list[Picture], list[str]]:
    """Draw average ranks over several benchmarks, or say why not."""
    rows = table.rows[table.rows["n"] > 0]
    looks = make_looks(rows["method"], rows["loss"].fillna(""))
    try:
        with drawing():
            return [ranks.draw(table, looks)], []
    except CmlBenchError as error:
        return [], [f"Average ranks over all benchmarks are not drawn: {error}."]
