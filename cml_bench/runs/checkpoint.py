"""Checkpoints: a job that was stopped goes on where it was last stored, as if it had not been."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cml_bench
from cml_bench.errors import CmlBenchError, in_one_line
from cml_bench.files import read_plain, replace_file
from cml_bench.models.divided import is_first
from cml_bench.runs.basis import Basis
from cml_bench.runs.claim import claim
from cml_bench.runs.cost import CostMeter
from cml_bench.runs.federated import FederatedCourse
from cml_bench.runs.learn import Course
from cml_bench.runs.plan import Plan
from cml_bench.runs.results import checkpoint_folder
from cml_bench.training.state import Stored
from cml_bench.training.state_nodes import UnknownStateError

Logits = np.ndarray[Any, np.dtype[np.float16]]

_GENERATIONS = 2
_SUFFIX = ".safetensors"
_DIGITS = 32


def identity(basis: Basis, plan: Plan) -> dict[str, str]:
    """Return what must be the same for a checkpoint to be of use: all that a result stands on, code and packages."""
    packages = ("torch", "torchvision", "numpy", "scipy", "avalanche-lib", "timm")
    kinds = (type(plan.learner), plan.learner, plan.head, plan.criterion, plan.wrapper)
    modules = [sys.modules.get(getattr(kind, "__module__", "")) for kind in kinds]
    files = sorted({str(file) for module in modules if (file := getattr(module, "__file__", None))})
    plug_ins = hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()
    return {
        **basis.for_checkpoint,
        "code": f"{_code_digest()[:_DIGITS]} {plug_ins[:_DIGITS]}",
        "packages": ", ".join(f"{package} {version(package)}" for package in packages),
    }


@functools.cache
def _code_digest() -> str:
    """Return the sha256 of all code of the suite: a version number stays while code is written."""
    parts = [Path(cml_bench.__file__).parent]
    parts += [Path(folder) for name in ("strategies", "benchmarks") for folder in _package_path(name)]
    files = sorted({file.resolve() for part in parts for file in part.rglob("*.py")})
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _package_path(name: str) -> Sequence[str]:
    import importlib

    return importlib.import_module(f"cml_bench.{name}").__path__


class Checkpoints:
    """The checkpoints of one job.

    A file holds the learner, how far it is, the predictions so far and what they cost. It is written aside, flushed to
    the disk and put in place in one step, and bears its number and the checksum of its content in its name. The two
    newest are kept. Reading one runs nothing that it holds.

    Args:
        folder: Where the files lie.
        identity: What must be the same for a file to be used.
        say: Called with a sentence for the user.
    """

    def __init__(self, folder: Path, identity: dict[str, str], say: Callable[[str], object]) -> None:
        self.folder = folder
        self.identity = identity
        self.say = say
        # Of processes that share a job one writes; all read.
        self._works = self._works_within = is_first()

    # -- writing -------------------------------------------------------------------------------------------------

    def keep(
        self, course: Course | FederatedCourse, logits: Sequence[Logits], meter: CostMeter, *, within: bool = False
    ) -> None:
        """Store a job.

        One that cannot be stored goes on without checkpoints, and says so once.

        Args:
            course: Where it is.
            logits: Predictions after each experience that has been tested.
            meter: What it has cost.
            within: Whether it is in the middle of an experience.
        """
        if not self._works or (within and not self._works_within):
            return
        try:
            with meter.phase("checkpoint"):
                self._write(course.store(), logits, meter)
        except UnknownStateError as error:
            self._works_within = False
            if within:
                self.say(f"goes on after whole experiences only, should it be interrupted: {error}")
            else:
                self._works = False
                self.say(f"cannot go on after an interruption: {error}")
        except OSError as error:
            self._works = False
            self.say(
                f"checkpoint in {self.folder} cannot be written ({error.strerror}): free space to be able to go on"
            )

    def _write(self, stored: Stored, logits: Sequence[Logits], meter: CostMeter) -> None:
        # Imported here: a run without checkpoints needs none of it.
        from safetensors.torch import save

        tree = {
            "identity": self.identity,
            "done": len(logits),
            "cost": meter.store(),
            "state": stored.tree,
        }
        text = torch.frombuffer(bytearray(json.dumps(tree, allow_nan=False).encode()), dtype=torch.uint8)
        predicted = {f"logits{t}": torch.from_numpy(block) for t, block in enumerate(logits)}
        data = save({"tree": text, **predicted, **stored.blocks})
        self.folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(data).hexdigest()[:_DIGITS]
        number = 1 + max(map(_number, self._files()), default=0)
        replace_file(self.folder / f"{number:04d}-{digest}{_SUFFIX}", lambda file: file.write(data))
        for old in self._files()[_GENERATIONS:]:
            old.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        """Return the files, newest first."""
        return sorted(self.folder.glob(f"*{_SUFFIX}"), key=_number, reverse=True)

    # -- reading -------------------------------------------------------------------------------------------------

    def resume(self, course: Course | FederatedCourse, meter: CostMeter) -> list[Logits]:
        """Let a course go on after the newest checkpoint that is whole; return the predictions made until then.

        Raises:
            CmlBenchError: If a checkpoint is whole but no state of this learner.
        """
        for left in self.folder.glob("*.part"):
            # Of a writer that was killed; a job that is killed again and again would fill the disk with them.
            left.unlink(missing_ok=True)
        for file in self._files():
            tensors = self._read(file)
            if tensors is None:
                continue
            tree, logits = _parts(tensors, file)
            other = [name for name, found in self.identity.items() if tree["identity"].get(name) != found]
            if other:
                self.say(f"checkpoint {file} is of another state of {' and '.join(other)}: not used, starting anew")
                # It must not pass for newer than those to come.
                remove_checkpoints(self.folder)
                return []
            try:
                where = course.resume(Stored(tree["state"], tensors), len(logits))
                meter.add(tree["cost"])
            except CmlBenchError as error:
                raise _unusable(file, error) from error
            except (LookupError, TypeError, AttributeError, ValueError) as error:
                raise _unusable(file, f"what was stored is no cost ({in_one_line(error)})") from error
            self.say(f"goes on after {where}")
            return logits
        return []

    def _read(self, file: Path) -> dict[str, torch.Tensor] | None:
        """Return the content of a file, None if it is damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            data = read_plain(file)
            if hashlib.sha256(data).hexdigest()[:_DIGITS] == file.stem.partition("-")[2]:
                tensors: dict[str, torch.Tensor] = load(data)
                return tensors
            reason = "its checksum is wrong"
            # It must not pass for newer than those to come.
            file.unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            reason = in_one_line(error)
        self.say(f"checkpoint {file} is damaged ({reason}): the one before is taken, if there is one")
        return None


