"""Sweeps on Ray: clusters of several nodes on this machine, one of them killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cml_bench.errors import CmlBenchError
from cml_bench.runs.engines.engine import parse_engine
from cml_bench.runs.events import Event
from cml_bench.runs.freshness import judge
from cml_bench.runs.job import Job
from cml_bench.runs.results import result_path
from cml_bench.runs.sweep import execute

pytest.importorskip("ray", reason="the package ray is not installed")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Cluster:
    """A head that has no core to spare for jobs, and nodes of one core each, as ``ray start`` makes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self.nodes: list[subprocess.Popen[bytes]] = []
        port = self.address.split(":")[1]
        self._start("--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false")

    def add(self) -> None:
        """Start a node."""
        self._start(f"--address={self.address}", "--num-cpus=1")

    def kill(self, index: int) -> None:
        """Take a node away as a power cut would."""
        os.killpg(self.nodes[index].pid, signal.SIGKILL)
        self.nodes[index].wait()

    def stop(self) -> None:
        for node in self.nodes:
            if node.poll() is None:
                os.killpg(node.pid, signal.SIGKILL)
                node.wait()

    def _start(self, *options: str) -> None:
        ray = Path(sys.executable).with_name("ray")
        command = [str(ray), "start", "--block", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
        command += ["--object-store-memory=80000000", *options]
        log = (self.folder / f"node{len(self.nodes)}.log").open("wb")
        # A lost node is noticed in seconds, not in half a minute.
        watch = {"RAY_health_check_period_ms": "1000", "RAY_health_check_initial_delay_ms": "1000"}
        # A token that another cluster of this user has left behind is none of this one's.
        watch["RAY_AUTH_MODE"] = "disabled"
        node = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **watch})
        self.nodes.append(node)
        deadline = time.monotonic() + 90
        while b"--block" not in (self.folder / log.name).read_bytes():
            if node.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / log.name).read_text())
            time.sleep(0.2)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("ray"))
    try:
        made.add()
        made.add()
        yield made
    finally:
        made.stop()


def blobs(jobs: list[Job], results: Path) -> list[bytes]:
    return [result_path(results, job).with_suffix(".npz").read_bytes() for job in jobs]


def outcomes(events: list[Event]) -> list[tuple[int, str]]:
    return sorted((event.job, event.kind) for event in events if event.kind in ("done", "failed", "skipped"))


def test_a_lost_node_loses_no_job(
    cluster: Cluster, small_jobs: Any, slow_job: tuple[Job, Path], tmp_path: Path
) -> None:
    slow, log = slow_job
    quick = small_jobs(["naive", "naive lr=1e30"])
    jobs = [slow, *quick]
    events: list[Event] = []
    errors: list[BaseException] = []

    def sweep() -> None:
        try:
            execute(
                jobs, tmp_path / "results", workers=None, report=events.append, engine=f"ray address={cluster.address}"
            )
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=sweep)
    thread.start()
    while not (log.exists() and "1" in log.read_text()) and thread.is_alive():
        time.sleep(0.1)
    started = {event.job for event in events if event.kind == "start"}
    # Which node it is on nobody says; both are lost, and a third comes.
    cluster.kill(1)
    cluster.kill(2)
    cluster.add()
    thread.join(timeout=240)
    assert not errors
    assert not thread.is_alive()
    assert 0 in started
    assert outcomes(events) == [(0, "done"), (1, "done"), (2, "failed")]
    # The folder is shared: started anew, the slow job went on after its first experience.
    assert log.read_text().split() == ["0", "1", "1", "2", "3", "4"]
    execute([slow, quick[0]], tmp_path / "serial", workers=1, report=lambda event: None)
    assert blobs([slow, quick[0]], tmp_path / "results") == blobs([slow, quick[0]], tmp_path / "serial")
    assert judge(jobs, tmp_path / "results").to_run() == [quick[1]]
    assert not list((tmp_path / "results").glob(".shared-*"))


def test_a_job_that_no_machine_has_room_for_is_refused(cluster: Cluster, small_jobs: Any, tmp_path: Path) -> None:
    with pytest.raises(CmlBenchError, match="asks for 4 GPU and no machine of the cluster has more than 0"):
        execute(
            small_jobs(),
            tmp_path,
            workers=None,
            report=lambda event: None,
            engine=f"ray address={cluster.address} gpus=4",
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_is_looked_for_where_the_job_runs(cluster: Cluster, small_jobs: Any, tmp_path: Path) -> None:
    """The machine that submits need not have one; a job that finds none has a failed result that says so."""
    jobs = small_jobs(device="cuda")
    events: list[Event] = []
    execute(jobs, tmp_path, workers=None, report=events.append, engine=f"ray address={cluster.address}")
    assert outcomes(events) == [(0, "failed")]
    assert json.loads(result_path(tmp_path, jobs[0]).read_text())["error"].startswith("device='cuda' cannot be used")
    with pytest.raises(CmlBenchError, match="device='cdua' cannot be used"):
        execute(
            small_jobs(device="cdua"),
            tmp_path,
            workers=None,
            report=events.append,
            engine=f"ray address={cluster.address}",
        )


def test_files_come_back_where_nothing_is_shared(small_jobs: Any, tmp_path: Path) -> None:
    """The worker's half of a job, on a machine that does not see the results folder."""
    from cml_bench.runs.engines import ray as engine

    class Plain:
        def __init__(self) -> None:
            self.events: list[Event] = []

        def put(self, event: Event) -> None:
            self.events.append(event)

    (job,) = small_jobs()
    queue: Any = Plain()
    ran, files = engine._work(job, 0, "/nowhere", "token", "/nowhere/else", "experience", queue)
    assert ran
    assert {Path(name).suffix for name in files} == {".json", ".npz"}
    engine._store(files, tmp_path / "results")
    assert judge([job], tmp_path / "results").to_run() == []
    assert {event.kind for event in queue.events} >= {"start", "epoch", "experience"}
    assert not {event.kind for event in queue.events} & {"done", "failed"}


def test_bad_specifications_end_in_one_sentence() -> None:
    for text, sentence in (
        ("rey", "engine 'rey' is unknown: did you mean 'ray'"),
        ("ray gpu=1", "engine 'ray' has no option 'gpu': did you mean 'gpus'"),
        ("ray gpus=-1", "gpus='-1' of engine 'ray' cannot be used"),
    ):
        with pytest.raises(CmlBenchError, match=sentence):
            parse_engine(text)
