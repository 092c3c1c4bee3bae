"""COCO-layout folders: small ones made here, and real ones read by pycocotools as the oracle."""

from __future__ import annotations

import gc
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from cml_bench.data.coco import CocoSource, coco_sources
from cml_bench.data.images import looks_intact, read_image
from cml_bench.errors import CmlBenchError

REPOSITORY = Path(__file__).resolve().parents[2]
TEST_DATA = Path(os.environ.get("CML_BENCH_TEST_DATA", REPOSITORY / ".." / "shared" / "data"))
Content = dict[str, list[dict[str, Any]]]


def real(folder: str) -> Path:
    path = TEST_DATA / folder
    if not path.is_dir():
        pytest.skip(f"real data not there: {path} (set CML_BENCH_TEST_DATA)")
    return path


def content() -> Content:
    """Four images out of id order, the last without labels; categories with a gap, out of id order; one crowd box."""
    return {
        "images": [{"id": i, "file_name": f"{i:03d}.jpg"} for i in (30, 10, 20, 40)],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 90, "name": "bird"}],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 3, "iscrowd": 0},
            {"id": 2, "image_id": 10, "category_id": 3, "iscrowd": 0},
            {"id": 3, "image_id": 30, "category_id": 90},
            {"id": 4, "image_id": 30, "category_id": 3, "iscrowd": 0},
            {"id": 5, "image_id": 20, "category_id": 7, "iscrowd": 1},
        ],
    }


def colour(image_id: int) -> tuple[int, int, int]:
    return image_id, 255 - image_id, 2 * image_id


def write(root: Path, splits: dict[str, Content], folder: str = "{split}") -> Path:
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split, made in splits.items():
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(made))
        images = root / folder.format(split=split)
        images.mkdir(parents=True)
        for image in made["images"]:
            Image.new("RGB", (24, 16), colour(image["id"])).save(images / image["file_name"], quality=95)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "coco", {"train2014": content(), "val2014": content()})


def test_rows_ascend_by_image_id_and_columns_by_category_id(root: Path) -> None:
    train, test = coco_sources(root)
    assert (train.split, test.split) == ("train", "test")
    assert train.label_names == ("cat", "dog", "bird")
    assert train.ids.tolist() == [10, 20, 30, 40]
    assert train.ids.dtype == np.int64
    assert train.labels.tolist() == [[1, 0, 0], [0, 0, 0], [1, 0, 1], [0, 0, 0]]
    assert train.labels.dtype == np.int8
    assert train.counts == {
        "images": 4,
        "labels": 3,
        "images_listed": 4,
        "images_without_labels": 2,
        "annotations": 5,
        "crowd_annotations": 1,
    }


def test_load_gives_the_image_of_the_row(root: Path) -> None:
    train, _ = coco_sources(root)
    for row, image_id in enumerate(train.ids.tolist()):
        image = train.load(row)
        assert image.shape == (3, 16, 24)
        assert np.allclose(image.float().mean(dim=(1, 2)), colour(image_id), atol=3)


def test_crowd_annotations_make_labels_only_on_request(root: Path) -> None:
    train, _ = coco_sources(root, crowd="label")
    assert train.labels[1].tolist() == [0, 1, 0]


@pytest.mark.parametrize("folder", ["{split}", "images/{split}"])
def test_image_folder_is_found_by_the_name_of_the_split(tmp_path: Path, folder: str) -> None:
    train, test = coco_sources(write(tmp_path, {"train": content(), "val": content()}, folder))
    assert train.paths[0] == tmp_path / folder.format(split="train") / "010.jpg"
    assert test.paths[0] == tmp_path / folder.format(split="val") / "010.jpg"


def test_annotations_may_lie_elsewhere_and_file_names_in_subfolders(tmp_path: Path) -> None:
    made = content()
    for image in made["images"]:
        image["file_name"] = f"part/{image['file_name']}"
    (tmp_path / "train" / "part").mkdir(parents=True)
    (tmp_path / "val" / "part").mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for split in ("train", "val"):
        (elsewhere / f"instances_{split}.json").write_text(json.dumps(made))
        for image in made["images"]:
            Image.new("RGB", (8, 8)).save(tmp_path / split / image["file_name"])
    train, _ = coco_sources(tmp_path, elsewhere)
    assert train.load(0).shape == (3, 8, 8)


