"""GDumb: keep a balanced memory, and train on nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from avalanche.core import SupervisedPlugin
from avalanche.training.storage_policy import ExemplarsBuffer
from pydantic import PositiveInt

from cml_bench.memory.budget import MemorySize
from cml_bench.memory.label_balanced import LabelBalancedMemory
from cml_bench.memory.pixels import Store
from cml_bench.streams.dataset import merge
from cml_bench.streams.timeline import ends_experience
from cml_bench.training.context import RunContext
from cml_bench.training.relabel import Reader, Relabel, look, make_reader
from cml_bench.training.replay import read_memory
from cml_bench.training.strategy import Strategy, StrategyMeta

from .from_scratch import FreshStartPlugin

__all__ = ["GDumb"]


@dataclass(frozen=True)
class GDumb(Strategy):
    """Only store while the stream goes by; before each evaluation, train a fresh model on the memory alone.

    After experience t the model is ``train(theta_0, M_t)``, with theta_0 the untrained weights and M_t the memory,
    which is kept by the rule of ``er_balanced``.

    Source: Prabhu et al. 2020, ECCV, "GDumb: a simple approach that questions our progress in continual learning".
    Departures: the balanced memory is ``LabelBalancedMemory``, whose form for several labels is inferred (the paper's
    sampler takes no further image of a class that has its share); training is that of every other method of the table,
    where the paper has a recipe of its own (256 epochs, cosine restarts, CutMix). What matters of it in an online
    stream, which has one epoch, is ``memory_epochs``. Labels that a stored image was not annotated for are unknown to
    the criterion.

    Attributes:
        memory_size: Images in memory, or for each label seen so far as in ``20/label``.
        memory_epochs: Passes over the memory before each evaluation; None for the epochs of an experience.
        relabel: Labels of stored images, as for ``ER``: ``as_stored``, ``pseudo`` (or ``pseudo>0.8``) or ``oracle``.
        store: As for ``ER``: ``ids`` of stored images, or copies of their ``pixels``.
    """

    memory_size: MemorySize = 2000
    memory_epochs: PositiveInt | None = None
    relabel: Relabel = "as_stored"
    store: Store = "ids"

    meta = StrategyMeta(
        name="gdumb", title="GDumb", family="replay", reference="Prabhu et al., ECCV 2020", federated=False
    )

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the plugin that trains on the memory and the one that puts the untrained model back."""
        memory = LabelBalancedMemory(self.memory_size, run.generator("memory"))
        epochs = self.memory_epochs or run.training.epochs
        return [
            GDumbPlugin(memory, epochs, make_reader(self.relabel, run, self.store)),
            FreshStartPlugin(run),
        ]


class GDumbPlugin(SupervisedPlugin):
    """Puts the memory in the place of the experience.

    Avalanche's balances integer classes, and puts back a model whose head keeps what it had learnt.
    """

    def __init__(self, buffer: ExemplarsBuffer, epochs: int, reader: Reader) -> None:
        super().__init__()
        self.buffer = buffer
        self.epochs = epochs
        self.reader = reader

    def after_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Show the experience to the memory; train on the memory, and only once the experience is over."""
        self.buffer.post_adapt(strategy, strategy.experience)
        over = ends_experience(strategy.experience)
        memory = read_memory(self.buffer.buffer, strategy.experience.dataset.labels.names, self.reader)
        # In ascending order of id: what is learnt depends on what is stored, not on when it came.
        strategy.adapted_dataset = (merge([memory]) if over else memory.subset([])).train()
        strategy.train_epochs = self.epochs if over else 0

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Let the reader look at the memory."""
        look(self.reader, strategy, self.buffer.buffer)
