"""Refuses metrics that take one class an image for granted."""

from __future__ import annotations

from typing import Any

from avalanche.evaluation.metrics import (
    Accuracy,
    AverageMeanClassAccuracy,
    ClassAccuracy,
    ConfusionMatrix,
    CumulativeAccuracy,
    MultiStreamAMCA,
    TaskAwareAccuracy,
    TopkAccuracy,
)
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.plugins.evaluation import default_evaluator
from avalanche.training.templates.base_sgd import BaseSGDTemplate

from cml_bench.errors import CmlBenchError

_ARGMAX = (
    Accuracy,
    AverageMeanClassAccuracy,
    ClassAccuracy,
    ConfusionMatrix,
    CumulativeAccuracy,
    MultiStreamAMCA,
    TaskAwareAccuracy,
    TopkAccuracy,
)


def refuse_argmax_metrics(learner: BaseSGDTemplate[Any, Any, Any]) -> None:
    """Refuse a learner that would report where the largest logit is, as if an image had one class.

    Avalanche's accuracies, and the forgetting and transfer that it computes from them, run on multi-hot labels and give
    numbers without a meaning. The evaluator that Avalanche gives a learner whose maker named none is emptied.

    Raises:
        CmlBenchError: If an evaluator among the learner's plugins holds such a metric by choice.
    """
    unasked = [str(metric) for metric in default_evaluator().metrics]
    for plugin in learner.plugins:
        if not isinstance(plugin, EvaluationPlugin):
            continue
        if [str(metric) for metric in plugin.metrics] == unasked:
            plugin.metrics, plugin.loggers = [], []
        for metric in plugin.metrics:
            if any(isinstance(part, _ARGMAX) for part in vars(metric).values()):
                raise CmlBenchError(
                    f"metric {metric} compares the largest logit with the largest label, which means nothing where an "
                    "image has several labels: leave it out; mAP and others are computed from the predictions"
                )
