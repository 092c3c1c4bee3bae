"""Sweeps on SLURM: a real controller and a real node, both on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cml_bench.errors import CmlBenchError
from cml_bench.runs.events import Event
from cml_bench.runs.freshness import judge
from cml_bench.runs.job import Job
from cml_bench.runs.results import result_path
from cml_bench.runs.sweep import execute

pytest.importorskip("submitit", reason="the package submitit is not installed")

CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobRequeue=1
KillWait=1
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing_part() -> str | None:
    """Return why there can be no SLURM here, or None."""
    absent = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed (apt-get install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "a node and its authentication are started by root alone"


REASON = missing_part()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(what: Any, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.2)
    return False


def answers(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start authentication, controller and node; stop them afterwards."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool", "log"):
        (folder / name).mkdir()
    started = []
    if "Success" not in answers("sh", "-c", "munge -n | unmunge"):
        Path("/run/munge").mkdir(exist_ok=True)
        shutil.chown("/run/munge", "munge", "munge")
        daemon = subprocess.Popen(
            ["runuser", "-u", "munge", "--", "munged", "--force", "--foreground"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(daemon)
        assert wait_for(lambda: "Success" in answers("sh", "-c", "munge -n | unmunge"))
    config = folder / "slurm.conf"
    facts = {"host": socket.gethostname(), "folder": folder, "user": "root", "cpus": os.cpu_count()}
    config.write_text(CONFIG.format(**facts, controller=free_port(), daemon=free_port()))
    patch = pytest.MonkeyPatch()
    patch.setenv("SLURM_CONF", str(config))
    try:
        for command in (["slurmctld", "-D", "-f", str(config)], ["slurmd", "-D", "-f", str(config)]):
            started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        assert wait_for(lambda: answers("sinfo", "--noheader", "--format=%t").strip() == "idle"), (
            folder / "log" / "slurmctld.log"
        ).read_text() + (folder / "log" / "slurmd.log").read_text()
        yield folder
        # A task whose result is there has not ended yet; without its controller it would wait for ever.
        answers("scancel", "--user=root")
        wait_for(lambda: not answers("squeue", "--noheader").strip(), 30)
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)
        patch.undo()


def blobs(jobs: list[Job], results: Path) -> list[bytes]:
    return [result_path(results, job).with_suffix(".npz").read_bytes() for job in jobs]


def outcomes(events: list[Event]) -> list[tuple[int, str]]:
    return sorted((event.job, event.kind) for event in events if event.kind in ("done", "failed", "skipped"))


def test_a_requeued_task_goes_on_from_its_checkpoint(
    slurm: Path, small_jobs: Any, slow_job: tuple[Job, Path], tmp_path: Path
) -> None:
    slow, log = slow_job
    quick = small_jobs(["naive", "naive lr=1e30"])
    jobs = [slow, *quick]
    events: list[Event] = []
    results = tmp_path / "results"
    sweep = threading.Thread(
        target=execute,
        args=(jobs, results),
        kwargs={"workers": None, "report": events.append, "engine": "slurm partition=debug memory_gb=1"},
    )
    sweep.start()
    assert wait_for(lambda: (log.exists() and "1" in log.read_text()) or not sweep.is_alive(), 120)
    tasks = [line.split() for line in answers("squeue", "--noheader", "--array", "--format=%i %T").splitlines()]
    (running,) = [task for task, state in tasks if task.endswith("_0") and state == "RUNNING"]
    subprocess.run(["scontrol", "requeue", running], check=True)
    # A requeued task is held back for a moment, lest it come back to a node that is broken.
    wait_for(lambda: f"{running} PENDING" in answers("squeue", "--noheader", "--array", "--format=%i %T"), 30)
    subprocess.run(["scontrol", "update", f"JobId={running}", "StartTime=now"], check=False)
    sweep.join(timeout=300)
    assert not sweep.is_alive()
    assert outcomes(events) == [(0, "done"), (1, "done"), (2, "failed")]
    # The second experience twice and the first only once: the checkpoint was used.
    assert log.read_text().split() == ["0", "1", "1", "2", "3", "4"]
    execute([slow, quick[0]], tmp_path / "serial", workers=1, report=lambda event: None)
    assert blobs([slow, quick[0]], results) == blobs([slow, quick[0]], tmp_path / "serial")
    assert judge(jobs, results).to_run() == [quick[1]]


def test_a_task_that_asks_too_much_is_said(slurm: Path, small_jobs: Any, tmp_path: Path) -> None:
    with pytest.raises(CmlBenchError, match="SLURM takes no jobs here"):
        execute(small_jobs(), tmp_path, workers=None, report=lambda event: None, engine="slurm partition=nowhere")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_is_looked_for_where_the_job_runs(slurm: Path, small_jobs: Any, tmp_path: Path) -> None:
    """The machine that submits need not have one; a job that finds none has a failed result that says so."""
    jobs = small_jobs(device="cuda")
    events: list[Event] = []
    execute(jobs, tmp_path, workers=None, report=events.append, engine="slurm partition=debug memory_gb=1")
    assert outcomes(events) == [(0, "failed")]
    assert json.loads(result_path(tmp_path, jobs[0]).read_text())["error"].startswith("device='cuda' cannot be used")
    with pytest.raises(CmlBenchError, match="device='cdua' cannot be used"):
        execute(
            small_jobs(device="cdua"),
            tmp_path,
            workers=None,
            report=events.append,
            engine="slurm partition=debug memory_gb=1",
        )
