"""The part of the guide that is made when it is built: the reference, from the code, and pages that lie elsewhere.

A hook of MkDocs (``hooks`` in ``mkdocs.yml``). What a plug-in is comes from its docstring, through mkdocstrings; its
options and their defaults from the class itself, as the command line reads them.
"""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from cml_bench import _HOMES
from cml_bench.options import arguments, as_text
from cml_bench.registry import KINDS, Entry, entries, load
from cml_bench.runs.benchmark import Benchmark
from cml_bench.training.config import TrainingConfig

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = ("CHANGELOG.md", "CONTRIBUTING.md", "results/published/README.md", "results/reference")
"""Pages of the repository that are pages of the guide as well, below ``repository/``; of folders, every README."""

TITLES = {
    "strategies": ("Strategies", "A method is a strategy with options: `--method 'NAME option=value'`."),
    "heads": ("Heads", "With any strategy: `--method 'er head=NAME head.option=value'`."),
    "criteria": ("Criteria", "With any strategy: `--method 'er loss=NAME loss.option=value'`."),
    "regimes": (
        "Annotation regimes",
        "What annotators leave out of any stream: `--set regime='NAME option=value'`, joined by `+`. Answers are drawn "
        "per image and label from the public id, the label name and `stream_seed`: the same under every class order, "
        "in every experience, on an incomplete disk. Test and validation labels stay full. What is left open is "
        "[UNMARKED](../explanation/label_states.md); criteria say what to make of it.",
    ),
    "wrappers": ("Wrappers", "Around any model: `--method 'er wrap=NAME wrap.option=value'`."),
    "benchmarks": (
        "Benchmarks",
        "`cml-bench run NAME --root FOLDER --set option=value`. What the protocols are, and where they depart from "
        "released code: [protocols](../explanation/protocols.md).",
    ),
    "datasets": ("Data sets", "How to get one, check it and read it: [data](../how_to/data.md)."),
}
FACTS = ("family", "head", "loss", "backbone", "protocol", "n_labels", "source", "licence", "homepage", "citation")

logging.getLogger("griffe").addFilter(lambda record: "No type or annotation" not in record.getMessage())


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and those that lie elsewhere."""
    for kind in KINDS:
        files.append(File.generated(config, f"reference/{kind}.md", content=plugin_page(kind)))
    files.append(File.generated(config, "reference/metrics.md", content=metrics_page()))
    files.append(File.generated(config, "reference/python.md", content=python_page()))
    files.append(File.generated(config, "reference/command_line.md", content=command_page()))
    for path in elsewhere():
        content = (ROOT / path).read_text(encoding="utf-8")
        files.append(File.generated(config, f"repository/{path}", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links between pages to where the pages are in the guide; what is not in it stays a name.

    What a page says to readers of a clone alone is left out.
    """
    markdown = re.sub(r"<!-- in a clone -->.*?<!-- on the site, too -->", "", markdown, flags=re.DOTALL)
    where = page.file.src_uri
    here = where.removeprefix("repository/") if where.startswith("repository/") else f"docs/{where}"

    def led(link: re.Match[str]) -> str:
        text, target, anchor = link["text"], link["target"], link["anchor"] or ""
        path = os.path.normpath(f"{Path(here).parent.as_posix()}/{target}")
        on_site = path.removeprefix("docs/") if path.startswith("docs/") else f"repository/{path}"
        if files.get_file_from_path(on_site) is not None:
            return f"{text}({os.path.relpath(on_site, Path(where).parent)}{anchor})"
        if (ROOT / path).exists():
            said = text[1:-1].strip("`")
            return f"`{path}`" if said in (path, Path(path).name, Path(path).stem) else f"{text[1:-1]} (`{path}`)"
        return link[0]

    return re.sub(r"(?P<text>(?<!!)\[[^][]*\])\((?P<target>(?!\w+:|#)[^)#\s]+)(?P<anchor>#[^)]*)?\)", led, markdown)


def elsewhere() -> Iterator[str]:
    """Yield the paths of ``ELSEWHERE`` that are there, from the repository's root."""
    for name in ELSEWHERE:
        found = sorted((ROOT / name).rglob("README.md")) if (ROOT / name).is_dir() else [ROOT / name]
        yield from (path.relative_to(ROOT).as_posix() for path in found)


