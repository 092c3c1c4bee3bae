"""Published rows as every format writes them: no number without its source, no name that is read as markup."""

from __future__ import annotations

import io
import re

import pandas as pd
import pytest
from rich.console import Console

from cml_bench.report.formats.published import grids, overview, sheet
from cml_bench.report.published.rows import Block, PublishedPart, catalogue, make_block

CONDITIONS = {
    "protocol": "B0-C10",
    "setting": "offline",
    "backbone": "ViT",
    "image_size": "224",
    "pretraining": "none",
    "unknown_label_rule": "absent",
}


def test_a_row_names_the_sources_and_caveats_of_its_own_numbers() -> None:
    numbers = pd.DataFrame(
        [
            {"method": "B", "buffer": "20", "metric": "x", "value": "7.0", "source": "P; Q", "caveat": "c1; c2"},
            {"method": "A", "buffer": "0", "metric": "x", "value": "6.0", "source": "Q", "caveat": ""},
            {"method": "B", "buffer": "20", "metric": "y", "value": "5.0", "source": "P; Q", "caveat": "c3; c2"},
            {"method": "B", "buffer": "20", "metric": "z", "value": "4.0", "source": "P", "caveat": "c3"},
            {"method": "B", "buffer": "20", "metric": "z", "value": "4.5", "source": "Q", "caveat": ""},
            {"method": "C", "buffer": "20", "metric": "z", "value": "3.0", "std": "0.1", "source": "R", "caveat": ""},
        ]
    )
    numbers = numbers.fillna("").assign(**CONDITIONS)
    block = make_block(numbers, numbers["metric"])
    assert block.sources == {"1": "P", "2": "Q", "3": "R"}
    assert block.caveats == {"a": "c1", "b": "c2", "c": "c3"}
    assert block.rows.to_numpy().tolist() == [
        ["B", "20", "7.0", "5.0", "", "1 2", "a b c"],
        ["B", "20", "", "", "4.0", "1", "c"],
        ["B", "20", "", "", "4.5", "2", ""],
        ["C", "20", "", "", "3.0 ± 0.1", "3", ""],
        ["A", "0", "6.0", "", "", "2", ""],
    ]
    assert list(block.rows.columns) == ["method", "buffer", "x", "y", "z", "source", "caveats"]


def test_a_grid_says_above_and_below_what_differs() -> None:
    rows = pd.DataFrame({"method": ["KRT"], "buffer": ["0"], "last mAP": ["65.9"], "source": ["1"], "caveats": ["a"]})
    differences = ("backbone: ours x, theirs y", "threshold (last CF1): ours 0.5, theirs not stated")
    apart = Block("B0-C10, offline: backbone y", differences, rows, {"1": "A paper"}, {"a": "second-hand"})
    ranked = Block("B0-C10, offline: backbone x", (), rows, {"1": "A paper"}, {})
    first, second = grids(PublishedPart(("One.",), ranked=(ranked,), apart=(apart,)))
    assert first.heading == "Ranked with published rows: B0-C10, offline: backbone x"
    assert first.names[0] == "method"
    assert first.notes == ("Source 1: A paper.",)
    assert second.heading == "Published, not ranked (differs in backbone, threshold): B0-C10, offline: backbone y"
    assert second.names == ("published method", "buffer", "source", "caveats")
    assert second.notes == (
        "Differs from ours in backbone: ours x, theirs y.",
        "Differs from ours in threshold (last CF1): ours 0.5, theirs not stated.",
        "Source 1: A paper.",
        "Caveat a: second-hand.",
    )
    assert list(second.lines()) == [
        [
            ("published method", "KRT", ""),
            ("buffer", "0", ""),
            ("last mAP", "65.9", ""),
            ("source", "1", ""),
            ("caveats", "a", ""),
        ]
    ]


@pytest.mark.parametrize("name", ["adp", "coco", "coco_lt", "emotic", "nuswide", "voc"])
def test_every_mark_points_to_a_line_under_its_grid(name: str) -> None:
    for grid in grids(catalogue(name)):
        assert grid.cells["source"].str.fullmatch(r"\d+( \d+)*").all()
        for column, word in (("source", "Source"), ("caveats", "Caveat")):
            marks = {mark for cell in grid.cells[column] for mark in cell.split()}
            assert marks == {note.split()[1][:-1] for note in grid.notes if note.startswith(f"{word} ")}


def test_the_overview_counts_every_number() -> None:
    console = Console(width=300, file=io.StringIO(), record=True)
    console.print(overview())
    lines = console.export_text().splitlines()
    counts = [int(match[1]) for line in lines if (match := re.search(r" {2,}(\d+) {2,}", line))]
    assert (len(counts), sum(counts)) == (9, 616)
    assert any("nuswide" in line and "MOCL 8 tasks (online); static" in line for line in lines)


def test_a_sheet_has_a_row_a_number_and_keeps_to_one_line() -> None:
    part = PublishedPart((), numbers=pd.DataFrame({"value": ["54.0"], "differs": ["one\ntwo"]}))
    assert sheet(part).to_dict("records") == [{"percent": "54.0", "differs": "one | two"}]
    assert len(sheet(catalogue("voc"))) == 146
