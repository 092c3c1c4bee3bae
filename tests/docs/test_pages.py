"""Every code block of the README and the guide runs, page by page and in order, on small data.

A page is a session in an empty folder. Blocks of Python, YAML ... that begin with ``# name.ext`` are written to that
file, other Python is executed, commands are run in this process. HTML comments before a block say what else is so:

- ``<!-- not run: REASON -->``: cannot run here; its syntax and the options of its commands are checked all the same;
- ``<!-- before: COMMAND -->``: a command that the page takes for run;
- ``<!-- instead: A | B -->``: B stands for A here, because A is too slow or not on this machine;
- ``<!-- output -->``, ``<!-- output of: COMMAND -->``: the block is what was printed last, or by a command.
"""

from __future__ import annotations

import configparser
import contextlib
import io
import json
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from cml_bench import cli, registry
from cml_bench.runs.engines.engine import parse_engine

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?P<marks>(?:^<!-- .* -->\n)*)^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
PLACES = {"--engine": parse_engine}
SCENES = ("n_train=60", "n_test=40")
PHOTOS = ("backbone=test_resnet", "image_size=32", "batch_size=16")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, with the marks before it."""

    language: str
    text: str
    marks: tuple[tuple[str, str], ...]

    def mark(self, name: str) -> str | None:
        return next((value for key, value in self.marks if key == name), None)


def blocks(page: Path) -> list[Block]:
    found = []
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        marks = re.findall(r"<!-- ([a-z ]+?)(?:: (.*))? -->", block["marks"])
        assert all(name in ("not run", "before", "instead", "output", "output of") for name, _ in marks), marks
        found.append(Block(block["language"], block["text"], tuple(marks)))
    return found


def commands(text: str) -> list[list[str]]:
    """The commands of a shell block, as words."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def parse(words: list[str], mention: bool = False) -> None:
    """Read a command of ours without running it: unknown commands, options and values are errors.

    Args:
        words: The command.
        mention: Whether it may stand for itself, without what it takes.
    """
    command: Any = typer.main.get_command(cli.app)
    rest = words[1:]
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    if mention and not rest:
        return
    command.make_context(command.name, [*rest])  # which takes its list apart
    for option, read in PLACES.items():
        if option in rest:
            read(rest[rest.index(option) + 1])


def small(words: list[str]) -> list[str]:
    """The same command on less: fewer seeds and epochs, one process, tiny models."""
    if words[1] not in ("run", "sweep"):
        return words
    on_digits = words[1] == "sweep" or words[2:3] == ["digits"] or words[2:3] == [] or words[2].startswith("--")
    on_digits = on_digits or words[2].endswith("Digits")
    on_features = "feature_table" in words
    settings = [*SCENES] if on_digits else [] if on_features or words[2].endswith("BirdStream") else [*PHOTOS]
    kept = words[:2]
    rest = iter(words[2:])
    for word in rest:
        if word == "--set" and (option := next(rest)).partition("=")[0] not in (
            "epochs",
            *(s.partition("=")[0] for s in SCENES),
        ):
            key = option.partition("=")[0]
            settings = [setting for setting in settings if setting.partition("=")[0] != key] + [option]
        elif word in ("--seeds", "--class-orders", "--workers"):
            next(rest)
        elif word != "--set":
            kept.append(word)
    settings.append("epochs=1")
    if words[1] == "run":
        kept += ["--seeds", "1"]
        if "--method" not in words and not on_digits:
            kept += ["--method", "naive"]
    return [
        *kept,
        "--workers",
        "1",
        "--checkpoint-every",
        "never",
        *(word for setting in settings for word in ("--set", setting)),
    ]


def plain(text: str) -> str:
    """A text in one line, without numbers, checksums and rules."""
    text = re.sub(r"\b(?=\w*\d)[0-9a-f]{8,}\b|[\d.,]*\d", "#", text)
    return " ".join(re.sub("[─-]{2,}", "", text).split())


def vocabulary(text: str) -> set[str]:
    return set(re.findall(r"[a-z_@]{3,}", text.lower()))


