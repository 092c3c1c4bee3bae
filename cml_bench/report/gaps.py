"""What is missing behind the numbers of one benchmark configuration."""

from __future__ import annotations

from cml_bench.report.section import Section


def gaps(section: Section) -> list[str]:
    """Return a sentence for everything that is missing, was left out or counted once."""
    rows = section.table.rows
    found = [f"{row['method']}: {row['notes']}." for row in rows.to_dict("records") if row["notes"]]
    if "dropped_labels" in section.jobs and section.jobs["dropped_labels"].max() > 0:
        most = int(section.jobs["dropped_labels"].max())
        found.append(
            "Labels without a positive among the images tested have no average precision and are left out of means: up "
            f"to {most} of them after the last experience."
        )
    return found
