"""One of two processes that share a job on one GPU: ``python share_one_gpu.py RANK PORT FOLDER``.

NCCL wants a GPU for each process; gloo lets two share one, and batch norm over both is then what it is on two.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators.cpu import CPUAccelerator
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies import DDPStrategy

from cml_bench.models.divided import divided
from cml_bench.runs.run import run_job

GPU = torch.device("cuda", 0)


class OneGPU(DDPStrategy):
    """Gives every process the first GPU."""

    @property
    def root_device(self) -> torch.device:
        return GPU


class Counted(CPUAccelerator):
    """As many devices as one likes; Fabric's own for GPUs has as many as there are."""

    def setup_device(self, device: torch.device) -> None:
        if device.type == "cuda":
            torch.cuda.set_device(device)


def main() -> None:
    rank, port, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    os.environ.update({"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port})
    strategy = OneGPU(process_group_backend="gloo")
    fabric = Fabric(accelerator=Counted(), devices=2, strategy=strategy, plugins=[LightningEnvironment()])
    fabric.launch()
    torch.backends.cudnn.allow_tf32 = False
    with divided(fabric):
        jobs = torch.load(folder / "jobs.pt", weights_only=False)
        torch.save([run_job(job).predictions.logits for job in jobs], folder / f"{rank}.pt")


if __name__ == "__main__":
    main()
