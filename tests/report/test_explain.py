"""Where labels look: the numbers, the place on the image, what may be asked, and the command end to end."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchvision.io import write_png

import cml_bench
from cml_bench import cli
from cml_bench.errors import CmlBenchError
from cml_bench.models.angles import angle_law
from cml_bench.models.features import read_frozen
from cml_bench.models.preprocess import EvalTransform
from cml_bench.report.explanation.explain import Explanation, explain
from cml_bench.report.explanation.plot import upsampled
from cml_bench.runs.job import make_jobs
from cml_bench.runs.results import result_path, snapshot_path
from cml_bench.runs.run import run_and_store
from cml_bench.runs.snapshots import open_run

SETTINGS = ["n_train=40", "n_test=30", "epochs=2", "increment=4", "frozen=true", "image_size=64", "lr=0.05"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("explain")


@pytest.fixture(scope="module")
def run(folder):
    """The result of a tiny run that kept its models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CML_BENCH_CACHE", str(folder / "cache"))
        return kept(folder / "dlfl", "naive head=dlfl")


def kept(results: Path, method: str) -> Path:
    (job,) = make_jobs(["digits"], [method], ["default"], [0], SETTINGS)
    job = dataclasses.replace(job, save_models=True)
    assert run_and_store(job, results)["status"] == "ok"
    return result_path(results, job)


