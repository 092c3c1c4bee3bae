"""Pseudo-labelling: the old model labels what nobody did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avalanche.core import SupervisedPlugin

from cml_bench.training.compensation import CompensationPlugin
from cml_bench.training.context import RunContext
from cml_bench.training.option_types import Probability
from cml_bench.training.pseudo_labels import BELOW, Below, DynamicCount, Kappa, PseudoLabelPlugin
from cml_bench.training.recall import RecallPlugin
from cml_bench.training.strategy import Strategy, StrategyMeta

__all__ = ["PseudoLabel"]


@dataclass(frozen=True)
class PseudoLabel(Strategy):
    """Train on the old model's labels where old labels are not annotated in new images.

    An unknown old label c of probability p by the old model is present where ``p > threshold``, absent where
    ``p < low`` (``two_sided``). With ``dynamic_count`` the threshold is such that ``kappa n_old`` old labels an image
    are over it, within 0.1; with ``mean_confidence`` c is present where ``p >= eps_c``, with ``confidence_entropy``
    where ``h(p) <= tau_c`` as well, eps_c and tau_c being the means of p and of its entropy h over c's annotated
    positives. ``compensate`` weighs the entries of old labels by ``|p - y| / mean |p - y|``.

    The common part of KRT, L3A and their like, on any head and criterion. ``two_sided`` is ours: only what the old
    model is sure of becomes a label. ``fixed`` and ``dynamic_count`` (KRT, arXiv 2302.13334) know a threshold for
    presence alone; the papers make absent whatever is not over it, which is ``below=zero``. Annotated entries are never
    changed, columns of new labels neither, and no memory and no other loss sees a pseudo-label.

    Two parts of KBK ("Knowing Beyond the Known", the journal extension of HCP, arXiv 2503.17017) are defined in public
    and stand alone: the rules ``mean_confidence`` (HCP, inferred) and ``confidence_entropy``, and ``compensate``, which
    balances the errors of past experiences. ``rule=confidence_entropy compensate=true below=zero loss=asl`` is both; it
    is not KBK, whose head, which purifies features and probes the unknown, is not defined in public.

    Attributes:
        rule: ``two_sided``, ``fixed``, ``dynamic_count``, which lets the threshold follow the number of labels that is
            expected in an image, or ``mean_confidence`` or ``confidence_entropy``, with a threshold for each label.
        threshold: Probability over which an entry is present; with ``dynamic_count`` where it starts from; not used by
            thresholds for each label.
        low: Probability under which an entry is absent, with ``two_sided``.
        below: Whether the rest stays unknown or is absent (``zero``), except with ``two_sided``.
        kappa: Labels expected in an image for each old label, or ``estimated``; with ``dynamic_count``. The estimate is
            too high, three to four times in the second experience where each brings one label that a third of images
            show, and less later (see ``DynamicCount``); a number has no such bias.
        compensate: Whether entries of old labels weigh what their error is relative to its mean, for each past
            experience, present and absent apart (see ``CompensationPlugin``).
    """

    rule: Literal["two_sided", "fixed", "dynamic_count", "mean_confidence", "confidence_entropy"] = "two_sided"
    threshold: Probability = 0.8
    low: Probability = 0.2
    below: Below = "unknown"
    kappa: Kappa = "estimated"
    compensate: bool = False

    meta = StrategyMeta(name="pseudo_label", title="Pseudo-labels", family="distillation")

    def plugins(self, run: RunContext) -> list[SupervisedPlugin]:
        """Return the pseudo-labelling plugin and, if asked for, the one that compensates."""
        rest = BELOW[self.below]
        if self.rule in ("mean_confidence", "confidence_entropy"):
            labelling: PseudoLabelPlugin = RecallPlugin(self.rule == "confidence_entropy", rest)
        else:
            count = DynamicCount(self.kappa, self.threshold) if self.rule == "dynamic_count" else None
            labelling = PseudoLabelPlugin(self.threshold, self.low if self.rule == "two_sided" else rest, count)
        return [labelling, CompensationPlugin()] if self.compensate else [labelling]
