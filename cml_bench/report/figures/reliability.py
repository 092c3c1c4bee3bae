"""The picture of reliability: how often a label is there when a method says so with some probability."""

from __future__ import annotations

from typing import Final

from cml_bench.report.figures.calibration import BINS, Calibration
from cml_bench.report.figures.labelling import beside
from cml_bench.report.figures.picture import Picture
from cml_bench.report.figures.section import Section
from cml_bench.report.figures.style import FAINT, SHOWN, blank, ruled
from cml_bench.report.figures.wording import only_shown, sentences

_FEWEST: Final = 30
"""Bins with fewer pairs are too uncertain to draw."""


def draw(section: Section, calibration: Calibration) -> Picture:
    """Draw observed over predicted frequencies."""
    figure, axes = blank(6.0, 4.0)
    axes.plot([0, 100], [0, 100], color=FAINT, linewidth=0.7, linestyle=(0, (4, 3)))
    ends = []
    for method, rows in calibration.reliability.groupby("method", sort=False):
        look = section.looks[str(method)]
        drawn = rows[rows["count"] >= _FEWEST]
        axes.plot(100 * drawn["probability"], 100 * drawn["observed"], **look.of_line)
        if len(drawn):
            ends.append((100 * float(drawn["observed"].iloc[-1]), look))
    axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="predicted probability (%)", ylabel="share of labels present (%)")
    beside(axes, ends)
    ruled(axes, "both")
    said = ", ".join(f"{section.looks[method].name} {100 * error:.1f}" for method, error in calibration.errors.items())
    caption = sentences(
        "Image-label pairs after the last experience, by predicted probability. On the dashed line probabilities mean",
        "what they say; below it a method is too sure that labels are there. Expected calibration error",
        f"(%, {BINS} bins of equal width): {said}. Bins with fewer than {_FEWEST} pairs are in the CSV file alone.",
        calibration.sample,
        only_shown(len(section.looks), SHOWN),
    )
    data = calibration.reliability
    return Picture.settled("reliability", "Reliability of probabilities", caption, data, figure)
