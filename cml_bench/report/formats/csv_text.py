"""Tables as CSV that a spreadsheet may open: a name in them is never taken for a formula."""

from __future__ import annotations

from typing import Final

import pandas as pd

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def csv_text(frame: pd.DataFrame) -> str:
    """Return CSV without the index, numbers in full precision; a text that begins like a formula gets an apostrophe."""
    texts = {str(column): frame[column].map(_unformula) for column in frame.select_dtypes(exclude="number")}
    return str(frame.assign(**texts).rename(columns=_unformula).to_csv(index=False, lineterminator="\n"))


def _unformula(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
