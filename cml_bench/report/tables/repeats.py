"""A job that was run more than once counts once: its newest result, and so does a file that was edited between."""

from __future__ import annotations

from typing import Final

import pandas as pd

CONFIGURATION: Final = ["benchmark", "version", "benchmark_options", "data"]
"""What jobs share that may stand in one column: the same images, labels and settings."""

_JOB: Final = [*CONFIGURATION, "method", "class_order", "seed"]


def finished_once(jobs: pd.DataFrame) -> pd.DataFrame:
    """Return the finished jobs, each once, in their order.

    Of several results of one job (same configuration, method, class order and seed) the one that was finished last is
    kept; one that does not say when counts as older, and of equals the last is kept. Of a plug-in file that was edited
    between jobs only results of its newest version are kept: a mean over two versions is of no method.

    Args:
        jobs: Rows of what ``collect`` returned.
    """
    done = jobs[jobs["status"] == "ok"].sort_values("finished", kind="stable", na_position="first")
    for file, owner in (("benchmark_file", CONFIGURATION), ("files", [*CONFIGURATION, "method"])):
        newest = done.groupby(owner, dropna=False)[file].transform("last")
        # What is not known is taken for the same.
        done = done[newest.isna() | done[file].isna() | (done[file] == newest)]
    return done.drop_duplicates(_JOB, keep="last").sort_index()


def without_mended(jobs: pd.DataFrame) -> pd.DataFrame:
    """Return all jobs but failures of those that have finished since: a plug-in file that was mended is another job."""
    identity = pd.MultiIndex.from_frame(jobs[_JOB].astype(str))
    finished = identity.isin(identity[jobs["status"] == "ok"])
    return jobs[(jobs["status"] != "failed") | ~finished]
