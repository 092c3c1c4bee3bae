"""BiC: two numbers that take the bias out of the logits of new labels, fitted on images kept out of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from avalanche.benchmarks import CLExperience
from avalanche.core import SupervisedPlugin
from pydantic import Field, PositiveFloat
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor, nn

from cml_bench.labels import PRESENT, is_known
from cml_bench.memory.budget import MemorySize, split_size
from cml_bench.memory.label_balanced import LabelBalancedMemory
from cml_bench.models.heads.head import Head, HeadOutput
from cml_bench.models.model import MultiLabelModel
from cml_bench.models.reading import read_logits
from cml_bench.streams.dataset import MultiLabelDataset
from cml_bench.streams.timeline import ends_experience
from cml_bench.training.context import RunContext
from cml_bench.training.rehearsal import Rehearsal
from cml_bench.training.relabel import Reader, look, make_reader
from cml_bench.training.replay import ReplayPlugin
from cml_bench.training.strategy import StrategyMeta
from cml_bench.training.teacher import TeacherPlugin

from .lwf import sigmoid_distillation

__all__ = ["BiC"]

_SCALES = (0.1, 10.0)
"""Where alpha is looked for: held-out labels that a threshold separates have no finite best one."""


@dataclass(frozen=True)
class BiC(Rehearsal):
    """Distil and rehearse; then fit ``alpha z + beta`` for logits z of new labels on images kept out of training.

    Source: Wu et al. 2019, arXiv 1905.13260. Its loss is ``lambda L_d + (1 - lambda) L_c`` with
    ``lambda = n_old / n_seen``: L_c the criterion's, L_d the cross-entropy of the old labels' probabilities with the
    old model's, corrected as that one predicts, both at a temperature. After each experience but the first, alpha and
    beta are fitted with the model held still.

    Published multi-label tables have a row of BiC and do not say what it is. Inferred: one sigmoid a label, so that
    ``L_d = mean KL(sigmoid(t / temperature) || sigmoid(z / temperature))``, that cross-entropy less a constant, over
    all entries of old labels, annotated or not, t being the old model's logits, and the fit a logistic regression of
    all known entries of the new labels on their logits, alpha between 0.1 and 10; the balanced memory,
    ``LabelBalancedMemory``; that every image of the stream is kept out by chance, with the share of the paper's split.
    As labels are annotated, old images say nothing of new labels (``relabel=oracle`` changes that); then what is
    corrected is how sure the model is of labels that it has trained on.

    **With one sigmoid a label, alpha > 0 and beta move no label's images past each other: no label's average precision
    changes, nor does mAP. What changes is all that compares a logit with a threshold or with other labels' (F1, overall
    AP), and what the next model is taught.**

    Departures: a correction stays in place when further labels come (the paper drops it, and has the next model learn
    corrected probabilities without it), so that no old logit jumps; pseudo-labels are never fitted to.

    Attributes:
        held_out: Share of the stream's images, and of the memory, that is fitted to and never trained on. At least one
            stored image is: of a memory of one, that one, so that nothing is rehearsed.
        temperature: Divides both logits in L_d.
    """

    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    temperature: PositiveFloat = 2.0

    meta = StrategyMeta(name="bic", title="BiC", family="replay", reference="arXiv:1905.13260")

    def build_model(self, backbone: nn.Module | None, head: Head) -> MultiLabelModel:
        """Return a model that corrects what the head says."""
        return CorrectedModel(backbone, head)

    def memory(self, run: RunContext) -> LabelBalancedMemory:
        """Return the memory to rehearse."""
        return self._part(run, split_size(self.memory_size, self.held_out)[0], held_out=False)

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the plugin that rehearses, and the one that distils and corrects."""
        size = split_size(self.memory_size, self.held_out)[1]
        reader = make_reader("oracle" if self.relabel == "oracle" else "as_stored", run, self.store)
        correction = CorrectionPlugin(self._part(run, size, held_out=True), reader, self.temperature)
        return [TrainedReplay(*self.parts(run)), correction]

    def _part(self, run: RunContext, size: MemorySize, *, held_out: bool) -> Part:
        # Nothing is kept out of training if there is no place to keep it.
        share = self.held_out if self.memory_size else 0.0
        purpose = "held-out memory" if held_out else "memory"
        return Part(size, run.generator(purpose), share, run.generator("held out"), held_out=held_out)