def _number(file: Path) -> int:
    """Return the number of a checkpoint, 0 for a file that bears none."""
    number = file.name.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def _parts(tensors: dict[str, torch.Tensor], file: Path) -> tuple[dict[str, Any], list[Logits]]:
    """Take the tree and the predictions out of what a file holds.

    Raises:
        CmlBenchError: If they are not there, or something else is.
    """
    try:
        tree = json.loads(tensors.pop("tree").numpy().tobytes())
        kinds = {"identity": dict, "done": int, "cost": dict, "state": dict}
        for name, kind in kinds.items():
            if type(tree[name]) is not kind:
                raise TypeError(f"{name} is no {kind.__name__}")
        logits = [tensors.pop(f"logits{t}").numpy().copy() for t in range(tree["done"])]
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise _unusable(file, f"it is not built like one ({in_one_line(error)})") from error
    for t, block in enumerate(logits):
        if block.ndim != 2 or block.dtype != np.float16:
            raise _unusable(file, f"the predictions of experience {t + 1} are {block.shape} of {block.dtype}")
    return tree, logits


def _unusable(file: Path, reason: object) -> CmlBenchError:
    return CmlBenchError(f"checkpoint {file} cannot be used: {reason!s:.1000}; delete it to start anew")


def remove_leftovers(result: Path) -> None:
    """Remove the checkpoints of a job that is done, which are left if it was killed before it could do so itself."""
    folder = checkpoint_folder(result)
    if folder.is_dir():
        with claim(result) as mine:
            # Else another process runs the job once more, for its models say.
            if mine:
                remove_checkpoints(folder)


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a job whose result is stored, and what an interrupted writer left."""
    for file in (*folder.glob(f"*{_SUFFIX}"), *folder.glob("*.part")):
        file.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
