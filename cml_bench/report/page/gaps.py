"""What is missing behind the numbers of one benchmark configuration."""

from __future__ import annotations

from cml_bench.report.figures.section import Section


def gaps(section: Section) -> list[str]:
    """Return a sentence for each method that lacks something; what all lack is said under the table."""
    rows = section.table.rows
    return [f"{row['method']}: {row['notes']}." for row in rows.to_dict("records") if row["notes"]]
