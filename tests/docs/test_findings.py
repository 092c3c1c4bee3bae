"""The figure of what moves the last mAP: shares against a grid whose effects are known, and the text beside it."""

from __future__ import annotations

import itertools
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cml_bench.report.statistics.estimates import estimate

ROOT = Path(__file__).resolve().parents[2]
REPLAY = ["er", "er_herding", "er_ace", "er_balanced", "prs", "ocdm", "mir", "gdumb", "der", "derpp"]
FREE = ["naive", "lwf", "dlfl 0", "csc", "freeze_old_rows", "pseudo_label", "ewc", "ewc_online", "si", "mas", "rwalk"]
HEADS_TOLD = {
    **dict.fromkeys(("er 1000", "derpp 1000", "dlfl 1000", "dlfl", "krt", "kar"), 1),
    **dict.fromkeys(("naive", "csc", "pseudo_label", "lwf", "joint", "agem"), 1),
    "cumulative": -1,
}
"""Methods whose gain of one feature a label the page tells, and the sign it tells it with."""
SHARES_OF_DIGITS = {
    "whole": "{:.0f} points [{:.0f}, {:.0f}] more",
    "without the single pass": "without the single pass {:.0f} [{:.0f}, {:.0f}] more",
    # The other way around.
    "without the bounds as well": "without the bounds as well {:.0f} [{:.0f}, {:.0f}] less",
}
FINDINGS = ROOT / "docs" / "findings.md"
PAGE = ROOT / "results" / "reference" / "coco18_orders" / "README.md"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    found = runpy.run_path(str(ROOT / "docs" / "figures" / "variance_shares.py"))
    # As many as it takes to see that an interval is one.
    found["shares"].__globals__["DRAWS"] = 50
    return found


def made(rule: float, strategy: float, both: float, order: float) -> pd.DataFrame:
    """Return a grid of two rules, two strategies and two orders whose effects are these, and nothing else."""
    rows = [
        {
            "rule": str(a),
            "strategy": str(b),
            "order": str(c),
            "block": str(c),
            "value": 50 + rule * a + strategy * b + both * a * b + order * c,
        }
        for a, b, c in itertools.product((-1, 1), repeat=3)
    ]
    return pd.DataFrame(rows)


def test_shares_of_known_effects(script: dict[str, Any]) -> None:
    found = script["shares"](made(3, 2, 1, 0.5), ["strategy", "rule"])
    # Effects of +-x have variance x squared.
    total = 9 + 4 + 1 + 0.25
    expected = {"rule": 9, "strategy": 4, "strategy x rule": 1, "order": 0.25, "rest": 0}
    assert found.to_dict() == pytest.approx({name: value / total for name, value in expected.items()}, abs=1e-12)


def test_a_grid_with_a_hole_is_refused(script: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="as many jobs"):
        script["shares"](made(3, 2, 1, 0.5).iloc[1:], ["strategy", "rule"])


def test_an_interval_holds_its_share(script: dict[str, Any]) -> None:
    noisy = pd.concat([made(3, 2, 1, 0.5).assign(block=str(i)) for i in range(6)])
    noisy["value"] += np.random.default_rng(0).normal(size=len(noisy))
    found = script["with_intervals"](noisy, ["strategy", "rule"])
    assert (found["low"] <= found["share"] + 0.02).all()
    low, share, high = found.loc["rule", ["low", "share", "high"]]
    assert low < share < high


def test_the_page_says_what_the_results_do(script: dict[str, Any]) -> None:
    """Every share of the two tables, as printed; their intervals take more draws."""
    text = PAGE.read_text(encoding="utf-8")
    names = {"order": "class order"}
    for table in script["tables"]().values():
        for name, row in (100 * table).round(1).iterrows():
            told = f"| {names.get(str(name), name)} | {row['share']} ["
            assert re.search(re.escape(told), text), told


