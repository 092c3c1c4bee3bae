"""Models after each experience, kept beside a result and built again from there."""

from __future__ import annotations

import copy
import json
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError
from cml_bench.files import read_plain, replace_file
from cml_bench.models.backbones import Backbone
from cml_bench.models.features import weights_digest
from cml_bench.models.model import MultiLabelModel
from cml_bench.options import parse_pairs
from cml_bench.registry import UnknownCodeError, only_known
from cml_bench.runs.benchmark import load_sources
from cml_bench.runs.isolation import isolated
from cml_bench.runs.job import Job
from cml_bench.runs.plan import Plan, plan
from cml_bench.runs.results import snapshot_path
from cml_bench.runs.setup import make_backbone, make_model

_BACKBONE = "backbone."


class Snapshots:
    """Keeps the model of one job after each experience, as safetensors.

    A backbone whose weights have not moved is not written: it comes from its checkpoint, or its seed, again.

    Args:
        result: The job's result file.
        backbone: The backbone, before training.
        model: The model, before training.
    """

    def __init__(self, result: Path, backbone: nn.Module, model: MultiLabelModel) -> None:
        self.result = result
        self._built = weights_digest(backbone)
        self._untrained = weights_digest(model.backbone)

    def keep(self, experience: int, model: MultiLabelModel) -> None:
        """Write the model as it is after an experience, counted from 0.

        Raises:
            CmlBenchError: If the file cannot be written.
        """
        still = weights_digest(model.backbone) == self._untrained
        # Cloned: safetensors refuses tensors that share memory.
        tensors = {
            name: value.detach().cpu().contiguous().clone()
            for name, value in model.state_dict().items()
            if not (still and name.startswith(_BACKBONE))
        }
        about = {
            "labels": json.dumps(model.head.label_names),
            "growth": json.dumps(model.head.growth),
            "backbone": self._built,
        }
        path = snapshot_path(self.result, experience)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, lambda file: file.write(save(tensors, about)))
        except OSError as error:
            raise CmlBenchError(
                f"model {path} cannot be written ({error.strerror}): free space, or run without --save-models"
            ) from None


@dataclass(frozen=True, eq=False)
class SavedRun:
    """A result whose models were kept, and what it takes to build them.

    Attributes:
        path: The result file.
        result: Its content.
        plan: The resolved job.
        sources: Training and test images.
        backbone: The backbone as it was before training.
    """

    path: Path
    result: dict[str, Any]
    plan: Plan
    sources: tuple[Source, Source]
    backbone: Backbone

    @property
    def n_seen(self) -> list[int]:
        """Labels seen after each experience."""
        return list(self.result["benchmark"]["n_seen"])

    @property
    def label_names(self) -> list[str]:
        """All labels in arrival order."""
        return list(self.result["benchmark"]["label_names"])

    def model(self, experience: int) -> MultiLabelModel:
        """Return the model after an experience, counted from 0, in evaluation mode; runs nothing that its file holds.

        Raises:
            CmlBenchError: If its file is missing or damaged, or does not fit.
        """
        path = snapshot_path(self.path, experience)
        tensors, about = _read(path)
        if weights_digest(self.backbone) != about["backbone"]:
            raise CmlBenchError(
                f"the backbone of {self.path} comes out with other weights, as a random one does with another version "
                "of torch: run the job again with --save-models"
            )
        # A copy: what a model learnt of its backbone must not reach the next one.
        model = make_model(self.plan, copy.deepcopy(self.backbone))
        model.train()
        names = tuple(json.loads(about["labels"]))
        with isolated(0, torch.get_num_threads()):
            for seen in accumulate(json.loads(about["growth"])):
                model.adaptation(_arrival(names[:seen]))
        try:
            fits = model.load_state_dict(tensors, strict=False)
            wrong = [name for name in fits.missing_keys if not name.startswith(_BACKBONE)] + fits.unexpected_keys
        except RuntimeError as error:
            wrong = [" ".join(str(error).split())]
        if wrong:
            raise CmlBenchError(
                f"{path} does not fit the model of its job ({wrong[0]}): run the job again with --save-models"
            )
        model.eval()
        return model


def open_run(path: Path, options: list[str] | None = None, *, trust: bool = False) -> SavedRun:
    """Open a result for building its models.

    Args:
        path: Result file, or a folder with one result that has models.
        options: ``key=value`` that win over the job's own, for data or weights that have moved (``root``,
            ``checkpoint``).
        trust: Run the code that the result names outside the suite (``./file.py:Class``, ``module:Class``).

    Raises:
        CmlBenchError: If there is no such result, it has no models or no images, the weights are others, or it names
            such code.
    """
    path = find_run(path)
    with nullcontext() if trust else only_known():
        try:
            return _open(path, options)
        except UnknownCodeError as error:
            raise CmlBenchError(f"{path} names {error}: look at that code, then give --trust to run it") from None


def _open(path: Path, options: list[str] | None) -> SavedRun:
    try:
        result = json.loads(read_plain(path))
        job = result["job"]
        if result["status"] != "ok":
            raise CmlBenchError(f"{path} is the result of a job that failed ({result['error']}): take another")
        moved = dict(parse_pairs(options or []))
        told = {**job["benchmark_options"], **job["locations"], **moved}
        pairs = tuple(sorted(told.items()))
        resolved = plan(Job(job["benchmark"], job["method"], job["class_order"], job["seed"], pairs))
        expected = result["backbone"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CmlBenchError(f"{path} is no result file ({error!r:.300}): give the .json of a job") from None
    sources = load_sources(resolved.benchmark)
    with isolated(job["seed"], resolved.training.threads):
        backbone = make_backbone(resolved, sources)
    if not isinstance(backbone, Backbone):
        raise CmlBenchError(f"{path} was made from feature vectors, and there are no images to look at: take another")
    if backbone.record["sha256"] != expected:
        raise CmlBenchError(
            f"checkpoint {resolved.training.checkpoint} is not the file that {path} was made with (sha256 "
            f"{backbone.record['sha256']}, not {expected}): give that file with --set checkpoint=FILE"
        )
    return SavedRun(path, result, resolved, sources, backbone.eval())


def find_run(path: Path) -> Path:
    """Return the result file that is meant, which has models beside it.

    Raises:
        CmlBenchError: If there is none, or more than one.
    """
    if path.is_dir():
        every = sorted(path.rglob("*.json"))
        found = [each for each in every if snapshot_path(each, 0).is_file()]
        if len(found) > 1:
            some = ", ".join(str(each) for each in found[:3])
            raise CmlBenchError(f"{path} holds {len(found)} results with models ({some} ...): give one of these files")
        if not found:
            raise CmlBenchError(f"{path} holds no result with models ({len(every)} without): run with --save-models")
        return found[0]
    if not path.is_file():
        raise CmlBenchError(f"result {path} does not exist: give the .json of a job, or a results folder")
    if not snapshot_path(path, 0).is_file():
        raise CmlBenchError(f"{path} has no models beside it: run the same command again with --save-models")
    return path


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CmlBenchError(f"model {path} cannot be read ({error}): run the job again with --save-models") from None
    for key in ("labels", "growth", "backbone"):
        if key not in about:
            raise CmlBenchError(f"model {path} does not say its {key}: run the job again with --save-models")
    return tensors, about


def _arrival(names: tuple[str, ...]) -> Any:
    """Return what a model looks at when it grows: an experience that says which labels have been seen."""
    return SimpleNamespace(dataset=SimpleNamespace(labels=SimpleNamespace(names=names)))
