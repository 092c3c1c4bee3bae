"""Groups of labels by how often they are trained: major, moderate and minor."""

from __future__ import annotations

from typing import Final

from cml_bench.errors import CmlBenchError
from cml_bench.runs.schema import Result

CUTS: Final = (200, 900)
"""Training images from which a label is moderate, and major.

Kim et al. 2020 (PRS), arXiv 2009.03632, publish lists for COCOseq, which these cuts reproduce (inferred)."""

GROUPS: Final = ("major", "moderate", "minor")


def label_groups(result: Result, cuts: tuple[int, int] | None = None) -> dict[str, list[str]]:
    """Return the labels of each group: those that the benchmark declares, else by training images.

    Args:
        result: A result that is no failure.
        cuts: Training images from which a label is moderate, and from which it is major; None for the declared groups,
            or ``CUTS``.

    Raises:
        CmlBenchError: If the result does not say how often its labels were trained.
    """
    assert result.benchmark is not None
    names = result.benchmark.label_names
    declared = result.benchmark.label_groups
    if declared and cuts is None:
        known = set(names)
        return {group: [name for name in listed if name in known] for group, listed in declared.items()}
    counts = result.data["train"].label_counts if result.data and "train" in result.data else None
    if counts is None:
        raise CmlBenchError(
            f"the result of {result.job.method!r} (seed {result.job.seed}) does not say how often labels were trained, "
            "as results before schema version 2 do not: run the job again"
        )
    moderate, major = cuts or CUTS
    groups: dict[str, list[str]] = {group: [] for group in GROUPS}
    for name in names:
        count = counts.get(name, 0)
        groups["major" if count >= major else "moderate" if count >= moderate else "minor"].append(name)
    return groups


def parse_cuts(text: str) -> tuple[int, int]:
    """Read ``"200,900"``.

    Raises:
        CmlBenchError: If it is not two ascending numbers.
    """
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts) or int(parts[0]) > int(parts[1]):
        raise CmlBenchError(f"cuts {text!r} are not two ascending numbers of images: write them as 200,900")
    return int(parts[0]), int(parts[1])
