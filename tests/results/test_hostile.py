"""Results from elsewhere whose names attack: they are shown as text, and copied into their folder only."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cml_bench.cli import main
from cml_bench.errors import CmlBenchError
from cml_bench.runs.job import Job
from cml_bench.runs.merge import merge_results
from cml_bench.runs.results import checkpoint_folder, read_result, result_path, snapshot_path
from cml_bench.runs.snapshots import open_run

SCRIPT = "<script>window.hacked=1</script><img src=x onerror=alert(1)>\"'>"
FORMULA = "=HYPERLINK(1)"
LATEX = r"\input{/etc/passwd}\immediate\write18{id}$\x$ & % #"
MARKUP = "[link=file:///etc/passwd]x[/link] ](javascript:alert(1)) `a|b`"
NAMES = (SCRIPT, FORMULA, LATEX, MARKUP, "+1+1", "@SUM(A1)", "-2+3")


@pytest.fixture
def folder(store: Any, tmp_path: Path, change: Any) -> Path:
    """Two methods and seeds whose every name is hostile."""
    for method, attack in (("er", SCRIPT), ("naive", LATEX)):
        for seed in (0, 1):
            path = store(tmp_path / "in", method, seed)
            tree = json.loads(path.read_text())
            old = tree["benchmark"]["label_names"]
            tree["benchmark"] |= {"label_names": list(NAMES), "title": MARKUP, "protocol": FORMULA}
            tree["metrics"]["per_label_ap"] = {
                name: tree["metrics"]["per_label_ap"][before] for name, before in zip(NAMES, old, strict=True)
            }
            tree["job"]["method"] = f"{method} {attack}"
            tree["method"] |= {"title": f"{FORMULA} {attack}", "head": SCRIPT, "loss": LATEX, "options": {"a": MARKUP}}
            tree["data"]["train"] |= {"name": SCRIPT, "label_counts": dict.fromkeys(NAMES, 3)}
            path.write_text(json.dumps(tree))
    broken = tmp_path / "in/digits" / "=1+1<script>.json"
    broken.write_text("{")
    return tmp_path / "in"


class Tags(HTMLParser):
    """Collects the elements of a page and the names of their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


def no_formula(text: str) -> None:
    for row in csv.reader(io.StringIO(text)):
        for cell in row:
            assert not cell.startswith(("=", "+", "@", "\t", "\r")), cell
            assert not cell.startswith("-") or float(cell) < 0, cell


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    main(list(words))
    return capsys.readouterr().out