def test_a_single_split_can_be_read(root: Path) -> None:
    (root / "annotations" / "instances_train2014.json").unlink()
    with pytest.raises(CmlBenchError, match=r"no instances_train\*\.json.*from_files"):
        coco_sources(root)
    source = CocoSource.from_files(
        root / "annotations" / "instances_val2014.json", root / "val2014", split="test", crowd="label"
    )
    assert len(source) == 4


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_left_as_it_was(root: Path, enabled: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        coco_sources(root)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_missing_images_are_an_error_or_are_left_out_and_listed(root: Path) -> None:
    for name in ("010.jpg", "040.jpg"):
        (root / "train2014" / name).unlink()
    with pytest.raises(CmlBenchError, match=r"2 of 4 images .*010\.jpg, 040\.jpg.*missing='allow'"):
        coco_sources(root)
    train, test = coco_sources(root, missing="allow")
    assert train.missing == ("010.jpg", "040.jpg")
    assert train.ids.tolist() == [20, 30]
    assert train.labels.tolist() == [[0, 0, 0], [1, 0, 1]]
    assert [path.name for path in train.paths] == ["020.jpg", "030.jpg"]
    assert train.counts["images"] == 2
    assert train.counts["images_listed"] == 4
    assert test.missing == ()


def test_an_image_folder_without_any_listed_image_is_an_error_even_if_some_may_be_missing(root: Path) -> None:
    for file in (root / "train2014").iterdir():
        file.unlink()
    with pytest.raises(CmlBenchError, match=r"4 of 4 images .*train2014.*check the folder"):
        coco_sources(root, missing="allow")


def test_an_image_cut_short_is_an_error_at_load_or_is_left_out(root: Path) -> None:
    path = root / "train2014" / "020.jpg"
    path.write_bytes(path.read_bytes()[:-40])
    train, _ = coco_sources(root)
    with pytest.raises(CmlBenchError, match=r"020\.jpg cannot be decoded.*missing='allow'"):
        train.load(1)
    train, _ = coco_sources(root, missing="allow")
    assert train.missing == ("020.jpg",)
    assert train.ids.tolist() == [10, 30, 40]


def test_a_file_that_vanished_is_named(root: Path) -> None:
    train, _ = coco_sources(root)
    train.paths[0].unlink()
    with pytest.raises(CmlBenchError, match=r"010\.jpg does not exist"):
        train.load(0)


def test_wrong_folders_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(CmlBenchError, match=r"nowhere is not a folder"):
        coco_sources(tmp_path / "nowhere")
    with pytest.raises(CmlBenchError, match=r"train2014 is not a folder"):
        coco_sources(root / "train2014" / "..", annotations=root / "annotations" / "train2014")
    (root / "val2014").rename(root / "elsewhere")
    with pytest.raises(CmlBenchError, match=r"neither .*val2014 nor .*images.val2014 is a folder"):
        coco_sources(root)


@pytest.mark.parametrize("option", ["crowd", "missing"])
def test_an_unknown_option_is_refused(root: Path, option: str) -> None:
    with pytest.raises(CmlBenchError, match=rf"{option}='maybe' is not an option"):
        coco_sources(root, **{option: "maybe"})


def test_two_train_files_are_ambiguous(root: Path) -> None:
    (root / "annotations" / "instances_train2017.json").write_text("{}")
    with pytest.raises(CmlBenchError, match=r"instances_train2014\.json, instances_train2017\.json"):
        coco_sources(root)


def broken(key: str, index: int, **changed: Any) -> Content:
    made = content()
    made[key][index] = {**made[key][index], **changed}
    return made


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (json.dumps(content())[:-30], "is not whole JSON"),
        ("", "is not whole JSON"),
        ("[" * 100_000, "is not whole JSON"),
        ("[]", "is not a COCO instances file"),
        ('{"images": [], "annotations": []}', "key 'categories' is missing"),
        ('{"images": [1], "annotations": [], "categories": []}', "is not a COCO instances file"),
        ('{"images": [], "annotations": [], "categories": []}', "lists no image id"),
        (json.dumps(broken("annotations", 2, image_id=99)), "1 annotations name an unknown image .first: image id 99"),
        (json.dumps(broken("annotations", 2, category_id=5)), "unknown category .first: category id 5"),
        (json.dumps(broken("annotations", 2, image_id=1e300)), "an id is not an integer"),
        (json.dumps(broken("annotations", 2, image_id=10**30)), "an id is not an integer"),
        (json.dumps(broken("images", 0, id=10)), "lists image id 10 twice"),
        (json.dumps(broken("images", 0, id="30")), "is not a COCO instances file"),
        (json.dumps(broken("categories", 0, id=3)), "lists category id 3 twice"),
        (json.dumps(broken("categories", 0, name="cat")), "lists category name cat twice"),
        (json.dumps(broken("categories", 0, name="")), "a category has an empty name"),
    ],
)
def test_a_broken_instances_file_is_one_sentence_that_names_it(root: Path, text: str, says: str) -> None:
    (root / "annotations" / "instances_train2014.json").write_text(text)
    with pytest.raises(CmlBenchError, match=rf"(?s)instances_train2014\.json.*{says}") as caught:
        coco_sources(root)
    assert "\n" not in str(caught.value)