def test_the_page_of_the_four_divisions_says_what_its_jobs_do() -> None:
    """Means, deviations, shares and rank correlations; intervals take more draws."""
    divisions = runpy.run_path(str(ROOT / "docs" / "figures" / "divisions.py"))
    jobs, page = divisions["read_jobs"](), divisions["JOBS"].with_name("README.md").read_text(encoding="utf-8")
    cells = jobs.groupby(["method", "division"])["value"].agg(["mean", "std", "size"])
    assert set(cells["size"]) == {9}
    for method, means in cells.groupby(level="method"):
        row = means.droplevel("method")
        told = [
            f"{row.loc[division, 'mean']:.1f} ± {row.loc[division, 'std']:.1f}"
            for division in ("B0-C3 overlap", "B0-C3 disjoint", "B9-C3 overlap", "B9-C3 disjoint")
        ]
        assert f"| {' | '.join(told)} |" in page, method
    shares = (100 * divisions["SHARES"]["shares"](divisions["crossed"](jobs), divisions["FACTORS"])).round()
    text = " ".join(page.split())
    for name in ("rule", "strategy", "memory", "division"):
        assert re.search(rf"\b{shares[name]:.0f} % \[\d+, \d+\] (is )?the {name}'s", text), (name, shares[name])
    ranks = divisions["rank_correlations"](jobs)
    for one, other in itertools.combinations(ranks.columns, 2):
        assert f"{ranks.loc[one, other]:.2f} [" in text, (one, other)
    assert f"The mean of the first two is {divisions['rank_statistics'](jobs)['assignment above base']:.2f} [" in text


def test_the_pages_of_the_two_heads_say_what_their_jobs_do() -> None:
    """Means of every strategy, and the mean gain of one feature a label with the least and most of the orders."""
    heads = runpy.run_path(str(ROOT / "docs" / "figures" / "heads.py"))
    pages = {name: heads["REFERENCE"] / name / "README.md" for name in ("digits_grid", "coco18_heads")}
    texts = {name: " ".join(page.read_text(encoding="utf-8").split()) for name, page in pages.items()}
    for annotation, row in heads["summary"]().iterrows():
        told = f"{row['gain']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"
        assert told in texts["coco18_heads" if annotation == "photos" else "digits_grid"], annotation
    for name, rows in (("digits_grid", 40), ("coco18_heads", 33)):
        table = heads["table"](name)
        lines = pages[name].read_text(encoding="utf-8").splitlines()
        assert [line for line in lines if line.startswith("| `")] == table
        assert len(table) == rows
    for name, share in (100 * heads["factors"]("digits_grid")).items():
        if name in ("strategy", "annotation", "strategy x annotation"):
            assert f"{share:.0f} %" in texts["digits_grid"], name
    parts = heads["parts"]()
    for part, told in SHARES_OF_DIGITS.items():
        found = heads["differences"](parts[part])["strategy above annotation"]
        assert told.split(" [")[0].format(abs(found)) in texts["digits_grid"], part
    jobs = parts["whole"]
    cells = heads["gains"](jobs).pivot_table(index=["strategy", "annotation"], columns="block", values="gain")
    assert f"Of the {len(cells.round(9).drop_duplicates())} distinct cells" in texts["digits_grid"]
    shares = 100 * heads["factors"]("coco18_heads")
    assert (
        f"explains {shares['head']:.1f} % of the variance, the strategy {shares['strategy']:.0f} %"
        in texts["coco18_heads"]
    )
    gains = heads["gains"](heads["read_jobs"]("coco18_heads"))
    assert set(gains.groupby("strategy").size()) == {9}
    own = gains.groupby("strategy")["gain"].apply(estimate)
    lose, win = sum(gain.high < 0 for gain in own), sum(gain.low > 0 for gain in own)
    assert f"{lose} methods lose with it, {win} gain, and {33 - lose - win} have" in texts["coco18_heads"]
    for told, group, sign in (("lose {} in the mean", REPLAY, -1), ("{} in the mean over the eleven", FREE, 1)):
        assert len(group) in (10, 11)
        found = estimate(sign * gains[gains["strategy"].isin(group)].groupby("block")["gain"].mean())
        assert told.format(f"{found.mean:.1f} [{found.low:.1f}, {found.high:.1f}]") in texts["coco18_heads"], told
    for method, sign in HEADS_TOLD.items():
        found = estimate(sign * gains[gains["strategy"] == method]["gain"])
        assert f"{found.mean:.1f} [{found.low:.1f}, {found.high:.1f}]" in texts["coco18_heads"], method
    findings = " ".join(FINDINGS.read_text(encoding="utf-8").split())
    for group in (own.index, REPLAY, FREE):
        found = estimate(gains[gains["strategy"].isin(group)].groupby("block")["gain"].mean())
        assert f"{found.mean:.1f} [{found.low:.1f}, {found.high:.1f}]" in findings, group
    gains = heads["gains"](heads["read_jobs"]("coco18_heads", every_seed=True))
    assert set(gains.groupby("strategy").size()) == {9}
    for group, sign in ((own.index, 1), (REPLAY, -1)):
        found = estimate(sign * gains[gains["strategy"].isin(group)].groupby("block")["gain"].mean())
        assert (
            f"{found.mean:.1f} [{found.low:.1f}, {found.high:.1f}]" in texts["coco18_heads"].partition("4. **Three")[2]
        )
    seeds = gains.assign(seed=gains["block"].str[-1]).pivot_table(index="strategy", columns="seed", values="gain")
    pairs = [seeds[one].corr(seeds[other]) for one, other in itertools.combinations(seeds, 2)]
    assert f"correlate by {min(pairs):.2f} to {max(pairs):.2f} between seeds" in texts["coco18_heads"]


