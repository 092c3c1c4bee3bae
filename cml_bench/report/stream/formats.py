"""The description of a stream as terminal output, Markdown and CSV."""

from __future__ import annotations

from typing import Final

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cml_bench.report.formats.csv_text import csv_text
from cml_bench.report.stream.describe import MISMATCH, StreamDescription

_FORMATS: Final = {
    "experience": ("", "{:d}"),
    "new_labels": ("new labels", "{}"),
    "n_seen": ("labels seen", "{:d}"),
    "images": ("images", "{:,}"),
    "published_images": ("images published", "{:,}"),
    "positives": ("positives", "{:,}"),
    "labels_per_image": ("per image", "{:.2f}"),
    "density": ("density", "{:.3f}"),
    "unmarked": ("unmarked", "{:,}"),
    "hidden_old": ("hidden old (images)", "{:,}"),
    "hidden_future": ("hidden future (images)", "{:,}"),
    "mean_ir": ("Mean IR", "{:.1f}"),
    "max_ir": ("max IR", "{:.1f}"),
    "empty_labels": ("empty labels", "{:d}"),
    "repeated_images": ("repeated images", "{:,}"),
    "test_images": ("test images", "{:,}"),
    "published_test_images": ("test published", "{:,}"),
}
"""Column to its head and the format of its cells."""

_ONLY_WHERE_ANY: Final = ("unmarked", "empty_labels")
_FIRST_TO_GO: Final = ("max_ir", "mean_ir", "density", "hidden_future", "repeated_images")
_LEAST_NAMES: Final = 14
_MOST_NAMES: Final = 32


def to_terminal(description: StreamDescription, width: int = 200) -> Group:
    """Return a Rich renderable: the facts, then one row an experience; label names are cut short.

    Args:
        description: What to show.
        width: Columns of the terminal. What does not fit is left out and named.
    """
    cells = _cells(description.rows)
    hidden = []
    for column in _FIRST_TO_GO:
        if column in cells and _room_for_names(cells, width) < _LEAST_NAMES:
            cells = cells.drop(columns=column)
            hidden.append(column)
    names_width = min(_MOST_NAMES, max(_LEAST_NAMES, _room_for_names(cells, width)))
    facts = Table(
        title=Text(description.title), title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0)
    )
    for name, value in description.facts.items():
        facts.add_row(Text(name), Text(value, style="bold red" if value.startswith(MISMATCH) else ""))
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in cells.columns:
        if column == "new_labels":
            grid.add_column(Text("new labels"), no_wrap=True, overflow="ellipsis", max_width=names_width)
        else:
            grid.add_column(Text(_FORMATS[column][0].replace(" ", "\n")), justify="right", no_wrap=True)
    for values in cells.to_numpy():
        grid.add_row(*map(Text, values))
    note = f"Left out for lack of width: {', '.join(hidden)}; --format markdown or csv shows them."
    return Group(facts, grid, *([Text(note)] if hidden else []))


def to_markdown(description: StreamDescription) -> str:
    """Return Markdown: a heading, the facts as a list, one row an experience with all names."""
    cells = _cells(description.rows).apply(lambda column: column.str.replace("|", "\\|", regex=False))
    body = cells.rename(columns={name: head for name, (head, _) in _FORMATS.items()}).to_markdown(
        index=False, disable_numparse=True
    )
    facts = "".join(f"- {name}: {value}\n" for name, value in description.facts.items())
    return f"### {description.title}\n\n{facts}\n{body}\n"


def to_csv(description: StreamDescription) -> str:
    """Return CSV in full precision, label names joined by ``;``."""
    rows = description.rows.assign(new_labels=description.rows["new_labels"].map("; ".join))
    return csv_text(rows)


def _cells(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the printed cells; columns that say nothing of this stream are left out."""
    empty = [name for name in rows if rows[name].isna().all()]
    empty += [name for name in _ONLY_WHERE_ANY if not rows[name].any()]
    cells = pd.DataFrame(index=rows.index)
    for name in [name for name in _FORMATS if name not in empty]:
        values = rows[name].map(", ".join) if name == "new_labels" else rows[name]
        pattern = _FORMATS[name][1]
        cells[name] = [("-" if pd.isna(value) else pattern.format(value)) for value in values]
    for name in ("hidden_old", "hidden_future"):
        cells[name] = (cells[name] + rows[f"{name}_share"].map(" ({:.0%})".format)).mask(rows[name].isna(), "?")
    for name in ("images", "test_images"):
        if f"published_{name}" in cells:
            differs = (rows[name] != rows[f"published_{name}"]).fillna(True).astype(bool)
            cells.loc[differs, f"published_{name}"] += " !"
    return cells


def _room_for_names(cells: pd.DataFrame, width: int) -> int:
    """Return how many columns of the terminal the other cells, their margins and the frame leave for label names."""
    taken = [
        max(int(cells[name].str.len().max()), *map(len, ["", *head.split()]))
        for name, (head, _) in _FORMATS.items()
        if name in cells and name != "new_labels"
    ]
    return width - sum(wide + 2 for wide in taken) - 3
