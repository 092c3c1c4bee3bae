"""What a step of the DLFL head costs, against one fused cross-attention from as many queries.

Run with ``pytest -s tests/speed``; the ratio is printed and kept as ``extra_info``. Nothing fails on a clock.
"""

from __future__ import annotations

import time
from statistics import median

import pytest
import torch
from torch import nn

from cml_bench.models.heads.dlfl import DLFLHead

BATCH, TOKENS, WIDTH = 4, 196, 512


@pytest.mark.parametrize("labels", [80, 160, 320])
@pytest.mark.parametrize("options", [{}, {"width": WIDTH, "heads": 8}, {"width": WIDTH, "heads": 8, "steps": 2}])
def test_forward_and_backward(benchmark, labels: int, options: dict[str, int]) -> None:
    """The yardstick has no input projection and no residual; its classifier is the same."""
    torch.set_num_threads(1)
    tokens = torch.randn(BATCH, TOKENS, WIDTH)
    head = DLFLHead(WIDTH, **options)
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
    benchmark.extra_info["ratio to one fused step"] = round(median(ratios[3:]), 2)
    print(f"\n{labels} labels, {options or 'default'}: {median(ratios[3:]):.2f} x one fused step")  # noqa: T201
