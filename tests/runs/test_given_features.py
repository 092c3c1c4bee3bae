"""Feature vectors in place of images, from the file to the result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cml_bench.data.inputs import TensorInputs
from cml_bench.errors import CmlBenchError
from cml_bench.runs.check import check_jobs
from cml_bench.runs.inputs import make_inputs
from cml_bench.runs.job import make_jobs
from cml_bench.runs.plan import plan
from cml_bench.runs.run import run_job
from cml_bench.runs.setup import make_backbone, make_model

TEST_DATA = Path(os.environ.get("CML_BENCH_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
COREL = TEST_DATA / "features"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three labels that a linear model can tell, and one that the training rows never show."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 240), ("test", 60)):
        features = rng.normal(size=(n, 5))
        labels = np.column_stack([features[:, :3] > 0.3, np.zeros(n)]).astype(int)
        if split == "test":
            labels[0, 3] = 1
        np.savez(tmp_path / f"{split}.npz", features=features, labels=labels, label_names=["a", "b", "c", "never"])
    return tmp_path


def jobs(root: Path, *methods: str, **options: Any) -> Any:
    settings = [f"root={root}", "increment=2", *(f"{key}={value}" for key, value in options.items())]
    return make_jobs(["feature_table"], methods or ("naive",), ["default"], [0], settings)


def test_a_run_from_file_to_result(root: Path) -> None:
    """The rows are told apart only if features, labels and rows belong together."""
    (job,) = jobs(root, "joint", epochs=30)
    result = run_job(job).result
    assert result["metrics"]["summary"]["last_map"] > 0.7
    assert result["backbone"]["name"] == "features as given"
    assert result["data"]["train"]["counts"]["images"] == 240
    assert result["benchmark"]["label_names"] == ["a", "b", "c", "never"]
    assert result["cost"]["parameters"]["total"] == 4 * 5 + 4, "a linear head on five features and nothing else"


def test_the_model_reads_the_features_of_the_file(root: Path) -> None:
    (job,) = jobs(root)
    resolved = plan(job)
    sources = resolved.benchmark.sources()
    backbone = make_backbone(resolved, sources)
    train, test = make_inputs(resolved, backbone, sources, 0, lambda message: None)
    for inputs, split in ((train, "train"), (test, "test")):
        assert isinstance(inputs, TensorInputs)
        stored = np.load(root / f"{split}.npz")["features"].astype(np.float32)
        assert np.array_equal(inputs.fetch(torch.arange(len(stored)), training=True).numpy(), stored)
    model = make_model(resolved, backbone)
    model.head.grow(["a", "b"])
    vectors = train.fetch(torch.arange(3), training=False)
    weights = model.head.state_dict()["weights.0"]
    assert torch.allclose(model(vectors), vectors @ weights.T)


def test_a_head_that_looks_at_positions_sees_one(root: Path) -> None:
    """On a single position the untrained DLFL head is the linear head, and it trains."""
    (job,) = jobs(root, "naive head=dlfl", epochs=2)
    assert run_job(job).result["method"]["head"] == "dlfl"


@pytest.mark.parametrize(
    "setting", ["backbone=resnet50", "checkpoint=x.safetensors", "image_size=64", "frozen=true", "augment=true"]
)
def test_settings_that_speak_of_images_are_refused_before_anything_runs(root: Path, setting: str) -> None:
    key, _, value = setting.partition("=")
    sentence = f"feature_table has feature vectors in place of images, so {key} has no use: leave it out"
    with pytest.raises(CmlBenchError, match=sentence):
        check_jobs(jobs(root, **{key: value}))
    with pytest.raises(CmlBenchError, match=sentence):
        check_jobs(jobs(root, f"naive {setting}"))


def test_splits_of_other_widths_are_refused(root: Path) -> None:
    np.savez(root / "test.npz", features=np.zeros((2, 4)), labels=np.ones((2, 4)), label_names=["a", "b", "c", "never"])
    with pytest.raises(CmlBenchError, match=r"feature_table has features of widths \[5, 4\] in its splits: use two"):
        check_jobs(jobs(root))


def test_an_experience_without_a_row_says_what_to_do(root: Path) -> None:
    with pytest.raises(CmlBenchError, match=r"experience 4 has no image: .*labels \(never\); put them together with"):
        check_jobs(make_jobs(["feature_table"], ["naive"], ["default"], [0], [f"root={root}", "increment=1"]))


def test_corel5k_end_to_end() -> None:
    if not COREL.is_dir():
        pytest.skip(f"real data not there: {COREL} (set CML_BENCH_TEST_DATA)")
    settings = [f"root={COREL}", "increment=50", "epochs=3"]
    joint, naive = (
        run_job(job).result for job in make_jobs(["feature_table"], ["joint", "naive"], ["default"], [0], settings)
    )
    assert joint["benchmark"]["n_seen"] == [50, 100, 150, 200, 250, 300, 350, 374]
    counts = [joint["data"][split]["counts"] for split in ("train", "test")]
    assert [count["images"] for count in counts] == [4500, 500]
    assert sum(count["labels"] for count in counts) == 3.522 * 5000
    chance = 3.522 / 374
    for result in (joint, naive):
        assert result["metrics"]["summary"]["last_map"] > 5 * chance
