"""Packages that only some parts need."""

from __future__ import annotations

import importlib
from types import ModuleType

from cml_bench.errors import CmlBenchError


def import_extra(module: str, *, extra: str, what: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: What to import.
        extra: The extra of this package that brings it.
        what: What cannot be had without it, for the error sentence.

    Raises:
        CmlBenchError: If it is not installed, or something that it needs is not.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CmlBenchError(f"{what} needs a package ({error}): pip install 'cml-bench[{extra}]'") from None
