"""Plain lists: text files that say one thing a line."""

from __future__ import annotations

from pathlib import Path

from cml_bench.errors import CmlBenchError

LABEL_LIST = "label_names.txt"
"""Where the label names of a folder stand, one a line, where its other files do not fix them."""


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file without surrounding blanks; line ends of any system, with or without a mark.

    Raises:
        CmlBenchError: If the file is no text, has no line, or has an empty one (which would shift all that follow).
    """
    try:
        # A byte order mark would become part of the first name.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CmlBenchError(f"{path} is no UTF-8 text (byte {error.start}): fetch it again") from None
    lines = [line.strip() for line in text.rstrip().split("\n")]
    if "\0" in text:
        # UTF-16 without a mark looks so.
        line = next(number for number, line in enumerate(lines, start=1) if "\0" in line)
        raise CmlBenchError(f"line {line} of {path} holds a zero byte, no UTF-8 text: fetch the file again")
    if "" in lines:
        raise CmlBenchError(
            f"line {lines.index('') + 1} of {path} is empty: fetch the file again, or take the line out"
        )
    return lines
