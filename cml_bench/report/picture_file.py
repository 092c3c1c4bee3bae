"""A picture as the one file that a user named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from cml_bench.errors import CmlBenchError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SUFFIXES: Final = (".png", ".pdf", ".svg")


def check_suffix(path: Path) -> None:
    """Check that a picture can be drawn into a file of this name.

    Raises:
        CmlBenchError: If it ends in anything but .png, .pdf or .svg.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise CmlBenchError(
            f"{path} is no kind of picture that can be drawn; give a file that ends in .png, .pdf or .svg"
        )


def save(figure: Figure, path: Path) -> None:
    """Write a figure into a file; its suffix says of which kind (PNG, PDF, SVG).

    Raises:
        CmlBenchError: If the file cannot be written.
    """
    try:
        figure.savefig(path)
    except OSError as error:
        raise CmlBenchError(
            f"{path} cannot be written ({error.strerror}); give a file in a folder that is there"
        ) from None