class Session:
    """One page's folder, names and what was printed last."""

    def __init__(self, folder: Path, page: Path) -> None:
        self.folder, self.page = folder, page
        self.names: dict[str, Any] = {"__name__": "page"}
        self.printed, self.shrunk = "", False
        self.methods: set[str] = set()

    def localized(self, text: str, block: Block | None = None) -> str:
        """A text with what stands in for places and values of the page."""
        for name, value in block.marks if block else ():
            if name == "instead":
                old, new = value.split(" | ")
                assert old in text, f"{old} is not in the block"
                text = text.replace(old, new)
        results = sorted((self.folder / "results" / "runs").rglob("*.json"), key=lambda path: path.stat().st_mtime)
        if results:
            text = text.replace("KEY", json.loads(results[-1].read_text())["key"])
            text = text.replace("RESULT.json", str(results[-1]))
            self.names.setdefault("path", str(results[-1]))
        return text.replace("/data/", f"{self.folder}/data/")

    def run(self, words: list[str]) -> None:
        """Run one command in this process; it must end well."""
        shorter = small(words) if words[0] == "cml-bench" else words
        self.shrunk = shorter != words
        out, err, status = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                if words[0] == "cml-bench":
                    cli.main(shorter[1:])
                else:
                    assert words[0] == "python", f"{words}: mark the block with <!-- not run: REASON -->"
                    with pytest.MonkeyPatch.context() as patch:
                        _, *options = small(["cml-bench", "run", "split_coco", *words[2:]])[2:]
                        patch.setattr(sys, "argv", [words[1], *options])
                        runpy.run_path(words[1], run_name="__main__")
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 0
        self.printed = (out.getvalue() + err.getvalue()).replace(str(self.folder), "")
        self.status = status
        if words[1] == "run":
            self.methods |= {words[i + 1].split()[0] for i, word in enumerate(words) if word == "--method"}

    def expect(self, text: str) -> None:
        """What the page shows must be what is printed, numbers apart; of a command made smaller, its words."""
        if self.shrunk:
            assert vocabulary(text) <= vocabulary(self.printed), (
                vocabulary(text) - vocabulary(self.printed),
                self.printed,
            )
        else:
            assert plain(text) in plain(self.printed)

    def install(self, text: str) -> None:
        """Make the entry points of a ``setup.cfg`` known, as pip would."""
        declared = configparser.ConfigParser()
        declared.read_string(text)
        folder = self.folder / "mine-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
        points = "".join(f"[{group}]{entry}\n" for group, entry in declared["options.entry_points"].items())
        (folder / "entry_points.txt").write_text(points)
        registry.entries.cache_clear()

    def do(self, block: Block) -> None:
        """Run or read one block."""
        reason = block.mark("not run")
        assert reason is None or reason.strip(), "say why it is not run"
        for name, command in block.marks:
            if name == "before":
                self.run(shlex.split(command))
        text = self.localized(block.text, block)
        if reason is not None:
            check(block.language, text)
        elif named := re.match(r"# ([\w.]+\.\w+)\n", text):
            (self.folder / named[1]).write_text(text, encoding="utf-8")
            check(block.language, text)
        elif block.language == "bash":
            for words in commands(text):
                self.run(words)
                # Small data is whole, but its counts are not the published ones.
                assert self.status == 0 or (words[1:3] == ["data", "verify"] and "WRONG" in self.printed), self.printed
        elif block.language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(text, f"{self.page.name}", "exec"), self.names)
            self.printed, self.shrunk = out.getvalue(), False
        elif block.language == "ini":
            self.install(text)
        elif block.language == "text":
            self.show(block)
        else:
            check(block.language, text)

    def show(self, block: Block) -> None:
        """Compare what a block shows with what is printed; ``$ command`` in its first line is run."""
        first, _, rest = block.text.partition("\n")
        if first.startswith("$ "):
            self.run(shlex.split(self.localized(first[2:])))
            return self.expect(rest)
        if command := block.mark("output of"):
            self.run(shlex.split(command))
        assert block.mark("output") is not None or command, "a text block needs <!-- output --> or <!-- not run: -->"
        return self.expect(block.text)


def check(language: str, text: str) -> None:
    """Read a block that is not run."""
    if language == "bash":
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        for words in commands(text):
            if words[0] == "cml-bench":
                parse(words)
    elif language == "python":
        compile(text, "block", "exec")
    elif language == "yaml":
        yaml.safe_load(text)
    elif language == "toml" and sys.version_info >= (3, 11):
        import tomllib

        tomllib.loads(text)
    else:
        assert language in ("text", "toml", "bibtex"), (
            f"a block in {language or 'no language'}: which test is to read it?"
        )


@pytest.fixture
def session(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_data: Callable[[Path, str], None],
    request: pytest.FixtureRequest,
) -> Iterator[Session]:
    """An empty folder with the data that the page names, and the folders of a checkout that it reads."""
    page: Path = request.param
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    make_data(tmp_path, page.read_text(encoding="utf-8"))
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "reference").symlink_to(ROOT / "results" / "reference")
    yield Session(tmp_path, page)
    registry.entries.cache_clear()
    for name in [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


@pytest.mark.parametrize("session", PAGES, ids=lambda page: str(page.relative_to(ROOT)), indirect=True)
def test_every_block_of_the_page_runs(session: Session) -> None:
    for block in blocks(session.page):
        session.do(block)
    ran = [json.loads(path.read_text()) for path in (session.folder / "results").glob("[!r]*/*/*.json")]
    ran += [json.loads(path.read_text()) for path in (session.folder / "results" / "runs").rglob("*.json")]
    for result in ran:
        assert result["status"] == "ok", result["error"]
        assert 0 < result["metrics"]["summary"]["last_map"] <= 1
    assert session.methods <= {result["job"]["method"].split()[0] for result in ran}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_within_the_text_has_options_that_there_are(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`(cml-bench [^`]+)`", text):
        words = shlex.split(code)
        if len(words) > 1 and words[1].islower() and "..." not in code:
            parse([word for word in words if word not in ("-h", "--help")], mention=True)


def test_a_page_that_is_wrong_is_found(tmp_path: Path) -> None:
    """The test of the tests: a wrong option, a wrong output, a language that nobody reads, a mark without a reason."""
    for text, error in (
        ("<!-- not run: a reason -->\n```bash\ncml-bench run --methods naive\n```", Exception),
        ("<!-- not run: a reason -->\n```bash\ncml-bench sweep a.yaml --engine 'slurm partitions=gpu'\n```", Exception),
        ("```text\n$ cml-bench list strategies er\nno such line\n```", AssertionError),
        ("```bash\ncml-bench list strategies era\n```", AssertionError),
        ("```text\nnobody knows where this is from\n```", AssertionError),
        ("```haskell\nmain\n```", AssertionError),
        ("```python\nassert 1 == 2\n```", AssertionError),
        ("```bash\nrm file\n```", AssertionError),
        ("<!-- not run:  -->\n```bash\ncml-bench run\n```", AssertionError),
    ):
        page = tmp_path / "page.md"
        page.write_text(text)
        (block,) = blocks(page)
        with pytest.raises(error):
            Session(tmp_path, page).do(block)
