"""What the README says of itself: two commands, fifteen lines, a picture of a table, a citation."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_ci_finds_the_two_commands() -> None:
    run, test = re.findall(r"^python3 -m venv .*$", TEXT, re.MULTILINE)
    assert run.endswith("cml-bench run")
    assert "pytest" in test


def test_commands_are_found_before_they_are_named() -> None:
    """Behind the two that make the environment, all stand without its path."""
    assert TEXT.index("`. .venv/bin/activate`") < TEXT.index("\ncml-bench ")


def test_the_strategy_has_as_many_lines_as_is_said() -> None:
    said, code = re.search(
        r"^## Your strategy, in (\w+) lines\n\n```python\n# my_strategy.py\n(.*?)^```", TEXT, re.M | re.S
    ).groups()  # type: ignore[union-attr]
    assert said == "fifteen"
    assert len([line for line in code.splitlines() if line]) == 15


def test_the_picture_shows_the_table(tmp_path: Path) -> None:
    """Against the table read anew, a method at a time; and the text in the picture's place."""
    script: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "figures" / "unknown_rule.py"))
    everything = pd.read_csv(ROOT / "results" / "reference" / "coco18" / "table.csv")
    table = everything.set_index("method")["last_map_mean"]
    found = script["pairs"](everything)
    assert len(found) >= 8
    shown = []
    for method, options in (("naive", ""), ("er", " memory_size=2000")):
        bce = table[f"{method} head=linear{options}"] * 100
        absent = table[f"{method} head=linear loss=assume_negative loss.scope=seen{options}"] * 100
        assert found.loc[method + options].tolist()[:2] == pytest.approx([absent, bce])
        shown += [f"{bce:.0f}", f"{absent:.0f}"]
    text = re.search(r"!\[(.*)\]\(docs/figures/unknown_rule.svg\)", TEXT)
    assert text is not None
    assert re.findall(r"\b\d\d\b", text[1].partition("naive")[2]) == shown
    script["draw"](tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").stat().st_size > 10_000


def test_the_citation_is_that_of_the_file() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    for value in (cited["title"], cited["version"], cited["authors"][0]["name"], str(cited["date-released"].year)):
        assert f"{{{value}}}" in TEXT
