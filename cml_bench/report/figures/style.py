"""How every picture looks: colours that colour-blind readers tell apart, thin axes, a look for each method."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK: Final = "#1b1f24"
FAINT: Final = "#6b7280"
HAIR: Final = "#e2e5e9"
OTHER: Final = "#b3b9c1"
PAPER: Final = "#ffffff"
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5c3e")
"""Those of Okabe and Ito (2008, "Color Universal Design"), without yellow and black, which vanish on paper or in the
dark, and with a brown."""
VARIABLES: Final = {
    INK: "ink",
    FAINT: "faint",
    HAIR: "hair",
    OTHER: "other",
    PAPER: "paper",
    **{colour: f"colour-{i}" for i, colour in enumerate(COLOURS)},
}
"""What a page calls each colour, so that pictures follow it into the dark."""
SHOWN: Final = 10
"""Methods with a colour, a marker and a name; all others are grey."""

_MARKERS: Final = "osD^vPXoD^"
_LINES: Final = ("-", "-", "-", "-", "-", "-", "-", (0, (4, 2)), (0, (4, 2)), (0, (4, 2)))
_HOLLOW_FROM: Final = len(COLOURS)
_LONGEST_NAME: Final = 40
_LONGEST_KEY: Final = 8

RC: Final[dict[Any, Any]] = {
    "font.size": 9,
    "font.family": ["DejaVu Sans"],
    "text.color": INK,
    # Names of methods and labels are names: a dollar sign in them is a dollar sign.
    "text.parse_math": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "grid.color": HAIR,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    # Text stays text, to be read, searched and scaled; in PDF as TrueType, which publishers ask for.
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    # The same results give the same bytes.
    "svg.hashsalt": "cml_bench",
}


@dataclass(frozen=True)
class Look:
    """How one method looks in every picture of a benchmark.

    Attributes:
        method: Canonical specification.
        name: Short name, as printed.
        shown: Whether it has a colour and a name; others are grey.
        colour: Colour of line and marker.
        marker: Marker.
        line: Line style.
        fill: Colour within the marker.
    """

    method: str
    name: str
    shown: bool
    colour: str
    marker: str
    line: Any
    fill: str

    @property
    def of_line(self) -> dict[str, Any]:
        """Arguments of a line with markers."""
        if not self.shown:
            return {"color": self.colour, "linewidth": 0.7, "zorder": 1.5}
        return {"color": self.colour, "linestyle": self.line, "zorder": 3, **self.of_marker}

    @property
    def of_marker(self) -> dict[str, Any]:
        """Arguments of a marker."""
        edge = {"markeredgecolor": self.colour, "markerfacecolor": self.fill}
        return {"marker": self.marker, **edge, "zorder": 3 if self.shown else 1.5}


def make_looks(methods: Iterable[str], losses: Iterable[str] = ()) -> dict[str, Look]:
    """Give each method a look; the first ``SHOWN`` have colours, so the best should come first.

    Args:
        methods: Canonical specifications.
        losses: What tables call their criteria; nothing for what the specifications say.
    """
    methods = list(methods)
    names = short_names(methods, losses)
    looks = {}
    for i, method in enumerate(methods):
        shown = i < SHOWN
        colour = COLOURS[i % len(COLOURS)] if shown else OTHER
        looks[method] = Look(
            method=method,
            name=names[method],
            shown=shown,
            colour=colour,
            marker=_MARKERS[i] if shown else ".",
            line=_LINES[i] if shown else "-",
            fill=PAPER if shown and i >= _HOLLOW_FROM else colour,
        )
    return looks


def short_names(methods: Iterable[str], losses: Iterable[str] = ()) -> dict[str, str]:
    """Return a name for each method: its strategy, and those options in which methods of this strategy differ.

    An option whose value is a word is that word; arguments are those of ``make_looks``.
    """
    words = {method: _words(method, loss) for method, loss in zip_longest(methods, losses, fillvalue="")}
    strategies = Counter(parts[0] for parts in words.values())
    names = {}
    for method, (strategy, *options) in words.items():
        others = [set(parts[1:]) for parts in words.values() if parts[0] == strategy]
        common = set.intersection(*others) if strategies[strategy] > 1 else set(options)
        name = " ".join([strategy, *(_spoken(option) for option in options if option not in common)])
        names[method] = _shortened(name)
    repeated = {name for name, count in Counter(names.values()).items() if count > 1}
    numbers = {method: i + 1 for i, method in enumerate(words)}
    return {method: f"{name} #{numbers[method]}" if name in repeated else name for method, name in names.items()}


def printable(text: str) -> str:
    """Return text without what no file format takes: control characters and halves of characters."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "�" for letter in text)


def blank(width: float = 6.0, height: float = 3.7, **grid: Any) -> tuple[Figure, Any]:
    """Return an empty figure of so many inches and its axes."""
    # Not pyplot: it would choose a window system and keep every figure.
    figure = Figure(figsize=(width, height), layout="constrained", dpi=200)
    axes = figure.subplots(**grid)
    return figure, axes


def ruled(axes: Axes, axis: str = "y") -> None:
    """Draw thin grid lines without ticks."""
    axes.grid(visible=True, axis=axis)  # type: ignore[arg-type]
    axes.tick_params(axis="y", length=0)


@contextmanager
def drawing() -> Iterator[None]:
    """Be the context in which pictures are drawn and saved, whatever a user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


def _words(method: str, loss: str) -> list[str]:
    """Return a specification's words, with what tables call the criterion in the place of those that describe it."""
    strategy, *options = printable(method).split() or ["?"]
    if loss:
        options = [
            printable(loss).removesuffix(" (BCE)"),
            *(option for option in options if not option.startswith(("loss=", "loss."))),
        ]
    return [strategy, *options]


def _spoken(option: str) -> str:
    """Return an option in few letters: ``herding`` for ``selection=herding``, ``margin=1`` for ``logit_margin=1``."""
    key, _, value = option.partition("=")
    if re.fullmatch(r"[a-z][a-z_]+", value) and value not in ("true", "false", "none"):
        return value
    return f"{key.rpartition('_')[2]}={value}" if value and len(key) > _LONGEST_KEY else option


def _shortened(name: str) -> str:
    half = (_LONGEST_NAME - 1) // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[: half + 1]}…{name[-half:]}"