def test_each_position_stands_for_the_middle_of_its_part_of_the_image():
    for h, w, height, width in ((7, 7, 224, 320), (3, 5, 30, 100)):
        for row in range(h):
            for column in range(w):
                spot = np.zeros((h, w))
                spot[row, column] = 1.0
                drawn = upsampled(spot, height, width)
                assert drawn.shape == (height, width)
                top, left = np.unravel_index(drawn.argmax(), drawn.shape)
                assert (top * h // height, left * w // width) == (row, column)
                if 0 < row < h - 1 and 0 < column < w - 1:
                    weights = drawn / drawn.sum()
                    centre = (weights.sum(1) @ (np.arange(height) + 0.5), weights.sum(0) @ (np.arange(width) + 0.5))
                    assert centre == pytest.approx(((row + 0.5) * height / h, (column + 0.5) * width / w), abs=0.01)


@pytest.fixture(scope="module")
def local_run(folder):
    """A run whose backbone sees each patch of 16 pixels by itself: a ViT without blocks."""
    vit = "backbone=vit_tiny_patch16_224", 'backbone_options=[["depth",0],["embed_dim",24],["num_heads",2]]'
    settings = [*(setting for setting in SETTINGS if "image_size" not in setting), *vit, "image_size=96"]
    (job,) = make_jobs(["digits"], ["naive head=dlfl epochs=1"], ["default"], [0], settings)
    job = dataclasses.replace(job, save_models=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CML_BENCH_CACHE", str(folder / "cache"))
        result = run_and_store(job, folder / "local")
    assert result["status"] == "ok", result["error"]
    return result_path(folder / "local", job)


@pytest.mark.parametrize(("row", "column"), [(0, 1), (1, 5), (4, 0), (5, 4), (2, 3)])
def test_a_planted_patch_is_looked_at_where_it_lies(local_run, folder, row, column):
    """A query made of what the backbone sees of a patch looks at the patch, in a picture file of another size."""
    height, width = 120, 180
    top, left, down, across = row * 20, column * 30, 20, 30
    noise = torch.randint(0, 256, (3, down, across), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    blank = torch.full((3, height, width), 90, dtype=torch.uint8)
    picture = blank.clone()
    picture[:, top : top + down, left : left + across] = noise
    image = folder / f"patch{row}{column}.png"
    write_png(picture, str(image))
    backbone = open_run(local_run).backbone
    transform = EvalTransform(backbone.image_size, backbone.mean, backbone.std)
    seen = read_frozen(backbone, torch.stack([transform(picture), transform(blank)]), "map").float()
    # Zero at all positions but one.
    planted = (seen[0] - seen[1]).sum((1, 2))
    file = snapshot_path(local_run, 0)
    whole = file.read_bytes()
    tensors = load_file(file)
    with safe_open(file, framework="pt") as opened:
        about = opened.metadata()
    tensors["head.queries.0"][1] = 20 * planted / planted.norm()
    save_file(tensors, file, about)
    try:
        explanation = explain(local_run, image, labels=["one"], after=[1])
    finally:
        file.write_bytes(whole)
    assert explanation.truth == (None,)
    heat = upsampled(explanation.attention[0, 0], height, width)
    place = np.unravel_index(heat.argmax(), heat.shape)
    assert (top <= place[0] < top + down, left <= place[1] < left + across) == (True, True)
    assert explanation.attention[0, 0].argmax() == 6 * row + column
    assert explanation.peak[0, 0] > 3


def test_numbers_are_those_of_the_models(run):
    image = str(open_run(run).sources[1].ids[5])
    found = cml_bench.explain(run, image, labels=["one", "six", "nine"], after="all")
    assert (found.labels, found.arrived, found.experiences) == (("one", "six", "nine"), (1, 2, 3), (1, 2, 3))
    assert found.n_seen == (4, 8, 10)
    unseen = np.array([[False, True, True], [False, False, True], [False, False, False]])
    for values in (found.probability, found.angle, found.peak, found.kept):
        assert np.array_equal(np.isnan(values), unseen)
    sums = found.attention.sum((2, 3))
    assert np.allclose(sums[~unseen], 1, atol=1e-5)
    assert np.allclose(np.diag(found.kept), 1)
    assert np.nanmax(found.kept) <= 1 + 1e-6
    by_hand = 1 - np.abs(found.attention[2, 0] - found.attention[0, 0]).sum() / 2
    assert found.kept[2, 0] == pytest.approx(by_hand, abs=1e-6)
    assert found.peak[2, 1] == pytest.approx(found.attention[2, 1].max() * found.attention[2, 1].size)
    table = found.table()
    assert len(table) == 6
    assert table["angle_law"].tolist()[:3] == [round(angle_law(n), 1) for n in (4, 8, 10)]
    source = open_run(run).sources[1]
    truth = source.labels[5, [source.label_names.index(name) for name in found.labels]]
    assert found.truth == tuple(bool(entry == 1) for entry in truth)


def test_defaults_show_what_is_there_from_its_arrival_on(run):
    saved = open_run(run)
    source = saved.sources[1]
    found = explain(run, str(source.ids[5]))
    present = [name for name in saved.label_names if source.labels[5, source.label_names.index(name)] == 1]
    assert found.labels == tuple(present[:4])
    assert set(found.experiences) == {*found.arrived, 3}


def test_every_head_that_declares_attention_can_be_explained(folder, monkeypatch):
    monkeypatch.setenv("CML_BENCH_CACHE", str(folder / "cache"))
    for head in ("csra", "csc", "query2label head.width=16", "ml_decoder head.width=16", "hsvlt"):
        found = explain(kept(folder / head.split()[0], f"naive head={head} epochs=1"), "3", labels=["one"], after=[3])
        assert np.allclose(found.attention.sum((2, 3)), 1, atol=1e-5), head
        assert np.isnan(found.angle).all() == (head == "csc")


def test_a_head_without_attention_names_those_that_have_one(folder, monkeypatch):
    monkeypatch.setenv("CML_BENCH_CACHE", str(folder / "cache"))
    path = kept(folder / "linear", "naive head=linear epochs=1")
    with pytest.raises(
        CmlBenchError, match=r"head=linear .* does not say where .*csra.*dlfl.*hsvlt.*ml_decoder.*query2l"
    ):
        explain(path, "3")


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"labels": ["nin"]}, "did you mean 'nine'"),
        ({"labels": ["nine"], "after": [1, 2]}, "none of nine had come by experience 2"),
        ({"after": [0]}, "experience 0 is not there: give numbers from 1 to 3"),
        ({"after": ["4"]}, "experience '4' is not there"),
        ({"image": "nowhere.jpg"}, "nowhere.jpg is neither a file nor an id of 40 training and 30 test images"),
        ({"image": __file__}, "cannot be decoded"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(run, asked, match):
    with pytest.raises(CmlBenchError, match=match) as caught:
        explain(run, **{"image": "3", **asked})
    assert "\n" not in str(caught.value)


def test_drawing(run, tmp_path):
    explanation = explain(run, "3", labels=["one", "nine"], after="all")
    for name in ("a.png", "a.svg"):
        explanation.draw(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5000
    assert "not seen yet" in (tmp_path / "a.svg").read_text() or "<text" not in (tmp_path / "a.svg").read_text()
    with pytest.raises(CmlBenchError, match="is no kind of picture"):
        explanation.draw(tmp_path / "a.gif")
    with pytest.raises(CmlBenchError, match="cannot be written"):
        explanation.draw(tmp_path / "nowhere" / "a.png")


def test_nothing_kept_where_attention_is_gone():
    """Two maps without a common position share nothing."""
    one, other = np.zeros((1, 2, 2)), np.zeros((1, 2, 2))
    one[0, 0, 0], other[0, 1, 1] = 1.0, 1.0
    flat = np.zeros((2, 1))
    found = Explanation(
        "", torch.zeros(3, 2, 2), ("a",), (None,), (1, 2), (1,), (1, 2), np.stack([one, other]), flat, flat
    )
    assert found.kept.tolist() == [[1.0], [0.0]]
    assert found.peak.tolist() == [[4.0], [4.0]]


def test_the_command_finds_a_run_by_its_key(run, folder, capsys):
    def call(name: str) -> str:
        words = ["explain", name, "--results", str(run.parents[1]), "--image", "3", "--labels", "one"]
        with pytest.raises(SystemExit):
            cli.main([*words, "--output", str(folder / "key.png")])
        printed = capsys.readouterr()
        return printed.out + printed.err

    key = run.stem.rpartition("__")[2]
    assert call(key[:6]) == call(str(run))
    assert f"picture: {folder / 'key.png'}" in call(key)
    assert "no result in" in (told := call("zzzz"))
    assert "has a key that begins with 'zzzz'" in told


@pytest.mark.slow
def test_the_commands_end_to_end(folder):
    """Run with --save-models, then explain, each in a process of its own."""
    import os

    environment = {**os.environ, "CML_BENCH_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cml_bench.cli", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)

    options = [word for pair in SETTINGS for word in ("--set", pair)]
    method = ["--method", "naive head=dlfl", "--seeds", "1", "--workers", "1", "--results", "runs"]
    done = call("run", "digits", *method, *options)
    assert done.returncode == 0, done.stderr
    failed = call("explain", "runs", "--image", "3")
    assert failed.returncode == 1
    assert "run with --save-models" in failed.stderr
    done = call("run", "digits", *method, *options, "--save-models")
    assert done.returncode == 0, done.stderr
    done = call("explain", "runs", "--image", "3", "--labels", "one,six", "--after", "1,3", "--output", "look.png")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["one", "one", "six"]
    assert lines[-1] == "picture: look.png"
    assert (folder / "look.png").stat().st_size > 5000
