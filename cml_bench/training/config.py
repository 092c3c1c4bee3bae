"""How a learner is trained: the settings that all methods of a table share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from cml_bench.errors import CmlBenchError, suggest
from cml_bench.training.federation import parse_federation

Optimizer = Literal["adamw", "adam", "sgd"]
Schedule = Literal["constant", "cosine", "one_cycle"]
Precision = Literal["float32", "bf16"]


@dataclass(frozen=True)
class TrainingConfig:
    """Backbone and optimisation settings, the same for every method of a table unless a method overrides them.

    Attributes:
        backbone: Any timm model name.
        backbone_options: Keyword arguments for timm, as sorted ``(name, value)`` pairs.
        checkpoint: Weights file of the backbone; None for random weights.
        pretrained_on: What the checkpoint was trained on, where the file does not say.
        image_size: Side of the square input in pixels; None for the backbone's own.
        frozen: Train the head alone, on features computed once and cached.
        augment: Random resized crops (and flips, see ``flip``) in training; ``strong`` for RandAugment and Cutout (and
            flips) of the whole image instead; not with ``frozen``.
        flip: Whether a mirrored image keeps its labels.
        cache: ``pixels`` reads, decodes and resizes every image once for all jobs, into one file that is mapped into
            memory, and augments whole batches; not with ``frozen``, which caches features.
        epochs: Passes over each experience.
        batch_size: Images of the stream a step.
        optimizer: ``adamw``, ``adam`` or ``sgd`` (momentum 0.9).
        lr: Peak learning rate.
        weight_decay: Weight decay of all trained parameters, biases and norms included; not of a criterion's own.
        schedule: Learning rate within each experience: ``constant``, ``cosine`` (to 0) or ``one_cycle``.
        eval_batch_size: Images a step where nothing is trained.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        devices: Processes that share a job, each with a GPU of its own or all on the CPU; the backbone is divided among
            them.
        precision: ``bf16`` computes backbone and head in bfloat16 where autocast finds that safe; parameters, losses,
            optimiser, cached features and checkpoints are float32 all the same, so gradients need no scaling.
        compile: Compile the backbone (``torch.compile``); takes a minute or so once a job, and on a CPU a C++ compiler.
        threads: CPU threads of the job; part of what determines the result bit for bit.
        num_workers: Threads that read and decode images; None for one a core while a cache is filled, which others
            wait for, and else as many as ``threads``. Does not change the result.
        federated: Clients that train in rounds, as in ``"clients=5 rounds=3"`` (see ``Federation``); None for one
            learner. ``epochs`` are those of a round then.
    """

    backbone: str = "resnet18"
    backbone_options: tuple[tuple[str, str | int | float | bool | tuple[int, ...]], ...] = ()
    checkpoint: str | None = None
    pretrained_on: str | None = None
    image_size: int | None = None
    frozen: bool = False
    augment: bool | Literal["strong"] = False
    flip: bool = True
    cache: Literal["pixels"] | None = None
    epochs: int = 10
    batch_size: int = 64
    optimizer: Optimizer = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.01
    schedule: Schedule = "one_cycle"
    eval_batch_size: int = 256
    device: str = "cpu"
    devices: int = 1
    precision: Precision = "float32"
    compile: bool = False
    threads: int = 1
    num_workers: int | None = None
    federated: str | None = None

    def __post_init__(self) -> None:
        """Refuse settings that cannot train."""
        for name, options in (("optimizer", Optimizer), ("schedule", Schedule), ("precision", Precision)):
            value = getattr(self, name)
            if value not in get_args(options):
                raise CmlBenchError(f"{name}={value!r} is unknown: {suggest(str(value), get_args(options))}")
        for name in ("epochs", "batch_size", "eval_batch_size", "devices", "threads", "num_workers", "image_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise CmlBenchError(f"{name}={value} must be at least 1")
        if not self.lr > 0:
            raise CmlBenchError(f"lr={self.lr} must be positive")
        if not self.weight_decay >= 0:
            raise CmlBenchError(f"weight_decay={self.weight_decay} must be at least 0")
        if self.federated is not None:
            parse_federation(self.federated)
        if self.frozen and self.augment:
            raise CmlBenchError("frozen=true trains on cached features, which cannot be augmented: set augment=false")
        if self.devices > 1:
            self._check_division()
        if self.frozen and self.compile:
            raise CmlBenchError(
                "compile=true compiles the backbone, which frozen=true runs once for all jobs: leave it out"
            )
        if self.frozen and self.cache:
            raise CmlBenchError(
                f"frozen=true reads no images in training, and cache={self.cache} keeps them: leave it out"
            )

    def _check_division(self) -> None:
        """Refuse what cannot be divided among devices."""
        among = f"devices={self.devices} divides the backbone"
        if self.frozen:
            raise CmlBenchError(f"{among}, which frozen=true does not train: set devices=1")
        if self.compile:
            raise CmlBenchError(
                f"{among} anew for every batch size, and compile=true would compile each: give one of the two"
            )
        if self.federated:
            raise CmlBenchError(f"{among} of one learner, and federated={self.federated!r} has several: set devices=1")
        if ":" in self.device:
            raise CmlBenchError(f"{among} among several, and device={self.device} is one of them: set device=cuda")


TRAINING_KEYS = frozenset(field.name for field in fields(TrainingConfig))
"""Names of all training settings, for telling them from a strategy's own options."""
