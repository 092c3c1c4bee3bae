"""Draw ``variance_shares.svg``: what moves the last mAP on coco18, from the jobs of ``coco18_orders``."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from cml_bench.report.statistics.estimates import bootstrap_tail
from cml_bench.runs.method import parse_method

JOBS = Path(__file__).resolve().parents[2] / "results" / "reference" / "coco18_orders" / "jobs.csv"
GRIDS = {
    "with a memory": (("er", "er_herding", "derpp", "dlfl"), ["strategy", "rule", "memory"]),
    "without a memory": (("naive", "lwf", "ewc", "dlfl"), ["strategy", "rule"]),
}
DRAWS = 2000


def one_an_order(path: Path) -> pd.DataFrame:
    """Return the jobs of seed 0, one a class order.

    Orders are the units: seeds on one order are much alike, and those of the first three would count them thrice.
    """
    jobs = pd.read_csv(path)
    return jobs[jobs["seed"] == 0]


def grid(jobs: pd.DataFrame, strategies: tuple[str, ...], *, memory: bool) -> pd.DataFrame:
    """Return the jobs of some strategies with or without a memory: factors, block (class order), last mAP."""
    methods = {spec: parse_method(spec) for spec in jobs["method"].unique()}
    options = {spec: dict(method.options) for spec, method in methods.items()}
    table = pd.DataFrame(
        {
            "strategy": jobs["method"].map(lambda spec: methods[spec].strategy),
            "rule": jobs["method"].map(lambda spec: methods[spec].loss),
            "memory": jobs["method"].map(lambda spec: options[spec].get("memory_size", "0")),
            "order": jobs["class_order"],
            "block": jobs["class_order"],
            "value": 100 * jobs["last_map"],
        }
    )
    return table[table["strategy"].isin(strategies) & ((table["memory"] != "0") == memory)]


def shares(table: pd.DataFrame, factors: list[str]) -> pd.Series:
    """Return the share of the variance of ``value`` that each factor and each pair of them explain in a balanced grid.

    A factor's share is the variance of its levels' means; a pair's is what the means of its cells have beyond both. The
    class order is a factor of its own; what is left is ``rest`` (how orders and methods suit each other, and seeds).

    Raises:
        ValueError: If the grid is not balanced: the shares would overlap.
    """
    cells = table.groupby([*factors, "block"]).size()
    if cells.nunique() != 1 or len(cells) != table[[*factors, "block"]].nunique().prod():
        raise ValueError("every cell of the grid must have as many jobs")
    value, grand = table["value"], table["value"].mean()
    effects = {name: table.groupby(name)["value"].transform("mean") - grand for name in (*factors, "order")}
    for one, other in itertools.combinations(factors, 2):
        cell = table.groupby([one, other])["value"].transform("mean")
        effects[f"{one} x {other}"] = cell - grand - effects[one] - effects[other]
    found = {name: float((effect**2).mean()) for name, effect in effects.items()}
    total = float(((value - grand) ** 2).mean())
    return pd.Series({**found, "rest": total - sum(found.values())}) / total


def over_blocks(table: pd.DataFrame, statistic: Callable[[pd.DataFrame], pd.Series], draws: int) -> pd.DataFrame:
    """Return a statistic of jobs with 95 % bootstrap intervals over blocks, as tables have them.

    Args:
        table: Jobs; ``block`` tells what is drawn together, a class order say.
        statistic: What is computed of jobs, a number a name.
        draws: How often blocks are drawn anew.

    Returns:
        A row a name: found, low, high.
    """
    rng = np.random.default_rng(0)
    blocks = dict(iter(table.groupby("block")))
    names = list(blocks)
    found = []
    for _ in range(draws):
        drawn = rng.choice(len(names), len(names))
        # A block that is drawn twice is two.
        found.append(statistic(pd.concat([blocks[names[i]].assign(block=str(k)) for k, i in enumerate(drawn)])))
    tail = bootstrap_tail(len(names))
    low, high = np.quantile(pd.DataFrame(found), [tail, 1 - tail], axis=0)
    return pd.DataFrame({"found": statistic(table), "low": low, "high": high})


def with_intervals(table: pd.DataFrame, factors: list[str]) -> pd.DataFrame:
    """Return shares with their intervals: share, low, high."""
    found = over_blocks(table, lambda jobs: shares(jobs, factors), DRAWS)
    return found.rename(columns={"found": "share"})


def tables() -> dict[str, pd.DataFrame]:
    """Return the shares in both grids."""
    jobs = one_an_order(JOBS)
    return {
        name: with_intervals(grid(jobs, strategies, memory=name == "with a memory"), factors)
        for name, (strategies, factors) in GRIDS.items()
    }


def by_memory(grid: pd.DataFrame, factors: list[str]) -> dict[str, pd.DataFrame]:
    """Return the shares with their intervals within each size of memory."""
    rest = [factor for factor in factors if factor != "memory"]
    return {str(size): with_intervals(jobs, rest) for size, jobs in grid.groupby("memory")}


def draw(path: Path) -> None:
    """Draw the shares into an SVG file."""
    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "variance_shares", "font.size": 10, "svg.fonttype": "path"})
    found = tables()
    figure, panels = plt.subplots(
        len(found), 1, figsize=(8, 5), layout="constrained", sharex=True, height_ratios=[len(t) for t in found.values()]
    )
    for axes, (name, table) in zip(panels, found.items(), strict=True):
        table = 100 * table.iloc[::-1]
        error = [table["share"] - table["low"], table["high"] - table["share"]]
        axes.barh(table.index, table["share"], xerr=np.clip(error, 0, None), color="tab:blue", ecolor="0.4", capsize=2)
        axes.set_title(name, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
    panels[-1].set_xlabel("share of the variance of last mAP in %")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    for name, table in tables().items():
        print(name, (100 * table).round(1), sep="\n")  # noqa: T201
    strategies, factors = GRIDS["with a memory"]
    for size, table in by_memory(grid(one_an_order(JOBS), strategies, memory=True), factors).items():
        print(f"with {size} photos", (100 * table).round(), sep="\n")  # noqa: T201
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".svg"))
