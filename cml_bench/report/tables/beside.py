"""Published numbers beside a table of ours: ranked with it where nothing differs, else apart, with what differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pandas as pd

from cml_bench.report.published.comparability import (
    CONDITIONS,
    Circumstances,
    circumstances,
    condition_differences,
    metric_differences,
    protocol_difference,
)
from cml_bench.report.published.numbers import NOT_STATED, NUMBER_COLUMNS, Literature, literature, our_name
from cml_bench.report.published.rows import (
    Block,
    PublishedPart,
    conditions_in_words,
    in_blocks,
    make_block,
)
from cml_bench.report.tables.averages import estimates_in
from cml_bench.report.tables.quantities import heading, quantity
from cml_bench.report.tables.table import BenchmarkTable, ComparisonTable

OURS: Final = "ours"
"""Source of our own rows where they stand among published ones."""


def beside(table: BenchmarkTable, frame: pd.DataFrame, known: Literature | None = None) -> PublishedPart:
    """Find what is published on a table's data set and protocol, and what of it may be ranked with the table.

    Args:
        table: Of one benchmark configuration.
        frame: What ``collect`` returned; the result files that it names must still be there.
        known: What is published; the tracked files by default.
    """
    known = known or literature()
    ours = {str(method): circumstances(paths) for method, paths in _finished(table, frame)}
    if not ours:
        return PublishedPart(("No job has finished: nothing published can be set beside this table.",))
    one = next(iter(ours.values()))
    protocols = known.protocols[known.protocols["data"] == one.data]
    if protocols.empty:
        there = ", ".join(known.data_sets)
        return PublishedPart((f"No published numbers on {one.data}; there are some on {there}.",))
    matching = protocols[[_matches(one, row) for row in protocols.to_dict("records")]]
    if matching.empty:
        stream = f"{one.division}, {one.stream['setting']}, assignment {one.stream['assignment']}"
        there = ", ".join(dict.fromkeys(protocols["protocol"]))
        return PublishedPart((f"No published numbers on {one.data} for {stream}; there are some for {there}.",))
    return _part(table, ours, known.numbers.merge(matching, on=["dataset", "protocol", "setting"], sort=False))


def _finished(table: BenchmarkTable, frame: pd.DataFrame) -> Iterator[tuple[str, list[Path]]]:
    """Yield the methods of a table with result files of finished jobs, one a class order; the best method first."""
    done = table.jobs_in(frame[frame["status"] == "ok"])
    for method in table.rows["method"]:
        jobs = done[done["method"] == method].drop_duplicates("class_order")
        if len(jobs):
            yield method, [Path(path) for path in jobs["path"]]


def _matches(one: Circumstances, protocol: Mapping[Any, str]) -> bool:
    """Return whether a published protocol has the division, setting and assignment of our stream."""
    return (
        one.division in protocol["divisions"].split()
        and one.stream["setting"] == protocol["setting"]
        and protocol["assignment"] in (one.stream["assignment"], NOT_STATED)
    )


def _part(table: BenchmarkTable, ours: Mapping[str, Circumstances], numbers: pd.DataFrame) -> PublishedPart:
    groups = _alike(ours)
    ways = [ours[methods[0]] for methods in groups]
    alike = numbers.groupby(["protocol", *CONDITIONS], sort=False)
    made = [_made_differently(group.iloc[0].to_dict(), ways) for _, group in alike]
    numbers["way"], numbers["made"] = zip(*(made[group] for group in alike.ngroup()), strict=True)
    numbers["counted"] = [_counted_differently(row, table.metrics) for row in numbers.to_dict("records")]
    numbers["differs"] = (numbers["made"] + "\n" + numbers["counted"]).str.strip()
    numbers["ranked"] = numbers["differs"] == ""
    ranked, apart = numbers[numbers["ranked"]], numbers[~numbers["ranked"]]
    together = ranked.groupby(["protocol", *CONDITIONS, "way"], sort=False)
    return PublishedPart(
        summary=(
            _counted(len(ranked), len(apart)),
            *(f"Ours: {_described(group, way)}" for group, way in zip(groups, ways, strict=True)),
            *(f"Published: {remark}" for remark in dict.fromkeys(numbers["remark"]) if remark),
        ),
        ranked=tuple(_ranked(table, groups[rows["way"].iloc[0]], rows) for _, rows in together),
        apart=in_blocks(apart),
        numbers=numbers[[*NUMBER_COLUMNS, "ranked", "differs"]],
    )


def _alike(ours: Mapping[str, Circumstances]) -> list[list[str]]:
    """Return the methods in groups that were run in the same way."""
    groups: dict[str, list[str]] = {}
    for method, way in ours.items():
        groups.setdefault(repr((way.conditions, way.class_orders, way.oddities)), []).append(method)
    return list(groups.values())


def _made_differently(theirs: Mapping[Any, str], ways: Sequence[Circumstances]) -> tuple[int, str]:
    """Return which of our ways is nearest to a published one, and what differs from it, in lines.

    Where our methods were run in several ways, the words name them all.
    """

    def different(ours: Sequence[Circumstances]) -> dict[str, str]:
        protocol = protocol_difference(ours, theirs)
        return {**({"protocol": protocol} if protocol else {}), **condition_differences(ours, theirs)}

    nearest = min(range(len(ways)), key=lambda way: len(different([ways[way]])))
    names = different([ways[nearest]])
    return nearest, "\n".join(f"{name}: {text}" for name, text in different(ways).items() if name in names)


def _counted_differently(theirs: Mapping[Any, str], metrics: Sequence[str]) -> str:
    """Return what is different about a published metric, in lines."""
    metric = theirs["metric"].replace("_", " ")
    return "\n".join(f"{name} ({metric}): {text}" for name, text in metric_differences(metrics, theirs).items())


def _counted(n_ranked: int, n_apart: int) -> str:
    every = f"Published on this data set and protocol: {n_ranked + n_apart} numbers"
    if not n_ranked:
        return f"{every}, none ranked with ours because each differs in how it was made or counted."
    return f"{every}, {n_ranked} ranked with ours, {n_apart} apart because they were made or counted differently."


def _described(methods: Sequence[str], way: Circumstances) -> str:
    return f"{' / '.join(methods)}: {conditions_in_words(way.conditions)}, class order {', '.join(way.class_orders)}"


def _ranked(table: BenchmarkTable, methods: Sequence[str], numbers: pd.DataFrame) -> Block:
    here = [str(our_name(row["metric"], row["threshold"], row["cf1"])) for row in numbers.to_dict("records")]
    metrics = [metric for metric in table.metrics if metric in here]
    own = table.rows[table.rows["method"].isin(methods)]
    cells = pd.DataFrame({"method": own["method"], "buffer": "", "source": OURS, "caveats": own["notes"]})
    for metric in metrics:
        cells[metric] = [quantity(metric).cell(each) for each in estimates_in(own, metric)]
    block = make_block(numbers, here)
    rows = pd.concat([cells, block.rows], ignore_index=True).fillna("")
    rows = rows.sort_values(metrics[0], key=_leading, ascending=False, kind="stable", ignore_index=True)
    rows = rows[["method", "buffer", *metrics, "source", "caveats"]]
    return replace(block, rows=rows.rename(columns=heading))


def _leading(cells: pd.Series[str]) -> pd.Series[float]:
    """Return the numbers that cells begin with; NaN where there is none."""
    return pd.to_numeric(cells.str.split().str[0], errors="coerce")


def with_published(table: ComparisonTable, frame: pd.DataFrame) -> ComparisonTable:
    """Set beside each table of methods what is published on its data set and protocol.

    Args:
        table: Rows are methods, columns metrics.
        frame: What ``collect`` returned; see ``beside``.
    """
    parts = [(each, beside(each, frame)) for each in table.benchmarks]
    shown = [replace(each, published=part, notes=(*each.notes, *part.summary)) for each, part in parts]
    return replace(table, benchmarks=tuple(shown))
