"""What a running job says, kept by an experiment tracker through Avalanche's loggers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from avalanche.logging import BaseLogger, TensorboardLogger, WandBLogger

from cml_bench.errors import CmlBenchError
from cml_bench.runs.events import Event
from cml_bench.runs.job import Job


class JobLog:
    """Hands the figures in a job's events to TensorBoard or Weights & Biases while it runs.

    The loss after every epoch and, after every experience, the metrics of the labels seen by then, with the epochs
    trained by then, by all learners, as x axis. Names follow Avalanche: ``Loss_Epoch/train_phase/train_stream``,
    ``map/eval_phase/test_stream``.

    Args:
        job: The job; ``job.log`` says which tracker.
        folder: Where TensorBoard's event files, or the files of W&B, are written.
        say: Called with a sentence for the user when the log cannot be written any more; the job goes on without.

    Raises:
        CmlBenchError: If the tracker cannot be started.
    """

    def __init__(self, job: Job, folder: Path, say: Callable[[str], object]) -> None:
        self._folder = folder
        self._say = say
        self._works = True
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._logger: BaseLogger = (
                _weights_and_biases(job, folder) if job.log == "wandb" else TensorboardLogger(folder)
            )
        except Exception as error:
            raise CmlBenchError(f"log {job.log} cannot be started in {folder} ({error}): leave out --log") from error

    def __enter__(self) -> JobLog:
        """Log until the block ends."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is still in memory and let go of the tracker."""
        if isinstance(self._logger, WandBLogger):
            self._logger.wandb.finish(exit_code=int(kind is not None))
        else:
            writer = self._logger.writer
            with self._harmless():
                writer.close()
            # Closed or not: Avalanche closes it once more when the process ends.
            writer.all_writers = writer.file_writer = None

    def __call__(self, event: Event) -> None:
        """Log the figures of one event, if it has any."""
        if self._works:
            with self._harmless():
                self._log(event)

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Let no full disk end a job for the sake of its log; say so once."""
        try:
            yield
        except OSError as error:
            if self._works:
                self._works = False
                self._say(f"log in {self._folder} cannot be written ({error.strerror}): the job goes on without it")

    def _log(self, event: Event) -> None:
        if event.loss is not None:
            self._logger.log_single_metric("Loss_Epoch/train_phase/train_stream", event.loss, event.step)
        for name, value in event.metrics.items():
            # TensorBoard's names know no @.
            tag = f"{name.replace('@', '_at_')}/eval_phase/test_stream"
            self._logger.log_single_metric(tag, value, event.step)


class _Numbers(WandBLogger):
    """Avalanche's logger asks W&B for a chart class that newer versions no longer have, before it logs a number."""

    def log_single_metric(self, name: str, value: float, x_plot: int) -> None:
        """Log one number."""
        self.wandb.log({name: value}, step=x_plot)


def _weights_and_biases(job: Job, folder: Path) -> WandBLogger:
    import wandb

    # A job that was stopped goes on in the same run.
    options: dict[str, Any] = {"id": job.key, "resume": "allow", "settings": wandb.Settings(silent=True)}
    return _Numbers(
        project_name="cml-bench",
        run_name=f"{job.method}, {job.class_order} order, seed {job.seed}",
        config=job.determinants,
        save_code=False,
        dir=folder,
        params=options,
    )
