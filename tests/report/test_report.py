"""Result trees written by hand, tables checked against hand-computed means and deviations."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.metrics import f1_score

from cml_bench.errors import CmlBenchError
from cml_bench.metrics.evaluate import evaluate
from cml_bench.metrics.predictions import Predictions
from cml_bench.report.formats.csv import to_csv
from cml_bench.report.formats.html import to_html
from cml_bench.report.formats.latex import to_latex
from cml_bench.report.formats.markdown import to_markdown
from cml_bench.report.formats.terminal import to_terminal
from cml_bench.report.stored.collect import collect
from cml_bench.report.tables.compare import compare
from cml_bench.report.tables.quantities import heading, quantity

METRICS = ("last_map", "forgetting")


def result(method: str, seed: int, last_map: float, /, **changes: Any) -> dict[str, Any]:
    document = {
        "schema_version": 1,
        "key": f"{method}-{seed}",
        "status": "ok",
        "error": None,
        "job": {
            "benchmark": "digits",
            "benchmark_options": {"b": 1, "a": 2},
            "method": method,
            "class_order": "published",
            "seed": seed,
        },
        "benchmark": {"name": "digits", "version": 1, "protocol": "B0-C2", "title": "Digits"},
        "method": {"title": method.upper(), "family": "replay", "head": "dlfl", "loss": "bce", "replay_labels": None},
        "metrics": {"summary": {"last_map": last_map, "forgetting": 0.1}},
        # What all jobs share, made by whoever came first, is nobody's cost.
        "cost": {
            "seconds": {"cache": 50.0, "training": 3.0, "evaluation": 1.0},
            "peak_memory_mb": {"cache": 99, "training": 9, "evaluation": 5},
        },
        "data": {"train": {"fingerprint": "a"}, "test": {"fingerprint": "b"}},
        "missing": [],
    }
    return {**document, **changes}


def write(folder: Path, *documents: dict[str, Any]) -> Path:
    for number, document in enumerate(documents):
        path = folder / f"part{number % 2}" / f"{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
    return folder


def failed(method: str, seed: int) -> dict[str, Any]:
    document = result(method, seed, 0.0, status="failed", error="NaN loss")
    return {key: document[key] for key in ("schema_version", "key", "status", "error", "job")}


def other_job(document: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**document, "job": {**document["job"], **changes}}


def rows(folder: Path, metrics: tuple[str, ...] = METRICS) -> pd.DataFrame:
    (table,) = compare(collect(folder), metrics).benchmarks
    return table.rows.set_index("method")


def test_one_row_a_job_and_costs_are_added_up(tmp_path: Path) -> None:
    frame = collect(write(tmp_path, result("er", 0, 0.5), failed("er", 1)))
    assert list(frame["status"]) == ["ok", "failed"]
    first, second = frame.to_dict("records")
    assert (first["seconds"], first["peak_memory_mb"], first["last_map"]) == (4.0, 9.0, 0.5)
    assert first["benchmark_options"] == '{"a": 2, "b": 1}'
    assert (second["method"], second["error"]) == ("er", "NaN loss")
    assert math.isnan(second["last_map"])


def test_mean_sample_deviation_and_order(tmp_path: Path) -> None:
    table = rows(
        write(
            tmp_path,
            *(result("naive", seed, value) for seed, value in enumerate([0.2, 0.3])),
            *(result("er", seed, value) for seed, value in enumerate([0.5, 0.7])),
        )
    )
    assert list(table.index) == ["er", "naive"]
    assert table.loc["er", "last_map_mean"] == pytest.approx(0.6)
    assert table.loc["er", "last_map_std"] == pytest.approx(0.1 * math.sqrt(2))
    assert table.loc["er", "seconds_mean"] == 4.0
    assert list(table["n"]) == [2, 2]
    assert list(table["notes"]) == ["", ""]


def test_everything_missing_is_noted(tmp_path: Path) -> None:
    undefined = {"summary": {"last_map": 0.4, "forgetting": None}}
    table = rows(
        write(
            tmp_path,
            *(result("er", seed, 0.5) for seed in range(3)),
            result("lwf", 0, 0.6, missing=["17", "23"]),
            failed("lwf", 1),
            failed("mas", 0),
            *(result("prs", seed, 0.4, metrics=undefined, method={"replay_labels": "oracle"}) for seed in range(2)),
            result("prs", 2, 0.4),
        )
    )
    assert table.loc["er", "notes"] == ""
    assert table.loc["lwf", "notes"] == "incomplete: 1 of 3 jobs; 1 failed; 2 images missing"
    assert table.loc["mas", "notes"] == "incomplete: 0 of 3 jobs; 1 failed"
    assert table.loc["prs", "notes"] == "replays oracle labels; forgetting undefined in 2 of 3 jobs"
    assert table.loc["prs", "forgetting_mean"] == pytest.approx(0.1)


def test_a_job_that_was_run_twice_counts_once(tmp_path: Path) -> None:
    table = rows(write(tmp_path, *(result("er", seed, 0.5) for seed in (0, 0, 1)), result("naive", 0, 0.1)))
    assert table.loc["er", "n"] == 2
    assert table.loc["er", "notes"] == "1 older result left out"
    assert table.loc["naive", "notes"] == "incomplete: 1 of 2 jobs"


def test_of_two_results_of_a_job_the_newest_counts(tmp_path: Path) -> None:
    """Not the one whose file name comes last: the code that made the older one may have been mended since."""
    old, new = (
        result("er", 0, value, schema_version=2, key=key, finished=f"2026-01-0{day}T00:00:00Z")
        for value, key, day in ((0.3, "old", 1), (0.7, "new", 2))
    )
    for name, documents in (("a", (old, new)), ("b", (new, old))):
        table = rows(write(tmp_path / name, *documents, result("lwf", 0, 0.5)))
        assert table.loc["er", "last_map_mean"] == 0.7
        assert table.loc["er", "notes"] == "1 older result left out"
    table = rows(write(tmp_path / "c", result("er", 0, 0.1), {**new, "key": "new"}))
    assert table.loc["er", "last_map_mean"] == 0.7, "one that does not say when it was made is older"


def test_labels_that_no_mean_holds_are_counted_under_the_table(tmp_path: Path) -> None:
    def lacking(seed: int, dropped: int) -> dict[str, Any]:
        return result(
            "er", seed, 0.5, metrics={"summary": {"last_map": 0.5, "forgetting": 0.1, "dropped_labels": dropped}}
        )

    told = "Labels without a positive among the images tested are left out of means: up to 3 at the end."
    (table,) = compare(collect(write(tmp_path / "a", lacking(0, 3), lacking(1, 1))), METRICS).benchmarks
    assert told in table.notes
    (table,) = compare(collect(write(tmp_path / "b", lacking(0, 0))), METRICS).benchmarks
    assert "without a positive" not in " ".join(table.notes)


def test_versions_of_the_code_that_meet_in_a_table_are_named(tmp_path: Path) -> None:
    def made_by(version: str, seed: int) -> dict[str, Any]:
        device = {"kind": "cpu", "name": "cpu"}
        where = {"code_version": version, "python": "3.11", "device": device, "platform": "Linux"}
        return result("er", seed, 0.5, environment=where)

    (table,) = compare(collect(write(tmp_path / "a", made_by("0.1.0", 0), made_by("0.2.0", 1))), METRICS).benchmarks
    assert table.notes[-1] == "Run by several versions of cml_bench: 0.1.0, 0.2.0."
    (table,) = compare(collect(write(tmp_path / "b", made_by("0.1.0", 0), made_by("0.1.0", 1))), METRICS).benchmarks
    assert "versions" not in " ".join(table.notes)


def test_configurations_never_share_a_table(tmp_path: Path) -> None:
    base = result("er", 0, 0.5)
    documents = [
        base,
        {**base, "data": {"train": {"fingerprint": "a"}, "test": {"fingerprint": "other"}}},
        other_job(base, benchmark_options={}),
        other_job(base, benchmark="voc"),
        {**base, "benchmark": {**base["benchmark"], "version": 2}},
    ]
    comparison = compare(collect(write(tmp_path, *documents)), METRICS)
    assert [len(table.rows) for table in comparison.benchmarks] == [1] * 5
    assert len({table.heading for table in comparison.benchmarks}) == 4  # voc has the title of digits here
    same = other_job(base, benchmark_options={"a": 2, "b": 1}, seed=1)
    assert rows(write(tmp_path / "same", base, same)).loc["er", "n"] == 2


def test_broken_files_are_listed_and_not_fatal(tmp_path: Path) -> None:
    write(tmp_path, result("er", 0, 0.5))
    (tmp_path / "cut.json").write_text('{"schema_version": 1, "sta')
    (tmp_path / "later.json").write_text(json.dumps(result("er", 1, 0.5, schema_version=9)))
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "empty.json").write_text(json.dumps(result("er", 1, 0.5, metrics={})))
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "bare.json").write_text("{}")
    frame = collect(tmp_path)
    assert list(frame["status"]).count("unreadable") == 6
    comparison = compare(frame, METRICS)
    assert len(comparison.unreadable) == 6
    assert any("bare.json: field 'schema_version' is missing" in line for line in comparison.unreadable)
    assert comparison.benchmarks[0].rows.loc[0, "n"] == 1
    for text in (*(write(comparison) for write in (to_markdown, to_latex, to_csv, to_html)), rendered(comparison)):
        assert "cut.json" in text


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(CmlBenchError, match="does not exist"):
        collect(tmp_path / "nowhere")
    (tmp_path / "table.csv").write_text("method,last_map\n")
    with pytest.raises(CmlBenchError, match=r"table\.csv is no result file"):
        collect(tmp_path / "table.csv")
    with pytest.raises(CmlBenchError, match=r"holds no result file .*; run a benchmark first$"):
        collect(tmp_path)
    (tmp_path / "README.md").write_text("Tables.")
    with pytest.raises(CmlBenchError, match=r"; run a benchmark first; .*/README\.md says what it holds instead$"):
        collect(tmp_path)


def test_only_failures_and_only_broken_files_still_make_a_table(tmp_path: Path) -> None:
    table = compare(collect(write(tmp_path / "failed", failed("er", 0))))
    assert "1 failed" in to_markdown(table)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.json").write_text("{")
    table = compare(collect(tmp_path / "broken"))
    assert table.benchmarks == ()
    assert "a.json" in to_markdown(table)
    assert "a.json" in to_csv(table)


def test_unknown_metric_names_the_nearest(tmp_path: Path) -> None:
    frame = collect(write(tmp_path, result("er", 0, 0.5)))
    with pytest.raises(CmlBenchError, match="did you mean 'last_map'"):
        compare(frame, ["last_mpa"])
    with pytest.raises(CmlBenchError, match="did you mean 'cf1_macro'"):
        compare(frame, ["last_cf1_macr@0.6"])
    frame = frame.assign(**{"last_cf1_harmonic@0.5": 0.4, "last_cf1_macro@0.5": 0.3})
    with pytest.raises(CmlBenchError, match=r"did you mean 'last_cf1_harmonic@0\.5' or 'last_cf1_macro@0\.5'"):
        compare(frame, ["cf1"])
    with pytest.raises(CmlBenchError, match=r"a threshold is a probability between 0 and 1: last_cf1_macro@0\.6, say"):
        compare(frame, ["cf1_macro@1.5"])


def test_unstored_threshold_is_computed_from_predictions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (50, 3), dtype=np.int8)
    logits = rng.normal(size=(50, 3)).astype(np.float16)
    images = np.ones((1, 50), dtype=bool)
    predictions = Predictions(("a", "b", "c"), np.arange(50), truth, (3,), "all_images", images, (logits,))
    write(tmp_path, result("er", 0, 0.5, metrics=evaluate(predictions)), failed("er", 1))
    frame = collect(tmp_path)
    with pytest.raises(CmlBenchError, match="does not exist"):
        compare(frame, ["cf1_macro@0.6"])
    predictions.save(tmp_path / "part0" / "0.npz")
    (table,) = compare(frame, ["cf1_macro@0.60", "avg_op@0.8", "last_map"]).benchmarks
    decided = 1 / (1 + np.exp(-logits.astype(np.float64))) > 0.6
    assert table.metrics == ("last_cf1_macro@0.6", "avg_op@0.8", "last_map")
    assert table.rows.loc[0, "last_cf1_macro@0.6_mean"] == pytest.approx(f1_score(truth, decided, average="macro"))


def rendered(comparison: Any) -> str:
    console = Console(file=io.StringIO(), width=200, record=True)
    console.print(to_terminal(comparison))
    return console.export_text()


@pytest.fixture
def small(tmp_path: Path) -> Any:
    documents = [
        *(result("er head=a_b", seed, value) for seed, value in enumerate([0.5, 0.7])),
        *(
            result("odd|[red]&%", seed, 0.25, metrics={"summary": {"last_map": 0.25, "forgetting": 0.3}})
            for seed in range(2)
        ),
        result("lucky", 0, 0.99, metrics={"summary": {"last_map": 0.99, "forgetting": 0.05}}),
    ]
    return compare(collect(write(tmp_path, *documents)), METRICS)


def test_markdown(small: Any) -> None:
    lines = to_markdown(small).splitlines()
    assert lines[0] == "### Digits, B0-C2, version 1, data 911169dd, a=2 b=1"
    cells = [[cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")] for line in lines[2:] if line]
    assert cells[0] == ["method", "head", "loss", "last mAP", "forgetting", "seconds", "n", "notes"]
    table = {row[0]: row[3:] for row in cells[2:]}
    assert table["`er head=a_b`"] == ["**60.0 ± 14.1**", "**10.0 ± 0.0**", "4.0 ± 0.0", "2", ""]
    assert table["`odd/[red]&%`"] == ["25.0 ± 0.0", "30.0 ± 0.0", "4.0 ± 0.0", "2", ""]
    # One job of two wins nothing: its mean is over other draws.
    assert table["`lucky`"] == ["99.0", "5.0", "4.0", "1", "incomplete: 1 of 2 jobs"]


def test_latex(small: Any) -> None:
    text = to_latex(small)
    assert r"\toprule" in text
    # What columns of their own say, names leave out.
    assert r"er & dlfl & bce & \textbf{60.0 $\pm$ 14.1} & \textbf{10.0 $\pm$ 0.0}" in text
    assert r"odd\textbar{}[red]\&\% & dlfl" in text
    assert "99.0 & 5.0" in text
    assert r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%" in text


def test_csv_keeps_full_precision(small: Any) -> None:
    sheet = pd.read_csv(io.StringIO(to_csv(small))).set_index("method")
    assert sheet.loc["er head=a_b", "last_map_std"] == pytest.approx(0.1 * math.sqrt(2), abs=1e-15)
    assert sheet.loc["odd|[red]&%", "last_map_mean"] == 0.25
    assert sheet.loc["lucky", "notes"] == "incomplete: 1 of 2 jobs"
    assert set(sheet["benchmark"]) == {"digits"}


def test_terminal_shows_names_literally(small: Any) -> None:
    text = rendered(small)
    assert "odd|[red]&%" in text
    assert "60.0 ± 14.1" in text


def test_headings() -> None:
    assert heading("last_cf1_macro@0.5") == "last CF1 macro @0.5"
    assert heading("avg_map") == "avg mAP"
    assert heading("forgetting_relative") == "forgetting relative"
    assert heading("last_cf1_macro_minor@0.6") == "last CF1 macro minor @0.6"
    assert heading("avg_map_rare_ones") == "avg mAP rare ones"


def test_counts_are_no_fractions_whatever_labels_they_are_of() -> None:
    assert quantity("dropped_labels").printed(3) == quantity("dropped_labels_minor").printed(3) == "3.0"
    assert quantity("last_map_minor").printed(0.25) == "25.0"


def test_stored_metrics_need_no_torch(tmp_path: Path) -> None:
    names = dict.fromkeys((*METRICS, "avg_map", "last_cf1_macro@0.5", "last_cf1_harmonic@0.5", "last_of1@0.5"), 0.5)
    write(tmp_path, result("er", 0, 0.5, metrics={"summary": names}))
    program = (
        "import sys; from pathlib import Path; from cml_bench.report.stored.collect import collect; "
        "from cml_bench.report.tables.compare import compare; "
        "from cml_bench.report.formats.markdown import to_markdown; "
        f"to_markdown(compare(collect(Path({str(tmp_path)!r})))); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def learnt(method: str, seed: int, *diagonal: float) -> dict[str, Any]:
    size = len(diagonal)
    matrix = [[diagonal[k] if k == t else None if t < k else 0.0 for t in range(size)] for k in range(size)]
    return result(method, seed, 0.5, metrics={"summary": {"last_map": 0.5, "forgetting": 0.1}, "performance": matrix})


def test_forward_transfer_is_measured_against_from_scratch_of_the_same_seed(tmp_path: Path) -> None:
    documents = [
        learnt("from_scratch", 0, 0.9, 0.2, 0.4),
        learnt("from_scratch", 1, 0.9, 0.1, 0.1),
        learnt("er", 0, 0.1, 0.5, 0.3),  # +0.3 and -0.1: the first experience has nothing before it
        learnt("er", 1, 0.1, 0.2, 0.4),  # +0.1 and +0.3
        learnt("naive", 2, 0.1, 0.2, 0.4),  # no reference with seed 2
    ]
    table = rows(write(tmp_path, *documents), ("forward_transfer", "last_map"))
    assert table.loc["er", "forward_transfer_mean"] == pytest.approx(0.15)
    assert table.loc["from_scratch", "forward_transfer_mean"] == 0
    assert table.loc["naive", "forward_transfer_n"] == 0


def test_other_weights_are_another_configuration(tmp_path: Path) -> None:
    """Where a checkpoint lies says nothing of it; its digest does."""
    documents = [result("er", 0, 0.5, backbone={"name": "resnet18", "sha256": letter * 64}) for letter in ("a", "b")]
    assert collect(write(tmp_path, *documents))["data"].nunique() == 2


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("job", "class_order", "random:1"),
        ("job", "benchmark_options", {"b": 2}),
        ("benchmark", "version", 2),
        ("method", "head", "linear"),
        ("method", "loss", "an"),
        ("method", "wrap", "pat"),
        ("data", "train", {"fingerprint": "c"}),
    ],
)
def test_forward_transfer_has_no_reference_under_other_conditions(
    tmp_path: Path, part: str, field: str, value: Any
) -> None:
    """A job from scratch with another head, say, tells nothing of what this one would have learnt."""
    mine = learnt("er", 0, 0.1, 0.5)
    mine[part] = {**mine[part], field: value}
    frame = collect(write(tmp_path, learnt("from_scratch", 0, 0.9, 0.2), mine))
    rows_of_all = pd.concat([table.rows for table in compare(frame, metrics=("forward_transfer",)).benchmarks])
    found = rows_of_all.set_index(rows_of_all["method"].str.split().str[0])["forward_transfer_n"]
    assert found["er"] == 0
    assert found["from_scratch"] == 1


def test_forward_transfer_without_a_reference_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(CmlBenchError, match="from_scratch"):
        rows(write(tmp_path, learnt("er", 0, 0.1, 0.5)), ("forward_transfer",))


def test_a_failure_stands_with_the_data_it_was_about(tmp_path: Path) -> None:
    """Two folders under one benchmark name: each table tells of its own failures, no other one's."""

    def about(document: dict[str, Any], letter: str) -> dict[str, Any]:
        return {**document, "data": {split: {"fingerprint": f"{letter}{split}"} for split in ("train", "test")}}

    write(
        tmp_path,
        about(result("er", 0, 0.5), "a"),
        about(result("er", 1, 0.5), "b"),
        about(failed("er", 2), "b"),
        failed("er", 3),
    )
    frame = collect(tmp_path)
    assert frame["sources"].nunique() == 2
    tables = compare(frame, metrics=("last_map",)).benchmarks
    assert sorted((table.data is None, int(table.rows["failed"].sum())) for table in tables) == [
        (False, 0),
        (False, 1),
        (True, 1),
    ]


