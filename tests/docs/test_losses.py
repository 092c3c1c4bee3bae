"""The page of losses for missing labels says what its jobs say, and its suites take the rates that its search chose."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cml_bench.report.statistics.estimates import Estimate, estimate
from cml_bench.runs.method import parse_method
from cml_bench.runs.sweep import read_suite

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "results" / "reference" / "coco18_losses"
PAGE = " ".join((FOLDER / "README.md").read_text(encoding="utf-8").split())
FINDINGS = " ".join((ROOT / "docs" / "findings.md").read_text(encoding="utf-8").split())
AT_ONCE, STREAM = 18, 3
SINGLE, MISSING, FULL = "single_positive", "missing_positives rate=0.6", "full"
KINDS = {"stream": STREAM, "static": AT_ONCE}
TAGS = {"single": SINGLE, "missing": MISSING, "full": FULL}


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "figures" / "losses.py"))


def told(gain: Estimate | pd.Series, sign: int = 1) -> str:
    """``2.1 [1.9, 2.3]``, or with the sign turned."""
    ends = sorted((sign * gain.low, sign * gain.high))
    mean = gain.mean if isinstance(gain, Estimate) else gain["gain"]
    return f"{sign * mean:.1f} [{ends[0]:.1f}, {ends[1]:.1f}]"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tag", TAGS)
def test_the_suites_take_what_the_search_chose(script: dict[str, Any], kind: str, tag: str) -> None:
    chosen = script["chosen"]().loc[KINDS[kind], TAGS[tag]]
    own = script["read"]("jobs")
    own = own[(own["increment"] == KINDS[kind]) & (own["regime"] == TAGS[tag])]
    jobs = read_suite(FOLDER / f"{kind}_{tag}.yaml", ("root=DATA",)).jobs
    assert {job.method for job in jobs} == set(own["method"])
    assert len(jobs) == len(own)
    for row in own.drop_duplicates("method").itertuples():
        # With k the rate is that of the loss without.
        assert row.rate == chosen[str(row.loss).removesuffix(" k=1.54")], row.method
        assert dict(parse_method(str(row.method)).options)["lr"] == row.rate


def test_the_table_and_the_claims_are_those_of_the_jobs(script: dict[str, Any]) -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for line in script["table"]():
        assert line in page, line
    found = script["gains"]()
    gain = found.loc
    single, missing = gain[(AT_ONCE, SINGLE)], gain[(AT_ONCE, MISSING)]
    for name, loss in (("ROLE", "role"), ("WAN", "wan"), ("Hill", "hill")):
        assert f"{name} by {told(single.loc[loss])}" in PAGE
    assert {f"{single.loc[loss, 'gain']:.1f}" for loss in ("splc", "em_apl")} == {"1.3"}
    assert {f"{single.loc[loss, 'gain']:.1f}" for loss in ("em", "epr")} == {"1.1"}
    assert f"RLSEP by {told(single.loc['an + rlsep'])} (AN" in PAGE
    assert f"ROLE is {told(missing.loc['role'])}, EM {told(missing.loc['em'])} above it" in PAGE
    assert (found.loc[AT_ONCE].loc[[SINGLE, MISSING]]["high"].unstack()[["an_ls", "an + focal", "an + db"]] < 0).all(
        axis=None
    )
    single, missing = gain[(STREAM, SINGLE)], gain[(STREAM, MISSING)]
    assert (single.drop("an")["low"] <= 0).all()
    assert f"cannot be told from it ({told(single.loc['role'])}, {told(single.loc['wan'])})" in PAGE
    assert (
        "SPLC is {}, EPR {}, Hill {} below".format(*(told(single.loc[loss], -1) for loss in ("splc", "epr", "hill")))
        in PAGE
    )
    means = [single.loc[loss, "mean"] for loss in ("em", "em_apl", "an", "em, alpha x 17/2", "em")]
    assert "collapse ({:.1f} and {:.1f}, where AN has {:.1f})".format(*means) in PAGE
    assert "EM has {:.1f} in place of {:.1f}".format(*means[3:]) in PAGE
    assert f"({told(single.loc['em, alpha x 17/2'], -1)} below AN)" in PAGE
    means = [missing.loc[loss, "mean"] for loss in ("em, alpha x 28/6", "em")]
    assert "gives {:.1f} in place of {:.1f}".format(*means) in PAGE
    gains = (
        "RLSEP on AN is {}, Hill {}, EPR {}, WAN {} and SPLC {} above AN, against {:.1f}, {:.1f}, {:.1f}, {:.1f} and "
        "{:.1f} at once"
    )
    losses = ("an + rlsep", "hill", "epr", "wan", "splc")
    at_once = [gain[(AT_ONCE, MISSING, loss), "gain"] for loss in losses]
    assert gains.format(*(told(missing.loc[loss]) for loss in losses), *at_once) in PAGE
    prices = [told(gain[(increment, FULL, "hill"), :], -1) for increment in (STREAM, AT_ONCE)]
    assert "is missing**: {} in the stream, {} at once".format(*prices) in PAGE


def test_what_is_lost_and_what_does_not_carry_over(script: dict[str, Any]) -> None:
    jobs, found = script["read"]("jobs"), script["gains"]()
    lost = []
    for increment in (STREAM, AT_ONCE):
        own = jobs[(jobs["loss"] == "an") & (jobs["increment"] == increment)]
        wide = own.pivot_table(index="block", columns="regime", values="value")
        lost.append(told(estimate(wide[FULL] - wide[SINGLE])))
    assert "AN is {} below full annotation, at once {}.".format(*lost) in PAGE
    correlations = []
    for regime in (SINGLE, MISSING, FULL):
        both = [found.loc[(increment, regime), "mean"] for increment in (AT_ONCE, STREAM)]
        correlations.append(both[0].corr(both[1].reindex(both[0].index), method="spearman"))
    assert (
        "is {:.2f}, against {:.2f} with 60 % overlooked and {:.2f} where every label is marked".format(*correlations)
        in PAGE
    )
    wide = jobs[jobs["increment"] == AT_ONCE].pivot_table(index=["regime", "block"], columns="loss", values="value")
    changes = [(wide[f"{loss} k=1.54"] - wide[loss]).loc[MISSING] for loss in ("role", "epr")]
    assert f"adds {told(estimate(changes[0]))} to ROLE" in PAGE
    assert f"takes {told(estimate(changes[1]), -1)} from EPR" in PAGE


def test_the_figure_is_drawn_from_the_jobs(script: dict[str, Any], tmp_path: Path) -> None:
    """All marks of the stored figure lie where they are drawn anew, to two points of a picture of 530 points."""
    script["draw"](tmp_path / "losses.svg")
    places = []
    for path in (tmp_path / "losses.svg", ROOT / "docs" / "figures" / "losses.svg"):
        marks = re.findall(r'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)"', path.read_text(encoding="utf-8"))
        places.append([float(number) for mark in marks for number in mark])
    assert len(places[0]) > 100
    assert places[1] == pytest.approx(places[0], abs=2)
