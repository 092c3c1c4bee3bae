"""The picture of F1 over the decision threshold."""

from __future__ import annotations

from cml_bench.report.figures.calibration import Calibration
from cml_bench.report.figures.labelling import beside
from cml_bench.report.figures.picture import Picture
from cml_bench.report.figures.section import Section
from cml_bench.report.figures.style import FAINT, SHOWN, blank, ruled
from cml_bench.report.figures.wording import only_shown, sentences

_CUSTOMARY = (0.5, 0.8)


def draw(section: Section, calibration: Calibration) -> Picture:
    """Draw class F1 after the last experience for every threshold."""
    figure, axes = blank()
    for threshold in _CUSTOMARY:
        axes.axvline(threshold, color=FAINT, linewidth=0.7, linestyle=(0, (4, 3)))
    ends = []
    for method, rows in calibration.curves.groupby("method", sort=False):
        look = section.looks[str(method)]
        axes.plot(rows["threshold"], rows["cf1_macro"], markevery=3, **look.of_line)
        ends.append((float(rows["cf1_macro"].iloc[-1]), look))
    axes.set_ylim(0, max(10.0, 1.08 * calibration.curves["cf1_macro"].max()))
    axes.set_xlim(0, 1)
    axes.set_xlabel("threshold on the probability")
    axes.set_ylabel("class F1 (macro) of seen labels (%)")
    beside(axes, ends)
    ruled(axes)
    caption = sentences(
        "Mean F1 of the labels after the last experience, where a label is said to be present above a threshold.",
        "Dashed: the customary thresholds 0.5 and 0.8. A peak is no result, since a threshold must not be chosen",
        "on test images; its place shows how well probabilities fit a fixed threshold.",
        calibration.sample,
        only_shown(len(section.looks), SHOWN),
    )
    data = calibration.curves
    return Picture.settled("f1_threshold", "F1 over the threshold", caption, data, figure)
