"""Types that options of several strategies have."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Probability = Annotated[float, Field(ge=0, le=1)]
"""An option: a probability, a share or the weight of one of two parts, from 0 to 1."""