def test_splits_with_different_categories_are_refused(tmp_path: Path) -> None:
    other = broken("categories", 0, name="wolf")
    with pytest.raises(CmlBenchError, match=r"different categories \(dog, wolf\)"):
        coco_sources(write(tmp_path, {"train": content(), "val": other}))


@pytest.mark.parametrize("format_", ["jpeg", "png"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_images_decode_to_rgb_as_pillow_says(tmp_path: Path, format_: str, mode: str) -> None:
    picture = Image.effect_noise((21, 17), 60).convert(mode)
    picture.save(tmp_path / "image", format=format_)
    oracle = np.asarray(Image.open(tmp_path / "image").convert("RGB")).transpose(2, 0, 1)
    image = read_image(tmp_path / "image")
    assert looks_intact(tmp_path / "image")
    assert np.abs(image.numpy().astype(int) - oracle).max() <= (2 if format_ == "jpeg" else 0)


@pytest.mark.parametrize("format_", ["jpeg", "png"])
def test_looks_intact_accepts_padding_and_refuses_every_prefix(tmp_path: Path, format_: str) -> None:
    path = tmp_path / "image"
    Image.effect_noise((8, 8), 60).save(path, format=format_)
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 16 + b"\r\n")
    assert looks_intact(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert not looks_intact(path), length
    path.unlink()
    assert not looks_intact(path)


def test_sixteen_bit_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(CmlBenchError, match=r"deep\.png decodes to"):
        read_image(tmp_path / "deep.png")


def label_sets(instances: Path) -> tuple[list[int], list[set[str]], list[str]]:
    """What pycocotools reads: image ids, label names of each, all names."""
    oracle = COCO(str(instances))
    names = {category["id"]: category["name"] for category in oracle.loadCats(oracle.getCatIds())}
    ids = sorted(oracle.getImgIds())
    return ids, [{names[a["category_id"]] for a in oracle.imgToAnns[i]} for i in ids], list(names.values())


def read_sets(source: CocoSource) -> list[set[str]]:
    return [{source.label_names[c] for c in np.flatnonzero(row)} for row in source.labels]


def test_coco18_has_its_published_counts_and_the_label_sets_of_pycocotools() -> None:
    root = real("coco18")
    train, test = coco_sources(root)
    assert [(len(s), s.counts["labels"], len(s.label_names)) for s in (train, test)] == [
        (6500, 10007, 18),
        (1500, 2327, 18),
    ]
    for source, split in ((train, "train"), (test, "val")):
        ids, sets, _ = label_sets(root / "annotations" / f"instances_{split}.json")
        assert source.ids.tolist() == ids
        assert read_sets(source) == sets
    assert train.load(0).shape == (3, 240, 320)


def test_coco80mini_has_its_published_counts_and_the_label_sets_of_pycocotools() -> None:
    root = real("coco80mini")
    instances = root / "annotations" / "instances_val2017.json"
    source = CocoSource.from_files(instances, root / "val2017", split="test", missing="allow")
    ids, sets, names = label_sets(instances)
    assert (len(source), source.counts["annotations"], len(source.label_names)) == (227, 1797, 80)
    assert source.missing == ()
    assert source.ids.tolist() == ids
    assert read_sets(source) == sets
    assert Counter(source.label_names) == Counter(names)
