"""The figures of each job that a table asks for: as stored, or computed from its predictions."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from cml_bench.errors import CmlBenchError, suggest
from cml_bench.metrics.names import parse_metric
from cml_bench.metrics.retention import forward_transfer, mean_defined
from cml_bench.report.stored.collect import COST_COLUMNS, JOB_COLUMNS
from cml_bench.report.stored.label_groups import GROUPS
from cml_bench.report.tables.repeats import CONFIGURATION, finished_once

FRESH: Final = "from_scratch"
"""Method whose runs forward transfer is measured against."""


def known_groups(jobs: pd.DataFrame) -> tuple[str, ...]:
    """Return the groups of labels that metrics may be of: those that benchmarks declare, and the usual ones."""
    return tuple(dict.fromkeys([*itertools.chain(*jobs["label_groups"]), *GROUPS]))


def full_name(metric: str, groups: Iterable[str]) -> str:
    """Return the summary key that a metric name means; a bare decision metric is that after the last experience."""
    return str(parse_metric(metric, groups))


def with_metrics(jobs: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the jobs with one column a metric or cost, NaN for failed jobs and where undefined.

    Args:
        jobs: Rows of what ``collect`` returned.
        names: Full names. A decision metric at a threshold that was not stored, and any metric of a group of labels
            (``last_map_minor``), is computed from the predictions; of a group that the benchmark does not know, it is
            undefined.

    Raises:
        CmlBenchError: If a name is unknown, or predictions that are needed cannot be read.
    """
    return jobs.assign(**{name: _values(jobs, name) for name in names})


def _values(jobs: pd.DataFrame, name: str) -> pd.Series[float]:
    known = [column for column in jobs.columns if column not in JOB_COLUMNS or column in COST_COLUMNS]
    values = jobs[name] if name in known else pd.Series(float("nan"), index=jobs.index)
    done = jobs["status"] == "ok"
    if name == "forward_transfer":
        return _forward_transfer(jobs)
    metric = parse_metric(name, known_groups(jobs))
    if metric.threshold is not None or metric.group is not None:
        known_here = jobs["label_groups"].map(lambda groups: metric.group in (None, *groups, *GROUPS)).astype(bool)
        absent = done & values.isna() & known_here
        if not absent.any():
            return values
        # Imported here because it takes torch along and is needed only for what no run has stored.
        from cml_bench.report.stored.rescore import stored_metric

        computed = [stored_metric(Path(path), name) for path in jobs.loc[absent, "path"]]
        return values.where(~absent, pd.Series(computed, index=jobs.index[absent], dtype="float64"))
    if name not in known and done.any():
        raise CmlBenchError(f"metric {name!r:.80} is in no result; {_meant(name, known)}")
    return values


def _meant(name: str, known: list[str]) -> str:
    """Suggest the figure after the last experience where a bare metric is named, such as ``mAP``; else a like name."""
    figure, at, threshold = name.lower().partition("@")
    bare = f"last_{figure.removeprefix('last_')}"
    kinds = [
        each for each in known if each in (bare, f"{bare}@0.5") or re.fullmatch(rf"{re.escape(bare)}_[a-z]+@0.5", each)
    ]
    if not kinds:
        return suggest(name, known)
    if at and re.fullmatch(r"0?\.\d+", threshold) is None:
        return f"a threshold is a probability between 0 and 1: {kinds[0].partition('@')[0]}@0.6, say"
    return f"did you mean {' or '.join(map(repr, kinds))}?"


def _forward_transfer(jobs: pd.DataFrame) -> pd.Series[float]:
    """Return how much better the labels of later experiences were learnt than by the ``from_scratch`` job beside.

    The reference has the same configuration, head, criterion, wrapper, class order and seed; NaN where it was not run.

    Raises:
        CmlBenchError: If no reference was run at all, or there are several for a job.
    """
    beside = [*CONFIGURATION, "head", "loss", "wrap", "class_order", "seed"]
    once = finished_once(jobs)
    scratch = once[once["method"].astype(str).str.split().str[0] == FRESH]
    if scratch.empty:
        raise CmlBenchError(f"metric 'forward_transfer' compares with {FRESH!r}: run that method as well")
    several = scratch.loc[scratch.duplicated(beside, keep=False), "method"].unique()
    if len(several):
        raise CmlBenchError(
            f"metric 'forward_transfer' compares with one run of {FRESH!r}, and these would serve as well as each "
            f"other: {', '.join(map(repr, sorted(several)))}: choose methods so that there is one"
        )
    pairs = jobs.merge(scratch[[*beside, "when_learnt"]], on=beside, how="left", suffixes=("", "_fresh"))
    values = [
        mean_defined(forward_transfer(np.diag(own), fresh)) if isinstance(fresh, tuple) and own else float("nan")
        for own, fresh in zip(pairs["when_learnt"], pairs["when_learnt_fresh"], strict=True)
    ]
    return pd.Series(values, index=jobs.index, dtype="float64")