@pytest.mark.slow
def test_brackets_of_shares_and_ranks_are_what_the_scripts_print() -> None:
    """Thousands of draws: the intervals of the three pages whose figures are no plain means."""
    figures = ROOT / "docs" / "figures"
    divisions, heads = (runpy.run_path(str(figures / f"{name}.py")) for name in ("divisions", "heads"))
    shares, folder = heads["SHARES"], heads["REFERENCE"]
    orders, protocols, digits, findings = (
        " ".join(page.read_text(encoding="utf-8").split())
        for page in (PAGE, *(folder / name / "README.md" for name in ("coco18_protocols", "digits_grid")), FINDINGS)
    )
    names = {"order": "class order"}
    for table in shares["tables"]().values():
        for name, row in (100 * table).iterrows():
            assert "| {} | {:.1f} [{:.1f}, {:.1f}] |".format(names.get(str(name), name), *row) in orders, name

    jobs = divisions["read_jobs"]()
    crossed = divisions["crossed"](jobs)
    for name, row in (100 * shares["with_intervals"](crossed, divisions["FACTORS"])).iterrows():
        if name in ("rule", "strategy", "memory", "division"):
            assert "{:.0f} % [{:.0f}, {:.0f}]".format(*row) in protocols, name
    for size, table in shares["by_memory"](crossed, divisions["FACTORS"]).items():
        for name in ("rule", "strategy"):
            told = "{:.0f} % [{:.0f}, {:.0f}]".format(*(100 * table.loc[name]))
            assert told in findings, (size, name, told)
            assert told in protocols, (size, name, told)
    with_memory = shares["grid"](
        shares["one_an_order"](shares["JOBS"]), shares["GRIDS"]["with a memory"][0], memory=True
    )
    for size, table in shares["by_memory"](with_memory, shares["GRIDS"]["with a memory"][1]).items():
        for name in ("rule", "strategy"):
            told = "{:.0f} % [{:.0f}, {:.0f}]".format(*(100 * table.loc[name]))
            assert told in orders, (size, name, told)
    rule = shares["over_blocks"](crossed, divisions["differences"], divisions["DRAWS"]).loc["rule above strategy"]
    assert "(difference {:.0f} [{:.0f}, {:.0f}])".format(*rule) in protocols
    ranks = shares["over_blocks"](jobs, divisions["rank_statistics"], divisions["DRAWS"])
    for name, row in ranks.iterrows():
        assert "{:.2f} [{:.2f}, {:.2f}]".format(*row) in protocols, name
    assert "{:.2f} [{:.2f}, {:.2f}]".format(*ranks.loc["assignment above base"]) in findings

    for part, of_part in heads["parts"]().items():
        ((found, low, high),) = shares["over_blocks"](of_part, heads["differences"], heads["DRAWS"]).to_numpy()
        told = SHARES_OF_DIGITS[part].format(*((found, low, high) if found > 0 else (-found, -high, -low)))
        assert told in digits, told


