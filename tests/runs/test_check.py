"""What is told before anything runs: that which can run, but can hardly be meant."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.io import write_png

from cml_bench.errors import CmlBenchError
from cml_bench.runs import setup
from cml_bench.runs.check import check_jobs
from cml_bench.runs.job import Job, make_jobs
from cml_bench.runs.plan import plan
from cml_bench.runs.run import run_job

VIT = '[["depth", 1], ["embed_dim", 16], ["num_heads", 1], ["patch_size", 8]]'


@pytest.fixture
def on_photos(tmp_path: Path) -> Callable[..., Sequence[Job]]:
    """Make jobs on four images with four labels on disk."""
    for split in ("train", "test"):
        lines = ["file,a,b,c,d"]
        for i in range(4):
            write_png(torch.full((3, 16, 16), 60 * i, dtype=torch.uint8), str(tmp_path / f"{split}{i}.png"))
            lines.append(f"{split}{i}.png,{i % 2},1,{1 - i % 2},{i // 2}")
        (tmp_path / f"{split}.csv").write_text("\n".join(lines) + "\n")

    def make(**options: object) -> Sequence[Job]:
        small = {"root": tmp_path, "backbone": "vit_tiny_patch16_224", "backbone_options": VIT, "image_size": 16}
        settings = {**small, "increment": 2, **options}
        words = [f"{key}={value}" for key, value in settings.items()]
        return make_jobs(["image_folder"], ["naive"], ["default"], [0, 1], words)

    return make


def test_random_features_are_warned_of(small_jobs: Any) -> None:
    (told,) = check_jobs(small_jobs(frozen="true", image_size=32))
    assert told == "frozen=true keeps the random weights of backbone=test_resnet: give trained ones as checkpoint=FILE"


def test_random_weights_are_warned_of_on_photos(on_photos: Any) -> None:
    (told,) = check_jobs(on_photos())
    assert told.startswith(
        "frozen=false starts from random weights of backbone=vit_tiny_patch16_224: give trained ones"
    )


def test_a_backbone_is_told_what_it_is_evaluated_on(small_jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or weights that were trained on it would not be refused."""
    told: dict[str, Any] = {}
    original = setup.build_backbone

    def watched(*args: Any, **options: Any) -> Any:
        told.update(options)
        return original(*args, **options)

    monkeypatch.setattr(setup, "build_backbone", watched)
    (job,) = small_jobs()
    resolved = plan(job)
    sources = resolved.benchmark.sources()
    monkeypatch.setattr(type(sources[0]), "pretraining_names", ("some photos",))
    setup.make_backbone(resolved, sources)
    assert told["evaluated_on"] == ("some photos",)


def test_images_left_out_are_listed_with_the_result(on_photos: Any, tmp_path: Path) -> None:
    (tmp_path / "train0.png").unlink()
    job, _ = on_photos(missing="allow", epochs=1)
    assert run_job(job).result["missing"] == ["train0.png"]


def test_a_rate_for_backbones_is_warned_of_where_heads_are_trained(on_photos: Any) -> None:
    _, told = check_jobs(on_photos(frozen="true"))
    assert told.startswith("lr=0.0001 is the benchmark's for training a backbone, and frozen=true trains heads alone")
    (other,) = check_jobs(on_photos(frozen="true", lr=0.004))
    assert other.startswith("frozen=true keeps the random weights")


@pytest.mark.parametrize("options", [{"increment": 4}, {"base": 4}])
def test_a_single_experience_is_warned_of(on_photos: Any, options: dict[str, int]) -> None:
    assert "all 4 labels of image_folder arrive in one experience: nothing is continual; set base" in " ".join(
        check_jobs(on_photos(**options))
    )


@pytest.mark.parametrize("regime", ["single_positive", "missing_positives rate=0.2", "kept_positives share=0.5"])
def test_a_loss_that_sees_positives_alone_is_warned_of(small_jobs: Any, regime: str) -> None:
    methods = ["naive", "er loss=asl", "naive loss=role", "naive loss=assume_negative loss.base=asl", "ridge"]
    (told,) = check_jobs(small_jobs(methods, seeds=(0, 1), regime=regime))
    assert told.startswith(f"no label of digits with regime={regime} is marked absent, and these methods learn")
    assert "call everything present: naive, er loss=asl. Set loss=assume_negative" in told
    for fine in ("full", "candidates noise=0.1", "partial_labels known=0.5"):
        assert check_jobs(small_jobs(methods[:1], regime=fine)) == []


def test_a_gpu_that_a_job_would_not_use_is_warned_of(small_jobs: Any) -> None:
    jobs = small_jobs(["naive", "naive device=cuda"])
    (told,) = check_jobs(jobs, here=False, gpus=0.5)
    assert told == "the engine sets a GPU apart for each job (gpus=), and device=cpu leaves it idle: set device=cuda"
    assert check_jobs(jobs[1:], here=False, gpus=0.5) == check_jobs(jobs[:1], here=False) == []


def test_checking_jobs_leaves_the_global_generators(small_jobs: Any) -> None:
    """Layers are initialised to find bad options; who runs jobs in the own process must not notice."""
    states = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    check_jobs(small_jobs(["naive", "naive head=dlfl"]))
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


LISTS = '[["a","b"],["c","d"]]'


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"base": 3, "increment": 1}, "base=3, increment=1 contradict the explicit label lists: give one of the two"),
        (
            {"class_order": "random:3"},
            "class_order='random:3' contradicts the explicit label lists: give one of the two",
        ),
    ],
)
def test_options_that_label_lists_overrule_are_refused(on_photos: Any, options: Any, sentence: str) -> None:
    with pytest.raises(CmlBenchError) as caught:
        check_jobs(on_photos(experiences=LISTS, **options))
    assert str(caught.value) == sentence
    check_jobs(on_photos(experiences=LISTS))


def test_a_class_order_is_given_once(on_photos: Any) -> None:
    """The benchmark's was ignored, and stood in the result."""
    jobs = [dataclasses.replace(job, class_order="random:1") for job in on_photos(class_order="random:3")]
    with pytest.raises(CmlBenchError) as caught:
        check_jobs(jobs)
    assert str(caught.value) == (
        "class order 'random:1' and the option class_order='random:3' are two answers: leave the option out, and name "
        "each order that is meant in --class-orders"
    )
    check_jobs(on_photos(class_order="random:3"))
