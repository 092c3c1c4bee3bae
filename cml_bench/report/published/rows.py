"""Published numbers as rows to read: those made alike together, with their sources and caveats below."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_lowercase
from typing import Any

import pandas as pd

from cml_bench.report.published.comparability import CONDITIONS
from cml_bench.report.published.numbers import NUMBER_COLUMNS, numbers_of


@dataclass(frozen=True)
class Block:
    """Rows that were made alike.

    Attributes:
        heading: How.
        differences: What differs from ours, a line each; none where the rows are ranked.
        rows: Cells as text: ``method``, ``buffer``, a column a metric (percent points as the source prints them, empty
            for none), ``source`` and ``caveats`` (marks of the two lists). By memory, then in the order of the source;
            where ranked, by the first metric and with our rows among them.
        sources: Mark (``1``, ``2`` ...) to source.
        caveats: Mark (``a``, ``b`` ...) to what is to be known of a number.
    """

    heading: str
    differences: tuple[str, ...]
    rows: pd.DataFrame
    sources: Mapping[str, str]
    caveats: Mapping[str, str]


@dataclass(frozen=True)
class PublishedPart:
    """What is published on one data set, or on the data set and protocol of one benchmark table.

    Attributes:
        summary: How much is published and how much of it is ranked with ours, how ours were made, what is known of the
            protocols beyond numbers; or why there is nothing. A line each.
        ranked: Published rows that nothing keeps apart from ours, with ours.
        apart: All others.
        numbers: One row a published number: the columns of the files, ``ranked`` and ``differs``.
    """

    summary: tuple[str, ...]
    ranked: tuple[Block, ...] = ()
    apart: tuple[Block, ...] = ()
    numbers: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*NUMBER_COLUMNS, "ranked", "differs"]))


def catalogue(name: str) -> PublishedPart:
    """Return all that is published on a data set, called as its file (``coco``) or as in the literature.

    Raises:
        CmlBenchError: If nothing is.
    """
    numbers = numbers_of(name).assign(made="", differs="", ranked=False)
    return PublishedPart(
        summary=(f"{len(numbers)} published numbers in the order of their sources; this is no ranking.",),
        apart=in_blocks(numbers),
        numbers=numbers[[*NUMBER_COLUMNS, "ranked", "differs"]],
    )


def in_blocks(numbers: pd.DataFrame) -> tuple[Block, ...]:
    """Return numbers in blocks: those of one protocol that were made alike.

    Args:
        numbers: Has ``made`` and ``differs`` as well: what differs from ours in making alone, and altogether, in lines.
    """
    groups = numbers.groupby(["protocol", "setting", *CONDITIONS, "made"], sort=False)
    return tuple(
        make_block(
            group,
            columns=group["metric"].str.replace("_", " "),
            differences=dict.fromkeys(line for text in group["differs"] for line in text.splitlines()),
        )
        for _, group in groups
    )


def make_block(
    numbers: pd.DataFrame, columns: Sequence[str] | pd.Series[str], differences: Iterable[str] = ()
) -> Block:
    """Return a block; what another source prints of a method is a row of its own.

    Args:
        numbers: Of one protocol, made alike.
        columns: The column that each belongs in.
        differences: What differs from ours.
    """
    sources, caveats = _listed(numbers["source"]), _listed(numbers["caveat"])
    # Not numbers for both: a mark must not be taken for one of the other list.
    marks = {
        **{text: str(place) for place, text in enumerate(sources, start=1)},
        **dict(zip(caveats, _letters(len(caveats)), strict=True)),
    }
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    noted: dict[tuple[str, str, str], set[str]] = {}
    for number, column in zip(numbers.to_dict("records"), columns, strict=True):
        row = number["buffer"], number["method"], number["source"]
        cells.setdefault(row, {})[column] = in_words(number["value"], number["std"])
        noted.setdefault(row, set()).update(number["caveat"].split("; "))
    # Sorted neither by name nor by number: methods with equal memories together, in the order of the source.
    buffers, methods = (list(dict.fromkeys(row[part] for row in cells)) for part in (0, 1))
    rows = [
        {
            "method": method,
            "buffer": buffer,
            **{column: cells[buffer, method, source].get(column, "") for column in dict.fromkeys(columns)},
            "source": " ".join(marks[text] for text in sources if text in source.split("; ")),
            "caveats": " ".join(marks[text] for text in caveats if text in noted[buffer, method, source]),
        }
        for buffer, method, source in sorted(cells, key=lambda row: (buffers.index(row[0]), methods.index(row[1])))
    ]
    return Block(
        heading=_heading(numbers.iloc[0].to_dict()),
        differences=tuple(differences),
        rows=pd.DataFrame(rows),
        sources={marks[text]: text for text in sources},
        caveats={marks[text]: text for text in caveats},
    )


def conditions_in_words(conditions: Mapping[Any, str]) -> str:
    """Return backbone, image size, pretraining and unknown-label rule in one line."""
    return ", ".join(f"{title} {conditions[name]}" for name, title in CONDITIONS.items())


def in_words(value: str, std: str) -> str:
    """Return a number with its deviation, if it has one."""
    return f"{value} ± {std}" if std else value


def _heading(conditions: Mapping[Any, str]) -> str:
    return f"{conditions['protocol']}, {conditions['setting']}: {conditions_in_words(conditions)}"


def _listed(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the parts that are joined by semicolons, each once."""
    return tuple(dict.fromkeys(part for text in texts for part in text.split("; ") if part))


def _letters(count: int) -> list[str]:
    """Return ``a`` to ``z``, then ``aa``, ``bb`` ..."""
    return [ascii_lowercase[place % 26] * (1 + place // 26) for place in range(count)]
