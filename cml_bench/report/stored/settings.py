"""The settings that tell jobs apart."""

from __future__ import annotations

import pandas as pd


def differing(given: pd.Series) -> pd.DataFrame:
    """Return a column for each setting that not all jobs were given alike, NaN where a job was not given it.

    Args:
        given: For each job, its settings by name.
    """
    settings = pd.DataFrame(list(given), index=given.index)
    # A file may hold any JSON, and lists have no hash.
    return settings.loc[:, settings.map(repr).nunique() > 1]
