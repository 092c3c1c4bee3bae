"""The critical-difference diagram: average ranks, and which of them cannot be told apart."""

from __future__ import annotations

from typing import Final

import pandas as pd

from cml_bench.report.figures.picture import Picture
from cml_bench.report.figures.style import INK, OTHER, Look, blank
from cml_bench.report.figures.wording import sentences
from cml_bench.report.statistics.differences import one_a_pair
from cml_bench.report.statistics.estimates import SIGNIFICANCE
from cml_bench.report.statistics.ranks import Ranking, rank_methods
from cml_bench.report.statistics.rivals import fair_part
from cml_bench.report.statistics.verdict import format_p
from cml_bench.report.tables.quantities import quantity
from cml_bench.report.tables.table import BenchmarkTable

_NARROW: Final = 12
"""More methods than this need the width of a page."""


def draw(table: BenchmarkTable, looks: dict[str, Look]) -> Picture:
    """Draw the average ranks of a table's methods in its first metric.

    Bounds are not ranked, and methods that lack blocks of the others are left out and named, see ``fair_part``.

    Args:
        table: Rows are methods; blocks of one benchmark or of several.
        looks: How methods are drawn.

    Raises:
        CmlBenchError: If there is too little to rank; it says what is needed.
    """
    known = quantity(table.metrics[0])
    bounds = table.bounds
    blocks = table.rivals
    shared, absent = fair_part(blocks)
    whole = [str(method) for method in shared]
    pairs = one_a_pair(shared)
    ranking = rank_methods(pairs, lower_is_better=known.lower_is_better)
    each = "benchmark, class order and seed" if "seed" in pairs.index.names else "benchmark and class order"
    # Imported here because it takes a second.
    from scikit_posthocs import critical_difference_diagram

    # Without a difference by Friedman's test none by Nemenyi's counts.
    p_values = ranking.p_values if ranking.p < SIGNIFICANCE else ranking.p_values * 0 + 1.0
    names = {method: looks[method].name for method in whole}
    colours = {looks[m].name: looks[m].colour if looks[m].shown else OTHER for m in whole}
    wide = len(whole) > _NARROW
    height = 0.9 + 0.17 * ((len(whole) + 1) // 2 + _levels(ranking, p_values))
    figure, axes = blank(9.6 if wide else 5.4, height)
    drawn = critical_difference_diagram(
        ranking.average_ranks.rename(names),
        p_values.rename(index=names, columns=names),
        ax=axes,
        color_palette=colours,
        label_props={"fontsize": 8},
        elbow_props={"linewidth": 0.9},
        marker_props={"s": 14},
        crossbar_props={"color": INK, "linewidth": 2},
        text_h_margin=0.03 * len(whole),
    )
    for text in drawn["labels"]:
        text.set_color(INK)
    axes.spines["top"].set_visible(True)
    axes.set_title("average rank", fontsize=8, pad=4)
    counts = blocks.loc[shared.index].notna().sum()
    left = int(blocks[whole].notna().any(axis=1).sum()) - len(shared)
    fewer = [f"{looks[method].name} ({counts[method]} of {len(shared)})" for method in absent]
    caption = sentences(
        f"Average rank in {known.heading} over {ranking.n_blocks} blocks ({each}); 1 is best. "
        f"Methods joined by a bar cannot be told apart (Nemenyi's test at {SIGNIFICANCE:g}; critical difference "
        f"{ranking.critical_difference:.2f}). Friedman's test: {format_p(ranking.p)}"
        f"{'' if ranking.p < SIGNIFICANCE else ', so that no difference counts'}. Blocks of one benchmark share its "
        "images: they speak of seeds and class orders, not of other data.",
        f"Bounds, not ranked: {', '.join(looks[method].name for method in sorted(bounds))}." if bounds else "",
        f"Not ranked, for lack of jobs: {', '.join(fewer)}." if fewer else "",
        f"Left out: {left} block{'s' * (left != 1)} that not all of these have." if left else "",
    )
    return Picture.settled("critical_difference", "Average ranks", caption, _data(ranking, p_values), figure, wide=wide)


def _levels(ranking: Ranking, p_values: pd.DataFrame) -> int:
    """Return about how many bars lie above each other."""
    alike = (p_values >= SIGNIFICANCE).sum(axis=1)
    return min(len(ranking.average_ranks) // 2, int(alike.max()) // 2) + 1


def _data(ranking: Ranking, p_values: pd.DataFrame) -> pd.DataFrame:
    ranks = ranking.average_ranks.rename("average_rank").rename_axis("method").reset_index()
    return pd.concat([ranks, p_values.add_prefix("p: ").reset_index(drop=True)], axis=1)