class CorrectedModel(MultiLabelModel):
    """A model whose labels have two numbers for each experience, alpha and beta: ``alpha z + beta`` is the logit.

    Attributes:
        corrections: (2,) alpha and beta, for the labels of each growth; 1 and 0 to begin with, and not trained.
        sizes: Number of labels of each growth.
    """

    def __init__(self, backbone: nn.Module | None, head: Head) -> None:
        super().__init__(backbone, head)
        self.corrections = nn.ParameterList()
        self.sizes: list[int] = []

    def adaptation(self, experience: CLExperience) -> None:
        """Grow, and begin without a correction for the new labels."""
        known = self.head.n_labels
        super().adaptation(experience)
        if self.head.n_labels > known:
            device = next(self.head.parameters()).device
            nothing = torch.tensor([1.0, 0.0], device=device)
            self.corrections.append(nn.Parameter(nothing, requires_grad=False))
            self.sizes.append(self.head.n_labels - known)

    def head_output(self, x: Tensor) -> HeadOutput:
        """Return what the head says, with corrected logits."""
        output = super().head_output(x)
        sizes = torch.tensor(self.sizes, device=output.logits.device)
        alpha, beta = torch.stack(list(self.corrections)).repeat_interleave(sizes, dim=0).unbind(dim=1)
        return output._replace(logits=output.logits * alpha + beta)


class Part(LabelBalancedMemory):
    """One of the two parts of a memory: the images to train on, or those kept out of training.

    Which image is kept out is drawn for all images of the source at once, so that it is the same for both parts, and
    whenever and however often an image comes.
    """

    def __init__(
        self, size: MemorySize, generator: torch.Generator, share: float, draws: torch.Generator, *, held_out: bool
    ) -> None:
        super().__init__(size, generator)
        self.share = share
        self.held_out = held_out
        self._draws = draws
        self._kept_out = torch.empty(0, dtype=torch.bool)

    def own(self, dataset: MultiLabelDataset) -> MultiLabelDataset:
        """Return the images of a dataset that are this part's."""
        if not len(self._kept_out):
            self._kept_out = torch.rand(len(dataset.inputs), generator=self._draws) < self.share
        mine = self._kept_out[dataset.sample_ids.data] == self.held_out
        return dataset if bool(mine.all()) else dataset.subset(mine.nonzero()[:, 0].tolist())

    def update_from_dataset(self, dataset: MultiLabelDataset) -> None:
        """Show the part its own images of a dataset."""
        super().update_from_dataset(self.own(dataset))


class TrainedReplay(ReplayPlugin):
    """Trains on the images that are not kept out, and on a memory of them."""

    buffer: Part

    def after_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Leave out what is kept out."""
        strategy.adapted_dataset = self.buffer.own(strategy.adapted_dataset)


class CorrectionPlugin(TeacherPlugin):
    """Mixes in the distillation loss, and fits the correction of the new labels when an experience ends."""

    def __init__(self, held_out: Part, reader: Reader, temperature: float) -> None:
        super().__init__()
        self.held_out = held_out
        self.reader = reader
        self.temperature = temperature

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Weigh the criterion's loss and the distillation of all old labels by the numbers of labels."""
        if self.n_old:
            logits, taught = strategy.mb_output, self.teach(strategy.mb_x).logits
            old = logits[:, : self.n_old] / self.temperature
            distilled = sigmoid_distillation(old, taught / self.temperature, torch.ones_like(taught, dtype=torch.bool))
            share = self.n_old / logits.shape[1]
            strategy.loss = share * distilled + (1 - share) * strategy.loss

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Keep held-out images; at the end of an experience fit the correction, and copy the corrected model."""
        self.held_out.post_adapt(strategy, strategy.experience)
        look(self.reader, strategy, self.held_out.buffer)
        if ends_experience(strategy.experience) and self.n_old and len(self.held_out.buffer):
            stored = self.reader(self.held_out.buffer, strategy.experience.dataset.labels.names)
            logits = read_logits(strategy.model, stored, strategy.eval_mb_size, strategy.device).cpu()
            new = slice(self.n_old, None)
            found = fit_correction(logits[:, new], stored.labels.data[:, new])
            strategy.model.corrections[-1].data.copy_(torch.tensor(found))
        super().after_training_exp(strategy, **kwargs)


def fit_correction(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the alpha and beta under which (N, n) logits best predict (N, n) four-state labels, by cross-entropy.

    Only known entries count; without one that is present and one that is absent there is nothing to fit: 1 and 0.
    """
    known = is_known(labels)
    z, y = logits[known].double().numpy(), (labels[known] == PRESENT).double().numpy()
    if not 0 < y.sum() < len(y):
        return 1.0, 0.0

    def cross_entropy(numbers: Any) -> tuple[float, Any]:
        corrected = numbers[0] * z + numbers[1]
        miss = expit(corrected) - y
        loss = np.logaddexp(0, corrected) - y * corrected
        return float(loss.mean()), np.array([(miss * z).mean(), miss.mean()])

    start = np.array([1.0, 0.0])
    found = minimize(cross_entropy, start, jac=True, method="L-BFGS-B", bounds=[_SCALES, (None, None)], tol=1e-12).x
    return float(found[0]), float(found[1])