def test_the_page_of_the_trained_backbone_says_what_its_jobs_do() -> None:
    folder = ROOT / "results" / "reference" / "fine_tuned"
    jobs, page = pd.read_csv(folder / "jobs.csv"), (folder / "README.md").read_text(encoding="utf-8")
    name = jobs["method"].str.split().str[0] + jobs["method"].map(lambda spec: ", dlfl" if "head=dlfl" in spec else "")
    assert (jobs.groupby(name)["seed"].agg(sorted).map(tuple) == (0, 1, 2)).all()
    assert f"**{len(jobs)} jobs**" in page
    for method, own in jobs.groupby(name):
        last = 100 * own["last_map"]
        told = [f"{last.mean():.1f} ± {last.std():.1f}"]
        told += [f"{100 * own[column].mean():.1f}" for column in ("avg_map", "last_cf1_macro@0.5", "forgetting")]
        bound, head = (" (bound)" if method == "joint" else ""), (", head `dlfl`" if ", dlfl" in method else "")
        cells = f"| {' | '.join(told)} | {own['peak_gpu_memory_mb'].max():,.0f} |"
        assert f"| `{method.split(',')[0]}`{head}{bound} {cells}" in page, (method, cells)
    figures = ("last_map", "last_cf1_macro@0.5", "last_of1@0.5")
    last, cf1, of1 = (100 * jobs.pivot_table(index="seed", columns=name, values=each) for each in figures)
    text = " ".join(page.split())
    findings = FINDINGS.read_text(encoding="utf-8")
    of_findings = [("dlfl, dlfl", "dlfl"), ("er_herding", "er"), ("er", "derpp")]
    for pair in (
        *of_findings,
        ("lwf", "naive"),
        ("lwf", "ewc"),
        ("dlfl", "er"),
        ("dlfl", "er_herding"),
        ("ocdm", "er"),
    ):
        gain = last[pair[0]] - last[pair[1]]
        told = f"{gain.mean():.1f} ({gain.min():.1f} to {gain.max():.1f}"
        assert f"{told})" in text, pair
        assert told in findings or pair not in of_findings, pair
    chosen = [
        (sign * (of[each] - of["er"])).mean() for sign, of in ((1, cf1), (-1, of1)) for each in ("er_herding", "ocdm")
    ]
    assert "raise CF1 by {:.0f} and {:.0f} and lower OF1 by {:.0f} and {:.0f}.".format(*chosen) in text


def test_the_page_of_the_long_tail_says_what_the_jobs_of_its_memories_do() -> None:
    folder = ROOT / "results" / "reference" / "online_long_tail"
    jobs, table = pd.read_csv(folder / "gains.csv"), pd.read_csv(folder / "table.csv").set_index("method")
    page = (folder / "README.md").read_text(encoding="utf-8")
    for method, own in jobs.groupby("method"):
        for column in ("last_map", "last_map_minor", "last_map_moderate", "last_map_major", "forgetting"):
            again = f"{100 * own[column].mean():.1f} ± {100 * own[column].std():.1f}"
            assert again == "{:.1f} ± {:.1f}".format(*(100 * table.loc[method, [f"{column}_mean", f"{column}_std"]]))
    strategy, rule = jobs["method"].str.split().str[0], jobs["method"].str.contains("assume_negative")
    for title, chosen in (("AN seen", rule), ("BCE", ~rule)):
        minor = 100 * jobs[chosen].pivot_table(index="seed", columns=strategy, values="last_map_minor")
        gains = minor[["prs", "ocdm", "er_balanced"]].sub(minor["er"], axis=0)
        cells = [f"+{gain.mean():.1f} ({gain.min():.1f} to {gain.max():.1f})" for _, gain in gains.items()]
        assert f"| {title} | {' | '.join(cells)} |" in page


