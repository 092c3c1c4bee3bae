"""Published numbers beside a table of ours: ranked with it where nothing differs, else apart, with what differs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from cml_bench.report.comparability import (
    CONDITIONS,
    Circumstances,
    circumstances,
    condition_differences,
    metric_differences,
    protocol_difference,
)
from cml_bench.report.formats import heading
from cml_bench.report.published import NOT_STATED, NUMBER_COLUMNS, Literature, literature, our_name
from cml_bench.report.published_rows import (
    Block,
    PublishedPart,
    block_heading,
    conditions_in_words,
    in_blocks,
    in_words,
    marked,
    rows_of,
)
from cml_bench.report.tables import BenchmarkTable

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
        return PublishedPart(table.heading, "No job has finished: nothing published can be set beside this table.")
    one = next(iter(ours.values()))
    protocols = known.protocols[known.protocols["data"] == one.data]
    if protocols.empty:
        there = ", ".join(known.data_sets)
        return PublishedPart(table.heading, f"No published numbers on {one.data}; there are some on {there}.")
    matching = protocols[[_matches(one, row) for row in protocols.to_dict("records")]]
    if matching.empty:
        stream = f"{one.division}, {one.stream['setting']}, assignment {one.stream['assignment']}"
        there = ", ".join(dict.fromkeys(protocols["protocol"]))
        return PublishedPart(
            table.heading, f"No published numbers on {one.data} for {stream}; there are some for {there}."
        )
    return _part(table, ours, known.numbers.merge(matching, on=["dataset", "protocol", "setting"], sort=False))


def _finished(table: BenchmarkTable, frame: pd.DataFrame) -> Iterator[tuple[str, list[Path]]]:
    """Yield the methods of a table with result files of finished jobs, one a class order; the best method first."""
    done = frame[(frame["status"] == "ok") & (frame["benchmark"] == table.benchmark)]
    for column in ("version", "benchmark_options", "data"):
        own = getattr(table, column)
        done = done[done[column].isna() if own is None else done[column] == own]
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
    numbers, sources, caveats = marked(numbers)
    ranked, apart = numbers[numbers["ranked"]], numbers[~numbers["ranked"]]
    return PublishedPart(
        heading=table.heading,
        summary=_summary(len(ranked), len(apart)),
        ours=tuple(_described(group, way) for group, way in zip(groups, ways, strict=True)),
        ranked=tuple(
            _ranked(table, groups[rows["way"].iloc[0]], rows) for _, rows in ranked.groupby(["protocol", "way"])
        ),
        apart=in_blocks(apart),
        remarks=tuple(dict.fromkeys(filter(None, numbers["remark"]))),
        sources=sources,
        caveats=caveats,
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
    """Return what is different about a published metric, in one line."""
    different = ", ".join(f"{name}: {text}" for name, text in metric_differences(metrics, theirs).items())
    return f"{theirs['metric'].replace('_', ' ')}: {different}" if different else ""


def _summary(n_ranked: int, n_apart: int) -> str:
    every = f"{n_ranked + n_apart} published numbers on this data set and protocol"
    if not n_ranked:
        return f"{every}; none is ranked with ours, since each differs in what stands above its row."
    return f"{every}; {n_ranked} ranked with ours, {n_apart} apart because of what stands above their rows."


def _described(methods: Sequence[str], way: Circumstances) -> str:
    orders = ", ".join(way.class_orders)
    return f"{' / '.join(methods)}: {conditions_in_words(way.conditions)}, class order {orders}"


def _ranked(table: BenchmarkTable, methods: Sequence[str], numbers: pd.DataFrame) -> Block:
    here = [str(our_name(row["metric"], row["threshold"], row["cf1"])) for row in numbers.to_dict("records")]
    metrics = [metric for metric in table.metrics if metric in here]
    own = table.rows[table.rows["method"].isin(methods)]
    cells = pd.DataFrame({"method": own["method"], "buffer": "", "source": OURS, "caveats": own["notes"]})
    for metric in metrics:
        pairs = zip(own[f"{metric}_mean"] * 100, own[f"{metric}_std"] * 100, strict=True)
        cells[metric] = [in_words(f"{mean:.1f}", "" if math.isnan(std) else f"{std:.1f}") for mean, std in pairs]
    rows = pd.concat([cells, rows_of(numbers, here)], ignore_index=True).fillna("")
    rows = rows.sort_values(metrics[0], key=_leading, ascending=False, kind="stable", ignore_index=True)
    rows = rows[["method", "buffer", *metrics, "source", "caveats"]].rename(columns=heading)
    return Block(block_heading(numbers.iloc[0].to_dict()), (), rows)


def _leading(cells: pd.Series[str]) -> pd.Series[float]:
    """Return the numbers that cells begin with; NaN for empty ones."""
    return pd.to_numeric(cells.str.split().str[0])
