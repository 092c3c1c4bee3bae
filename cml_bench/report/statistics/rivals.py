"""Who can be compared: the blocks that most methods have, and the methods that have all of these."""

from __future__ import annotations

import pandas as pd


def fair_part(blocks: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the part of a table of blocks in which nothing is missing, and the names of the columns that it lacks.

    Blocks count that at least half of the columns have, so that neither a job more than the others have nor a method
    with a few jobs takes a comparison from the rest; where that leaves no two columns, those that more than half have
    (of two methods what both have), or else those that all have.

    Args:
        blocks: One row a block, one column a method; NaN where a job or a figure is missing.

    Returns:
        Some rows and columns of ``blocks``, without NaN, fewer than two columns if no two can be compared; and the
        columns left out.
    """
    filled = blocks.notna()
    shares = filled.sum(axis=1) / max(int(filled.any().sum()), 1)
    for common in (shares >= 0.5, shares > 0.5, shares == 1):
        whole = filled[common].all() & filled.any()
        if common.any() and whole.sum() > 1:
            break
    else:
        common, whole = pd.Series(False, blocks.index), pd.Series(False, blocks.columns)
    return blocks.loc[common, whole], tuple(str(label) for label in blocks.columns[~whole])
