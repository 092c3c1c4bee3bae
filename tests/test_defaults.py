"""Defaults of options are written down: with another one a method of the same name is another method.

Who changes one on purpose runs ``python tests/test_defaults.py`` and says so in the CHANGELOG.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cml_bench.options import arguments, as_text
from cml_bench.registry import entries, load

WRITTEN = Path(__file__).with_name("defaults.json")
FAMILIES = ("criteria", "heads", "regimes", "strategies", "wrappers")


def defaults(family: str) -> dict[str, dict[str, str]]:
    """Return the text of each default by plug-in and option; options without one are left out."""
    return {
        name: {
            option: as_text(parameter.default)
            for option, parameter in arguments(load(family, name), ("in_features",)).items()
            if parameter.default is not parameter.empty
        }
        for name in sorted(entries(family))
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_are_those_written_down(family: str) -> None:
    written = json.loads(WRITTEN.read_text(encoding="utf-8"))[family]
    assert defaults(family) == written, "meant? Then: python tests/test_defaults.py"


if __name__ == "__main__":
    found = {family: defaults(family) for family in FAMILIES}
    WRITTEN.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
