"""The command line: light where it can be, one sentence where it fails."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import cml_bench
from cml_bench import cli
from cml_bench.commands import run
from cml_bench.registry import KINDS, entries

SMALL = ["--set", "n_train=40", "--set", "n_test=40", "--set", "epochs=1", "--set", "increment=5"]
ONE = ["--seeds", "1", "--workers", "1"]
HEAVY = ("torch", "avalanche", "pandas", "timm", "sklearn")


def light(arguments: list[str]) -> tuple[str, set[str]]:
    """Run a command in its own process; returns what it printed and the heavy modules it loaded."""
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('LOADED', *[n for n in {HEAVY!r} if n in sys.modules], file=sys.stderr))\n"
        f"from cml_bench.cli import main\nmain({arguments!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, set(done.stderr.split("LOADED")[1].split())


def test_help_loads_nothing_heavy() -> None:
    text, loaded = light(["--help"])
    assert loaded == set()
    for command in ("run", "sweep", "list", "compare", "check"):
        assert command in text


def test_list_loads_nothing_heavy_and_names_everything() -> None:
    text, loaded = light(["list"])
    assert loaded == set()
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if not line.startswith(" "):
            found[line.removesuffix(":")] = section = {}
        else:
            name, summary = line.split(maxsplit=1)
            section[name] = summary
    assert found == {kind: {name: entry.summary for name, entry in entries(kind).items()} for kind in KINDS}


def call(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    output = capsys.readouterr()
    return int(caught.value.code or 0), output.out, output.err


def test_the_package_is_the_command() -> None:
    told = subprocess.run([sys.executable, "-m", "cml_bench", "--version"], capture_output=True, text=True, check=True)
    assert told.stdout == f"cml-bench {cml_bench.__version__}\n"


def test_the_version(capsys: Any) -> None:
    assert call(capsys, "--version")[:2] == (0, f"cml-bench {cml_bench.__version__}\n")


def test_a_wrong_name_ends_in_one_sentence(capsys: Any, tmp_path: Path) -> None:
    command = ["run", "digits", "--method", "dlfll", *SMALL, *ONE, "--results", str(tmp_path)]
    code, out, err = call(capsys, *command)
    assert code == 1
    assert err == "cml-bench: there is no strategy 'dlfll': did you mean 'dlfl'?\n"
    assert "Traceback" not in out + err
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("digits", "--method", "er", "naive"), "'naive' belongs to no option: repeat the option for each value"),
        (("--epochs", "3"), "no option --epochs: a setting of benchmark or training is written --set epochs=VALUE, an"),
        (("digits", "--epochs=3"), "no option --epochs: a setting of benchmark or training is written --set epochs="),
        (("--loss", "asl"), "no option --loss: did you mean --log? If not, a setting of benchmark or training is"),
        (("--seed", "3"), "no option --seed: did you mean --seeds?"),
        (("lr=0.1",), "'lr=0.1' stands alone: a setting of benchmark or training is written --set lr=0.1"),
        (("digits", "--set", "lr=0.1", "epochs=3"), "'epochs=3' stands alone: a setting of benchmark or training is"),
    ],
)
def test_unknown_words_are_told_where_they_go(words: tuple[str, ...], told: str, capsys: Any) -> None:
    code, _, err = call(capsys, "run", *words)
    assert code == 2
    assert told in " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--set", "seed=3"), "'seed' is chosen for all jobs at once: give the command --seeds, or a suite the key"),
        (("--root", "/data"), "benchmark digits reads no files of root: leave out root='/data'"),
        (("--annotations", "/data"), "benchmark digits reads no files of annotations: leave out annotations='/data'"),
        (("--method", "er memory_size = 9"), "'memory_size' is no option: write key=value, without blanks around the"),
        (("--method", "er class_orders=3"), "'class_orders' is chosen for all jobs at once: give the command --class-"),
    ],
)
def test_what_is_no_option_ends_in_one_sentence(words: tuple[str, ...], told: str, capsys: Any) -> None:
    code, _, err = call(capsys, "run", *words, "--dry-run")
    assert code == 1
    assert err.startswith(f"cml-bench: {told}")


def test_a_dry_run_says_where_jobs_would_run(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    words = ["run", "digits", "--method", "naive", "--set", "n_train=40", "--set", "n_test=40", "--dry-run"]
    _, plain, _ = call(capsys, *words)
    assert "The jobs run" not in plain
    monkeypatch.setattr("cml_bench.runs.engines.engine.find_spec", lambda package: None)
    for engine, told in (
        (
            "slurm partition=gpu gpus=1 cpus=4 memory_gb=16 minutes=240",
            "The jobs run as tasks of one SLURM array in partition gpu, all at once, each with 4 cores, 1 GPU, 16 GB "
            "for 240 minutes. The package submitit is not installed here: pip install 'cml-bench[slurm]'.",
        ),
        (
            "ray gpus=0.25",
            "The jobs run on a Ray cluster of this machine, each with 1 core, 0.25 GPUs. The package ray is not "
            "installed here: pip install 'cml-bench[ray]'.",
        ),
    ):
        code, out, _ = call(capsys, *words, "--set", "device=cuda", "--engine", engine)
        assert code == 0
        assert told in out.replace("\n", " ")


def test_debug_gives_the_traceback() -> None:
    code = "from cml_bench.cli import main; main(['list', 'strategy'])"
    plain, debug = (
        subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
        for text in (code, code.replace("'strategy'", "'strategy', '--debug'"))
    )
    assert plain.returncode == 1
    assert "Traceback" not in plain.stderr
    assert plain.stderr.count("\n") == 1
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr
    assert "CmlBenchError: there is no kind of plug-in 'strategy'" in debug.stderr


def test_an_unexpected_error_is_one_line_too(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(kind: str) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("cml_bench.registry.entries", broken)
    code, _, err = call(capsys, "list")
    assert code == 1
    assert err == "cml-bench: ZeroDivisionError: a bug (run with --debug for the traceback)\n"


def test_run_prints_a_table_and_goes_on_where_it_stopped(capsys: Any, tmp_path: Path) -> None:
    command = ["run", "digits", *SMALL, *ONE, "--results", str(tmp_path)]
    code, out, err = call(capsys, *command, "--method", "naive")
    assert (code, err) == (0, "")
    assert "naive" in out
    assert str(tmp_path) in out.replace("\n", "")
    assert len(list(tmp_path.rglob("*.json"))) == len(list(tmp_path.rglob("*.npz"))) == 1
    code, out, _ = call(capsys, *command, "--method", "naive", "--method", "er memory_size=20")
    assert code == 0
    assert "1 of 2 jobs done already" in out
    assert len(list(tmp_path.rglob("*.json"))) == 2


def test_a_failed_job_leaves_the_others_and_exit_code_1(capsys: Any, tmp_path: Path) -> None:
    code, out, err = call(
        capsys,
        *("run", "digits", *SMALL, *ONE, "--results", str(tmp_path)),
        *("--method", "naive lr=1e30", "--method", "naive"),
    )
    assert code == 1
    assert "1 of 2 jobs failed" in err
    assert "lower" in out, "the failed job's own sentence is not shown"
    statuses = sorted(json.loads(path.read_text())["status"] for path in tmp_path.rglob("*.json"))
    assert statuses == ["failed", "ok"]


def test_compare_writes_every_format(capsys: Any, tmp_path: Path) -> None:
    call(capsys, "run", "digits", *SMALL, *ONE, "--method", "naive", "--results", str(tmp_path))
    result = json.loads(next(tmp_path.rglob("*.json")).read_text())
    figure = f"{100 * result['metrics']['summary']['last_map']:.1f}"
    for format_ in ("terminal", "markdown", "csv", "latex", "html"):
        code, out, _ = call(capsys, "compare", str(tmp_path), "--format", format_)
        assert code == 0
        if format_ != "csv":
            assert figure in out
    target = tmp_path / "table.md"
    code, out, _ = call(capsys, "compare", str(tmp_path), "--format", "markdown", "--output", str(target))
    assert code == 0
    assert figure in target.read_text()
    options = ["--rows", "head", "--columns", "benchmark", "--metric", "last_map", "--sort", "head", "--intervals"]
    code, out, _ = call(capsys, "compare", str(tmp_path), str(tmp_path), *options)
    assert code == 0
    assert re.search(rf"linear +{figure} +1 ", out), "a folder that is named twice is read once"
    code, out, _ = call(capsys, "compare", str(tmp_path), "--cost", "--baseline", "naive")
    assert code == 0
    assert "baseline" in out
    code, _, err = call(capsys, "compare", str(tmp_path), "--baseline", "niave")
    assert (code, err) == (1, "cml-bench: baseline 'niave' is in no table; did you mean 'naive'?\n")
    code, _, _ = call(capsys, "compare", str(tmp_path), "--output", str(tmp_path / "table.tex"))
    assert code == 0
    assert r"\toprule" in (tmp_path / "table.tex").read_text()
    code, _, err = call(capsys, "compare", str(tmp_path), "--output", str(tmp_path / "table.txt"))
    assert code == 1
    assert "names no format: end it in .md, .csv, .tex, .html, or give --format" in err


def test_sweep_runs_a_suite(capsys: Any, tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "benchmarks: [digits]\nmethods: [naive]\nset: {n_train: 40, n_test: 40, epochs: 9, increment: 5}\n"
    )
    command = ["sweep", str(suite), "--set", "epochs=1", "--workers", "1", "--results", str(tmp_path / "results")]
    code, out, _ = call(capsys, *command)
    assert code == 0
    result = json.loads(next((tmp_path / "results").rglob("*.json")).read_text())
    assert result["job"]["resolved"]["training"]["epochs"] == 1
    assert "naive" in out


@pytest.mark.parametrize(
    "arguments", [["run", "--workers", "0"], ["run", "--sedes", "3"], ["nothing"], ["compare", "--format", "pdf"]]
)
def test_wrong_usage_exits_with_2(capsys: Any, arguments: list[str]) -> None:
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert "Traceback" not in err


def test_root_and_annotations_are_short_for_set(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(run, "_execute", lambda jobs, *rest: seen.extend(jobs))
    with pytest.raises(SystemExit):
        cli.main(["run", "split_coco", "--root", "/data", "--annotations", "/notes", "--method", "naive", *ONE])
    assert dict(seen[0].options) == {"root": "/data", "annotations": "/notes"}


def test_list_shows_the_options_of_one_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["list", "benchmarks", "digits"])
    shown = capsys.readouterr().out
    assert "  increment=2\n" in shown
    assert "  lr=0.006\n" in shown
    with pytest.raises(SystemExit, match="0"):
        cli.main(["list", "benchmarks", "split_coco"])
    shown = capsys.readouterr().out
    assert "  root  (needed)\n" in shown
    # What an option means that the class has from another is said, too.
    assert "As any DataSetBenchmark:\n    root: Folder of the data set;" in shown
    assert shown.count("increment: Labels of each later experience.") == 1
    with pytest.raises(SystemExit, match="0"):
        cli.main(["list", "strategies", "er"])
    assert "As any Rehearsal:\n    memory_size: Images in memory" in capsys.readouterr().out


def test_list_of_a_name_says_of_which_kind_it_is(capsys: Any) -> None:
    code, _, err = call(capsys, "list", "er")
    assert code == 1
    assert err.endswith("'er' is one of the strategies: write cml-bench list strategies er\n")


def test_list_offers_all_that_its_help_does(capsys: Any, tmp_path: Path) -> None:
    code, _, err = call(capsys, "list", "foo")
    assert (code, err.partition("known names: ")[2]) == (1, ", ".join(sorted([*KINDS, "published"])) + "\n")


def test_list_says_that_a_plugin_has_no_options(capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text('class Mine:\n    """Nothing to choose."""\n')
    code, out, _ = call(capsys, "list", "strategies", f"{tmp_path}/mine.py:Mine")
    assert (code, out) == (0, "Nothing to choose.\n\noptions: none of its own\n")


@pytest.mark.parametrize("dry", [["--dry-run"], []])
@pytest.mark.parametrize("below", ["", "/runs"])
def test_a_results_folder_that_is_a_file_is_named(capsys: Any, tmp_path: Path, below: str, dry: list[str]) -> None:
    (tmp_path / "my.py").touch()
    code, _, err = call(capsys, "run", *SMALL, *ONE, "--results", f"{tmp_path}/my.py{below}", *dry)
    assert (code, err) == (
        1,
        f"cml-bench: results folder {tmp_path}/my.py{below} cannot be made, as {tmp_path}/my.py is a file: name a "
        "folder with --results\n",
    )


def test_a_dry_run_makes_no_folder(capsys: Any, tmp_path: Path) -> None:
    code, _, err = call(capsys, "run", *SMALL, *ONE, "--method", "naive", "--results", f"{tmp_path}/a/b", "--dry-run")
    assert (code, err, list(tmp_path.iterdir())) == (0, "", [])


def test_a_warning_is_one_line_and_the_process_keeps_its_own_form(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = warnings.formatwarning
    told: list[str] = []

    def warn() -> list[str]:
        told.append(warnings.formatwarning("mind the gap", UserWarning, "file.py", 1))
        return []

    monkeypatch.setattr("cml_bench.registry.entries", lambda kind: dict(warn()))
    call(capsys, "list", "heads")
    assert told == ["cml-bench: warning: mind the gap\n"]
    assert warnings.formatwarning is usual


@pytest.mark.parametrize("subject", ["head:linear", "criterion:asl gamma_neg=2", "benchmark:digits n_train=60"])
def test_check_takes_plug_ins_of_other_kinds(capsys: Any, subject: str) -> None:
    code, out, err = call(capsys, "check", subject)
    assert (code, err) == (0, "")
    assert {line.split()[0] for line in out.splitlines()} <= {"passed", "skipped"}


def test_failures_are_kept_where_that_is_asked_for(capsys: Any, tmp_path: Path) -> None:
    words = ("run", "digits", *SMALL, *ONE, "--method", "naive lr=1e30", "--results", str(tmp_path))
    call(capsys, *words)
    (path,) = tmp_path.rglob("*.json")
    before = path.stat().st_mtime_ns
    call(capsys, *words, "--keep-failed")
    assert path.stat().st_mtime_ns == before
    call(capsys, *words)
    assert path.stat().st_mtime_ns > before


@pytest.mark.parametrize("subject", ["clml+asl", "./my_loss.py:MyLoss+asl gamma_neg=2"])
def test_check_says_how_a_criterion_on_another_is_named(capsys: Any, subject: str) -> None:
    assert call(capsys, "check", subject)[2].endswith(f"a criterion stands on another: write criterion:{subject}\n")


def test_check_says_which_kinds_it_knows(capsys: Any) -> None:
    for subject, told in (
        ("regime:long_tail", "are checks for a strategy (NAME), head:NAME, criterion:NAME and benchmark:NAME\n"),
        ("dataset:./birds.py:Birds", "; for a data set write cml-bench data verify ./birds.py:Birds\n"),
    ):
        code, _, err = call(capsys, "check", subject)
        assert code == 1
        assert err.startswith(f"cml-bench: '{subject}' cannot be checked: ")
        assert err.endswith(told)


def test_check_exits_with_1_and_names_what_failed(capsys: Any) -> None:
    code, out, err = call(capsys, "check", "criterion:assume_negative scope=seen")
    assert code == 1
    assert "failed  out_of_scope_unread" in out
    assert err.startswith("cml-bench: criterion:assume_negative scope=seen fails 2 of 17 checks: nothing_asked")
