"""Avalanche's training loop for multi-label streams, at the speed of a bare loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from avalanche.benchmarks import DatasetExperience
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor

from cml_bench.errors import CmlBenchError
from cml_bench.losses.criterion import Criterion
from cml_bench.models.heads.head import HeadOutput
from cml_bench.models.model import MultiLabelModel, nothing_learnt
from cml_bench.streams.dataset import Batch, MultiLabelDataset
from cml_bench.streams.loading import BatchLoader, Resumable

SafePoint = Literal["step", "epoch", "round", "chunk", "experience"]
"""What a learner, or a federation, has just finished when it can be stored."""


def _trigger(event: str) -> Callable[..., None]:
    """Return a template method that calls the plugins which have something to do at an event."""

    def call(self: MultiLabelTemplate, **kwargs: Any) -> None:
        for callback in self._callbacks.get(event, ()):
            callback(self, **kwargs)

    return call


_OF_A_STEP = ("mbatch", "mb_output", "head_output", "second_view")

_ITERATION_EVENTS = (
    "before_training_iteration",
    "before_forward",
    "after_forward",
    "before_backward",
    "after_backward",
    "before_update",
    "after_update",
    "after_training_iteration",
)


class MultiLabelTemplate(SupervisedTemplate):
    """``SupervisedTemplate`` with four-state labels, whole-batch loading and a growing head.

    Differences from upstream: batches come from ``BatchLoader`` (private shuffling, one gather a batch); per-iteration
    events go only to plugins that handle them (upstream asks every plugin for every event, which costs more than the
    arithmetic of a linear head); the criterion sees the whole ``HeadOutput``, the sample ids and the epoch; a loss that
    is not finite ends the run with a sentence; and training can be stored after each step and gone on with from there.

    Attributes:
        head_output: What the head said of the current batch.
        second_view: What it said of another augmentation of it, where the criterion compares views; else None.
        epoch_loss: Mean loss of the last finished epoch.
        in_epoch: Whether an epoch has begun that has not ended.
        at_safe_point: Called wherever training can be stored.
    """

    _stop_training: bool

    def __init__(
        self,
        *,
        model: MultiLabelModel,
        optimizer: torch.optim.Optimizer,
        criterion: Criterion,
        train_mb_size: int,
        train_epochs: int,
        eval_mb_size: int,
        generator: torch.Generator,
        device: str | torch.device = "cpu",
        plugins: list[SupervisedPlugin] | None = None,
        evaluator: EvaluationPlugin | None = None,
    ) -> None:
        # An evaluator without metrics and loggers is idle; building one warns, so give it a silent logger list.
        super().__init__(
            model=model,
            optimizer=optimizer,
            criterion=criterion,
            train_mb_size=train_mb_size,
            train_epochs=train_epochs,
            eval_mb_size=eval_mb_size,
            device=device,
            plugins=plugins,
            evaluator=evaluator or EvaluationPlugin(loggers=[_SilentLogger()]),
            eval_every=-1,
        )
        self.generator = generator
        self.head_output: HeadOutput | None = None
        self.second_view: HeadOutput | None = None
        self.epoch_loss = math.nan
        self.at_safe_point: Callable[[SafePoint], None] = pass_by
        # Of the current epoch: those of the last steps as the device has them, before that as numbers.
        self._losses: list[Tensor] = []
        self._losses_read: list[float] = []
        self.in_epoch = self._steps_are_safe = False
        self._callbacks: dict[str, tuple[Callable[..., None], ...]] = {}

    # -- plugins -------------------------------------------------------------------------------------------------

    def _before_training(self, **kwargs: Any) -> None:
        self._find_callbacks()
        super()._before_training(**kwargs)

    def _find_callbacks(self) -> None:
        self._callbacks = {event: tuple(self._handlers(event)) for event in _ITERATION_EVENTS}

    def _handlers(self, event: str) -> list[Callable[..., None]]:
        idle = (
            isinstance(self.evaluator, EvaluationPlugin)
            and not self.evaluator.metrics
            and all(isinstance(logger, _SilentLogger) for logger in self.evaluator.loggers)
        )
        handlers = []
        for plugin in self.plugins:
            if plugin is self.evaluator and idle:
                continue
            inherited = getattr(type(plugin), event, None) is getattr(SupervisedPlugin, event, None)
            # The evaluator answers to every event through __getattribute__, without a method on its class.
            if hasattr(plugin, event) and (not inherited or plugin is self.evaluator):
                handlers.append(getattr(plugin, event))
        return handlers

    _before_training_iteration = _trigger("before_training_iteration")
    _before_forward = _trigger("before_forward")
    _after_forward = _trigger("after_forward")
    _before_backward = _trigger("before_backward")
    _after_backward = _trigger("after_backward")
    _before_update = _trigger("before_update")
    _after_update = _trigger("after_update")

    def _after_training_iteration(self, **kwargs: Any) -> None:
        self._losses.append(self.loss.detach())
        for callback in self._callbacks.get("after_training_iteration", ()):
            callback(self, **kwargs)
        if self._steps_are_safe:
            self.at_safe_point("step")

    # -- data ----------------------------------------------------------------------------------------------------

    def make_train_dataloader(self, **kwargs: Any) -> None:
        """Shuffle with the run's own generator and fetch whole batches."""
        assert isinstance(self.adapted_dataset, MultiLabelDataset)
        self.dataloader = BatchLoader(self.adapted_dataset, self.train_mb_size, generator=self.generator)

    def make_eval_dataloader(self, **kwargs: Any) -> None:
        """Fetch whole batches in order."""
        assert isinstance(self.adapted_dataset, MultiLabelDataset)
        self.dataloader = BatchLoader(self.adapted_dataset, self.eval_mb_size)

    @property
    def mb_sample_id(self) -> Tensor:
        """(B,) stable ids of the current batch."""
        assert isinstance(self.mbatch, Batch)
        return self.mbatch.sample_id

    def _unpack_minibatch(self) -> None:
        """Bring the batch to the device; from pinned memory a GPU fetches it while the program goes on."""
        if torch.device(self.device).type == "cuda":
            self.mbatch[:] = [part if part.is_cuda else part.pin_memory() for part in self.mbatch]
        super()._unpack_minibatch()

    # -- model and loss ------------------------------------------------------------------------------------------

    def forward(self) -> Tensor:
        """Keep all that the head says; hand its logits on. A criterion that compares views gets a second one."""
        if self.model.training and self.adapted_dataset.inputs.augments and self._criterion.views == 2:
            again = self._fetch_again().to(self.device)
            both = self.model.head_output(torch.cat([self.mb_x, again]))
            self.head_output, self.second_view = both.rows(slice(len(again))), both.rows(slice(len(again), None))
        else:
            self.head_output, self.second_view = self.model.head_output(self.mb_x), None
        return self.head_output.logits

    def _fetch_again(self) -> Tensor:
        """Return other augmentations of the batch's images, of replayed ones from the memory that they came from."""
        assert isinstance(self.mbatch, Batch)
        if self.mbatch.again is not None:
            return self.mbatch.again()
        again: Tensor = self.adapted_dataset.inputs.fetch(self.mb_sample_id, training=True)
        return again

    def _make_empty_loss(self) -> Tensor:
        # A scalar, as criteria and plugins return it; upstream's has one entry, which costs a reduction a step.
        return torch.zeros((), device=self.device)

    def criterion(self) -> Tensor:
        """Return the loss of the current batch."""
        epoch = self.clock.train_exp_epochs
        loss: Tensor = self._criterion(self.head_output, self.mb_y, self.mb_sample_id, epoch, self.second_view)
        if loss.dim():
            raise CmlBenchError(
                f"{type(self._criterion).__name__} returned a loss of shape {tuple(loss.shape)}: return one number, "
                "the mean over known entries, say"
            )
        if self.is_training and not loss.requires_grad:
            parts = [*self.model.parameters(), *self._criterion.parameters()]
            if not any(parameter.requires_grad for parameter in parts):
                raise CmlBenchError(
                    "nothing is left to train: the strategy froze all that the model has, and the head has nothing of "
                    "its own for new labels; take another head or strategy"
                )
        return loss

    def model_adaptation(self, model: Any = None) -> Any:
        """Let the model grow. Before the first experience it may have labels already, which nobody has trained."""
        if self.clock.train_exp_counter:
            return super().model_adaptation(model)
        with nothing_learnt(model or self.model):
            return super().model_adaptation(model)

    def check_model_and_optimizer(self, **kwargs: Any) -> None:
        """Let the model and the criterion grow, and optimise what they have come to need."""
        super().check_model_and_optimizer(**kwargs)
        self.start_criterion()

    def start_criterion(self) -> None:
        """Show the criterion what is going to be trained on, and optimise the parameters that it has come to need.

        Once an experience, and once a chunk of an online one: not a part of ``make_optimizer``, which upstream calls
        twice for the first experience, and for no chunk but the first.
        """
        for layer in self._criterion.with_bases:
            layer.eval_batch_size = self.eval_mb_size
        self._criterion.start_experience(self.adapted_dataset)
        # A strategy that keeps images back may leave nothing to look at.
        if len(self.adapted_dataset):
            self._criterion.build(self.model, self.adapted_dataset)
        self._criterion.to(self.device)
        groups = self.optimizer.param_groups
        present = {id(p) for group in groups for p in group["params"]}
        # Inner ones first, each at its own rate: what is left of an outer one's parameters is its own.
        for layer in reversed(self._criterion.with_bases):
            fresh = [p for p in layer.parameters() if id(p) not in present]
            present |= {id(p) for p in fresh}
            alike = next((group for group in groups if group.get("lr_factor") == layer.lr_factor), None)
            if alike is not None:
                alike["params"].extend(fresh)
            elif fresh:
                self.optimizer.add_param_group({"params": fresh, "lr_factor": layer.lr_factor, "weight_decay": 0.0})

    # -- training ------------------------------------------------------------------------------------------------

    def _train_exp(self, experience: DatasetExperience, eval_streams: Any = None, **kwargs: Any) -> None:
        """Train for the epochs that are left: upstream's loop, which can be entered in the middle."""
        for _ in range(self.clock.train_exp_epochs, self.train_epochs):
            if not self.in_epoch:
                self._before_training_epoch(**kwargs)
                if self._stop_training:
                    self._stop_training = False
                    break
            self.training_epoch(**kwargs)
            self._after_training_epoch(**kwargs)
            self.at_safe_point("epoch")

    def training_epoch(self, **kwargs: Any) -> None:
        """Run one epoch, or what is left of it, and keep its mean loss.

        Raises:
            CmlBenchError: If the loss became NaN or infinite.
        """
        self._steps_are_safe = isinstance(self.dataloader, Resumable)
        if self.in_epoch:
            self.dataloader.go_on()
        else:
            self._losses, self._losses_read, self.in_epoch = [], [], True
            if len(self.adapted_dataset):
                self._criterion.start_epoch(
                    self.model, self.adapted_dataset, self.clock.train_exp_epochs, self.train_epochs
                )
        super().training_epoch(**kwargs)
        self.in_epoch = False
        self._check_losses()
        self.epoch_loss = sum(self._losses_read) / max(1, len(self._losses_read))

    def _check_losses(self) -> None:
        """Read the losses of the last steps: once an epoch, or a GPU is stalled at every step."""
        done = len(self._losses_read)
        self._losses_read += torch.stack(self._losses).tolist() if self._losses else []
        self._losses = []
        # Counted from 1, as progress is.
        for step, loss in enumerate(self._losses_read[done:], start=done + 1):
            if not math.isfinite(loss):
                untrained = self.clock.train_exp_counter == self.clock.train_exp_epochs == 0 and step == 1
                mend = "nothing was learnt yet, so look at inputs, checkpoint and loss" if untrained else "lower lr"
                raise CmlBenchError(
                    f"the loss became {loss} in experience {self.clock.train_exp_counter + 1}, epoch "
                    f"{self.clock.train_exp_epochs + 1}, step {step} of {len(self.dataloader)} with "
                    f"lr={self.optimizer.param_groups[0]['lr']:g}: {mend}"
                )

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Put what belongs to the step just done (batch, output, loss, gradients) aside, to be stored without it.

        Raises:
            CmlBenchError: If a loss became NaN or infinite: there is nothing worth storing.
        """
        self._check_losses()
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in parameters]
        aside = {name: getattr(self, name) for name in (*_OF_A_STEP, "loss", "_callbacks")}
        for name in _OF_A_STEP:
            setattr(self, name, None)
        self.loss, self._callbacks = self._make_empty_loss(), {}
        for parameter in parameters:
            parameter.grad = None
        try:
            yield
        finally:
            for name, value in aside.items():
                setattr(self, name, value)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient

    def go_on(self) -> None:
        """Train to the end of the experience in which this learner was stored, as ``train`` would have."""
        self._find_callbacks()
        self._train_exp(self.experience, [])
        self._after_training_exp()
        self._after_training()
        self._train_cleanup()

    def _after_training_exp(self, **kwargs: Any) -> None:
        self._criterion.end_experience(self.model)
        super()._after_training_exp(**kwargs)

    def _train_cleanup(self) -> None:
        super()._train_cleanup()
        self.head_output = self.second_view = None
        self._callbacks = {}

    def _eval_cleanup(self) -> None:
        super()._eval_cleanup()
        self.head_output = self.second_view = None


def pass_by(point: SafePoint) -> None:
    """Store nothing."""


class _SilentLogger:
    """Keeps Avalanche from warning that nobody listens."""

    def log_metrics(self, metric_values: object) -> None:
        """Listen to nothing."""
