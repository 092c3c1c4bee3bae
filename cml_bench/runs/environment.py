"""Where a result was made: code version, packages, device."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

import cml_bench

_PACKAGES = ("torch", "torchvision", "avalanche-lib", "timm", "numpy", "scikit-learn")


@functools.lru_cache(maxsize=1)
def code_version() -> str:
    """Return the package version, with the commit (and ``-dirty``) when run from a checkout."""
    checkout = Path(cml_bench.__file__).resolve().parent.parent
    if not (checkout / ".git").exists():
        return cml_bench.__version__
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return cml_bench.__version__
    return f"{cml_bench.__version__}+{commit}"


def environment(device: str) -> dict[str, object]:
    """Return what a result records of the machine and its software."""
    # Of a CPU the vector instructions, too: they decide how sums round.
    cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu
    return {
        "code_version": code_version(),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in _PACKAGES},
        "device": {"kind": device, "name": name},
        "platform": platform.system(),
    }
