"""Draw ``heads.svg``: last mAP with one feature a label (head ``dlfl``) minus one feature for all (``linear``)."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from cml_bench.report.statistics.estimates import estimate
from cml_bench.runs.method import parse_method

HERE = Path(__file__).resolve().parent
REFERENCE = HERE.parents[1] / "results" / "reference"
SHARES = runpy.run_path(str(HERE / "variance_shares.py"))
DRAWS = 1000
COLUMNS = {
    "current": "digits\ncurrent",
    "all": "digits\nall",
    "missing_positives": "digits\nmissing",
    "single_positive": "digits\nsingle",
    "online": "digits\nonline",
    "photos": "photos",
}


def read_jobs(table: str, *, every_seed: bool = False) -> pd.DataFrame:
    """Return a row a job of ``digits_grid`` or ``coco18_heads``: its factors, block and value (last mAP x 100).

    Of ``coco18_heads``, which has nine class orders, one seed on each, or all seeds of the first three.
    """
    path = REFERENCE / table / "jobs.csv"
    jobs = SHARES["one_an_order"](path) if table == "coco18_heads" and not every_seed else pd.read_csv(path)
    if every_seed:
        jobs = jobs.groupby("class_order").filter(lambda order: order["seed"].nunique() > 1)
    methods = {spec: parse_method(spec) for spec in jobs["method"].unique()}
    memory = {spec: dict(method.options).get("memory_size", "") for spec, method in methods.items()}
    kinds = pd.Series(memory).groupby(lambda spec: methods[spec].strategy).nunique()
    # Memories hold 200 images unless the name says otherwise.
    told = {
        spec: "" if kinds[method.strategy] == 1 else {"200": "", "": "0"}.get(memory[spec], memory[spec])
        for spec, method in methods.items()
    }
    names = {spec: f"{method.strategy} {told[spec]}".strip() for spec, method in methods.items()}
    if "annotation" not in jobs:
        jobs["annotation"] = "photos"
    return jobs.assign(
        strategy=jobs["method"].map(names),
        head=jobs["method"].map(lambda spec: methods[spec].head),
        order=jobs["class_order"],
        block=jobs["class_order"] + " " + jobs["seed"].astype(str),
        value=100 * jobs["last_map"],
    )


def gains(jobs: pd.DataFrame) -> pd.DataFrame:
    """Return the paired gain of one feature a label: a row a strategy, annotation and block that both heads have."""
    wide = jobs.pivot_table(index=["strategy", "annotation", "block"], columns="head", values="value")[
        ["linear", "dlfl"]
    ].dropna()
    return (wide["dlfl"] - wide["linear"]).rename("gain").reset_index()


FACTORS = {"digits_grid": ["strategy", "head", "annotation"], "coco18_heads": ["strategy", "head"]}


def factors(name: str) -> pd.Series:
    """Return the shares of the variance of last mAP over strategy, head and, on digits, annotation."""
    jobs = read_jobs(name)
    return SHARES["shares"](jobs[jobs["head"].isin(["linear", "dlfl"])], FACTORS[name])


def parts() -> dict[str, pd.DataFrame]:
    """Return the jobs of ``digits_grid`` over which the strategy's share is set against that of the annotation."""
    whole = read_jobs("digits_grid")
    whole = whole[whole["head"].isin(["linear", "dlfl"])]
    without_pass = whole[whole["annotation"] != "online"]
    without_bounds = without_pass[~without_pass["strategy"].isin(["joint", "cumulative"])]
    return {"whole": whole, "without the single pass": without_pass, "without the bounds as well": without_bounds}


def differences(jobs: pd.DataFrame) -> pd.Series:
    """Return how much more of the variance, in points, the strategy explains than the annotation does."""
    found = 100 * SHARES["shares"](jobs, FACTORS["digits_grid"])
    return pd.Series({"strategy above annotation": found["strategy"] - found["annotation"]})