def plugin_page(kind: str) -> str:
    """Return the page of one kind of plug-in: each with what it is, its facts and its options."""
    title, use = TITLES[kind]
    found = {name: entry for name, entry in entries(kind).items() if entry.origin == "built-in"}
    parts = [f"# {title}", use]
    known: Mapping[str, Any] = {}
    if kind == "benchmarks":
        known = {name: each.default for name, each in arguments(Benchmark).items()}
        parts += ["## Options of every benchmark", option_table(Benchmark, known)]
        parts += ["## Training settings", option_table(TrainingConfig, defaults(TrainingConfig))]
        parts += ["Methods override them: `er lr=0.01`. Defaults of one benchmark: `cml-bench list benchmarks NAME`."]
    for name, entry in found.items():
        owner = load(kind, name)
        options = {key: value for key, value in defaults(owner).items() if key not in known or known[key] != value}
        parts += [
            f"## `{name}` {{#{name}}}",
            "  \n".join(facts(entry)),
            block(entry.target),
            option_table(owner, options),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def facts(entry: Entry) -> Iterator[str]:
    """Yield lines on what a plug-in declares: its title, its paper, what it needs."""
    said = entry.facts
    paper = str(said.get("reference", ""))
    paper = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", paper)
    yield f"**{said.get('title', entry.name)}**" + (f", {paper}" if paper else "")
    rest = [f"{name.removeprefix('n_')}: {said[name]}" for name in FACTS if said.get(name)]
    if rest:
        yield "; ".join(rest)


def defaults(owner: Any) -> dict[str, Any]:
    """Return the options of a class with their defaults."""
    return {name: each.default for name, each in arguments(owner, skip=("self", "in_features")).items()}


def option_table(owner: Any, options: Mapping[str, Any]) -> str:
    """Return a table of options: name, default, meaning as the docstrings of the class and its bases say."""
    if not options:
        return ""
    meanings = {name: text for base in reversed(inspect.getmro(owner)) for name, text in meanings_of(base)}
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for name, default in options.items():
        value = "needed" if default is inspect.Parameter.empty else f"`{as_text(default)}`"
        rows.append(f"| `{name}` | {value} | {meanings.get(name, '').replace('|', '&#124;')} |")
    return "\n".join(rows)


def meanings_of(base: type) -> Iterator[tuple[str, str]]:
    """Yield name and meaning of the options that a class's own docstring describes."""
    text = inspect.cleandoc(vars(base).get("__doc__") or "")
    for section in griffe.Docstring(text, parser="google", parser_options={"warnings": False}).parse():
        if section.kind.value in ("attributes", "parameters"):
            yield from ((each.name, " ".join(each.description.split())) for each in section.value)


def block(target: str, **options: object) -> str:
    """Return a docstring as mkdocstrings shows it, without a heading; ``target`` is ``module:Class``."""
    identifier = target.replace(":", ".")
    for packaged in ("cml_bench.strategies", "cml_bench.benchmarks"):
        # Their files lie in folders of their own at the root, where the static reader looks.
        identifier = identifier.replace(packaged, packaged.removeprefix("cml_bench."))
    shown = {
        "show_root_heading": False,
        "show_root_toc_entry": False,
        "show_docstring_attributes": False,
        "show_docstring_parameters": False,
        **options,
    }
    lines = [
        f"::: {identifier}",
        "    options:",
        *(f"      {key}: {str(value).lower() if isinstance(value, bool) else value}" for key, value in shown.items()),
    ]
    return "\n".join(lines)


def metrics_page() -> str:
    """Return the page of metrics: every public function of ``cml_bench/metrics``."""
    parts = [
        "# Metrics",
        "What tables call them, with formula and source: [names of metrics](results.md#names-of-metrics). Here are the "
        "functions that compute them.",
    ]
    for file in sorted((ROOT / "cml_bench" / "metrics").glob("[a-z]*.py")):
        module = f"cml_bench.metrics.{file.stem}"
        found = vars(importlib.import_module(module)).items()
        own = [name for name, each in found if getattr(each, "__module__", "") == module and not name.startswith("_")]
        parts += [f"## `{file.stem}`", block(module, members=json.dumps(own), **PUBLIC)]
    return "\n\n".join(parts) + "\n"


PUBLIC: dict[str, object] = {
    "show_docstring_attributes": True,
    "show_docstring_parameters": True,
    "filters": '["!^_"]',
    "show_if_no_docstring": False,
}


def python_page() -> str:
    """Return the page of what can be imported from the top of the package."""
    parts = ["# Python", "Everything public is imported from the top: `from cml_bench import run, Strategy`."]
    for module, names in _HOMES.items():
        for name in names:
            parts += [f"## `{name}` {{#{name}}}", block(f"{module}.{name}", members=methods(module, name), **PUBLIC)]
    return "\n\n".join(parts) + "\n"


def methods(module: str, name: str) -> str:
    """Return the public methods of a class as a YAML list; fields are in its docstring already."""
    owner = getattr(importlib.import_module(module), name)
    found = vars(owner) if inspect.isclass(owner) else {}
    kinds = (staticmethod, classmethod, property)
    names = [key for key, each in found.items() if inspect.isfunction(each) or isinstance(each, kinds)]
    return json.dumps([key for key in names if not key.startswith("_")])


def command_page() -> str:
    """Return the page of the command line, from its own declarations."""
    import typer.main

    from cml_bench.cli import app

    parts = ["# Command line", "`cml-bench COMMAND --help` says the same. `--debug` shows tracebacks."]
    for path, command in commands(typer.main.get_command(app), ()):
        parts += [f"## `{' '.join(path)}`", inspect.cleandoc(command.help or "")]
        rows = ["| option | default | meaning |", "|---|---|---|"]
        for each in command.params:
            if each.name == "help":
                continue
            words = [*each.opts, *each.secondary_opts]
            name = ", ".join(words) if each.param_type_name == "option" else each.name.upper()
            default = "" if each.default in (None, (), []) or callable(each.default) else f"`{as_text(each.default)}`"
            meaning = " ".join((getattr(each, "help", None) or "").split()).replace("|", "&#124;")
            rows.append(f"| `{name}` | {'needed' if each.required else default} | {meaning} |")
        parts.append("\n".join(rows) if len(rows) > 2 else "")
    return "\n\n".join(part for part in parts if part) + "\n"


def commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command below a group, with the words that call it."""
    words = (*path, command.name)
    below: Iterable[Any] = getattr(command, "commands", {}).values()
    if not below:
        yield words, command
    for each in below:
        yield from commands(each, words)
