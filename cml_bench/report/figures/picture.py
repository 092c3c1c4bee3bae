"""A picture with the figures that it shows: as files for a paper, and as a part of a page."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import pandas as pd
from matplotlib.figure import Figure

from cml_bench.report.figures.style import VARIABLES, drawing
from cml_bench.report.formats.csv_text import csv_text

_SVG: Final = "http://www.w3.org/2000/svg"
_LINK: Final = "{http://www.w3.org/1999/xlink}href"
# Neither a date nor a version: the same results give the same bytes.
_METADATA: Final[dict[str, dict[str, Any]]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture of a report.

    Attributes:
        name: Stem of its files.
        title: What it shows, in a few words.
        caption: How to read it, and everything that it leaves out.
        data: The figures that it shows, those of methods drawn in grey included.
        figure: The drawing, its layout settled.
        wide: Whether it needs the whole width of a page.
    """

    name: str
    title: str
    caption: str
    data: pd.DataFrame
    figure: Figure
    wide: bool = False

    @classmethod
    def settled(cls, name: str, title: str, caption: str, data: pd.DataFrame, figure: Figure, **more: Any) -> Picture:
        """Return a picture; its layout is computed once, not anew for each format."""
        figure.draw_without_rendering()
        # With an engine that has nothing left to do, each format would still be drawn twice.
        figure.set_layout_engine(None)
        return cls(name, title, caption, data, figure, **more)

    def rendered(self, kind: str) -> bytes:
        """Return the content of a ``png``, ``svg``, ``pdf`` or ``csv`` file."""
        if kind == "csv":
            return csv_text(self.data).encode()
        return self._svg if kind == "svg" else self._saved(kind)

    @cached_property
    def _svg(self) -> bytes:
        # Asked for twice: as a file and for the page.
        return self._saved("svg")

    def _saved(self, kind: str) -> bytes:
        buffer = io.BytesIO()
        with drawing():
            self.figure.savefig(buffer, format=kind, metadata=_METADATA[kind])
        return buffer.getvalue()

    def inline(self, identity: str) -> str:
        """Return an ``<svg>`` element for a page.

        Its colours are variables of the page (``style.VARIABLES``), its letters those of the page, and its ids begin
        with ``identity``, so that several pictures can stand on one page.
        """
        # Nobody but matplotlib has written it.
        root = ElementTree.fromstring(self.rendered("svg"))  # noqa: S314
        for parent in list(root.iter()):
            for child in list(parent):
                # A style element would hold for the whole page; what it says is said in the page's own.
                if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                    parent.remove(child)
        used = {match for element in root.iter() for match in _references(element)}
        for element in root.iter():
            _localize(element, identity, used)
        for size in ("width", "height", "version"):
            root.attrib.pop(size, None)
        root.set("role", "img")
        root.set("aria-label", self.title)
        ElementTree.register_namespace("", _SVG)
        ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
        return ElementTree.tostring(root, encoding="unicode")


def _references(element: ElementTree.Element) -> list[str]:
    found = [match for value in element.attrib.values() for match in re.findall(r"url\(#([^)]+)\)", value)]
    link = element.get(_LINK, "")
    return [*found, link[1:]] if link.startswith("#") else found


def _localize(element: ElementTree.Element, identity: str, used: set[str]) -> None:
    """Make ids those of one picture, colours and letters those of the page."""
    if (own := element.get("id")) is not None:
        if own in used:
            element.set("id", f"{identity}-{own}")
        else:
            del element.attrib["id"]
    if element.get(_LINK, "").startswith("#"):
        element.set(_LINK, f"#{identity}-{element.attrib[_LINK][1:]}")
    for name, value in element.attrib.items():
        if "url(#" in value:
            element.set(name, value.replace("url(#", f"url(#{identity}-"))
    if "style" in element.attrib:
        style = re.sub(r"#[0-9a-f]{6}\b", _variable, element.attrib["style"])
        element.set("style", re.sub(r"font-family: [^;]+", "font-family: var(--letters)", style))


def _variable(match: re.Match[str]) -> str:
    name = VARIABLES.get(match[0])
    return match[0] if name is None else f"var(--{name})"