def test_the_page_of_the_long_tail_says_what_the_jobs_of_its_trained_backbone_do() -> None:
    folder = ROOT / "results" / "reference" / "online_long_tail"
    jobs, page = pd.read_csv(folder / "crops.csv"), (folder / "README.md").read_text(encoding="utf-8")
    released = jobs["method"].map(lambda spec: " others=absent" if "others=absent" in spec else "")
    strategy = jobs["method"].str.split().str[0] + released
    columns = ["last_map", "last_map_minor", "last_map_moderate", "last_map_major", "forgetting"]
    cells = (100 * jobs.set_index(strategy)[columns]).groupby(level=0).agg(["mean", "std"])
    assert len(cells) == 8
    for name, row in cells.iterrows():
        told = [f"{row[column, 'mean']:.1f} ± {row[column, 'std']:.1f}" for column in columns]
        assert f"| `{name}` | {' | '.join(told)} |" in page, name
    last, minor = (100 * jobs.pivot_table(index="seed", columns=strategy, values=name) for name in columns[:2])
    gain, findings = minor.sub(minor["er"], axis=0), FINDINGS.read_text(encoding="utf-8")
    ahead, behind = last["cuter"] - last["naive"], last["er"] - last["cuter"]
    assert f"{ahead.mean():.1f} ({ahead.min():.1f} to {ahead.max():.1f}) above it" in page
    assert f"{ahead.mean():.1f} ({ahead.min():.1f} to {ahead.max():.1f}) above `naive`" in findings
    for text in (page, findings):
        assert f"{behind.mean():.1f} ({behind.min():.1f} to {behind.max():.1f}) below `er`" in text
    apart = last["cuter"] - last["cuter others=absent"]
    assert f"({apart.mean():.1f}, {apart.min():.1f} to {apart.max():.1f})" in page
    for what, figures in (("minor mAP", gain.mean()), ("least", gain.min())):
        told = "{:.1f}, {:.1f} and {:.1f}".format(*(figures[name] for name in ("ocdm", "er_balanced", "prs")))
        assert f"{what} {told}" in page, told


def test_losses_are_told_apart_as_in_both_runs() -> None:
    """Mean over five heads of each difference in average mAP that the page tells, of the run and the one after it."""
    folder = ROOT / "results" / "reference" / "heads_losses"
    page = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    first = pd.read_csv(folder / "table.csv")
    first = first.assign(regime=first["benchmark_options"].str.extract(r'"regime": "(\w+)')[0])
    runs = [first.rename(columns=lambda name: name.replace("_mean", "")), pd.read_csv(folder / "again.csv")]
    means = []
    for run in runs:
        loss = run["method"].str.extract(r"loss=(\w+)")[0]
        means.append(100 * run.assign(loss=loss).pivot_table(index="loss", columns="regime", values="avg_map"))
    for one, other, regime in (
        ("hill", "an", "missing_positives"),
        ("clml", "an", "missing_positives"),
        ("splc", "an", "missing_positives"),
        ("splc", "bce", "full"),
        ("role", "an", "full"),
        ("role", "an", "missing_positives"),
        ("role", "an", "single_positive"),
        ("hill", "bce", "full"),
        ("em", "an", "missing_positives"),
    ):
        told = " / ".join(f"{(table.loc[one] - table.loc[other])[regime]:+.1f}" for table in means)
        assert told in page, (one, other, regime, told)
    told = " / ".join(f"{(table.loc['an'] - table.loc['em'])['single_positive']:.1f}" for table in means)
    assert f"under single positives: {told}, in all five heads" in page
    both = runs[0].merge(runs[1], on=["method", "regime"], suffixes=("", "_again"))
    assert len(both) == 120
    spread = [(100 * (both[f"{name}_again"] - both[name])).std() for name in ("avg_map", "last_map")]
    assert "{:.1f} points of average mAP and {:.1f} of last mAP".format(*spread) in page
