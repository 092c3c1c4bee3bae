"""The guide builds without a warning, holds every plug-in with all its options, and none of its links is dead."""

from __future__ import annotations

import html
import logging
import re
import runpy
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest

from cml_bench.options import arguments
from cml_bench.registry import KINDS, entries, load

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built guide."""
    reason = "the guide is built with the extra 'docs'"
    pytest.importorskip("mkdocs", reason=reason)
    pytest.importorskip("material", reason=reason)
    pytest.importorskip("mkdocstrings", reason=reason)
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, listener = logging.getLogger("mkdocs"), Listener(logging.WARNING)
    logger.addHandler(listener)
    try:
        with pytest.MonkeyPatch.context() as patch:
            # Where the static reader of docstrings looks.
            patch.chdir(ROOT)
            config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=False)
            config.plugins.run_event("startup", command="build", dirty=False)
            build(config)
    finally:
        logger.removeHandler(listener)
    assert said == []
    return folder


def words(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("kind", KINDS)
def test_every_plug_in_is_on_its_page_with_what_it_is_and_its_options(kind: str, site: Path) -> None:
    text = (site / "reference" / f"{kind}.html").read_text(encoding="utf-8")
    sections = dict(re.findall(r'<h2 id="(\w+)">(.*?)(?=<h2 id=|</article>)', text, re.DOTALL))
    built_in = {name: entry for name, entry in entries(kind).items() if entry.origin == "built-in"}
    assert set(built_in) <= set(sections)
    for name, entry in built_in.items():
        shown = " ".join(html.unescape(re.sub(r"<[^>]+>", "", sections[name])).split())
        # The beginning of the docstring, without what Markdown takes for marks.
        assert re.sub(r"[`*_]", "", entry.summary)[:30] in re.sub(r"[*_]", "", shown), name
        if kind != "benchmarks":  # theirs stand at the top of the page
            owner = load(kind, name)
            for option in arguments(owner, skip=("self", "in_features")):
                row = re.search(rf"<td><code>{option}</code></td>\s*<td>(.*?)</td>\s*<td>(.*?)</td>", sections[name])
                assert row is not None, (name, option)
                assert row[2].strip(), f"{kind} {name}: the docstring does not say what {option} is"


def test_metrics_and_the_python_interface_are_there(site: Path) -> None:
    import cml_bench

    metrics, python = words(site / "reference" / "metrics.html"), words(site / "reference" / "python.html")
    for name in ("average_precision", "decision_metrics", "forgetting", "backward_transfer", "forward_transfer"):
        assert name in metrics
    # Neither what a module keeps to itself nor what it imports.
    assert "_ap_on_all_images" not in metrics
    assert "CmlBenchError(" not in metrics
    assert all(name in python for name in cml_bench.__all__ if not name.startswith("__"))


def test_every_option_of_every_command_is_there(site: Path) -> None:
    import typer.main

    from cml_bench.cli import app

    page, waiting = words(site / "reference" / "command_line.html"), [typer.main.get_command(app)]
    said = set(re.findall(r"--?[\w-]+", page))
    while waiting:
        command: Any = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        for each in () if hasattr(command, "commands") else command.params:
            options = {*each.opts, *each.secondary_opts} if each.param_type_name == "option" else set()
            assert options - {"--help"} <= said, (command.name, options)


def test_the_front_page_of_the_site_misses_nothing(site: Path) -> None:
    """That pages are missing is said to readers of a clone."""
    told = "are missing until the guide is built"
    assert told in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert told not in words(site / "index.html")


def test_no_link_within_the_guide_is_dead(site: Path) -> None:
    pages = {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html") if page.name != "404.html"}
    assert len(pages) > 30
    for page, text in pages.items():
        article = text[text.index("<article") : text.index("</article>")]
        for target in re.findall(r'(?:href|src)="([^"]+)"', article):
            if re.match(r"\w+:", target):
                assert re.match(r"(https?|mailto):", target), (page.name, target)
                continue
            path, anchor = urldefrag(html.unescape(unquote(target)))
            there = (page.parent / path).resolve() if path else page
            assert there.is_file(), (page.name, target)
            assert not anchor or f'id="{anchor}"' in pages[there], (page.name, target)


def test_pages_load_nothing_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(
            r'<(?:script|img|iframe)[^>]+src="([^"]+)"|<link[^>]+rel="(?:stylesheet|preload)"[^>]+href="([^"]+)"', text
        )
        assert not [one or two for one, two in loaded if (one or two).startswith(("http", "//"))]


def test_links_of_the_repository_lead_to_files() -> None:
    pages: list[Path] = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    pages += [*(ROOT / "results").rglob("README.md"), *(ROOT / "docs").rglob("*.md")]
    made_by_build = {
        ROOT / "docs" / "reference" / f"{name}.md" for name in (*KINDS, "metrics", "python", "command_line")
    }
    for page in pages:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path = urldefrag(target)[0]
            if path and not re.match(r"\w+:", path):
                there = (page.parent / path).resolve()
                assert there.exists() or there in made_by_build, f"{page.relative_to(ROOT)} leads to {target}"


def test_the_figure_of_the_angle_law_is_what_is_learnt(tmp_path: Path) -> None:
    """The points of the picture: descent ends on the closed form, and near 0 with a feature a label."""
    script: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "figures" / "angle_law.py"))
    for labels in (2, 20):
        assert script["learnt_angle"](labels, shared=True, steps=400) == pytest.approx(
            script["angle_law"](labels), abs=0.01
        )
        assert script["learnt_angle"](labels, shared=False, steps=1000) < 5
    assert (ROOT / "docs" / "figures" / "angle_law.svg").stat().st_size < 100_000
