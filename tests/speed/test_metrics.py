"""What all metrics together cost, against one call of torchmetrics' average precision.

Run with ``pytest tests/speed``: the figures come as one table at the end. Nothing fails on a clock.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multilabel_average_precision

from cml_bench.metrics.evaluate import evaluate
from cml_bench.metrics.predictions import TEST_RULES, Predictions

IMAGES, LABELS, EXPERIENCES = 40_000, 80, 8


@pytest.mark.parametrize("rule", TEST_RULES)
def test_every_metric_of_a_stream(benchmark: Any, measured: Any, rule: str) -> None:
    """One experience of 40,000 x 80 costs the reference call; a stream of eight is measured against eight of them."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    truth = (rng.random((IMAGES, LABELS)) < 0.04).astype(np.int8)
    logits = (rng.normal(size=(IMAGES, LABELS)) + 2 * truth).astype(np.float16)
    n_seen = tuple(range(LABELS // EXPERIENCES, LABELS + 1, LABELS // EXPERIENCES))
    new = np.stack([truth[:, high - 10 : high].any(axis=1) for high in n_seen])
    images = {"seen_images": np.logical_or.accumulate(new), "all_images": np.ones_like(new), "per_experience": new}
    blocks = tuple(np.ascontiguousarray(logits[:, :high]) for high in n_seen)
    names = tuple(map(str, range(LABELS)))
    predictions = Predictions(names, np.arange(IMAGES), truth, n_seen, rule, images[rule], blocks)
    probabilities = torch.sigmoid(torch.from_numpy(logits.astype(np.float32)))
    ratios = []

    def pair() -> None:
        start = time.perf_counter()
        multilabel_average_precision(probabilities, torch.from_numpy(truth).long(), LABELS, average="none")
        middle = time.perf_counter()
        evaluate(predictions)
        ratios.append((time.perf_counter() - middle) / (middle - start) / EXPERIENCES)

    benchmark.pedantic(pair, rounds=5, warmup_rounds=1)
    measured(f"every metric of 40,000 x 80, {rule}", median(ratios[1:]), "x one torchmetrics AP call", "<= 1.5")
