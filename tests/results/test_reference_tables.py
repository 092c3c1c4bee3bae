"""What the pages of ``results/reference`` print is what their tables and result files hold."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from cml_bench.api import compare
from cml_bench.report.formats.csv import to_csv
from cml_bench.report.stored.verify import verify_results

REFERENCE = Path(__file__).resolve().parents[2] / "results" / "reference"
PAGES = sorted(path.parent.name for path in REFERENCE.glob("*/table.csv"))
STORED = sorted(path.parent.name for path in REFERENCE.glob("*/results"))
COLUMNS = {
    "last mAP": "last_map",
    "all: last mAP": "last_map",
    "avg mAP": "avg_map",
    "last CF1 macro @0.5": "last_cf1_macro@0.5",
    "last CF1 harmonic @0.5": "last_cf1_harmonic@0.5",
    "last OF1 @0.5": "last_of1@0.5",
    "forgetting": "forgetting",
    "minor mAP": "last_map_minor",
    "moderate mAP": "last_map_moderate",
    "major mAP": "last_map_major",
}


def printed(page: str) -> Iterator[tuple[str, str, str]]:
    """Yield method, column and text of the cells of Markdown tables whose first column is ``method``."""
    for head, body in re.findall(r"^\| method (.*)\n\|[-:| ]+\n((?:\|.*\n)+)", page, re.MULTILINE):
        names = [name.strip() for name in head.strip(" |").split("|")]
        for line in body.splitlines():
            method, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            for name, cell in zip(names, cells, strict=True):
                yield method.strip("`"), name, re.sub(r"\*\*|</?ins>", "", cell)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_prints_its_table(name: str) -> None:
    table = pd.read_csv(REFERENCE / name / "table.csv").set_index("method")
    cells = [cell for cell in printed((REFERENCE / name / "README.md").read_text()) if cell[1] in COLUMNS]
    for method, column, text in cells:
        row = table.loc[method]
        assert isinstance(row, pd.Series), f"{method} has several rows"
        mean, _, std = text.partition(" ± ")
        figure = COLUMNS[column]
        assert float(mean) == pytest.approx(100 * row[f"{figure}_mean"], abs=0.0501), (method, column)
        if std:
            assert float(std) == pytest.approx(100 * row[f"{figure}_std"], abs=0.0501), (method, column)


@pytest.mark.parametrize("name", STORED)
def test_a_table_is_what_its_result_files_make(name: str) -> None:
    made = pd.read_csv(io.StringIO(to_csv(compare(REFERENCE / name / "results")))).set_index("method")
    table = pd.read_csv(REFERENCE / name / "table.csv").set_index("method")
    assert set(made.index) == set(table.index)
    for figure in set(COLUMNS.values()) & {str(column).removesuffix("_mean") for column in table}:
        for part in ("mean", "std"):
            column = f"{figure}_{part}"
            if column in made:
                assert made[column].to_dict() == pytest.approx(table[column].to_dict(), abs=1e-9), column


def test_stored_predictions_give_the_figures_of_digits() -> None:
    found = verify_results(REFERENCE / "digits" / "results")
    assert (found.files, found.problems, found.unchecked) == (51, (), ())