def run(*words: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    assert caught.value.code in (0, None)


def test_compare_shows_text_in_every_format(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for shape in ("terminal", "markdown", "latex", "csv"):
        run("compare", str(folder), "--format", shape)
        text = capsys.readouterr().out
        assert "hacked" in text
        if shape == "csv":
            no_formula(text)
        elif shape == "latex":
            assert r"\input" not in text
            assert r"\write18" not in text
            assert r"\textbackslash{}input\{/etc/passwd\}" in text
        elif shape == "markdown":
            outside = "".join(text.split("`")[::2])
            assert "<script" not in outside


def test_the_report_runs_nothing(folder: Path, tmp_path: Path) -> None:
    run("report", str(folder), "--output", str(tmp_path / "page.html"), "--no-figures")
    text = (tmp_path / "page.html").read_text()
    assert "hacked" in text
    page = Tags()
    page.feed(text)
    assert not {tag for tag, _ in page.found} & {"img", "iframe", "object", "base"}
    assert not any(name.startswith("on") for _, names in page.found for name in names)
    assert text.count("<script") == sum(tag == "script" for tag, _ in page.found)
    assert "<script>window.hacked" not in text


def test_an_exported_table_holds_no_formula(folder: Path, tmp_path: Path) -> None:
    run("results", "export", str(folder), "--output", str(tmp_path / "all.csv"))
    text = (tmp_path / "all.csv").read_text()
    assert "HYPERLINK" in text
    no_formula(text)


@pytest.mark.parametrize("name", ["a\x1b]0;owned\x07", "a\x1b[2J", "a\x00b", "a\rb", "a\x9b2Jb"])
def test_no_name_commands_a_terminal(store: Any, tmp_path: Path, change: Any, name: str) -> None:
    path = store(tmp_path)
    change(path, "job", "method", to=f"er {name}")
    with pytest.raises(CmlBenchError, match=r"field 'job.method': .* holds a control character") as caught:
        read_result(path)
    assert str(caught.value).isprintable()
    change(path, "job", "method", to="er")
    change(path, "error", to=f"it failed: {name}")
    error = read_result(path).error
    assert error is not None
    assert error.isprintable()


def test_merging_writes_below_its_folder_only(store: Any, tmp_path: Path, change: Any) -> None:
    path = store(tmp_path / "in")
    for way in (("job", "benchmark"), ("benchmark", "name"), ("job", "method"), ("job", "class_order")):
        change(path, *way, to="../../../escaped")
    change(path, "key", to="../../../escaped")
    merge_results([tmp_path / "in"], tmp_path / "a/b/out")
    assert not list(tmp_path.rglob("*escaped*"))
    assert sorted(file.suffix for file in (tmp_path / "a/b/out").rglob("*") if file.is_file()) == [".json", ".npz"]


@pytest.mark.parametrize("suffix", [".json", ".npz", ".log", ".models"])
def test_merging_follows_no_link_out_of_a_results_folder(store: Any, tmp_path: Path, suffix: str) -> None:
    path, secret = store(tmp_path / "in"), tmp_path / "private"
    secret.mkdir()
    (secret / "key").write_text("secret")
    place = path.with_suffix(suffix)
    if suffix == ".models":
        place.mkdir()
        (place / "linked").symlink_to(secret / "key")
    elif suffix == ".log":
        place.symlink_to(secret)
    else:
        (secret / "kept").write_bytes(place.read_bytes())
        place.unlink()
        place.symlink_to(secret / "kept")
    with pytest.raises(CmlBenchError, match="is a symbolic link: put the file itself there; nothing was merged"):
        merge_results([tmp_path / "in"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_looking_into_a_result_runs_nothing_that_it_names(store: Any, tmp_path: Path, change: Any) -> None:
    """Whatever the part of the job that names it: a file that came along, or any function that is installed."""
    ran, path = tmp_path / "ran", store(tmp_path / "in")
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    snapshot_path(path, 0).parent.mkdir()
    snapshot_path(path, 0).touch()
    change(path, "backbone", to={"sha256": "00"})
    for code in (f"{tmp_path / 'evil.py'}:Evil", "os:mkdir"):
        for way, text in (
            (("job", "method"), code),
            (("job", "method"), f"er head={code}"),
            (("job", "method"), f"er loss={code}"),
            (("job", "method"), f"er loss=assume_negative+{code}"),
            (("job", "method"), f"er loss={code}+bce"),
            (("job", "method"), f"er wrap={code}"),
            (("job", "method"), f"{code} path={ran}"),
            (("job", "benchmark"), code),
        ):
            before = path.read_bytes()
            change(path, *way, to=text)
            with pytest.raises(CmlBenchError) as caught:
                open_run(path)
            assert "is code outside the suite" in str(caught.value), text
            path.write_bytes(before)
    assert not ran.exists()
    change(path, "job", "method", to=f"{tmp_path / 'evil.py'}:Evil")
    with pytest.raises(CmlBenchError, match="Evil"):
        open_run(path, trust=True)
    assert ran.exists()


class Keyed(Job):
    """A job whose names need not exist."""

    key = "0123456789abcdef"


texts = st.text(max_size=30) | st.sampled_from(["..", "../../x", "/etc/passwd", "C:\\x", "a\0b", ".", "", "con", "~"])


@given(texts, texts, texts, st.integers(0, 2**31 - 1))
def test_results_logs_and_checkpoints_lie_below_the_results_folder(
    benchmark: str, method: str, order: str, seed: int
) -> None:
    """Where a job writes, its tracker's folder included, is one folder deep whatever its names say."""
    root = Path("/results")
    path = result_path(root, Keyed(benchmark, method, order, seed))
    for made in (path, path.with_suffix(".npz"), path.with_suffix(".log"), checkpoint_folder(path)):
        assert made.parent.parent == root
        assert ".." not in made.parts
        assert made.name.isascii()
        assert made.name.isprintable()
        assert len(made.name) < 255
