"""What stands on a page: for each benchmark configuration its table, pictures, gaps and commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from cml_bench.report.commands import reproducing_command
from cml_bench.report.figures.gallery import draw_all, draw_overall
from cml_bench.report.figures.glyphs import glyph
from cml_bench.report.figures.picture import FORMATS, Picture, write
from cml_bench.report.figures.style import plain
from cml_bench.report.gaps import gaps
from cml_bench.report.section import Section, all_blocks
from cml_bench.report.summary import Summary, summarize
from cml_bench.report.verdict import few_seeds, rank_verdict, verdict


@dataclass(frozen=True)
class Plate:
    """A picture on a page.

    Attributes:
        picture: What it shows.
        identity: Its anchor.
        svg: Its element.
        files: Kind to address of its files, relative to the page; empty where none are written.
    """

    picture: Picture
    identity: str
    svg: Markup
    files: dict[str, str]


@dataclass(frozen=True)
class Part:
    """One benchmark configuration on a page.

    Attributes:
        identity: Its anchor.
        section: Its table, jobs and runs.
        summary: Its table as a page shows it.
        remarks: What can be said of the lead, and warnings.
        glyphs: Method to its marker in the pictures.
        plates: Its pictures.
        gaps: What is missing, in sentences.
        commands: Method to the command that makes its row again.
        versions: Versions of the code that ran it.
    """

    identity: str
    section: Section
    summary: Summary
    remarks: tuple[str, ...]
    glyphs: dict[str, Markup]
    plates: tuple[Plate, ...]
    gaps: tuple[str, ...]
    commands: dict[str, str]
    versions: tuple[str, ...]


@dataclass(frozen=True)
class Overall:
    """All benchmark configurations together, where there are several.

    Attributes:
        remarks: What can be said of the lead over all of them, and why there is no picture, if so.
        plates: The picture of average ranks, if there is one.
    """

    remarks: tuple[str, ...]
    plates: tuple[Plate, ...]


def make_parts(sections: Sequence[Section], folder: Path | None) -> list[Part]:
    """Draw and describe every section; write pictures into a folder, if there is one."""
    return [_part(name, section, folder) for name, section in zip(_identities(sections), sections, strict=True)]


def make_overall(sections: Sequence[Section], folder: Path | None) -> Overall | None:
    """Rank methods over all sections; None for fewer than two with a finished job."""
    finished = [section for section in sections if section.runs]
    if len(finished) < 2:
        return None
    blocks = all_blocks(finished)
    picture, otherwise = draw_overall(blocks)
    plates = () if picture is None else (_plate(picture, "overall", folder),)
    remark = str(rank_verdict(blocks, "last mAP")) if picture is not None else otherwise
    return Overall((remark,), plates)


def _part(identity: str, section: Section, folder: Path | None) -> Part:
    pictures, lacking = draw_all(section)
    return Part(
        identity=identity,
        section=section,
        summary=summarize(section),
        remarks=_remarks(section),
        glyphs={method: Markup(glyph(look)) for method, look in section.looks.items() if look.shown},  # noqa: S704: ours
        plates=tuple(_plate(picture, identity, folder) for picture in pictures),
        gaps=(*gaps(section), *lacking),
        commands={
            method: reproducing_command(section.table.benchmark, section.runs_of(method)) for method in section.looks
        },
        versions=tuple(sorted({run.history.code_version for run in section.runs} - {""})),
    )


def _remarks(section: Section) -> tuple[str, ...]:
    if not section.runs:
        return ("No job has finished.",)
    blocks = section.blocks("last_map")
    named = blocks.rename(columns={method: look.name for method, look in section.looks.items()})
    rivals = [look.name for method, look in section.looks.items() if method not in section.bounds]
    lines = [str(verdict(named, "last mAP"))]
    if len(rivals) > 1 and len(rivals) < len(section.looks):
        bounds = " and ".join(look.name for method, look in section.looks.items() if method in section.bounds)
        lines.append(f"Without {bounds}, which see what a continual learner may not: {verdict(named[rivals], 'last mAP')}")
    return (*lines, *filter(None, [few_seeds(blocks)]))


def _plate(picture: Picture, part: str, folder: Path | None) -> Plate:
    files = {}
    if folder is not None:
        for kind in FORMATS:
            write(folder / part / f"{picture.name}.{kind}", picture.rendered(kind))
            files[kind] = quote(f"{folder.name}/{part}/{picture.name}.{kind}")
    identity = f"{part}-{picture.name}"
    return Plate(picture, identity, Markup(picture.inline(identity)), files)  # noqa: S704: an XML serializer wrote it


def _identities(sections: Sequence[Section]) -> list[str]:
    """Return a name for each section that is good for an address and a folder: its benchmark, numbered if repeated."""
    names = [plain(section.table.benchmark) for section in sections]
    repeated = {name for name, count in Counter(map(str.lower, names)).items() if count > 1}
    return [f"{name}_{i + 1}" if name.lower() in repeated else name for i, name in enumerate(names)]