def test_a_wrapper_has_a_column_where_there_is_one(tmp_path: Path) -> None:
    plain, wrapped = result("naive", 0, 0.5), result("naive wrap=pat", 0, 0.6)
    table = compare(collect(write(tmp_path / "plain", plain)), METRICS)
    assert "wrap" not in to_markdown(table).splitlines()[2]
    wrapped["method"]["wrap"] = "pat"
    table = compare(collect(write(tmp_path / "both", plain, wrapped)), METRICS)
    heads, _, *lines = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in to_markdown(table).splitlines()[2:6]
    )
    column = heads.index("wrap")
    assert [line[column] for line in lines] == ["pat", ""]


def test_forward_transfer_refuses_references_that_serve_as_well_as_each_other(tmp_path: Path) -> None:
    documents = [learnt(name, 0, 0.9, 0.2) for name in ("from_scratch", "from_scratch epochs=1")]
    with pytest.raises(CmlBenchError, match="'from_scratch', 'from_scratch epochs=1': choose methods so that there"):
        rows(write(tmp_path, learnt("er", 0, 0.1, 0.5), *documents), ("forward_transfer",))


def test_a_file_that_was_edited_between_jobs_is_no_mean_of_two_versions(tmp_path: Path) -> None:
    """Three seeds with the file as it was; then two of them anew; a built-in method keeps all that it has."""
    mine = "./mine.py:Mine"
    old = [result(mine, seed, 0.9, finished=f"2026-01-01T0{seed}:00:00Z") for seed in range(3)]
    new = [result(mine, seed, 0.5, finished=f"2026-01-02T0{seed}:00:00Z") for seed in range(2)]
    documents = [
        *(other_job(each, plug_in_files=[None, "a" * 64]) for each in old),
        *(other_job(each, plug_in_files=[None, "b" * 64]) for each in new),
        *(result("er", seed, 0.6) for seed in range(3)),
    ]
    for number, each in enumerate(documents):
        each["key"] = str(number)
    folder = write(tmp_path, *documents)
    table = rows(folder)
    (compared,) = compare(collect(folder), METRICS).benchmarks
    assert f"Left out, for their file was edited since: results of {mine} (3). Run them again." in compared.notes
    assert table.loc[mine, ["last_map_mean", "n"]].tolist() == pytest.approx([0.5, 2])
    assert table.loc[mine, "notes"] == "incomplete: 2 of 3 jobs; 3 older results left out"
    assert table.loc["er", "n"] == 3
