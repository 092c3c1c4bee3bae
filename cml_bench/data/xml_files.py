"""Reading XML files that come from elsewhere."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree


def read_xml(path: Path) -> ElementTree.Element:
    """Return the root of a UTF-8 file, with or without a byte order mark.

    Raises:
        ValueError: If it is no XML, or declares a document type: entities could grow without bound, and no file that is
            read here has any.
    """
    text = path.read_text(encoding="utf-8-sig")
    if "<!DOCTYPE" in text:
        raise ValueError("it declares a document type")
    try:
        return ElementTree.fromstring(text)  # noqa: S314
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None
