"""The table of faults names every test here, and no test that is not there."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def test_every_fault_has_its_row_and_every_row_its_test() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    named = set(re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", page))
    for file, test in named:
        path = ROOT / file if "/" in file else HERE / file
        assert path.is_file(), file
        assert not test or f"def {test}(" in path.read_text(), f"{file}::{test}"
    for path in HERE.glob("test_*.py"):
        if path != Path(__file__):
            missing = [name for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M) if name not in page]
            assert missing == [], path.name
