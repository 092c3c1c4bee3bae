"""Small data in the layouts that the pages name, made where a page speaks of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.io import write_jpeg

from cml_bench.data.sets.nuswide import CONCEPTS_81


def write_photo(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = torch.randint(256, (3, 32, 32), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    write_jpeg(pixels, str(path))


def write_coco_split(root: Path, split: str, photos: int, images: Path | None = None) -> list[Path]:
    """80 categories; photo i shows four of them, so that each label has positives in every split of 40 photos."""
    files = [f"COCO_{split}_{i + 1:012}.jpg" if split.endswith("2014") else f"{i + 1:012}.jpg" for i in range(photos)]
    instances = {
        "images": [{"id": i + 1, "file_name": name, "width": 32, "height": 32} for i, name in enumerate(files)],
        "categories": [{"id": c + 1, "name": f"thing {c:02}"} for c in range(80)],
        "annotations": [
            {
                "id": 4 * i + k + 1,
                "image_id": i + 1,
                "category_id": (i + 23 * k) % 80 + 1,
                "iscrowd": 0,
                "bbox": [k, k, 9, 9],
            }
            for i in range(photos)
            for k in range(4)
        ],
    }
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(instances))
    paths = [(images or root) / split / name for name in files]
    for seed, path in enumerate(paths):
        write_photo(path, seed)
    return paths


def make_coco(root: Path) -> None:
    """COCO 2014, with the images where the script of a page looks for them, too."""
    write_coco_split(root, "train2014", 80)
    write_coco_split(root, "val2014", 40)
    (root / "images").mkdir()
    for split in ("train2014", "val2014"):
        (root / "images" / split).symlink_to(root / split)


def make_photos(root: Path) -> None:
    """Part of COCO's val2017, one photo missing and one cut short."""
    _, missing, *_, broken = write_coco_split(root, "val2017", 40)
    missing.unlink()
    broken.write_bytes(broken.read_bytes()[:300])


def make_nuswide(root: Path) -> None:
    """The official lists, and of some photos copies by Flickr id."""
    random = np.random.default_rng(0)
    (root / "ImageList").mkdir(parents=True)
    (root / "Groundtruth" / "TrainTestLabels").mkdir(parents=True)
    for part, count in (("Train", 120), ("Test", 80)):
        ids = [f"{i:04}_{1000 * len(part) + i}" for i in range(count)]
        (root / "ImageList" / f"{part}Imagelist.txt").write_text("".join(f"actor\\{name}.jpg\n" for name in ids))
        for concept in CONCEPTS_81:
            marks = "".join(f"{mark}\n" for mark in (random.random(count) < 0.1).astype(int))
            (root / "Groundtruth" / "TrainTestLabels" / f"Labels_{concept}_{part}.txt").write_text(marks)
        for seed, name in enumerate(ids[:-2]):
            write_photo(root / "photos" / f"{name.partition('_')[2]}.jpg", seed)


def make_features(root: Path) -> None:
    """Vectors, a row a line of the image lists above."""
    root.mkdir(parents=True)
    random = np.random.default_rng(1)
    for split, count in (("train", 120), ("test", 80)):
        np.save(root / f"{split}.npy", random.normal(size=(count, 8)).astype(np.float32))


def make_birds(root: Path) -> None:
    """The photos of the page on own data sets: a line "photo.jpg crow owl" an image."""
    birds = ("crow", "finch", "owl", "wren")
    for split in ("train", "test"):
        for i in range(12):
            write_photo(root / f"{split}{i}.jpg", i)
        lines: Sequence[str] = [f"{split}{i}.jpg {birds[i % 4]} {birds[(i + 1) % 4]}" for i in range(12)]
        (root / f"{split}.txt").write_text("\n".join(lines))


MAKERS: dict[str, Callable[[Path], None]] = {
    "data/coco": make_coco,
    "data/photos": make_photos,
    "data/nuswide": make_nuswide,
    "data/features": make_features,
    "birds": make_birds,
}


@pytest.fixture
def make_data() -> Callable[[Path, str], None]:
    """Make, below a folder, what a text names of ``MAKERS``."""

    def make(folder: Path, text: str) -> None:
        for name, maker in MAKERS.items():
            if f"/{name}" in text or f"--root {name} " in text or f"--root {name}\n" in text:
                maker(folder / name)

    return make
