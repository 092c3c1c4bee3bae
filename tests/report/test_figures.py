"""What pictures show, against counts made another way; and that their files are the same every time."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, f1_score

from cml_bench.metrics.predictions import Predictions
from cml_bench.report.figures import cost, experiences, labels, ranks, reliability, retention, thresholds
from cml_bench.report.figures.calibration import THRESHOLDS, calibrate
from cml_bench.report.figures.files import FORMATS
from cml_bench.report.figures.gallery import draw_all
from cml_bench.report.figures.labelling import spread
from cml_bench.report.figures.style import SHOWN, drawing, make_looks, short_names
from cml_bench.report.stored.collect import collect
from cml_bench.report.tables.compare import compare

METHODS = ("joint", "er memory_size=200", "er memory_size=500", "naive")
Make = Callable[..., Any]


def test_map_over_experiences_is_the_mean_over_jobs(drawing_section: Make) -> None:
    section = drawing_section(METHODS)
    with drawing():
        picture = experiences.draw(section)
    rows = picture.data.set_index(["method", "experience"])
    assert len(rows) == len(METHODS) * 3
    expected = [run.history.map[1] for run in section.runs if run.method == "naive"]
    found = rows.loc[("naive", 2)]
    assert found["map"] == pytest.approx(100 * np.mean(expected))
    assert found["n"] == 6
    assert found["low"] < found["map"] < found["high"]


def test_label_map_is_scikit_learns_average_precision(drawing_section: Make) -> None:
    section = drawing_section(METHODS, seeds=(0, 1))
    with drawing():
        data = labels.draw(section).data
    runs = [run for run in section.runs if run.method == "naive" and run.class_order == "default"]
    stored = [Predictions.load(run.path.with_suffix(".npz")) for run in runs]
    expected = np.mean(
        [average_precision_score(p.truth[p.test_images[2], 1], p.logits[2][p.test_images[2], 1]) for p in stored]
    )
    row = data[(data["method"] == "naive") & (data["label"] == "b") & (data["experience"] == 3)]
    assert float(row["ap"].iloc[0]) == pytest.approx(100 * expected)
    assert set(data["class_order"]) == {"default"}
    assert (data["experience"] >= data["arrived"]).all()
    assert len(data) == len(METHODS) * (2 * 3 + 2 * 2 + 2 * 1)


def test_plasticity_and_forgetting_agree_with_the_stored_summary(drawing_section: Make) -> None:
    """The depth below the diagonal is the stored forgetting with the diagonal reference, computed elsewhere."""
    section = drawing_section(METHODS)
    with drawing():
        picture = retention.draw(section)
    assert picture is not None
    stored = section.jobs.groupby("method")["forgetting_diagonal"].mean()
    found = picture.data.set_index("method")["forgetting"]
    for method in METHODS:
        assert found[method] == pytest.approx(100 * stored[method])


def test_one_experience_has_no_forgetting_and_the_report_says_so(drawing_section: Make) -> None:
    section = drawing_section(METHODS, increment=6)
    pictures, lacking = draw_all(section)
    assert "plasticity_forgetting" not in {picture.name for picture in pictures}
    assert any("two experiences" in sentence for sentence in lacking)


points = arrays(np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=st.integers(0, 5).map(float))


@given(points)
def test_pareto_front_by_definition(values: np.ndarray[Any, Any]) -> None:
    front = cost.on_front(values[:, 0], values[:, 1])
    for i, (price, value) in enumerate(values):
        beaten = any(p <= price and v >= value and (p < price or v > value) for p, v in values)
        assert front[i] == (not beaten)


def test_bounds_are_on_no_front_and_have_no_rank(drawing_section: Make) -> None:
    section = drawing_section(METHODS)
    with drawing():
        by_time = cost.draw(section, "training_seconds")
        ranked = ranks.draw(section.table, section.looks)
    assert by_time is not None
    assert not by_time.data.set_index("method").loc["joint", "pareto"]
    assert "joint" in by_time.caption
    assert set(ranked.data["method"]) == set(METHODS[1:])
    assert "Bounds, not ranked: joint" in ranked.caption


def test_a_method_that_lacks_jobs_takes_no_blocks_from_others(drawing_section: Make) -> None:
    methods = ("er", "dlfl", "lwf", "naive")

    def lose_one(document: dict[str, Any]) -> None:
        if document["job"]["method"] == "naive" and document["job"]["seed"] == 2:
            document["job"]["method"] = "ewc"

    section = drawing_section(methods, change=lose_one)
    with drawing():
        ranked = ranks.draw(section.table, section.looks)
    assert set(ranked.data["method"]) == {"er", "dlfl", "lwf"}
    assert "over 6 blocks" in ranked.caption
    assert "naive (4 of 6)" in ranked.caption
    assert "ewc (2 of 6)" in ranked.caption


def test_a_legend_says_which_means_are_over_other_jobs(drawing_section: Make) -> None:
    def lose_orders(document: dict[str, Any]) -> None:
        if document["job"]["method"] == "er" and document["job"]["class_order"] != "default":
            document["job"]["method"] = "lwf"

    section = drawing_section(("er", "naive"), seeds=(0, 1), change=lose_orders)
    with drawing():
        pictures = [experiences.draw(section), retention.draw(section), cost.draw(section, "training_seconds")]
    for picture in pictures:
        assert picture is not None
        shown = re.findall(r">([^<>]+)</text>", picture.rendered("svg").decode())
        assert {"er (2 of 4 jobs)", "lwf (2 of 4 jobs)", "naive"} <= set(shown), picture.name


def test_the_same_images_under_two_settings_are_one_block_of_the_ranks(tmp_path: Path, stored_runs: Make) -> None:
    methods = ("er", "dlfl", "naive")

    def of_one_positive(document: dict[str, Any]) -> None:
        document["job"]["benchmark_options"]["regime"] = "single_positive"

    stored_runs(tmp_path / "full", methods)
    stored_runs(tmp_path / "one", methods, change=of_one_positive)
    (table,) = compare(collect(tmp_path), columns="benchmark").benchmarks
    assert len(table.columns) == 2
    with drawing():
        picture = ranks.draw(table, make_looks(methods))
    assert "over 6 blocks (benchmark, class order and seed)" in picture.caption


def test_six_class_orders_are_the_blocks_of_the_ranks(tmp_path: Path, stored_runs: Make) -> None:
    methods = ("er", "dlfl", "naive")
    orders = ("default", *(f"random:{i}" for i in range(1, 6)))
    names = tuple("abcdefghijkl")
    stored_runs(tmp_path, methods, seeds=(0, 1), orders=orders, names=names, benchmarks=("digits", "voc"))
    (table,) = compare(collect(tmp_path), columns="benchmark").benchmarks
    with drawing():
        picture = ranks.draw(table, make_looks(methods))
    assert "over 12 blocks (benchmark and class order)" in picture.caption


def test_f1_over_thresholds_is_scikit_learns(drawing_section: Make) -> None:
    section = drawing_section(METHODS, seeds=(0,), orders=("default",))
    found = calibrate(section)
    assert found is not None
    (run,) = section.runs_of("naive")
    stored = Predictions.load(run.path.with_suffix(".npz"))
    rows = stored.test_images[-1]
    truth, probability = stored.truth[rows], 1 / (1 + np.exp(-stored.logits[-1][rows].astype(float)))
    curve = found.curves[found.curves["method"] == "naive"].set_index("threshold")
    assert list(curve.index) == list(THRESHOLDS)
    for threshold in (0.05, 0.5, 0.8):
        expected = f1_score(truth, probability > threshold, average="macro", zero_division=0)
        assert curve.loc[threshold, "cf1_macro"] == pytest.approx(100 * expected)


def test_reliability_is_scikit_learns(drawing_section: Make) -> None:
    section = drawing_section(METHODS, seeds=(0,), orders=("default",))
    found = calibrate(section)
    assert found is not None
    (run,) = section.runs_of("naive")
    stored = Predictions.load(run.path.with_suffix(".npz"))
    rows = stored.test_images[-1]
    probability = 1 / (1 + np.exp(-stored.logits[-1][rows].astype(float)))
    observed, predicted = calibration_curve(stored.truth[rows].ravel(), probability.ravel(), n_bins=10)
    own = found.reliability[found.reliability["method"] == "naive"]
    own = own[own["count"] > 0]
    np.testing.assert_allclose(own["observed"], observed)
    np.testing.assert_allclose(own["probability"], predicted)
    distance = np.abs(observed - predicted)
    assert found.errors["naive"] == pytest.approx(np.average(distance, weights=own["count"]))


def test_calibration_says_what_it_read_and_what_is_missing(drawing_section: Make) -> None:
    section = drawing_section(METHODS)
    gone = section.runs_of("naive")[0].path.with_suffix(".npz")
    gone.unlink()
    found = calibrate(section)
    assert found is not None
    assert "11 of 24 predictions files" in found.sample
    assert "naive (default, seed 0)" in found.sample
    for run in section.runs:
        run.path.with_suffix(".npz").unlink(missing_ok=True)
    assert calibrate(section) is None
    assert any("no predictions file" in sentence for sentence in draw_all(section)[1])


def test_large_predictions_are_thinned_and_the_caption_says_so(
    drawing_section: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = drawing_section(METHODS, n_images=200)
    whole = calibrate(section)
    monkeypatch.setattr("cml_bench.report.figures.calibration.IMAGES", 50)
    thinned = calibrate(section)
    assert whole is not None
    assert thinned is not None
    assert "every" not in whole.sample
    assert "Read: 4 of 24" in thinned.sample
    assert "every 4th image" in thinned.sample
    counts = [found.reliability.groupby("method")["count"].sum() for found in (whole, thinned)]
    assert (counts[1] < counts[0] / 11).all()
    gap = (whole.reliability["observed"] - thinned.reliability["observed"]).abs()
    assert np.average(gap.fillna(0), weights=whole.reliability["count"]) < 0.1


def test_two_methods_have_no_ranks_and_the_report_says_what_they_need(drawing_section: Make) -> None:
    pictures, lacking = draw_all(drawing_section(("er", "naive")))
    assert "critical_difference" not in {picture.name for picture in pictures}
    assert any("3 methods" in sentence for sentence in lacking)


def test_every_format_is_whole_and_the_same_every_time(drawing_section: Make) -> None:
    section = drawing_section(METHODS, seeds=(0, 1))
    first, second = (draw_all(section)[0] for _ in range(2))
    assert len(first) == 8
    for one, other in zip(first, second, strict=True):
        # Raster and PDF come from the same drawing and take longest: one of each will do.
        for kind in FORMATS if one.name == "critical_difference" else ("svg", "csv"):
            content = one.rendered(kind)
            assert content == other.rendered(kind), (one.name, kind)
            assert content.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF", "csv": b""}[kind])
        assert len(pd.read_csv(io.BytesIO(one.rendered("csv")))) == len(one.data)


def test_a_picture_on_a_page_has_ids_of_its_own_and_the_colours_of_the_page(drawing_section: Make) -> None:
    section = drawing_section(METHODS, seeds=(0, 1))
    for picture in draw_all(section)[0]:
        root = ElementTree.fromstring(picture.inline("here"))
        own = {element.get("id") for element in root.iter()} - {None}
        assert all(str(name).startswith("here-") for name in own)
        text = ElementTree.tostring(root, encoding="unicode")
        assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', text)) <= own
        assert not list(root.iter("{http://www.w3.org/2000/svg}style"))
        assert "var(--ink)" in text
        assert "$" not in text, "a formula that nobody typesets"
        assert "#1b1f24" not in text


def test_more_methods_than_colours_are_grey_and_counted(drawing_section: Make) -> None:
    methods = [f"er memory_size={10 * i}" for i in range(SHOWN + 3)]
    section = drawing_section(methods, seeds=(0,), orders=("default", "random:1"))
    shown = [look.method for look in section.looks.values() if look.shown]
    assert shown == list(section.table.rows["method"][:SHOWN])
    for picture in draw_all(section)[0]:
        if picture.name in ("f1_threshold", "reliability"):
            assert "The other 3 methods are neither drawn" in picture.caption
        elif picture.name != "critical_difference":
            assert set(picture.data["method"]) == set(methods), picture.name
            assert "grey the other 3" in picture.caption or f"holds all {len(methods)}" in picture.caption


def test_looks_differ_in_more_than_colour() -> None:
    looks = [look for look in make_looks(f"m{i}" for i in range(SHOWN + 1)).values() if look.shown]
    assert len({(look.marker, look.fill == look.colour, str(look.line)) for look in looks}) == SHOWN


def test_short_names_keep_what_tells_methods_apart() -> None:
    names = short_names(["er memory_size=200", "dlfl memory_size=200", "dlfl memory_size=200 lr=0.1", "naive"])
    assert list(names.values()) == ["er", "dlfl", "dlfl lr=0.1", "naive"]
    assert short_names(
        [
            "er loss=assume_negative loss.scope=seen memory_size=9",
            "er memory_size=9",
            "er relabel=oracle memory_size=9",
        ],
        ["AN seen (BCE)", "BCE", "BCE"],
    ) == {
        "er loss=assume_negative loss.scope=seen memory_size=9": "er AN seen",
        "er memory_size=9": "er BCE",
        "er relabel=oracle memory_size=9": "er BCE oracle",
    }
    long = ["x" * 50 + "a" + "y" * 50, "x" * 50 + "b" + "y" * 50]
    assert len(set(short_names(long).values())) == 2
    assert short_names(["", "\x00\n"])[""] == "?"


heights = st.lists(st.floats(0, 100), min_size=1, max_size=12).map(sorted)


@given(heights)
def test_names_beside_lines_keep_their_distance_and_order(values: list[float]) -> None:
    moved = spread(np.array(values), 5.0, 0.0, 100.0)
    assert (np.diff(moved) >= 5 - 1e-9).all()
    assert moved.min() >= -1e-9
    assert moved.max() <= 100 + 1e-9


@pytest.mark.parametrize("draw", [thresholds.draw, reliability.draw])
def test_names_of_methods_are_names(drawing_section: Make, draw: Any) -> None:
    section = drawing_section(("er", "$\\frac{a}${label}<script>", "naive"), seeds=(0,), orders=("default",))
    found = calibrate(section)
    with drawing():
        text = draw(section, found).inline("x")
    assert "$\\frac{a}${label}&lt;script&gt;" in text
    assert "<script>" not in text


def test_what_no_result_holds_is_told_in_place_of_a_picture(drawing_section: Any) -> None:
    def without(result: dict[str, Any]) -> None:
        result["metrics"]["per_label_ap"] = {}
        result["metrics"]["per_experience"] = []

    _, lacking = draw_all(drawing_section(["er", "naive"], change=without))
    assert "mAP over experiences is not drawn: no result holds it." in lacking
    assert "Average precision of labels is not drawn: no result holds it." in lacking


def test_bands_lie_within_the_axis(drawing_section: Make) -> None:
    """Jobs far apart: bands reach below the least mean by more than an axis over means alone would leave room."""

    def spread(document: dict[str, Any]) -> None:
        for after in document["metrics"]["per_experience"]:
            after["map"] *= 0.5 if document["job"]["seed"] else 1.0

    section = drawing_section(METHODS, seeds=(0, 1), change=spread)
    with drawing():
        picture = experiences.draw(section)
    assert picture is not None
    low, high = picture.figure.axes[0].get_ylim()
    assert low <= picture.data["low"].min()
    assert high >= picture.data["high"].max()
    assert "interval of the mean on these class orders" in picture.caption


def test_a_mean_over_fewer_jobs_is_on_no_front(drawing_section: Make) -> None:
    """Of the quickest and best method one job of six is there: it beats no other, and the caption names it."""

    def lose_most(document: dict[str, Any]) -> None:
        job = document["job"]
        if job["method"] == "er":
            document["metrics"]["summary"]["last_map"] = 0.99
            document["cost"]["seconds"]["training"] = 0.1
            if (job["class_order"], job["seed"]) != ("default", 0):
                job["method"] = f"ewc ewc_lambda={job['seed']}"

    section = drawing_section(("er", "lwf", "naive"), change=lose_most)
    with drawing():
        picture = cost.draw(section, "training_seconds")
    assert picture is not None
    front = picture.data.set_index("method")["pareto"]
    assert not front["er"]
    assert front[["lwf", "naive"]].any()
    assert "Not looked at for it, for lack of jobs of the others: er" in picture.caption


def test_the_ranks_say_how_many_blocks_they_leave_out(drawing_section: Make) -> None:
    """Each of three methods lacks another class order."""

    def lose_one(document: dict[str, Any]) -> None:
        lost = {"er": ("default", 0), "lwf": ("default", 1), "naive": ("default", 2)}
        job = document["job"]
        if lost[job["method"]] == (job["class_order"], job["seed"]):
            document["status"], document["error"] = "failed", "the loss became NaN"

    section = drawing_section(("er", "lwf", "naive"), change=lose_one)
    with drawing():
        ranked = ranks.draw(section.table, section.looks)
    assert "over 3 blocks" in ranked.caption
    assert ranked.caption.endswith("Left out: 3 blocks that not all of these have.")
