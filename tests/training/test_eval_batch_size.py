"""``eval_batch_size`` is how many images anybody looks at at once where nothing is trained: what fits into memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from cml_bench.streams.dataset import Batch, MultiLabelDataset
from cml_bench.testing.strategies import StrategyCase
from cml_bench.testing.trial import try_out

LOOKING = (
    *("naive loss=em_apl", "ewc", "mas", "cdcr", "ridge", "l3a", "pseudo_label rule=dynamic_count"),
    *(f"{name} memory_size=10" for name in ("der", "er_herding", "icarl", "krt head=linear", "bic")),
)


@pytest.mark.parametrize("spec", LOOKING)
def test_no_look_is_larger(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, fetch = [], MultiLabelDataset.batch

    def watched(dataset: Any, indices: torch.Tensor) -> Batch:
        if dataset.group == "eval":
            sizes.append(len(indices))
        return fetch(dataset, indices)

    monkeypatch.setattr(MultiLabelDataset, "batch", watched)
    plan = StrategyCase(spec).plan
    try_out(replace(plan, training=replace(plan.training, epochs=2, eval_batch_size=5)))
    assert max(sizes) == 5
