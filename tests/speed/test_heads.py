"""What query heads cost, against one fused cross-attention from as many queries.

Run with ``pytest tests/speed``: the figures come as one table at the end. Nothing fails on a clock.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import pytest
import torch
from torch import nn

from cml_bench.registry import load

BATCH, TOKENS, WIDTH = 4, 196, 512
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "dlfl": ("dlfl", {}),
    "dlfl, cascade of one step": ("dlfl", {"width": WIDTH, "heads": 8}),
    "dlfl, cascade of two steps": ("dlfl", {"width": WIDTH, "heads": 8, "steps": 2}),
    "csra": ("csra", {}),
    "ml_decoder, width 768": ("ml_decoder", {"width": 768, "hidden": 2048}),
    "query2label, width 512": ("query2label", {"width": WIDTH}),
}


@pytest.mark.parametrize("labels", [80, 160, 320])
@pytest.mark.parametrize("name", HEADS)
def test_forward_and_backward(benchmark: Any, measured: Any, labels: int, name: str) -> None:
    """The yardstick has no input projection and no residual; its classifier is the same."""
    torch.set_num_threads(1)
    tokens = torch.randn(BATCH, TOKENS, WIDTH)
    kind, options = HEADS[name]
    head = load("heads", kind)(WIDTH, **options)
    head.grow([f"label{i}" for i in range(labels)])
    fused = nn.MultiheadAttention(WIDTH, 8, batch_first=True)
    queries, rows = nn.Parameter(torch.randn(labels, WIDTH)), nn.Parameter(torch.randn(labels, WIDTH))
    ratios = []

    def pair() -> None:
        start = time.perf_counter()
        read, _ = fused(queries.expand(BATCH, -1, -1), tokens, tokens, need_weights=False)
        (read * rows).sum().backward()
        middle = time.perf_counter()
        head(tokens).logits.sum().backward()
        ratios.append((time.perf_counter() - middle) / (middle - start))

    benchmark.pedantic(pair, rounds=15, warmup_rounds=3)
    goal = f"<= {1.3 * options.get('steps', 1):g}" if kind == "dlfl" else ""
    measured(f"head {name}, {labels} labels", median(ratios[3:]), "x one fused cross-attention", goal)
