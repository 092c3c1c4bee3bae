"""Paired differences that pages claim, made again from the jobs: mean and 95 % interval, as printed.

Over nine class orders, or over three seeds on each of three.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from cml_bench.report.statistics.differences import judged
from cml_bench.report.stored.collect import collect
from cml_bench.runs.method import parse_method

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference"
FINDINGS = "docs/findings.md"
AN = "loss=assume_negative"


class Side(NamedTuple):
    """The jobs of one method: a strategy, tokens of its text, and values of other columns of ``jobs.csv``."""

    table: str
    strategy: str
    tokens: str = ""
    where: tuple[tuple[str, object], ...] = ()


def divided(base: int, assignment: str, strategy: str, tokens: str = "") -> Side:
    return Side("coco18_protocols", strategy, tokens, (("base", base), ("assignment", assignment)))


def orders(strategy: str, tokens: str = "") -> Side:
    return Side("coco18_orders", strategy, tokens)


def grid(annotation: str, strategy: str, head: str = "linear") -> Side:
    return Side("digits_grid", strategy, f"head={head}", (("annotation", annotation),))


def corel(strategy: str, tokens: str = "") -> Side:
    return Side("corel5k", strategy, tokens)


DIVISIONS = [(base, assignment) for base in (0, 9) for assignment in ("overlap", "disjoint")]
PROTOCOLS = "results/reference/coco18_protocols/README.md"
ORDERS = "results/reference/coco18_orders/README.md"
COREL = "results/reference/corel5k/README.md"
GRID = "results/reference/digits_grid/README.md"
MANY, FEW, OPEN = f"{AN} memory_size=1000", f"{AN} memory_size=200", "loss=bce memory_size="

CLAIMS: list[tuple[Side, Side, tuple[str, ...]]] = [
    *((divided(*d, "l3a"), divided(*d, "derpp", MANY), (PROTOCOLS,)) for d in DIVISIONS),
    *((divided(*d, "l3a"), divided(*d, "cumulative"), (PROTOCOLS,)) for d in DIVISIONS if d[1] == "disjoint"),
    *((divided(*d, "er", MANY), divided(*d, "er", "loss=bce memory_size=1000"), (PROTOCOLS,)) for d in DIVISIONS),
    *((divided(*d, "er", FEW), divided(*d, "er", "loss=bce memory_size=200"), (PROTOCOLS,)) for d in DIVISIONS),
    *((divided(*d, "lwf"), divided(*d, "er", FEW), (PROTOCOLS,)) for d in DIVISIONS),
    *((divided(*d, "dlfl", FEW), divided(*d, "lwf"), (PROTOCOLS,)) for d in DIVISIONS),
    *((divided(*d, "dlfl", FEW), divided(*d, "derpp", FEW), (PROTOCOLS,)) for d in DIVISIONS),
    *((divided(*d, "dlfl", FEW), divided(*d, "er_herding", FEW), (PROTOCOLS,)) for d in DIVISIONS),
    *((divided(*d, "derpp", MANY), divided(*d, "dlfl", MANY), (PROTOCOLS,)) for d in DIVISIONS),
    *((divided(*d, "prs", MANY), divided(*d, "er", MANY), (PROTOCOLS,)) for d in DIVISIONS if d[1] == "disjoint"),
    *((divided(*d, "er_herding", MANY), divided(*d, "er", MANY), (PROTOCOLS,)) for d in DIVISIONS),
    *((divided(*d, "er", f"{OPEN}1000"), divided(*d, "er", f"{OPEN}200"), (PROTOCOLS,)) for d in DIVISIONS),
    *((divided(*d, "er", f"{OPEN}1000"), divided(*d, "naive", "loss=bce"), (PROTOCOLS,)) for d in DIVISIONS),
    *((divided(*d, "pseudo_label"), divided(*d, "naive", AN), (PROTOCOLS,)) for d in DIVISIONS),
    (divided(9, "overlap", "lwf"), divided(0, "overlap", "lwf"), (PROTOCOLS,)),
    (divided(0, "overlap", "cumulative"), divided(0, "disjoint", "cumulative"), (PROTOCOLS, FINDINGS)),
    (divided(9, "overlap", "cumulative"), divided(9, "disjoint", "cumulative"), (PROTOCOLS,)),
    (orders("derpp", FEW), divided(0, "overlap", "derpp", FEW), (PROTOCOLS,)),
    (orders("derpp", MANY), divided(0, "overlap", "derpp", MANY), (PROTOCOLS,)),
    (orders("l3a"), divided(0, "overlap", "l3a"), (PROTOCOLS,)),
    (orders("l3a"), orders("derpp", MANY), (ORDERS, FINDINGS)),
    (orders("derpp", MANY), orders("er_herding", MANY), (ORDERS,)),
    (orders("dlfl", FEW), orders("er_herding", FEW), (ORDERS,)),
    (orders("er_herding", FEW), orders("er", FEW), (FINDINGS,)),
    (orders("derpp", MANY), orders("er", MANY), (FINDINGS,)),
    (orders("derpp", FEW), orders("er", FEW), (FINDINGS,)),
    (corel("ridge"), corel("joint"), (COREL, FINDINGS)),
    (corel("ridge"), corel("l3a"), (COREL,)),
    (corel("l3a"), corel("joint"), (COREL,)),
    (corel("er", "loss=bce"), corel("er", AN), (COREL, FINDINGS)),
    (corel("naive", "loss=bce"), corel("naive", AN), (COREL,)),
    (corel("lwf"), corel("er", AN), (COREL,)),
    (corel("er_balanced", "loss=bce"), corel("er", "loss=bce"), (COREL,)),
    *((divided(*d, "naive", "loss=bce"), divided(*d, "er", f"{OPEN}200"), (PROTOCOLS,)) for d in DIVISIONS),
    (corel("naive", "loss=bce"), corel("er", "loss=bce"), (COREL,)),
    (divided(9, "overlap", "naive", "loss=bce"), divided(0, "overlap", "naive", "loss=bce"), (PROTOCOLS,)),
    (grid("missing_positives", "derpp"), grid("missing_positives", "er"), (GRID,)),
    (grid("single_positive", "er"), grid("single_positive", "derpp"), (GRID,)),
    (grid("all", "er"), grid("all", "derpp"), (GRID,)),
    (grid("current", "er_herding"), grid("current", "er"), (GRID,)),
    (grid("missing_positives", "krt"), grid("missing_positives", "er"), (GRID,)),
    (grid("current", "krt"), grid("current", "er"), (GRID,)),
    *((grid(each, "naive", "dlfl"), grid(each, "cdcr", "dlfl"), (GRID,)) for each in ("current", "all")),
    (grid("single_positive", "naive"), grid("single_positive", "cuter"), (GRID,)),
    (grid("all", "naive"), grid("all", "cuter"), (GRID,)),
    (grid("all", "er"), grid("all", "er_herding"), (GRID,)),
    (grid("all", "er", "dlfl"), grid("all", "joint", "dlfl"), (FINDINGS, GRID)),
    (grid("all", "er", "dlfl"), grid("all", "joint"), (GRID,)),
    *((corel(strategy, AN), corel("er", AN), (COREL,)) for strategy in ("prs", "ocdm", "er_balanced")),
    *((divided(*d, "dlfl", f"{OPEN}200"), divided(*d, "naive", "loss=bce"), (PROTOCOLS,)) for d in DIVISIONS),
    *((divided(*d, "er", MANY), divided(*d, "er", FEW), (PROTOCOLS,)) for d in DIVISIONS),
    *((divided(*d, "er_herding", FEW), divided(*d, "er_herding", f"{OPEN}200"), (PROTOCOLS,)) for d in DIVISIONS),
    *((divided(*d, "er_herding", f"{OPEN}200"), divided(*d, "er", f"{OPEN}200"), (PROTOCOLS,)) for d in DIVISIONS),
    *((divided(*d, "naive", "loss=bce"), divided(*d, "pseudo_label"), (PROTOCOLS,)) for d in DIVISIONS),
    *(
        (divided(0, assignment, "dlfl", f"{OPEN}200"), divided(0, assignment, "naive", "loss=bce"), (FINDINGS,))
        for assignment in ("overlap", "disjoint")
    ),
    *(
        (divided(*d, strategy, MANY), divided(*d, "er", MANY), (FINDINGS,))
        for strategy, d in (("derpp", (0, "overlap")), ("derpp", (0, "disjoint")), ("er_herding", (9, "overlap")))
    ),
    *((divided(*d, "derpp", FEW), divided(*d, "er", FEW), (FINDINGS,)) for d in ((0, "overlap"), (9, "disjoint"))),
    *(
        (divided(9, assignment, "lwf"), divided(9, assignment, "er", FEW), (FINDINGS,))
        for assignment in ("overlap", "disjoint")
    ),
    *((divided(*d, "dlfl", FEW), divided(*d, "lwf"), (FINDINGS,)) for d in ((0, "overlap"), (9, "overlap"))),
    *(
        (divided(0, assignment, "l3a"), divided(0, assignment, "derpp", MANY), (FINDINGS,))
        for assignment in ("overlap", "disjoint")
    ),
    *((divided(*d, "er", MANY), divided(*d, "er", FEW), (FINDINGS,)) for d in ((9, "overlap"), (9, "disjoint"))),
    *(
        (divided(*d, "dlfl", FEW), divided(*d, "er_herding", FEW), (FINDINGS,))
        for d in ((0, "overlap"), (9, "disjoint"))
    ),
    *(
        (divided(*d, "er_herding", f"{OPEN}200"), divided(*d, "er", f"{OPEN}200"), (FINDINGS,))
        for d in ((9, "disjoint"), (9, "overlap"))
    ),
    *(
        (divided(*d, "er_herding", FEW), divided(*d, "er_herding", f"{OPEN}200"), (FINDINGS,))
        for d in ((0, "disjoint"), (9, "overlap"))
    ),
    (divided(0, "overlap", "cumulative"), divided(0, "overlap", "l3a"), (FINDINGS,)),
    (divided(9, "overlap", "cumulative"), divided(9, "disjoint", "cumulative"), (FINDINGS,)),
    (orders("naive", "loss=bce"), orders("naive", AN), (FINDINGS,)),
    (orders("er_herding", MANY), orders("er", MANY), (ORDERS,)),
    (orders("er_herding", FEW), orders("er", FEW), (ORDERS,)),
    (orders("derpp", MANY), orders("er", MANY), (ORDERS,)),
    (orders("derpp", FEW), orders("er", FEW), (ORDERS,)),
    (corel("ridge"), corel("l3a"), (FINDINGS,)),
    (corel("er", AN), corel("prs", AN), (FINDINGS,)),
    (grid("current", "er"), grid("current", "l3a"), (FINDINGS,)),
    (grid("current", "cumulative"), grid("current", "joint"), (FINDINGS, GRID)),
    (grid("all", "er"), grid("all", "joint"), (GRID,)),
]


@cache
def jobs(table: str) -> pd.DataFrame:
    """Return the jobs of a reference table."""
    return pd.read_csv(REFERENCE / table / "jobs.csv")


def figures(side: Side) -> pd.Series:
    """Return last mAP x 100 of one method by class order and seed: seed 0 where there are nine orders."""
    found = jobs(side.table)
    if found["class_order"].nunique() > 3:
        found = found[found["seed"] == 0]
    for column, value in side.where:
        found = found[found[column] == value]
    asked = set(side.tokens.split())
    # A method without a memory is none of those with one.
    fits = [
        spec
        for spec in found["method"].unique()
        if parse_method(spec).strategy == side.strategy
        and asked <= set(spec.split())
        and ("memory_size" in side.tokens or side.table in ("corel5k", "digits_grid") or "memory_size" not in spec)
    ]
    assert len(fits) == 1, f"{side} is {fits}"
    return 100 * found[found["method"] == fits[0]].set_index(["class_order", "seed"])["last_map"]


@pytest.mark.parametrize(
    ("ours", "theirs", "pages"),
    [pytest.param(*claim, id=f"{i}-{claim[0].strategy}-{claim[1].strategy}") for i, claim in enumerate(CLAIMS)],
)
def test_a_claimed_difference_is_what_the_jobs_give(ours: Side, theirs: Side, pages: tuple[str, ...]) -> None:
    one, other = figures(ours).align(figures(theirs), join="inner")
    found = judged([one - other])[0].estimate
    assert found.level == 0.95
    told = f"{found.mean:.1f} [{found.low:.1f}, {found.high:.1f}]"
    for page in pages:
        text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
        assert told in text, f"{page}: {told}"


@pytest.mark.parametrize(
    ("told", "above", "below"),
    [
        ("200 photos are {:.0f} to {:.0f} above `naive`", ("er", FEW), ("naive", AN)),
        ("Under BCE plain `er` is {:.1f} to {:.1f} below it", ("naive", "loss=bce"), ("er", f"{OPEN}200")),
        ("1,000 photos of plain `er` are {:.1f} to {:.1f} above 200", ("er", f"{OPEN}1000"), ("er", f"{OPEN}200")),
        ("by {:.1f} to {:.1f} under four divisions", ("er_herding", FEW), ("er", FEW)),
        ("by {:.0f} to {:.0f} over `naive`", ("pseudo_label", ""), ("naive", AN)),
        ("against BCE no, by {:.1f} to {:.1f} below it", ("naive", "loss=bce"), ("pseudo_label", "")),
    ],
)
def test_a_range_over_the_four_divisions_is_what_the_jobs_give(
    told: str, above: tuple[str, str], below: tuple[str, str]
) -> None:
    means = [(figures(divided(*d, *above)) - figures(divided(*d, *below))).mean() for d in DIVISIONS]
    assert told.format(min(means), max(means)) in (ROOT / FINDINGS).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("ours", "theirs", "pages"),
    [claim for claim in CLAIMS if claim[0].table != "digits_grid"],
    ids=lambda value: value.strategy if isinstance(value, Side) else "",
)
def test_a_bracket_that_the_test_of_our_tables_would_not_call_real_has_its_p(
    ours: Side, theirs: Side, pages: tuple[str, ...]
) -> None:
    one, other = figures(ours).align(figures(theirs), join="inner")
    found = judged([one - other])[0]
    if not (found.estimate.low > 0 or found.estimate.high < 0) or found.p < 0.05:
        return
    told = f"{found.estimate.mean:.1f} [{found.estimate.low:.1f}, {found.estimate.high:.1f}]"
    for page in pages:
        text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
        assert re.search(rf"{re.escape(told)}[^.]{{0,90}}\(?p = {found.p:.2g}", text), (
            f"{page}: {told}, p = {found.p:.2g}"
        )


def alike(blocks: pd.DataFrame) -> list[float]:
    """Return the intraclass correlation by class order of the differences between any two columns."""
    values = blocks.to_numpy().reshape(3, 3, -1)
    one, other = np.triu_indices(values.shape[2], 1)
    apart = values[:, :, one] - values[:, :, other]
    between, within = 3 * apart.mean(1).var(0, ddof=1), apart.var(1, ddof=1).mean(0)
    # Rounded, some methods are one.
    real = between + 2 * within > 0
    return list((between - within)[real] / (between + 2 * within)[real])


def test_seeds_on_one_order_are_alike_on_photos() -> None:
    found = jobs("coco18_protocols").groupby("class_order").filter(lambda order: order["seed"].nunique() == 3)
    shares: list[float] = []
    for _, division in found.groupby(["base", "assignment"]):
        shares += alike(division.pivot_table(index=["class_order", "seed"], columns="method", values="last_map"))
    low, middle, high = 100 * np.quantile(shares, [0.25, 0.5, 0.75])
    page = " ".join((ROOT / PROTOCOLS).read_text(encoding="utf-8").split())
    told = f"{middle:.0f} % lies between the orders (intraclass correlation, median of the {len(shares):,} pairs"
    assert told in page
    assert f"quartiles {low:.0f} and {high:.0f} %" in page
    assert f"correlation {middle / 100:.2f} in the median" in (ROOT / FINDINGS).read_text(encoding="utf-8")


def test_seeds_on_one_order_are_less_alike_on_digits() -> None:
    """Differences of strategies with one head under one annotation, and of the two heads under one strategy."""
    found = jobs("digits_grid").assign(method=lambda each: each["method"].map(parse_method))
    found = found.assign(
        strategy=found["method"].map(lambda method: method.strategy),
        head=found["method"].map(lambda method: method.head),
    )
    found = found[found["head"].isin(["linear", "dlfl"])]
    rows = ["class_order", "seed"]
    strategies: list[float] = []
    for _, part in found.groupby(["annotation", "head"]):
        strategies += alike(part.pivot_table(index=rows, columns="strategy", values="last_map"))
    heads: list[float] = []
    for _, part in found.groupby(["annotation", "strategy"]):
        heads += alike(part.pivot_table(index=rows, columns="head", values="last_map"))
    assert np.median(heads) < 0.05
    for page in (FINDINGS, GRID):
        text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
        assert f"({np.median(strategies):.2f} for differences of strategies, none for the two heads)" in text


@pytest.mark.parametrize(("share", "held", "pages"), [(0.82, 70, (FINDINGS, PROTOCOLS)), (0.26, 88, (FINDINGS, GRID))])
def test_a_bracket_over_nine_jobs_on_three_orders_holds_less_than_it_says(
    share: float, held: int, pages: tuple[str, ...]
) -> None:
    """How often it holds the mean over orders, where this share of a difference's variance lies between orders."""
    rng = np.random.default_rng(0)
    between, within = rng.normal(size=(400, 3, 1)), rng.normal(size=(400, 3, 3))
    seeds_on_orders = (share**0.5 * between + (1 - share) ** 0.5 * within).reshape(400, 9)
    holds = [
        float(np.mean([each.estimate.low <= 0 <= each.estimate.high for each in judged(list(drawn))]))
        for drawn in (seeds_on_orders, rng.normal(size=(400, 9)))
    ]
    assert holds == pytest.approx([held / 100, 0.95], abs=0.05)
    for page in pages:
        assert f"{held} times of 100" in " ".join((ROOT / page).read_text(encoding="utf-8").split())


