"""Published numbers as grids that every format writes, and as rows of a sheet."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from cml_bench.report.formats.grid import Grid, make_grid
from cml_bench.report.published.numbers import literature
from cml_bench.report.published.rows import Block, PublishedPart
from cml_bench.report.tables.table import ComparisonTable


def all_grids(table: ComparisonTable, *, intervals: bool = False) -> Iterator[Grid]:
    """Yield a grid a table, after each what is published beside it."""
    for part in table.benchmarks:
        yield make_grid(part, intervals=intervals)
        if part.published is not None:
            yield from grids(part.published)


def grids(part: PublishedPart) -> Iterator[Grid]:
    """Yield a grid a block, what differs from ours and the sources under it."""
    for block in part.ranked:
        yield _grid(block, f"Ranked with published rows: {block.heading}", "method")
    for block in part.apart:
        # "threshold (last CF1): ours ..." is a difference in threshold.
        names = ", ".join(dict.fromkeys(re.split(r" \(|:", line)[0] for line in block.differences))
        yield _grid(block, f"Published, not ranked (differs in {names}): {block.heading}" if names else block.heading)


def sheet(part: PublishedPart) -> pd.DataFrame:
    """Return one row a published number, for a CSV file: ``percent``, since ours are fractions there."""
    numbers = part.numbers.assign(differs=part.numbers["differs"].str.replace("\n", " | "))
    return numbers.rename(columns={"metric": "published_metric", "value": "percent", "std": "percent_std"})


def overview() -> Table:
    """Return how many numbers are published on which data set, under which protocols."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for head in ("name", "data set", "numbers", "protocols"):
        table.add_column(
            head, justify="right" if head == "numbers" else "left", no_wrap=head == "name", overflow="fold"
        )
    for name, numbers in literature().numbers.groupby("file"):
        online = (numbers["setting"] == "online").map({True: " (online)", False: ""})
        listed = "; ".join(dict.fromkeys(numbers["protocol"] + online))
        table.add_row(*map(Text, (str(name), numbers["dataset"].iloc[0], str(len(numbers)), listed)))
    return table


def _grid(block: Block, heading: str, method: str = "published method") -> Grid:
    # Methods of papers are names, not specifications that a run could be given.
    cells = block.rows.rename(columns={"method": method}).astype(object)
    return Grid(
        heading=heading,
        cells=cells,
        marks=pd.DataFrame("", index=cells.index, columns=cells.columns),
        names=(method, "buffer", "source", "caveats"),
        spare=(),
        notes=(
            *(f"Differs from ours in {line}." for line in block.differences),
            *(f"Source {mark}: {source}." for mark, source in block.sources.items()),
            *(f"Caveat {mark}: {caveat}." for mark, caveat in block.caveats.items()),
        ),
    )
