"""Checkpoint files of backbones: read without executing them, checked against the model, pretraining declared."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cml_bench.errors import CmlBenchError

_WRAPPERS = ("state_dict", "model")


@dataclass(frozen=True)
class Checkpoint:
    """Weights read from a file.

    Attributes:
        path: The file.
        sha256: Digest of its bytes.
        pretraining: The data sets the weights were trained on, as declared.
        metadata: Header of a safetensors file; empty for a torch file. Read here: ``architecture``, ``pretraining``,
            ``mean``, ``std`` (three comma-separated numbers), ``pad_type``.
        weights: Tensors by parameter name.
    """

    path: Path
    sha256: str
    pretraining: str
    metadata: Mapping[str, str]
    weights: Mapping[str, Tensor]

    def channel_statistics(self, key: str) -> tuple[float, ...] | None:
        """Return the ``mean`` or ``std`` of the metadata as three numbers, None if it is not there.

        Raises:
            CmlBenchError: If the entry is not three numbers.
        """
        if key not in self.metadata:
            return None
        try:
            red, green, blue = (float(number) for number in self.metadata[key].split(","))
        except ValueError:
            raise CmlBenchError(
                f"{self.path} declares {key} {self.metadata[key]!r}; write three comma-separated numbers"
            ) from None
        return red, green, blue


def read_checkpoint(path: Path, architecture: str, pretrained_on: str | None) -> Checkpoint:
    """Read a checkpoint file and what it declares; executes nothing that the file holds.

    Raises:
        CmlBenchError: If the file is missing, damaged, of another architecture, or nobody declares (or two declare
            differently) what it was trained on.
    """
    weights, metadata = read_weights(path)
    declared = metadata.get("architecture", architecture).split(".")[0]
    if declared != architecture:
        raise CmlBenchError(f"checkpoint {path} holds a {declared}, not a {architecture}; build backbone {declared!r}")
    pretraining = metadata.get("pretraining") or pretrained_on
    if not pretraining:
        raise CmlBenchError(
            f"checkpoint {path} does not declare what it was trained on; pass pretrained_on, e.g. 'ImageNet-1k'"
        )
    if pretrained_on and _letters(pretrained_on) != _letters(pretraining):
        raise CmlBenchError(
            f"checkpoint {path} declares pretraining on {pretraining!r}, not {pretrained_on!r}; leave pretrained_on out"
        )
    return Checkpoint(path, digest_of(path), pretraining, metadata, weights)


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors or torch file by name, and its header; executes nothing that it holds.

    Raises:
        CmlBenchError: If the file is missing or damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise CmlBenchError(f"checkpoint {path} does not exist; check the path")
    return _read_safetensors(path) if path.suffix == ".safetensors" else (_read_torch(path), {})


def check_pretraining(checkpoint: Checkpoint, evaluated_on: Sequence[str]) -> None:
    """Refuse weights that have seen the evaluated data.

    Names are compared by their letters alone (``"MS-COCO 2014"`` matches ``"coco"``), and one may contain the other:
    refusing once too often costs a question, accepting a leak costs the result. Years are ignored since the releases
    of a data set share images.

    Raises:
        CmlBenchError: If a declared pretraining set names the evaluated data.
    """
    for declared in re.split(r"[,+;&/]", checkpoint.pretraining):
        for evaluated in evaluated_on:
            ours, theirs = _letters(evaluated), _letters(declared)
            if ours and theirs and (ours in theirs or theirs in ours):
                raise CmlBenchError(
                    f"checkpoint {checkpoint.path} was trained on {declared.strip()!r}, the data it would be evaluated "
                    f"on ({evaluated!r}); use weights that have not seen it"
                )


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint into a model, casting to the model's own types; the classifier's weights may be left over.

    Raises:
        CmlBenchError: If weights are missing, left over or of another shape.
    """
    own = model.state_dict()
    # A file whose batch norms were folded or exported has no step counters, which inference never reads.
    missing = [key for key in own if key not in checkpoint.weights and not key.endswith("num_batches_tracked")]
    classifiers = tuple(f"{name}." for name in _classifier_names(model))
    left_over = [key for key in checkpoint.weights if key not in own and not key.startswith(classifiers)]
    misshapen = [key for key in own if key in checkpoint.weights and own[key].shape != checkpoint.weights[key].shape]
    for fault, keys in (("lacks", missing), ("has unknown", left_over), ("has wrong shapes for", misshapen)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CmlBenchError(
                f"checkpoint {checkpoint.path} {fault} {', '.join(keys[:3])}{more}; "
                "it does not fit the model: check the model name and its options"
            )
    model.load_state_dict({key: checkpoint.weights.get(key, own[key]) for key in own})


def folded_norms(model: nn.Module, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the names of batch norms that a checkpoint has folded into the layers before them.

    Such a layer has mean 0, variance 1 and, unlike one that was never trained, no count of its steps.
    """
    return tuple(
        name
        for name, part in model.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
        and f"{name}.num_batches_tracked" not in checkpoint.weights
        and part.running_mean is not None
        and part.running_var is not None
        and not part.running_mean.any()
        and bool((part.running_var == 1).all())
    )


def _classifier_names(model: nn.Module) -> tuple[str, ...]:
    """Return the module names under which timm keeps a model's classifiers."""
    names = getattr(model, "default_cfg", {}).get("classifier", ())
    return (names,) if isinstance(names, str) else tuple(names or ())


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CmlBenchError(f"checkpoint {path} cannot be read as safetensors ({error}); fetch it again") from None


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise CmlBenchError(
            f"checkpoint {path} cannot be read as a torch file of tensors ({reason}); "
            "save its state_dict as safetensors, or fetch it again"
        ) from None
    for wrapper in _WRAPPERS:
        if isinstance(stored, dict) and isinstance(stored.get(wrapper), dict):
            stored = stored[wrapper]
    if not isinstance(stored, dict) or not all(isinstance(value, Tensor) for value in stored.values()):
        raise CmlBenchError(f"checkpoint {path} holds no state_dict; save model.state_dict() there")
    return stored


def _letters(name: str) -> str:
    """Return the lower-case letters of a data set's name, without the "MS" that some write before COCO."""
    return re.sub(r"[^a-z]", "", name.lower()).removeprefix("ms")


def digest_of(path: Path) -> str:
    """Return the sha256 of a file's bytes; of a folder with a diffusion pipeline that of all names and bytes."""
    if path.is_dir():
        files = sorted(file for part in ("vae", "transformer", "scheduler") for file in (path / part).glob("*.*"))
        return hashlib.sha256("".join(f"{file.name} {digest_of(file)}\n" for file in files).encode()).hexdigest()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
