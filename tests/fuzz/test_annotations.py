"""Annotation files of data sets, damaged: COCO, VOC, NUS-WIDE, CelebA, FLAIR, Visual Genome, HAPI, lists and CSV."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cml_bench.data.sets.celeba import CelebA
from cml_bench.data.sets.coco import COCO
from cml_bench.data.sets.flair import FLAIR
from cml_bench.data.sets.hapi import HAPI
from cml_bench.data.sets.image_folder import ImageFolder
from cml_bench.data.sets.label_lists import LabelLists
from cml_bench.data.sets.nuswide import CONCEPTS_21, NUSWIDE
from cml_bench.data.sets.visual_genome import VisualGenome
from cml_bench.data.sets.voc import VOC

Fuzz = Callable[..., Counter[str]]
Sound = Callable[[Any], None]


def dump(content: Any, **options: Any) -> bytes:
    return json.dumps(content, **options).encode()


def test_coco(tmp_path: Path, fuzz: Fuzz, sound_table: Sound, count: int) -> None:
    content = {
        "info": {"year": 2014},
        "images": [
            {"id": 20, "file_name": "020.jpg", "height": 20, "width": 30},
            {"id": 10, "file_name": "sub/010.jpg", "height": 10, "width": 11},
        ],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 3, "bbox": [1, 2, 3, 4.5], "area": 5.5, "iscrowd": 0,
             "segmentation": [[1, 2, 3, 4, 5, 6]]},
            {"id": 2, "image_id": 20, "category_id": 7, "bbox": [0, 0, 20, 20], "iscrowd": 1,
             "segmentation": {"counts": [1, 2], "size": [20, 30]}},
            {"id": 3, "image_id": 20, "category_id": 3},
        ],
        "categories": [{"id": 7, "name": "bird"}, {"id": 3, "name": "cat"}],
    }  # fmt: skip
    path = tmp_path / "annotations/instances_train2014.json"
    path.parent.mkdir()
    read = lambda: COCO(root=str(tmp_path), crowd="label").read("train2014")  # noqa: E731
    fuzz(path, [dump(content), dump(content, indent=1)], read, sound_table, count)


VOC_XML = """<?xml version="1.0" encoding="utf-8"?>
<annotation><filename>000005.jpg</filename>
<size><width>40</width><height>30</height><depth>3</depth></size>
<object><name>cat</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>30.5</ymax></bndbox></object>
<object><name>person</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>2</xmax><ymax>5</ymax></bndbox>
<part><name>head</name></part></object>
</annotation>
"""


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A year with two images."""
    folder = tmp_path / "VOC2007"
    (folder / "Annotations").mkdir(parents=True)
    (folder / "ImageSets/Main").mkdir(parents=True)
    (folder / "ImageSets/Main/trainval.txt").write_text("000005\n000007\n")
    for image in ("000005", "000007"):
        (folder / f"Annotations/{image}.xml").write_text(VOC_XML)
    return folder


@pytest.mark.parametrize("file", ["Annotations/000005.xml", "ImageSets/Main/trainval.txt"])
def test_voc(voc: Path, file: str, fuzz: Fuzz, sound_table: Sound, count: int) -> None:
    read = lambda: VOC(root=str(voc.parent), difficult="label").read("2007/trainval")  # noqa: E731
    seeds = [VOC_XML.encode()] if file.endswith("xml") else [b"000005\n000007\n", b"000007\r\n"]
    fuzz(voc / file, seeds, read, sound_table, count)


@pytest.mark.parametrize("file", ["ImageList/TrainImagelist.txt", "Groundtruth/TrainTestLabels/Labels_sky_Train.txt"])
def test_nuswide(tmp_path: Path, file: str, fuzz: Fuzz, sound_table: Sound, count: int) -> None:
    images = b"actor\\0001_2124494179.jpg\nzoos\\0007_55.jpg\nsky\\0004_55.jpg\n"
    (tmp_path / "ImageList").mkdir()
    (tmp_path / "Groundtruth/TrainTestLabels").mkdir(parents=True)
    (tmp_path / "ImageList/TrainImagelist.txt").write_bytes(images)
    for name in CONCEPTS_21:
        (tmp_path / f"Groundtruth/TrainTestLabels/Labels_{name}_Train.txt").write_bytes(b"0\n1\n0\n")
    seeds = [images] if "Image" in file else [b"0\n1\n1\n", b"1 \r\n0 \r\n1 \r\n"]
    read = lambda: NUSWIDE(root=str(tmp_path), concepts=21).read("train")  # noqa: E731
    fuzz(tmp_path / file, seeds, read, sound_table, count)


