"""Draw ``unknown_rule.svg`` from the table of coco18: last mAP under two rules for unknown labels."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import matplotlib
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "results" / "reference" / "coco18" / "table.csv"
RULES = {"BCE": ("tab:blue", "left out of the loss (BCE)"), "AN seen (BCE)": ("tab:red", "taken for absent (AN seen)")}


def pairs(table: pd.DataFrame) -> pd.DataFrame:
    """Return last mAP in percent: a row a method with the linear head, columns (rule, mean or std), narrowest first."""
    rows = table[table["method"].str.contains("head=linear") & table["loss"].isin(RULES)].copy()
    rows["method"] = [re.sub(r" (head|loss|loss\.scope)=\S+", "", method) for method in rows["method"]]
    wide = rows.pivot_table(index="method", columns="loss", values=["last_map_mean", "last_map_std"]).dropna() * 100
    wide.columns = wide.columns.map(lambda column: (column[1], column[0].rpartition("_")[2]))
    return wide.loc[(wide["AN seen (BCE)", "mean"] - wide["BCE", "mean"]).abs().sort_values().index]


def draw(path: Path) -> None:
    """Draw the pairs into an SVG file."""
    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "unknown_rule", "font.size": 10, "svg.fonttype": "path"})
    table = pd.read_csv(TABLE)
    found = pairs(table)
    figure, axes = plt.subplots(figsize=(8.6, 0.34 * len(found) + 1.4), layout="constrained")
    places = range(len(found))
    axes.hlines(places, found["BCE", "mean"], found["AN seen (BCE)", "mean"], color="0.75", linewidth=3)
    for rule, (colour, name) in RULES.items():
        axes.errorbar(
            found[rule, "mean"], places, xerr=found[rule, "std"], fmt="o", color=colour, label=name, capsize=2
        )
    joint = 100 * float(table.set_index("method").at["joint head=linear", "last_map_mean"])
    axes.axvline(joint, color="0.4", linestyle="--", linewidth=1)
    axes.text(joint + 0.4, 0, "joint", color="0.4", va="center")
    axes.set_yticks(places, found.index)
    axes.set(xlabel="last mAP in %", ylim=(-0.7, len(found) - 0.3), xlim=(None, joint + 4))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="0.9")
    figure.legend(frameon=False, loc="outside upper center", ncols=2, title="labels that nobody annotated are")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".svg"))
