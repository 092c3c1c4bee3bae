"""Draw ``losses.svg``: last mAP of each loss minus that of AN, with all labels at once and in a stream."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import pandas as pd

from cml_bench.report.statistics.estimates import estimate
from cml_bench.runs.method import parse_method

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / "results" / "reference" / "coco18_losses"
REGIMES = {
    "full": "all labels marked",
    "missing_positives rate=0.6": "60 % of the positives overlooked",
    "single_positive": "a single positive marked",
}
SCALED = {"0.85": ", alpha x 17/2", "0.45": ", alpha x 28/6"}
"""What EM's constants for three labels at a time are called."""
AT_ONCE, STREAM = 18, 3
"""Labels that arrive together."""


def read(table: str) -> pd.DataFrame:
    """Return a row a job of ``jobs.csv`` or ``search.csv``: its loss, rate, block and last mAP x 100."""
    jobs = pd.read_csv(FOLDER / f"{table}.csv")
    methods = jobs["method"].map(parse_method)
    options = methods.map(lambda method: dict(method.loss_options))
    base = options.map(lambda given: given.get("base", ""))
    constants = options.map(lambda given: f" k={given['k']}" if "k" in given else "")
    scaled = options.map(lambda given: SCALED.get(given.get("alpha", ""), ""))
    return jobs.assign(
        loss=("an + " + base).where(base != "", methods.map(lambda method: str(method.loss))) + constants + scaled,
        rate=methods.map(lambda method: dict(method.options)["lr"]),
        block=jobs["class_order"] + " " + jobs["seed"].astype(str),
        value=100 * jobs["last_map"],
    )


def chosen() -> pd.DataFrame:
    """Return the rate with the highest mean on held-out photos: a row a number of labels, regime and loss."""
    means = read("search").pivot_table(index=["increment", "regime", "loss"], columns="rate", values="value")
    return means.idxmax(axis=1).unstack("regime")


def gains() -> pd.DataFrame:
    """Return mean, and gain over AN with its interval: a row a number of labels, regime and loss."""
    found = []
    for (increment, regime), part in read("jobs").groupby(["increment", "regime"]):
        wide = part.pivot_table(index="block", columns="loss", values="value")
        for loss in wide:
            gain = estimate(wide[loss] - wide["an"])
            row = {"increment": increment, "regime": regime, "loss": loss, "mean": wide[loss].mean()}
            found.append({**row, "gain": gain.mean, "low": gain.low, "high": gain.high, "blocks": gain.n})
    return pd.DataFrame(found).set_index(["increment", "regime", "loss"])


def table() -> list[str]:
    """Return the lines of the page's table."""
    found = gains()
    cells = {}
    for increment in (AT_ONCE, STREAM):
        for regime in REGIMES:
            rows = found.loc[(increment, regime)]
            told = rows.apply(
                lambda row: f"{row['mean']:.1f} ({row['gain']:+.1f} [{row['low']:.1f}, {row['high']:.1f}])", axis=1
            )
            cells[increment, regime] = told.where(rows.index != "an", rows["mean"].map("{:.1f}".format))
    frame = pd.DataFrame(cells).fillna("")
    order = found["mean"].loc[(AT_ONCE, "single_positive")].reindex(frame.index).sort_values(ascending=False)
    return [f"| {' | '.join([f'`{loss}`', *frame.loc[loss]])} |" for loss in order.index]


def draw(path: Path) -> None:
    """Draw a row a loss: its gain at once (open) and in a stream (filled), with intervals; a panel a regime."""
    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "losses", "font.size": 9, "svg.fonttype": "path"})
    found = gains()
    panels = [*REGIMES][1:]
    # Known labels alone (bce) lie far to the left of everything.
    at_once = found.loc[(AT_ONCE, panels[-1]), "gain"].drop(["an", "bce"])
    order = [*(f"em{name}" for name in SCALED.values()), *at_once.sort_values().index]
    figure, axes = plt.subplots(1, 2, figsize=(7.4, 0.24 * len(order) + 1.2), sharey=True, layout="constrained")
    for panel, regime in zip(axes, panels, strict=True):
        panel.axvline(0, color="0.6", linewidth=0.8)
        for increment, fill, colour, name in (
            (AT_ONCE, "white", "#0072b2", "all 18 labels at once"),
            (STREAM, "#d55e00", "#d55e00", "three at a time"),
        ):
            rows = found.loc[(increment, regime)].reindex(order)
            places = range(len(order))
            panel.hlines(places, rows["low"], rows["high"], color=colour, linewidth=1)
            panel.plot(
                rows["gain"], places, "o", markerfacecolor=fill, markeredgecolor=colour, markersize=5, label=name
            )
        panel.set_title(REGIMES[regime], fontsize=9)
        panel.set_xlabel("points of last mAP over AN")
        panel.set_yticks(range(len(order)), order)
        panel.grid(axis="y", color="0.92", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.tick_params(length=0)
        panel.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=2)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    print(chosen().to_string(), "", *table(), sep="\n")  # noqa: T201
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".svg"))
