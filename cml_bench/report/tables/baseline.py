"""The row that all others of a table are compared with."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from cml_bench.errors import CmlBenchError, suggest
from cml_bench.report.statistics.differences import differences_from
from cml_bench.report.tables.quantities import heading
from cml_bench.report.tables.remarks import differences_remark
from cml_bench.report.tables.table import BenchmarkTable


def with_baseline(tables: Sequence[BenchmarkTable], baseline: str) -> list[BenchmarkTable]:
    """Add the differences from a row that is named in full or, where that is clear, by its first word.

    Raises:
        CmlBenchError: If no table has it, several rows begin with it, or rows do not compete.
    """
    found = [_match(baseline, [str(label) for label in table.blocks]) for table in tables]
    known = sorted({str(label) for table in tables for label in table.blocks})
    if not any(found):
        raise CmlBenchError(f"baseline {baseline!r} is in no table; {suggest(baseline, known)}")
    compared = []
    for table, name in zip(tables, found, strict=True):
        if table.blocks.columns.name != table.row:
            raise CmlBenchError(f"a baseline compares rows: make {table.blocks.columns.name} the rows, not the columns")
        if name is None:
            compared.append(replace(table, notes=(*table.notes, f"No job of the baseline {baseline} here.")))
            continue
        differences = differences_from(table.blocks, name, table.bounds)
        remark = differences_remark(differences, name, heading(table.metrics[0]), table.blocks)
        compared.append(replace(table, baseline=name, differences=differences, notes=(*table.notes, remark)))
    return compared


def meant(name: str, labels: Collection[str]) -> list[str]:
    """Return which labels a baseline's name stands for: itself, or else those whose first word it is."""
    return [name] if name in labels else [label for label in labels if label.split()[0] == name]


def _match(name: str, labels: list[str]) -> str | None:
    alike = meant(name, labels)
    if len(alike) > 1:
        raise CmlBenchError(f"baseline {name!r} is several rows: name one in full, as {alike[0]!r} or {alike[1]!r}")
    return alike[0] if alike else None