def summary() -> pd.DataFrame:
    """Return mean gain over strategies, its interval over blocks, and how many strategies gain; a row a column."""
    found = {}
    for table in ("digits_grid", "coco18_heads"):
        for annotation, part in gains(read_jobs(table)).groupby("annotation"):
            blocks = estimate(part.groupby("block")["gain"].mean())
            own = part.groupby("strategy")["gain"].mean()
            found[annotation] = {
                "gain": blocks.mean,
                "low": blocks.low,
                "high": blocks.high,
                "blocks": blocks.n,
                "strategies": len(own),
                "gain in": int((own > 0).sum()),
                "least": f"{own.idxmin()} {own.min():.1f}",
                "most": f"{own.idxmax()} {own.max():.1f}",
            }
    return pd.DataFrame(found).T


def table(name: str) -> list[str]:
    """Return the lines of a page's table: mean last mAP by strategy, annotation and head; of photos gain and cost, too.

    Seconds are those of seed 0 on the first three orders: the others ran beside other work, or elsewhere.
    """
    jobs = read_jobs(name)
    jobs = jobs[jobs["head"].isin(["linear", "dlfl"])]
    means = jobs.pivot_table(index="strategy", columns=["annotation", "head"], values="value")
    columns = [(each, head) for each in COLUMNS if each in means for head in ("linear", "dlfl")]
    means = means[columns].sort_values(columns[0], ascending=False)
    cells = means.map("{:.1f}".format).set_axis(range(len(columns)), axis=1)
    if name == "coco18_heads":
        found = gains(jobs).groupby("strategy")["gain"].apply(estimate)
        cells["gain"] = found.map(lambda gain: f"{gain.mean:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]")
        alone = jobs[jobs["class_order"].isin(["default", "random:1", "random:2"])]
        seconds = alone.pivot_table(index="strategy", columns="head", values="training_seconds")
        cells["seconds"], cells["dlfl"] = seconds["linear"].map("{:.1f}".format), seconds["dlfl"].map("{:.0f}".format)
    return [
        f"| {' | '.join([f'`{strategy}`', *row])} |"
        for strategy, row in zip(cells.index, cells.to_numpy(), strict=True)
    ]


def draw(path: Path) -> None:
    """Draw a cell a strategy and column: its mean gain; bold where its interval leaves 0 out."""
    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "heads", "font.size": 9, "svg.fonttype": "path"})
    both = pd.concat([gains(read_jobs(table)) for table in ("digits_grid", "coco18_heads")])
    cells = both.groupby(["strategy", "annotation"])["gain"].apply(estimate).unstack()[list(COLUMNS)]
    means = cells.map(lambda cell: np.nan if pd.isna(cell) else cell.mean).astype(float)
    cells = cells.loc[means.mean(axis=1).sort_values(ascending=False).index]
    means = means.loc[cells.index]
    figure, axes = plt.subplots(figsize=(7, 0.2 * len(means) + 1), layout="constrained")
    limit = float(np.nanquantile(means.abs(), 0.95))
    image = axes.imshow(means, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    for row, line in enumerate(cells.itertuples(index=False)):
        for column, cell in enumerate(line):
            if not pd.isna(cell):
                told = cell.low > 0 or cell.high < 0
                style = {
                    "color": "white" if abs(cell.mean) > 0.7 * limit else "black",
                    "fontweight": "bold" if told else "normal",
                }
                axes.text(column, row, f"{cell.mean:+.1f}", ha="center", va="center", fontsize=8, **style)
    axes.set_xticks(range(len(COLUMNS)), list(COLUMNS.values()))
    axes.set_yticks(range(len(means)), list(means.index))
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, label="points of last mAP", shrink=0.4)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    print(summary().to_string())  # noqa: T201
    for each in FACTORS:
        shares = (100 * factors(each)).round(1).to_string()
        print("", each, shares, *table(each), sep="\n")  # noqa: T201
    for each, jobs in parts().items():
        print("", each, SHARES["over_blocks"](jobs, differences, DRAWS).round(), sep="\n")  # noqa: T201
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".svg"))
