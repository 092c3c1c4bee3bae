"""The devices of a job: whether this machine has them, and processes that run the same job together on several."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.queues import Queue
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from avalanche.distributed import DistributedHelper
from torch import nn
from torch.multiprocessing.spawn import (
    ProcessContext,
    ProcessExitedException,
    ProcessRaisedException,
    start_processes,
)

from cml_bench.errors import CmlBenchError, in_one_line
from cml_bench.models.divided import divided
from cml_bench.models.extras import import_extra
from cml_bench.runs.events import Event, Report
from cml_bench.runs.stopping import SIGNALS, STORING, Postponed, end_with_parent
from cml_bench.training.config import TrainingConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from cml_bench.runs.run import Run

_SECONDS_FOR_LAST_WORDS = 5.0
_SECONDS_BETWEEN_LOOKS = 0.1
"""For signals, while the processes work."""

_SECONDS_TO_END = 1.0
"""For the others, once one of them has failed."""


@dataclass(frozen=True)
class _Failure:
    """What ended a process.

    Attributes:
        rank: The process.
        sentence: What happened, in one line.
        trace: The traceback of an error that nobody foresaw, else None.
    """

    rank: int
    sentence: str
    trace: str | None


def check_device(device: str, count: int = 1) -> None:
    """Refuse a device that this machine has not, or more GPUs than this process sees.

    Raises:
        CmlBenchError: If it cannot be used here.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise CmlBenchError(
            f"device={device!r} cannot be used ({reason}): set device=cpu, or run it on a machine that has it"
        ) from None
    if device == "cuda" and count > torch.cuda.device_count():
        raise CmlBenchError(
            f"devices={count}, but this process sees {torch.cuda.device_count()} GPUs: set devices to that"
        )


def run_on_devices(config: TrainingConfig, report: Report, arguments: dict[str, Any]) -> Run:
    """Run a job in as many processes as it has devices; return what the first one made.

    The processes meet through Lightning Fabric, by NCCL on GPUs and by gloo on the CPU. They end with this one; a
    signal that would end it waits until the first of them has stored the job.

    Args:
        config: The job's training settings.
        report: Called with what the first process reports.
        arguments: Further arguments of ``run_job``.

    Raises:
        CmlBenchError: What the job raised, or a sentence about a process that was killed.
        RuntimeError: An error that nobody foresaw, with the traceback of the process where it happened.
    """
    environments = _fabric_part("lightning_fabric.plugins.environments.lightning", config)
    # It would say which processes it ends; the job ends in one sentence.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    words: Queue[Event | _Failure | Run | None] = multiprocessing.get_context("spawn").Queue()
    failures: list[_Failure] = []
    made: list[Run] = []

    def listen() -> None:
        while (word := words.get()) is not None:
            if isinstance(word, Event):
                report(word)
            elif isinstance(word, _Failure):
                failures.append(word)
            else:
                made.append(word)

    def hang_up(seconds: float | None = None) -> None:
        words.put(None)
        listener.join(seconds)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    others = set(multiprocessing.active_children())
    signals, (answer, answering) = Postponed(), multiprocessing.Pipe(duplex=False)
    signals.listen()
    try:
        given = (config, arguments, environments.find_free_network_port(), words, answering)
        with signals.held():
            context = start_processes(_take_part, given, nprocs=config.devices, join=False, start_method="spawn")
            assert context is not None
            while not context.join(_SECONDS_BETWEEN_LOOKS, _SECONDS_TO_END):
                if signals.waiting:
                    _let_store(context, answer)
                    signals.deliver()
                    # The job goes on if who was told says so.
                    signals.listen()
    except BaseException as error:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        # A process killed while it was sending leaves the queue locked.
        hang_up(_SECONDS_FOR_LAST_WORDS)
        if isinstance(error, (ProcessExitedException, ProcessRaisedException)):
            _tell(error, failures, config.devices)
        raise
    else:
        hang_up()
        return made[0]
    finally:
        signals.deliver()


def _let_store(context: ProcessContext, answer: Connection) -> None:
    """Ask the first process to store the job; wait until it answers that it has, or cannot."""
    first = context.processes[0]
    if first.is_alive():
        os.kill(first.pid, signal.SIGUSR2)
        wait([answer, *context.sentinels], STORING)
        while answer.poll():
            answer.recv_bytes()


def prepare_backbone(backbone: nn.Module) -> None:
    """Let batch norm, where there is one, take the mean and variance of whole batches rather than of shares."""
    from timm.layers.norm_act import convert_sync_batchnorm

    for name, part in list(backbone.named_children()):
        setattr(backbone, name, convert_sync_batchnorm(part))


def _take_part(
    rank: int,
    config: TrainingConfig,
    arguments: dict[str, Any],
    port: int,
    words: Queue[Event | _Failure | Run | None],
    answering: Connection,
) -> None:
    """Run the job as one of its processes."""
    from cml_bench.runs.run import run_job

    # Signals may reach every process of a terminal or a task; the parent asks the first one to store, and ends all.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if rank == 0:
        signal.signal(signal.SIGUSR2, lambda *_: answering.send_bytes(b"."))
    end_with_parent()
    try:
        with divided(meet(rank, config, port)):
            if rank:
                run_job(report=_ignore, **{**arguments, "log": None})
            else:
                words.put(run_job(report=words.put, **arguments))
    except Exception as error:
        known = isinstance(error, CmlBenchError)
        words.put(
            _Failure(rank, str(error) if known else in_one_line(error), None if known else traceback.format_exc())
        )
        raise SystemExit(1) from error


def meet(rank: int, config: TrainingConfig, port: int) -> Fabric:
    """Return Fabric once all processes have met.

    Args:
        rank: This process's number.
        config: Says how many there are, and on what.
        port: Where they meet.
    """
    fabric_module = _fabric_part("lightning_fabric", config)
    environments = _fabric_part("lightning_fabric.plugins.environments", config)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    # Avalanche would deal the batches among the processes: here all of them see every batch.
    type(DistributedHelper).is_distributed = False
    os.environ.update({"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    fabric: Fabric = fabric_module.Fabric(
        accelerator=config.device,
        devices=config.devices,
        strategy="ddp",
        # Named, since within a task of SLURM Fabric would ask SLURM for its place.
        plugins=[environments.LightningEnvironment()],
    )
    fabric.launch()
    return fabric


def _fabric_part(module: str, config: TrainingConfig) -> Any:
    return import_extra(module, extra="distributed", what=f"devices={config.devices}")


def _ignore(event: Event) -> None:
    pass


def _tell(error: ProcessExitedException | ProcessRaisedException, failures: list[_Failure], devices: int) -> NoReturn:
    """Raise what ended the job."""
    code = getattr(error, "exit_code", 1)
    if code < 0 or not failures:
        who = f"process {error.error_index + 1} of the {devices} that share the job"
        raise CmlBenchError(
            f"{who} was killed ({signal.Signals(-code).name}; out of memory?): free memory, or take fewer devices"
            if code < 0
            else f"{who} did not start ({in_one_line(error)}): a script that runs on several devices must do so under "
            "if __name__ == '__main__'"
        ) from None
    # The first one to fail takes the others with it.
    first = failures[0]
    if first.trace is None:
        raise CmlBenchError(first.sentence) from None
    who = f"process {first.rank + 1} of the {devices} that share the job"
    raise RuntimeError(f"{who} failed: {first.sentence}") from RuntimeError(f"\n{first.trace}")