@pytest.mark.parametrize("file", ["list_attr_celeba.txt", "list_eval_partition.txt"])
def test_celeba(tmp_path: Path, file: str, fuzz: Fuzz, sound_table: Sound, count: int) -> None:
    attributes = b"3\nMale Smiling Young\n000001.jpg -1  1  1\n000002.jpg -1 -1 -1\n000003.jpg  1 -1 -1\n"
    partition = b"000001.jpg 0\n000002.jpg 0\n000003.jpg 1\n"
    contents = {"list_attr_celeba.txt": attributes, "list_eval_partition.txt": partition}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    fuzz(tmp_path / file, [contents[file]], lambda: CelebA(root=str(tmp_path)).read("train"), sound_table, count)


def test_label_lists(tmp_path: Path, fuzz: Fuzz, sound_table: Sound, count: int) -> None:
    seeds = [b"a/1.jpg, 0 2\nb/2.jpg,\nc/3.jpg, 1. 3.\n", b"1.jpg 0,1,2\n2.jpg 3\n"]
    fuzz(
        tmp_path / "some.txt",
        seeds,
        lambda: LabelLists(root=str(tmp_path), n_labels=4).read("some"),
        sound_table,
        count,
    )


def test_image_folder(tmp_path: Path, fuzz: Fuzz, sound_table: Sound, count: int) -> None:
    seeds = [
        b'file,cat,dog\nphotos/a.jpg,1,0\n"photos/b, c.jpg",1,1\nc.jpg,0,0\n',
        b"file,labels\r\na.jpg,cat;dog\r\nb.jpg,\r\nc.jpg,dog\r\n",
    ]
    fuzz(tmp_path / "train.csv", seeds, lambda: ImageFolder(root=str(tmp_path)).read("train"), sound_table, count)


@pytest.mark.parametrize("split", ["coco", "coco/google_mic/20-10-28"])
def test_hapi(tmp_path: Path, split: str, fuzz: Fuzz, sound_table: Sound, count: int) -> None:
    (tmp_path / "meta.csv").write_text("task,dataset,api,date\nmic,coco,google_mic,20-10-28\n")
    path = tmp_path / (f"mic/{split}.json" if "/" in split else f"mic/{split}/labels.json")
    path.parent.mkdir(parents=True)
    key = "predicted_label" if "/" in split else "true_label"
    content = [
        {"confidence": 0.98, "example_id": "2011_000494", key: ["bird", "bird"]},
        {"confidence": 0.5, "example_id": "2008_000002", key: ["dining table", "bird"]},
        {"confidence": 0.0, "example_id": "2008_000003", key: []},
    ]
    fuzz(
        path, [dump(content), dump(content, indent=1)], lambda: HAPI(root=str(tmp_path)).read(split), sound_table, count
    )


def test_meta_csv_of_hapi(tmp_path: Path, fuzz: Fuzz, count: int) -> None:
    seed = b"task,dataset,api,date,path\nmic,coco,google_mic,20-10-28,mic/x.json\nfer,rafdb,g,20-03-29,fer/x.json\n"

    def sound(splits: tuple[str, ...]) -> None:
        assert len(set(splits)) == len(splits)
        assert not any(part in ("", ".", "..") for split in splits for part in split.split("/"))

    fuzz(tmp_path / "meta.csv", [seed], lambda: HAPI(root=str(tmp_path)).splits, sound, count)


def test_flair(tmp_path: Path, fuzz: Fuzz, sound_table: Sound, count: int) -> None:
    content = [
        {"image_id": 1, "user_id": "9@N00", "partition": "train", "labels": ["animal"], "fine_grained_labels": ["cat"]},
        {"image_id": "2", "user_id": "8@N00", "partition": "train", "labels": [], "fine_grained_labels": []},
        {"image_id": "3", "user_id": "7@N00", "partition": "dev", "labels": ["art"], "fine_grained_labels": ["art"]},
    ]
    read = lambda: FLAIR(root=str(tmp_path)).read("train")  # noqa: E731
    fuzz(tmp_path / "labels_and_metadata.json", [dump(content, indent=1)], read, sound_table, count)


@pytest.mark.parametrize("file", ["train_list_500.txt", "vg_category_500_labels_index.json", "image_data.json"])
def test_visual_genome(tmp_path: Path, file: str, fuzz: Fuzz, sound_table: Sound, count: int) -> None:
    url = "https://cs.stanford.edu/people/rak248/VG_100K_2/{}.jpg"
    contents = {
        "train_list_500.txt": b"7.jpg\n12.jpg\n",
        "vg_category_500_labels_index.json": dump({"7.jpg": [0, 499], "12.jpg": [3]}),
        "image_data.json": dump([{"image_id": i, "url": url.format(i), "height": 5, "width": 6} for i in (7, 12)]),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    fuzz(tmp_path / file, [contents[file]], lambda: VisualGenome(root=str(tmp_path)).read("train"), sound_table, count)
