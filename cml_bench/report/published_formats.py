"""Published numbers as terminal output, Markdown, LaTeX, HTML and CSV; each shows the source of every number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cml_bench.report.published import literature
from cml_bench.report.published_rows import PublishedPart


@dataclass(frozen=True)
class _Piece:
    """A title, lines, and perhaps a table below them; empty where there is none."""

    title: str
    lines: tuple[str, ...]
    rows: pd.DataFrame | None = None


def to_terminal(parts: Sequence[PublishedPart]) -> Group:
    """Return a Rich renderable."""
    shown: list[Table | Text] = []
    for part in parts:
        for piece in _pieces(part):
            # Names are Text throughout: brackets in a plain string would be read as markup.
            shown += [Text(piece.title, style="bold")] if piece.title else []
            shown += [Text(f"  {line}") for line in piece.lines]
            shown.append(Text() if piece.rows is None else _grid(piece.rows))
    return Group(*shown)


def overview() -> Table:
    """Return how many numbers are published on which data set, under which protocols."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for head in ("name", "data set", "numbers", "protocols"):
        table.add_column(
            head, justify="right" if head == "numbers" else "left", no_wrap=head == "name", overflow="fold"
        )
    for name, numbers in literature().numbers.groupby("file"):
        online = (numbers["setting"] == "online").map({True: " (online)", False: ""})
        listed = "; ".join(dict.fromkeys(numbers["protocol"] + online))
        table.add_row(*map(Text, (str(name), numbers["dataset"].iloc[0], str(len(numbers)), listed)))
    return table


def to_markdown(parts: Sequence[PublishedPart]) -> str:
    """Return Markdown: a heading for each table of ours, one for each block below it."""
    text = []
    for part in parts:
        for level, piece in enumerate(_pieces(part)):
            title = _plain_markdown(piece.title)
            text.append(f"{'####' if level else '###'} {title}\n" if title else "")
            text += [f"- {_plain_markdown(line)}" for line in piece.lines]
            if piece.rows is not None:
                cells = piece.rows.map(_plain_markdown)
                text.append(f"\n{cells.to_markdown(index=False, disable_numparse=True)}")
            text.append("")
    return "\n".join(text)


def to_latex(parts: Sequence[PublishedPart]) -> str:
    """Return LaTeX ``tabular`` environments for booktabs, names escaped; what differs is printed above the rows."""
    text = []
    for part in parts:
        for piece in _pieces(part):
            lines = pd.DataFrame({"": [piece.title, *piece.lines]})
            text.append(_tabular(lines, r"@{}p{\linewidth}@{}", header=False))
            if piece.rows is not None:
                text.append(_tabular(piece.rows, "".join("r" if _is_metric(str(name)) else "l" for name in piece.rows)))
    return "\n".join(text).replace("±", r"$\pm$")


def to_html(parts: Sequence[PublishedPart]) -> str:
    """Return HTML sections, names escaped, for a page that brings its own style."""
    text = []
    for part in parts:
        text.append('<section class="published">')
        for level, piece in enumerate(_pieces(part), start=3):
            tag = f"h{min(level, 4)}"
            text.append(f"<{tag}>{escape(piece.title)}</{tag}>")
            text.append(
                f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in piece.lines)}</ul>" if piece.lines else ""
            )
            text.append("" if piece.rows is None else piece.rows.to_html(index=False, border=0, escape=True))
        text.append("</section>")
    return "\n".join(filter(None, text))


def to_frame(parts: Sequence[PublishedPart]) -> pd.DataFrame:
    """Return one row a published number, beside which table of ours it is told by ``beside``; for a CSV sheet."""
    frames = [part.numbers.assign(beside=part.heading) for part in parts]
    frame = pd.concat(frames, ignore_index=True)
    return frame.assign(differs=frame["differs"].str.replace("\n", " | "))


def _pieces(part: PublishedPart) -> Iterator[_Piece]:
    """Yield what every format shows, in order; the first is the heading."""
    above = (part.summary, *(f"ours: {line}" for line in part.ours), *(f"theirs: {line}" for line in part.remarks))
    yield _Piece(f"Published: {part.heading}", above)
    for block in part.ranked:
        yield _Piece(f"Ranked with ours: {block.heading}", block.lines, block.rows)
    for block in part.apart:
        different = tuple(f"differs in {line}" for line in block.lines)
        yield _Piece(f"Not ranked: {block.heading}" if different else block.heading, different, block.rows)
    for title, lines in (
        ("Sources", [f"{mark}  {source}" for mark, source in part.numbered_sources()]),
        ("Caveats", [f"{mark}  {caveat}" for mark, caveat in part.lettered_caveats()]),
    ):
        if lines:
            yield _Piece(title, tuple(lines))


def _is_metric(column: str) -> bool:
    return column not in ("method", "buffer", "source", "caveats")


def _grid(rows: pd.DataFrame) -> Table:
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in rows.columns:
        if _is_metric(column):
            # Narrow heads keep figures on one line in a narrow terminal.
            grid.add_column(Text(column.replace(" ", "\n")), justify="right", no_wrap=True)
        else:
            grid.add_column(Text(column), overflow="fold")
    for values in rows.to_numpy():
        grid.add_row(*map(Text, values))
    return grid


def _tabular(rows: pd.DataFrame, align: str, header: bool = True) -> str:
    style = rows.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
    return (style if header else style.hide(axis="columns")).to_latex(hrules=header, column_format=align)


def _plain_markdown(text: str) -> str:
    """Keep what Markdown would read as a column, as emphasis or as HTML."""
    for sign in ("\\", "|", "*", "_", "<", "`"):
        text = text.replace(sign, f"\\{sign}")
    return text
