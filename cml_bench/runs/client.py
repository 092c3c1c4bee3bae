"""One client of a federation: a learner that stops after each round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from avalanche.benchmarks import DatasetExperience
from avalanche.core import SupervisedPlugin
from avalanche.training.templates.base_sgd import BaseSGDTemplate
from torch import Tensor, nn

from cml_bench.errors import CmlBenchError
from cml_bench.runs.plan import Plan
from cml_bench.runs.setup import make_learner
from cml_bench.training.context import RunContext
from cml_bench.training.federation import Federation
from cml_bench.training.rounds import HearsOfRounds, LearntLabels, ProximalPlugin
from cml_bench.training.strategy import Strategy
from cml_bench.training.template import MultiLabelTemplate

Received = Mapping[str, Tensor]
"""The server's weights by name."""


class Client:
    """A learner that shares its model with those of other clients, and trains a round at a time.

    Args:
        plan: The resolved method.
        run: The client's context; its model is everyone's.
        stream: What the client has at each stage.
        extra: Plugins of the caller.
        settings: The federation.

    Attributes:
        learner: The Avalanche strategy object.
        experiences: What it trains on at the current stage; empty if there is nothing.
        images: Number of images in them.
        learnt: Which labels it has been taught at the current stage.
        hooks: What its plugins listen with while it is another's turn: a module's forward hooks by number.
    """

    def __init__(
        self,
        plan: Plan,
        run: RunContext,
        stream: Iterator[Sequence[DatasetExperience]],
        extra: Sequence[SupervisedPlugin],
        settings: Federation,
    ) -> None:
        self.learnt = LearntLabels()
        near = [ProximalPlugin(settings.mu)] if settings.mu else []
        self.learner = make_learner(plan, run, [*extra, *near, self.learnt])
        if type(self.learner)._train_exp not in (BaseSGDTemplate._train_exp, MultiLabelTemplate._train_exp):
            raise CmlBenchError(
                f"strategy {plan.method.strategy} has a training loop of its own, which cannot stop after a round: "
                "leave federated out"
            )
        self.experiences: Sequence[DatasetExperience] = ()
        self.images = 0
        self._settings, self._strategy = settings, plan.method.strategy
        self._curriculum = iter(plan.learner.curriculum(stream, run) if isinstance(plan.learner, Strategy) else stream)
        self._epochs = run.training.epochs
        self._stage, self._rounds, self._round = -1, 0, 0
        self.hooks: dict[nn.Module, dict[int, Any]] = {}

    def prepare(self, stage: int, rounds: int, done: int) -> None:
        """Look at what there is to train on at a stage, in so many rounds, some of which may have been done.

        Raises:
            CmlBenchError: If the curriculum ends before the stream does.
        """
        for _ in range(self._stage, stage):
            chunks = next(self._curriculum, None)
            if chunks is None or len(chunks) > 1:
                count = "no item" if chunks is None else f"{len(chunks)} datasets"
                raise CmlBenchError(
                    f"strategy {self._strategy} yielded {count} for an experience: in a federation its curriculum must "
                    "yield one, with at most one dataset"
                )
            self.experiences = [experience for experience in chunks if len(experience.dataset)]
        self._stage = stage
        self.images = sum(len(experience.dataset) for experience in self.experiences)
        self._rounds, self._round = rounds, done

    def train(self, received: Received) -> None:
        """Train one round on the received weights, which the model has by now."""
        learner = self.learner
        self._wake()
        if self._round == 0:
            self._begin()
        hearing = [plugin for plugin in learner.plugins if isinstance(plugin, HearsOfRounds)]
        for plugin in hearing:
            plugin.start_round(learner, received)
        if self._settings.optimizer == "fresh":
            learner.optimizer.state.clear()
        # A strategy may have set how many epochs it takes altogether; they are spread over the rounds.
        done, self._round = self._round, self._round + 1
        for _ in range(learner.train_epochs * done // self._rounds, learner.train_epochs * self._round // self._rounds):
            learner._before_training_epoch()
            learner.training_epoch()
            learner._after_training_epoch()
        for plugin in hearing:
            plugin.end_round(learner)
        # Else the graph of the last batch waits for the next round, with every client.
        learner.loss, learner.mb_output = learner.loss.detach(), None
        if isinstance(learner, MultiLabelTemplate):
            learner.head_output = learner.second_view = None
        self._sleep()

    def _begin(self) -> None:
        """Do what ``learner.train`` does before the first epoch."""
        learner = self.learner
        (experience,) = self.experiences
        learner.train_epochs = self._epochs * self._rounds
        learner.is_training, learner._stop_training, learner._eval_streams = True, False, []
        learner._before_training()
        learner.experience = experience
        learner._before_training_exp()
        self.learnt.start(experience.dataset.labels.data, learner.model.head.n_labels)

    def end(self, received: Received) -> None:
        """Do what ``learner.train`` does after the last epoch, with the averaged model."""
        self._wake()
        self.learner._after_training_exp()
        self.learner._after_training()
        self.learner._train_cleanup()
        self._sleep()

    def _sleep(self) -> None:
        """Let go of gradients; take what its plugins listen with off the model: others are not to hear or copy it.

        What a phase of its criterion has frozen is put back, too; the next epoch of that phase freezes it again.
        """
        self.learner.optimizer.zero_grad()
        if isinstance(self.learner, MultiLabelTemplate):
            self.learner._criterion.end_experience(self.learner.model)
        for module in self.learner.model.modules():
            if module._forward_hooks:
                self.hooks[module] = dict(module._forward_hooks)
                module._forward_hooks.clear()

    def _wake(self) -> None:
        """Put it back, and find who listens to the learner: a checkpoint holds none of that."""
        for module, hooks in self.hooks.items():
            module._forward_hooks.update(hooks)
        self.hooks.clear()
        if isinstance(self.learner, MultiLabelTemplate):
            self.learner._find_callbacks()
