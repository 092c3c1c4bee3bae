"""``augment=strong`` in a run: the same result for any number of threads that read, another one than without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cml_bench.errors import CmlBenchError
from cml_bench.runs.plan import plan
from cml_bench.runs.run import run_job


def test_results_do_not_depend_on_readers(small_jobs: Any) -> None:
    logits = [
        run_job(*small_jobs(augment="strong", flip="false", num_workers=workers)).predictions.logits
        for workers in (1, 3, 3)
    ]
    for other in logits[1:]:
        assert all(np.array_equal(*pair) for pair in zip(logits[0], other, strict=True))
    plain, cropped = (run_job(*small_jobs(augment=kind, flip="false")).predictions.logits for kind in ("false", "true"))
    assert not np.array_equal(logits[0][-1], plain[-1])
    assert not np.array_equal(logits[0][-1], cropped[-1])


def test_as_it_is_typed(small_jobs: Any) -> None:
    assert [plan(*small_jobs(augment=kind)).training.augment for kind in ("true", "false", "strong")] == [
        *(True, False, "strong")
    ]
    with pytest.raises(CmlBenchError, match="option augment='storng' of training cannot be used"):
        plan(*small_jobs(augment="storng"))
    with pytest.raises(CmlBenchError, match="which cannot be augmented"):
        plan(*small_jobs(augment="strong", frozen="true"))
