"""The page on systems of the literature is true: every command on it sets up, and runs on a few scenes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from cml_bench.cli import main
from cml_bench.commands import run as run_commands
from cml_bench.registry import find
from cml_bench.runs.check import check_jobs
from cml_bench.runs.job import Job

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "literature.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """Commands on digits as they stand there; a head, loss or strategy that stands alone becomes one."""
    found = []
    for code in re.findall(r"`([^`]+)`", PAGE):
        if code.startswith("cml-bench run digits"):
            found.append(code)
        elif code.startswith("--method "):
            found.append(f"cml-bench run digits {code}")
        elif code.startswith(("head=", "loss=", "wrap=")):
            found.append(f'cml-bench run digits --method "naive {code}"')
    return sorted(set(found))


def run(words: list[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(words)
    assert done.value.code == 0, words


def test_every_command_sets_up(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Job] = []
    monkeypatch.setattr(run_commands, "_execute", lambda made, *_: jobs.extend(made))
    assert len(commands()) > 25
    for command in commands():
        run([*shlex.split(command)[1:], "--seeds", "1", "--workers", "1"])
    check_jobs(jobs)


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_every_command_runs(command: str, tmp_path: Path, capsys: Any) -> None:
    few = ["--seeds", "1", "--set", "n_train=60", "--set", "n_test=40"]
    run([*shlex.split(command)[1:], *few, "--workers", "1", "--results", str(tmp_path)])
    assert "failed" not in capsys.readouterr().out


def test_regimes_that_need_data_of_ones_own_are_there() -> None:
    named = set(re.findall(r'regime="?(\w+)', PAGE))
    assert "hapi" in named
    for name in named:
        find("regimes", name)