@pytest.mark.parametrize(
    ("size", "told"), [(200, "on digits {:.1f} ({:.1f} to {:.1f}) with 200"), (800, "gains {:.1f} ({:.1f} to {:.1f})")]
)
def test_the_rule_on_digits(size: int, told: str) -> None:
    method = f"er head=linear{{}} memory_size={size}"
    found = collect(REFERENCE / "digits" / "results").set_index(["method", "seed"])["last_map"] * 100
    gain = found[method.format(" loss=assume_negative loss.scope=seen")] - found[method.format("")]
    gain = -gain if size == 200 else gain
    assert told.format(gain.mean(), gain.min(), gain.max()) in (ROOT / FINDINGS).read_text(encoding="utf-8")


def test_a_teacher_and_a_small_memory_are_better_than_either() -> None:
    for division in DIVISIONS:
        both = figures(divided(*division, "dlfl", FEW))
        for alone in (divided(*division, "lwf"), divided(*division, "er", FEW)):
            assert judged([both - figures(alone)])[0].estimate.low > 0, (division, alone)


def test_who_has_the_highest_mean_of_the_continual_methods() -> None:
    """In how many of the four divisions ``l3a`` does, and on how many of these it leads DER++ on each class order."""
    first = every = 0
    for base, assignment in DIVISIONS:
        found = jobs("coco18_protocols")
        found = found[(found["base"] == base) & (found["assignment"] == assignment) & (found["seed"] == 0)]
        strategy = found["method"].map(lambda spec: parse_method(spec).strategy)
        means = found[~strategy.isin(["joint", "cumulative"])].groupby("method")["last_map"].mean()
        first += parse_method(str(means.idxmax())).strategy == "l3a"
        lead = figures(divided(base, assignment, "l3a")) - figures(divided(base, assignment, "derpp", MANY))
        every += bool((lead > 0).all())
    assert (first, every) == (3, 1)
    text = " ".join((ROOT / FINDINGS).read_text(encoding="utf-8").split())
    assert (
        "Of the methods that do not keep all photos `l3a` has the highest mean in three of four ways to divide the "
        "labels, and leads DER++ on every class order in one of them" in text
    )
