"""The suite files behind reference tables: what they cross, and that every cell passes the check before a sweep."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from cml_bench.runs.check import check_jobs
from cml_bench.runs.method import parse_method
from cml_bench.runs.sweep import read_suite

REFERENCE = Path(__file__).resolve().parents[2] / "results" / "reference"
HEADS = ("linear", "dlfl", "query2label", "mulcon", "hsvlt")
LOSSES = ("bce", "asl", "hill", "splc", "clml", "an", "role", "em")
REGIMES = ("full", "single_positive", "missing_positives rate=0.6")


@pytest.mark.parametrize("path", sorted(REFERENCE.rglob("*.yaml")), ids=lambda path: str(path.relative_to(REFERENCE)))
def test_every_suite_file_reads(path: Path) -> None:
    jobs = read_suite(path).jobs
    assert len(jobs) == len(set(jobs)) > 0


def test_the_table_of_heads_losses_has_all_cells_and_each_sets_up() -> None:
    jobs = read_suite(REFERENCE / "heads_losses" / "suite.yaml").jobs
    cells: Counter[tuple[str | None, str | None, str]] = Counter()
    for job in jobs:
        method = parse_method(job.method)
        cells[method.head, method.loss, dict(job.options)["regime"]] += 1
    seeds = {job.seed for job in jobs}
    assert cells == {(head, loss, regime): len(seeds) for head in HEADS for loss in LOSSES for regime in REGIMES}
    check_jobs([job for job in jobs if job.seed == min(seeds)])
