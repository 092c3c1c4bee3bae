from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cml_bench.errors import CmlBenchError
from cml_bench.metrics.predictions import Predictions


def example() -> Predictions:
    rng = np.random.default_rng(0)
    return Predictions(
        label_names=("ä", "b", "c"),
        sample_ids=np.array(["x1", "x22"]),
        truth=np.array([[1, 0, 1], [0, 0, 1]], dtype=np.int8),
        n_seen=(1, 3),
        test_rule="seen_images",
        test_images=np.array([[True, False], [True, True]]),
        logits=(rng.normal(size=(2, 1)).astype(np.float16), rng.normal(size=(2, 3)).astype(np.float16)),
    )


def test_what_is_saved_is_loaded_and_saves_to_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "first.npz", tmp_path / "second.npz"
    original = example()
    original.save(first)
    loaded = Predictions.load(first)
    loaded.save(second)
    assert first.read_bytes() == second.read_bytes()
    assert (loaded.label_names, loaded.n_seen, loaded.test_rule) == (
        original.label_names,
        original.n_seen,
        original.test_rule,
    )
    for name in ("sample_ids", "truth", "test_images"):
        ours, theirs = getattr(loaded, name), getattr(original, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(loaded.logits, original.logits, strict=True):
        assert ours.dtype == np.float16
        np.testing.assert_array_equal(ours, theirs)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "cut.npz"
    example().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else int(kept)])
    with pytest.raises(CmlBenchError, match=r"cut\.npz cannot be read"):
        Predictions.load(path)


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CmlBenchError, match=r"none\.npz does not exist"):
        Predictions.load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    with pytest.raises(CmlBenchError, match=r"other\.npz cannot be read"):
        Predictions.load(tmp_path / "other.npz")


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pickled.npz"
    np.savez(path, n_seen=np.array([1]), label_names=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CmlBenchError, match=r"pickled\.npz cannot be read"):
        Predictions.load(path)
