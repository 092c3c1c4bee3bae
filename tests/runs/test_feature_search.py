"""The search over blocks and steps: planted optima, and what it may look at."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score

from cml_bench.data.digits import DigitsSource
from cml_bench.errors import CmlBenchError
from cml_bench.runs.feature_search import local_search, probe_map, search_features
from cml_bench.runs.job import make_jobs

BOUNDS = ((1, 28), (0, 1000))


@given(
    block=st.integers(1, 28),
    step=st.integers(0, 20),
    start=st.tuples(st.integers(1, 28), st.integers(0, 20)),
    slope=st.floats(0.01, 5),
)
def test_a_planted_optimum_is_found(block: int, step: int, start: tuple[int, int], slope: float) -> None:
    calls: Counter[tuple[int, int]] = Counter()

    def score(spot: tuple[int, int]) -> float:
        calls[spot] += 1
        return -((spot[0] - block) ** 2) - slope * abs(spot[1] / 50 - step)

    found = local_search(score, (start[0], 50 * start[1]), (1, 50), BOUNDS)
    assert (found.block, found.step, found.score) == (block, 50 * step, 0.0)
    assert set(calls.values()) == {1}
    assert set(calls) == set(found.tried)
    assert all(1 <= at <= 28 and 0 <= when <= 1000 for at, when in calls)
    assert len(calls) <= 4 * (abs(start[0] - block) + abs(start[1] - step) + 1) + 1


def test_it_stays_where_no_neighbour_is_better() -> None:
    assert local_search(lambda spot: 1.0, (14, 500), (1, 50), BOUNDS).tried.keys() == {
        (14, 500), (13, 500), (15, 500), (14, 450), (14, 550),
    }  # fmt: skip
    assert local_search(lambda spot: 1.0, (1, 0), (5, 5), ((1, 1), (0, 0))).tried == {(1, 0): 1.0}


def test_the_probe_against_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    features, unseen = rng.normal(size=(60, 5)).astype(np.float32), rng.normal(size=(40, 5)).astype(np.float32)
    mixing = rng.normal(size=(5, 3))
    labels, truth = ((x @ mixing + rng.normal(size=(len(x), 3)) > 0.4).astype(np.int8) for x in (features, unseen))
    labels[:20, 1], labels[20:30, 2] = -2, -1
    expected = []
    for label in range(3):
        known = labels[:, label] >= 0
        mean, spread = features[known].mean(0), features[known].std(0)
        probe = Ridge().fit((features[known] - mean) / spread, labels[known, label])
        expected.append(average_precision_score(truth[:, label], probe.predict((unseen - mean) / spread)))
    found = probe_map(torch.from_numpy(features), labels, torch.from_numpy(unseen), truth)
    assert found == pytest.approx(np.mean(expected), abs=1e-6)
    labels[:, 0] = -2  # nobody annotated it: constant scores
    assert 0 < probe_map(torch.from_numpy(features), labels, torch.from_numpy(unseen), truth) < found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra diffusion)")
    root = tmp_path_factory.mktemp("dit")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(4, 4), norm_num_groups=2,
        ).save_pretrained(root / "vae")  # fmt: skip
        transformer = diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, num_layers=3, sample_size=16, patch_size=4
        )
        for parameter in transformer.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
        transformer.save_pretrained(root / "transformer")
    diffusers.DDIMScheduler().save_pretrained(root / "scheduler")
    return root


def job(folder: Path, *options: str, backbone: str = "diff_feat:block=2,step=500") -> object:
    settings = ["n_train=60", "n_test=20", "increment=5", "frozen=true", "augment=false", *options]
    settings += [
        f"backbone={backbone}",
        *([f"checkpoint={folder}", "pretrained_on=ImageNet-1k", "backbone_options=[]"] if "diff" in backbone else []),
    ]
    return make_jobs(["digits"], ["naive"], ["default"], [0], settings)[0]


def test_it_looks_at_the_first_experience_alone(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path))
    read: set[tuple[str, int]] = set()
    load = DigitsSource.load

    def noted(self: DigitsSource, index: int) -> torch.Tensor:
        read.add((self.split, index))
        return load(self, index)

    monkeypatch.setattr(DigitsSource, "load", noted)
    lines: list[str] = []
    asked = job(folder, "validation=0.3")
    state = torch.random.get_rng_state()
    found = search_features(asked, step_stride=400, progress=lines.append)  # type: ignore[arg-type]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert found.score == max(found.tried.values())
    assert {(1, 500), (3, 500), (2, 100), (2, 900)} <= set(found.tried)
    assert len(lines) == len(found.tried)
    assert {split for split, _ in read} == {"train"}
    assert 0 < len(read) < 60
    again = search_features(asked, step_stride=400)  # type: ignore[arg-type]
    assert again == found


@pytest.mark.parametrize(
    ("options", "backbone", "match"),
    [
        ((), "diff_feat:block=2,step=500", "set validation"),
        (("validation=0.3", "backbone_options=[]"), "resnet18", "no blocks and steps"),
    ],
)
def test_what_cannot_be_searched(folder: Path, options: tuple[str, ...], backbone: str, match: str) -> None:
    with pytest.raises(CmlBenchError, match=match):
        search_features(job(folder, *options, backbone=backbone))  # type: ignore[arg-type]
