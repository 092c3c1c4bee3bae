"""Draw ``divisions.svg``: last mAP of the methods of ``coco18_protocols`` under four divisions of the same photos."""

from __future__ import annotations

import itertools
import runpy
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from cml_bench.runs.method import parse_method

HERE = Path(__file__).resolve().parent
JOBS = HERE.parents[1] / "results" / "reference" / "coco18_protocols" / "jobs.csv"
SHARES = runpy.run_path(str(HERE / "variance_shares.py"))
FACTORS = ["strategy", "rule", "memory", "division"]
DRAWS = 1000
STRATEGIES = ("er", "er_herding", "derpp", "dlfl")


def read_jobs() -> pd.DataFrame:
    """Return a row a class order and method: its factors, order, block (the order) and value (last mAP x 100)."""
    jobs = SHARES["one_an_order"](JOBS)
    methods = {spec: parse_method(spec) for spec in jobs["method"].unique()}
    return jobs.assign(
        strategy=jobs["method"].map(lambda spec: methods[spec].strategy),
        rule=jobs["method"].map(lambda spec: methods[spec].loss),
        memory=jobs["method"].map(lambda spec: dict(methods[spec].options).get("memory_size", "0")),
        division="B" + jobs["base"].astype(str) + "-C3 " + jobs["assignment"],
        order=jobs["class_order"],
        block=jobs["class_order"],
        value=100 * jobs["last_map"],
    )


def crossed(jobs: pd.DataFrame) -> pd.DataFrame:
    """Return the jobs of the balanced grid strategy x rule x memory x division."""
    return jobs[jobs["strategy"].isin(STRATEGIES) & (jobs["memory"] != "0")]


def rank_correlations(jobs: pd.DataFrame) -> pd.DataFrame:
    """Return Spearman's correlation between divisions of the means of all methods but ``joint``."""
    means = jobs[jobs["strategy"] != "joint"].pivot_table(index="method", columns="division", values="value")
    return means.corr("spearman")


def rank_statistics(jobs: pd.DataFrame) -> pd.Series:
    """Return the correlation of each pair of divisions, and how far another base lowers it below another assignment."""
    found = rank_correlations(jobs)
    pairs = {f"{one} against {other}": found.loc[one, other] for one, other in itertools.combinations(found, 2)}
    far, near = (
        np.mean([pairs[f"B{a}-C3 {b} against B{c}-C3 {d}"] for a, b, c, d in each])
        for each in (
            [(0, "overlap", 9, "overlap"), (0, "disjoint", 9, "disjoint")],
            [(0, "disjoint", 0, "overlap"), (9, "disjoint", 9, "overlap")],
        )
    )
    return pd.Series({**pairs, "assignment above base": near - far})


def differences(jobs: pd.DataFrame) -> pd.Series:
    """Return how much more of the variance, in points, the rule explains than the strategy does."""
    found = 100 * SHARES["shares"](jobs, FACTORS)
    return pd.Series({"rule above strategy": found["rule"] - found["strategy"]})


def draw(path: Path) -> None:
    """Draw a line a method through its means; families of interest are named."""
    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "divisions", "font.size": 9, "svg.fonttype": "path"})
    jobs = read_jobs()
    means = jobs.pivot_table(index="method", columns="division", values="value")
    shown = {
        "joint": "black",
        "cumulative": "grey",
        "l3a": "tab:red",
        "derpp head=linear loss=assume_negative loss.scope=seen alpha=0.1 beta=0.5 memory_size=1000": "tab:orange",
        "dlfl head=linear loss=assume_negative loss.scope=seen logit_margin=2 memory_size=1000": "tab:blue",
        "er head=linear loss=assume_negative loss.scope=seen memory_size=1000 replay_batch_size=64": "tab:green",
        "er head=linear loss=bce memory_size=1000 replay_batch_size=64": "tab:olive",
        "lwf": "tab:purple",
        "naive head=linear loss=assume_negative": "tab:brown",
    }
    figure, axes = plt.subplots(figsize=(8, 7), layout="constrained")
    labels: list[tuple[float, str, str]] = []
    for method, row in means.iterrows():
        colour = next((colour for name, colour in shown.items() if str(method).startswith(name)), None)
        style = {"color": "0.85", "linewidth": 0.8, "zorder": 1} if colour is None else {"color": colour, "marker": "o"}
        axes.plot(means.columns, row, **style)
        if colour:
            spec = parse_method(str(method))
            rule = {"bce": "BCE", "assume_negative": "AN seen"}.get(spec.loss or "", "")
            memory = {"1000": "1,000"}.get(dict(spec.options).get("memory_size", ""), "")
            label = " ".join(part for part in (spec.strategy, memory, rule) if part)
            labels.append((float(row.iloc[-1]), label, colour))
    lowest = -np.inf
    for height, label, colour in sorted(labels):
        # Means that are close keep their labels apart.
        lowest = max(height, lowest + 1)
        axes.annotate(label, (3, lowest), (6, -3), textcoords="offset points", color=colour, annotation_clip=False)
    axes.set_ylabel("last mAP x 100, mean of nine class orders")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    print((100 * SHARES["with_intervals"](crossed(read_jobs()), FACTORS)).round(1))  # noqa: T201
    print(SHARES["over_blocks"](crossed(read_jobs()), differences, DRAWS).round())  # noqa: T201
    for size, table in SHARES["by_memory"](crossed(read_jobs()), FACTORS).items():
        print(f"with {size} photos", (100 * table).round(), sep="\n")  # noqa: T201
    print(SHARES["over_blocks"](read_jobs(), rank_statistics, DRAWS).round(2))  # noqa: T201
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".svg"))
