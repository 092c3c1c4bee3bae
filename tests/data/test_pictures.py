"""What is cached of pictures is of these files, as they are, and of no others with the same labels and names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.io import write_png

from cml_bench.data.data_set import Missing
from cml_bench.data.pixel_cache import cached_pixels
from cml_bench.data.sets.image_folder import ImageFolder
from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError
from cml_bench.models.backbones import Backbone, build_backbone
from cml_bench.models.features import extract_features

SIZE = 32


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_backbone("mobilenetv3_small_050", image_size=SIZE)


def paint(folder: Path, level: int) -> Path:
    """Make a data set of two pictures in a folder; labels, names and sizes are the same for all levels."""
    (folder / "p").mkdir(parents=True, exist_ok=True)
    (folder / "train.csv").write_text("file,a,b\np/1.png,1,0\np/2.png,0,1\n")
    for number in (1, 2):
        picture = torch.full((3, SIZE, SIZE), level + number, dtype=torch.uint8)
        write_png(picture, str(folder / "p" / f"{number}.png"), compression_level=0)
    return folder


def pixels(folder: Path, cache: Path, missing: Missing = "error") -> list[int]:
    """Return the level of each picture, as the cache has it."""
    source = ImageFolder(root=str(folder)).source("train", "train", missing=missing)
    return cached_pixels(source, SIZE, cache_dir=cache)[:, 0].tolist()


def features(folder: Path, cache: Path, backbone: Backbone) -> Tensor:
    source = ImageFolder(root=str(folder)).source("train", "train")
    return extract_features(backbone, source, kind="pooled", cache_dir=cache)


def entries(cache: Path) -> int:
    return len(list(cache.rglob("*.npy")))


def test_two_folders_of_one_name_share_no_pixels(tmp_path: Path) -> None:
    one, two = paint(tmp_path / "1" / "photos", 10), paint(tmp_path / "2" / "photos", 200)
    cache = tmp_path / "cache"
    assert [pixels(folder, cache) for folder in (one, two, one)] == [[11, 12], [201, 202], [11, 12]]
    assert entries(cache / "pixels") == 2


def test_two_folders_of_one_name_share_no_features(tmp_path: Path, backbone: Backbone) -> None:
    one, two = paint(tmp_path / "1" / "photos", 10), paint(tmp_path / "2" / "photos", 200)
    given = [features(folder, tmp_path / "cache", backbone) for folder in (one, two)]
    own = features(two, tmp_path / "other cache", backbone)
    assert torch.equal(given[1], own)
    assert not torch.equal(given[0], own)


def test_a_file_that_changes_is_read_anew(tmp_path: Path) -> None:
    folder, cache = paint(tmp_path / "photos", 10), tmp_path / "cache"
    assert pixels(folder, cache) == [11, 12]
    write_png(torch.full((3, SIZE, SIZE), 90, dtype=torch.uint8), str(folder / "p" / "2.png"), compression_level=0)
    assert pixels(folder, cache) == [11, 90]


@pytest.mark.parametrize("way", ["nothing", "moved", "copied with times", "linked"])
def test_the_same_files_elsewhere_are_the_same(tmp_path: Path, way: str) -> None:
    folder, cache = paint(tmp_path / "photos", 10), tmp_path / "cache"
    there = tmp_path / "elsewhere" / "photos"
    pixels(folder, cache)
    there.parent.mkdir()
    if way == "moved":
        folder.rename(there)
    elif way == "copied with times":
        shutil.copytree(folder, there)  # copies files as cp -p does
    elif way == "linked":
        there.symlink_to(folder)
    assert pixels(folder if way == "nothing" else there, cache) == [11, 12]
    assert entries(cache / "pixels") == 1


def test_a_copy_with_other_times_is_read_once_more(tmp_path: Path) -> None:
    folder, cache = paint(tmp_path / "photos", 10), tmp_path / "cache"
    pixels(folder, cache)
    os.utime(folder / "p" / "1.png", ns=(1, 1))
    assert pixels(folder, cache) == [11, 12]
    assert entries(cache / "pixels") == 2


def test_what_is_cached_serves_without_the_pictures(tmp_path: Path) -> None:
    """As ``missing=ignore`` promises: labels and a cache suffice, as long as one set of pictures can be meant."""
    one, two, cache = paint(tmp_path / "1" / "photos", 10), paint(tmp_path / "2" / "photos", 200), tmp_path / "cache"
    pixels(one, cache)
    shutil.rmtree(one / "p")
    assert pixels(one, cache, missing="ignore") == [11, 12]
    pixels(two, cache)
    with pytest.raises(CmlBenchError, match=r"pixels of 2 kinds of files, .*: put the images there, or delete"):
        pixels(one, cache, missing="ignore")
    with pytest.raises(CmlBenchError, match=r"1\.png"):
        pixels(one, tmp_path / "empty", missing="ignore")


def test_what_was_cached_before_files_were_part_of_the_key_is_found_without_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one entry that can be meant is taken: images that are gone cannot be read again."""
    folder, cache, now = paint(tmp_path / "one", 10), tmp_path / "cache", Source.cache_key
    assert isinstance(now, property)
    assert now.fget is not None
    before = property(lambda source: {name: part for name, part in now.fget(source).items() if name != "files"})
    with monkeypatch.context() as patch:
        patch.setattr(Source, "cache_key", before)
        pixels(folder, cache)
    shutil.rmtree(folder / "p")
    assert pixels(folder, cache, missing="ignore") == [11, 12]
    assert entries(cache / "pixels") == 1
