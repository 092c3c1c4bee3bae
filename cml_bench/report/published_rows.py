"""Published numbers as rows to read: those made alike together, each with marks for its sources and caveats."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_lowercase
from typing import Any, Final

import pandas as pd

from cml_bench.report.comparability import CONDITIONS
from cml_bench.report.published import NUMBER_COLUMNS, numbers_of

LETTERS: Final = [*ascii_lowercase, *map("".join, itertools.product(ascii_lowercase, repeat=2))]
"""Marks of caveats, so that they are not taken for those of sources, which are numbers."""


@dataclass(frozen=True)
class Block:
    """Rows that were made alike.

    Attributes:
        heading: How.
        lines: What differs from ours, a line each; none where the rows are ranked.
        rows: Cells as text. ``method``, ``buffer``, a column a metric (percent points as the source prints them, empty
            for none), ``source`` and ``caveats``: numbers and letters of the lists of the part. By memory, then in the
            order of the source; ranked blocks by their first metric, with our rows among them.
    """

    heading: str
    lines: tuple[str, ...]
    rows: pd.DataFrame


@dataclass(frozen=True)
class PublishedPart:
    """What is published on one data set, or on the data set and protocol of one benchmark table.

    Attributes:
        heading: That of the table, or the data set.
        summary: How much is published, and how much of it is ranked with ours; or why there is nothing.
        ours: How ours were made, a line each way.
        ranked: Published rows that nothing keeps apart from ours, with ours.
        apart: All others.
        remarks: What is known of the published protocols beyond their numbers.
        sources: In the order of their numbers, from 1.
        caveats: In the order of their letters, from a.
        numbers: One row a published number: the columns of the files, ``ranked`` and ``differs``.
    """

    heading: str
    summary: str
    ours: tuple[str, ...] = ()
    ranked: tuple[Block, ...] = ()
    apart: tuple[Block, ...] = ()
    remarks: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    numbers: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*NUMBER_COLUMNS, "ranked", "differs"]))

    def numbered_sources(self) -> list[tuple[str, str]]:
        """Return the marks and names of the sources."""
        return [(str(number), source) for number, source in enumerate(self.sources, start=1)]

    def lettered_caveats(self) -> list[tuple[str, str]]:
        """Return the marks and words of the caveats."""
        return list(zip(LETTERS, self.caveats, strict=False))


def catalogue(name: str) -> PublishedPart:
    """Return all that is published on a data set, called as its file (``coco``) or as in the literature.

    Raises:
        CmlBenchError: If nothing is.
    """
    numbers, sources, caveats = marked(numbers_of(name).assign(made="", differs="", ranked=False))
    return PublishedPart(
        heading=", ".join(dict.fromkeys(numbers["dataset"])),
        summary=f"{len(numbers)} published numbers in the order of their sources; this is no ranking.",
        apart=in_blocks(numbers),
        sources=sources,
        caveats=caveats,
        numbers=numbers[[*NUMBER_COLUMNS, "ranked", "differs"]],
    )


def marked(numbers: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...], tuple[str, ...]]:
    """Return numbers with ``source_marks`` and ``caveat_marks``, and the lists that these point into."""
    sources, caveats = _listed(numbers["source"]), _listed(numbers["caveat"])
    figures = [str(number) for number in range(1, len(sources) + 1)]
    numbers = numbers.assign(
        source_marks=[_marks(text, sources, figures) for text in numbers["source"]],
        caveat_marks=[_marks(text, caveats, LETTERS) for text in numbers["caveat"]],
    )
    return numbers, sources, caveats


def in_blocks(numbers: pd.DataFrame) -> tuple[Block, ...]:
    """Return marked numbers in blocks: those of one protocol that were made alike.

    Args:
        numbers: Has ``made`` and ``differs`` as well: what differs from ours in making alone, and altogether, in lines.
    """
    groups = numbers.groupby(["protocol", "setting", *CONDITIONS, "made"], sort=False)
    return tuple(
        Block(
            heading=block_heading(group.iloc[0].to_dict()),
            lines=tuple(dict.fromkeys(line for text in group["differs"] for line in text.splitlines())),
            rows=rows_of(group, group["metric"].str.replace("_", " ")),
        )
        for _, group in groups
    )


def rows_of(numbers: pd.DataFrame, columns: Sequence[str] | pd.Series[str]) -> pd.DataFrame:
    """Return marked numbers as the rows of a block; what another source prints is a row of its own.

    Args:
        numbers: Of one protocol, made alike.
        columns: The column that each belongs in.
    """
    cells = [in_words(*pair) for pair in zip(numbers["value"], numbers["std"], strict=True)]
    numbers = numbers.assign(cell=cells, column=list(columns))
    # Sorted neither by name nor by number: methods with equal memories together, in the order of the source.
    keys = ["buffer", "method", "source_marks"]
    rows = numbers.pivot_table(index=keys, columns="column", values="cell", aggfunc="first", sort=False).fillna("")
    rows = rows[list(dict.fromkeys(columns))].assign(
        source=rows.index.get_level_values("source_marks"),
        caveats=numbers.groupby(keys, sort=False)["caveat_marks"].agg(_together),
    )
    rows = rows.reset_index().rename_axis(columns=None).drop(columns="source_marks")
    return rows[["method", *rows.columns.drop("method")]]


def block_heading(conditions: Mapping[Any, str]) -> str:
    """Return what the rows of a block have in common."""
    return f"{conditions['protocol']}, {conditions['setting']}: {conditions_in_words(conditions)}"


def conditions_in_words(conditions: Mapping[Any, str]) -> str:
    """Return backbone, image size, pretraining and unknown-label rule in one line."""
    return ", ".join(f"{title} {conditions[name]}" for name, title in CONDITIONS.items())


def in_words(value: str, std: str) -> str:
    """Return a number with its deviation, if it has one."""
    return f"{value} ± {std}" if std else value


def _listed(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the parts that are joined by semicolons, each once."""
    return tuple(dict.fromkeys(part for text in texts for part in text.split("; ") if part))


def _marks(text: str, listed: Sequence[str], marks: Sequence[str]) -> str:
    return " ".join(marks[listed.index(part)] for part in text.split("; ") if part)


def _together(marks: pd.Series[str]) -> str:
    """Return the marks of a row's numbers, each once."""
    return " ".join(sorted(set(" ".join(marks).split()), key=LETTERS.index))
