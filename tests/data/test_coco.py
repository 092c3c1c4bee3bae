"""COCO-layout folders: small ones made here, and real ones read by pycocotools as the oracle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import coco as pycocotools

from cml_bench.data.image_files import ImageFiles
from cml_bench.data.images import is_intact, read_image
from cml_bench.data.sets.coco import COCO
from cml_bench.errors import CmlBenchError
from cml_bench.registry import load

REPOSITORY = Path(__file__).resolve().parents[2]
TEST_DATA = Path(os.environ.get("CML_BENCH_TEST_DATA", REPOSITORY / ".." / "shared" / "data"))
Content = dict[str, list[dict[str, Any]]]


def real(folder: str) -> Path:
    path = TEST_DATA / folder
    if not path.is_dir():
        pytest.skip(f"real data not there: {path} (set CML_BENCH_TEST_DATA)")
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))


def content() -> Content:
    """Four images out of id order, the last without labels; categories with a gap, out of id order; one crowd box."""
    return {
        "images": [{"id": i, "file_name": f"{i:03d}.jpg", "height": i, "width": i + 1} for i in (30, 10, 20, 40)],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 90, "name": "bird"}],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 3, "iscrowd": 0, "bbox": [1, 2, 3, 4], "area": 5.5},
            {"id": 2, "image_id": 10, "category_id": 3, "iscrowd": 0, "bbox": [0.5, 0, 2, 2]},
            {"id": 3, "image_id": 30, "category_id": 90},
            {"id": 4, "image_id": 30, "category_id": 3, "iscrowd": 0, "bbox": [7, 8, 9, 1], "area": 2},
            {"id": 5, "image_id": 20, "category_id": 7, "iscrowd": 1, "bbox": [0, 0, 20, 20], "area": 300},
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


def both(root: Path, missing: Any = "error", **options: Any) -> tuple[ImageFiles, ImageFiles]:
    return COCO(root=str(root), **options).train_and_test(missing=missing)


def test_rows_ascend_by_image_id_and_columns_by_category_id(root: Path) -> None:
    table = COCO(root=str(root)).table("train2014")
    assert table.label_names == ("cat", "dog", "bird")
    assert table.ids.tolist() == [10, 20, 30, 40]
    assert table.ids.dtype == np.int64
    assert table.labels.tolist() == [[1, 0, 0], [0, 0, 0], [1, 0, 1], [0, 0, 0]]
    assert table.labels.dtype == np.int8
    assert table.files is not None
    assert table.files.tolist() == ["010.jpg", "020.jpg", "030.jpg", "040.jpg"]
    assert table.sizes is not None
    assert table.sizes.tolist() == [[10, 11], [20, 21], [30, 31], [40, 41]]
    assert table.counts == {"annotations": 5, "crowd_annotations": 1, "annotations_without_box": 1}
    train, test = both(root)
    assert (train.name, train.split, test.split) == ("coco", "train", "test")
    assert (train.counts["images"], train.counts["labels"], train.counts["images_with_labels"]) == (4, 3, 2)
    assert "coco" in train.pretraining_names


@pytest.mark.parametrize("crowd", ["ignore", "label"])
def test_boxes_are_those_of_the_labels_and_have_the_area_that_is_given_or_their_own(root: Path, crowd: Any) -> None:
    boxes = COCO(root=str(root), crowd=crowd).table("train2014").boxes
    assert boxes is not None
    crowds = 1 if crowd == "label" else 0
    assert list(zip(boxes.rows.tolist(), boxes.columns.tolist(), strict=True)) == (
        [(0, 0), (0, 0), (2, 0)] + [(1, 1)] * crowds
    )
    assert boxes.xywh.tolist() == [[1, 2, 3, 4], [0.5, 0, 2, 2], [7, 8, 9, 1]] + [[0, 0, 20, 20]] * crowds
    assert boxes.areas.tolist() == [5.5, 4, 2] + [300] * crowds


def test_a_table_has_no_boxes_and_no_sizes_where_the_file_has_none(tmp_path: Path) -> None:
    made = content()
    for annotation in made["annotations"]:
        annotation.pop("bbox", None)
    del made["images"][2]["height"]
    table = COCO(root=str(write(tmp_path / "coco", {"val": made}))).table("val")
    assert table.boxes is None
    assert table.sizes is None
    assert table.counts["annotations_without_box"] == 5


def test_load_gives_the_image_of_the_row(root: Path) -> None:
    train, _ = both(root)
    for row, image_id in enumerate(train.ids.tolist()):
        image = train.load(row)
        assert image.shape == (3, 16, 24)
        assert np.allclose(image.float().mean(dim=(1, 2)), colour(image_id), atol=3)


def test_crowd_annotations_make_labels_only_on_request(root: Path) -> None:
    train, _ = both(root, crowd="label")
    assert train.labels[1].tolist() == [0, 1, 0]


@pytest.mark.parametrize("folder", ["{split}", "images/{split}"])
def test_image_folder_is_found_by_the_name_of_the_split(tmp_path: Path, folder: str) -> None:
    train, test = both(write(tmp_path, {"train": content(), "val": content()}, folder))
    assert train.folder == tmp_path / folder.format(split="train")
    assert test.folder == tmp_path / folder.format(split="val")


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
    train, _ = both(tmp_path, annotations=str(elsewhere))
    assert train.load(0).shape == (3, 8, 8)


def test_the_splits_are_those_whose_file_is_there_and_each_can_be_read_alone(root: Path) -> None:
    (root / "annotations" / "captions_val2014.json").write_text("{}")
    assert COCO(root=str(root)).splits == ("train2014", "val2014")
    (root / "annotations" / "instances_train2014.json").unlink()
    data = COCO(root=str(root))
    assert data.splits == ("val2014",)
    assert len(data.source("val2014", "test")) == 4
    with pytest.raises(CmlBenchError, match=r"instances_train2014\.json is not there; 'cml-bench data info coco'"):
        data.table("train2014")
    with pytest.raises(CmlBenchError, match=r"no split 'val2013': did you mean 'val2014'"):
        data.table("val2013")


def test_a_folder_needs_one_train_split_and_one_val_or_test_split(root: Path) -> None:
    instances = root / "annotations" / "instances_val2014.json"
    instances.rename(root / "annotations" / "instances_test.json")
    (root / "val2014").rename(root / "test")
    assert both(root)[1].folder == root / "test"
    (root / "annotations" / "instances_test.json").unlink()
    with pytest.raises(CmlBenchError, match=r"no instances_val\*\.json or instances_test\*\.json"):
        both(root)
    (root / "annotations" / "instances_train2017.json").write_text("{}")
    with pytest.raises(CmlBenchError, match=r"instances_train2014\.json, instances_train2017\.json"):
        both(root)


def test_missing_images_are_an_error_or_are_left_out_and_listed(root: Path) -> None:
    for name in ("010.jpg", "040.jpg"):
        (root / "train2014" / name).unlink()
    with pytest.raises(CmlBenchError, match=r"2 of 4 train images .*010\.jpg, 040\.jpg.*missing=allow"):
        both(root)
    train, test = both(root, missing="allow")
    assert train.missing == ("010.jpg", "040.jpg")
    assert train.ids.tolist() == [20, 30]
    assert train.labels.tolist() == [[0, 0, 0], [1, 0, 1]]
    assert train.files.tolist() == ["020.jpg", "030.jpg"]
    assert train.counts["images"] == 2
    assert train.boxes is not None
    assert train.boxes.rows.tolist() == [1]
    assert test.missing == ()
    assert both(root, missing="ignore")[0].ids.tolist() == [10, 20, 30, 40]


def test_an_image_folder_without_any_listed_image_is_an_error_even_if_some_may_be_missing(root: Path) -> None:
    for file in (root / "train2014").iterdir():
        file.unlink()
    with pytest.raises(CmlBenchError, match=r"4 of 4 train images .*train2014.*check the folder"):
        both(root, missing="allow")


def test_an_image_cut_short_is_an_error_at_load_or_is_left_out(root: Path) -> None:
    path = root / "train2014" / "020.jpg"
    path.write_bytes(path.read_bytes()[:-40])
    train, _ = both(root)
    with pytest.raises(CmlBenchError, match=r"020\.jpg cannot be decoded.*missing='allow'"):
        train.load(1)
    train, _ = both(root, missing="allow")
    assert train.missing == ("020.jpg",)
    assert train.ids.tolist() == [10, 30, 40]


def test_a_file_that_vanished_is_named(root: Path) -> None:
    train, _ = both(root)
    (train.folder / "010.jpg").unlink()
    with pytest.raises(CmlBenchError, match=r"010\.jpg does not exist"):
        train.load(0)


def test_wrong_folders_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(CmlBenchError, match=r"nowhere is not a folder"):
        both(tmp_path / "nowhere")
    with pytest.raises(CmlBenchError, match=r"train2014 is not a folder"):
        both(root, annotations=str(root / "annotations" / "train2014"))
    (root / "val2014").rename(root / "elsewhere")
    with pytest.raises(CmlBenchError, match=r"neither .*val2014 nor .*images.val2014 is a folder"):
        both(root)
    assert len(both(root, missing="ignore")[1]) == 4


def test_an_unknown_option_is_refused(root: Path) -> None:
    with pytest.raises(CmlBenchError, match=r"crowd='maybe' is not an option"):
        both(root, crowd="maybe")
    with pytest.raises(CmlBenchError, match=r"missing='maybe' is not an option"):
        both(root, missing="maybe")


def broken(key: str, index: int, **changed: Any) -> Content:
    made = content()
    made[key][index] = {**made[key][index], **changed}
    return made


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (json.dumps(content())[:-30], f"is not a whole JSON object .*at character {len(json.dumps(content())) - 30}"),
        (json.dumps(content()).replace("010.jpg", '010".jpg'), "is not a whole JSON object .*',' delimiter at char"),
        ("", "is not a whole JSON object .{ was expected at character 0"),
        ('{"images": ' + "[" * 100_000, "is not a whole JSON object .the nesting is too deep at character 12"),
        ("[]", "is not a whole JSON object"),
        ('{"images": {}, "annotations": [], "categories": []}', "'images' is no list"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "key 'file_name' is missing in an entry of"),
        ('{"images": [], "annotations": []}', "key 'categories' is missing"),
        ('{"images": [1], "annotations": [], "categories": []}', "is not a COCO instances file"),
        ('{"images": [], "annotations": [], "categories": []}', "lists no image id"),
        (json.dumps(broken("annotations", 2, image_id=99)), "1 annotations name an unknown image .first: image id 99"),
        (json.dumps(broken("annotations", 2, category_id=5)), "unknown category .first: category id 5"),
        (json.dumps(broken("annotations", 2, image_id=1e300)), "the image_id '1e.300' is not an integer"),
        (json.dumps(broken("annotations", 2, image_id=10**30)), "is not a COCO instances file .*too large"),
        (json.dumps(broken("images", 0, id=10)), "lists image id 10 twice"),
        (json.dumps(broken("images", 0, id="30")), "is not a COCO instances file"),
        (json.dumps(broken("categories", 0, id=3)), "lists category id 3 twice"),
        (json.dumps(broken("categories", 0, name="cat")), "lists category name cat twice"),
        (json.dumps(broken("categories", 0, name="")), "a category has an empty name"),
        (json.dumps(broken("annotations", 0, bbox=[1, 2])), "the bbox .1, 2. is not four numbers"),
        (json.dumps(broken("annotations", 0, bbox=[1, 2, 3, None])), "a bbox is not four numbers"),
        (json.dumps(broken("annotations", 0, bbox=7)), "is not a COCO instances file"),
    ],
)
def test_a_broken_instances_file_is_one_sentence_that_names_it(root: Path, text: str, says: str) -> None:
    (root / "annotations" / "instances_train2014.json").write_text(text)
    with pytest.raises(CmlBenchError, match=rf"(?s)instances_train2014\.json.*{says}") as caught:
        COCO(root=str(root)).table("train2014")
    assert "\n" not in str(caught.value)


def test_splits_with_different_categories_are_refused(tmp_path: Path) -> None:
    other = broken("categories", 0, name="wolf")
    with pytest.raises(CmlBenchError, match=r"different categories \(dog, wolf\)"):
        both(write(tmp_path, {"train": content(), "val": other}))


@pytest.mark.parametrize("format_", ["jpeg", "png"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_images_decode_to_rgb_as_pillow_says(tmp_path: Path, format_: str, mode: str) -> None:
    picture = Image.effect_noise((21, 17), 60).convert(mode)
    picture.save(tmp_path / "image", format=format_)
    oracle = np.asarray(Image.open(tmp_path / "image").convert("RGB")).transpose(2, 0, 1)
    image = read_image(tmp_path / "image")
    assert is_intact(tmp_path / "image")
    assert np.abs(image.numpy().astype(int) - oracle).max() <= (2 if format_ == "jpeg" else 0)


def test_what_can_be_read_is_intact_whatever_its_ending(tmp_path: Path) -> None:
    """WebP has no end marker, and phones write a second picture behind that of a JPEG."""
    picture = Image.effect_noise((8, 8), 60).convert("RGB")
    picture.save(tmp_path / "a.webp")
    picture.save(tmp_path / "b.jpg")
    whole = (tmp_path / "b.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(whole + b"trailer of a phone, 36 bytes of text")
    (tmp_path / "c.webp").write_bytes((tmp_path / "a.webp").read_bytes()[:30])
    assert [is_intact(tmp_path / name) for name in ("a.webp", "b.jpg", "c.webp", "d.jpg")] == [True, True, False, False]


@pytest.mark.parametrize("format_", ["jpeg", "png"])
def test_is_intact_accepts_padding_and_refuses_every_prefix(tmp_path: Path, format_: str) -> None:
    path = tmp_path / "image"
    Image.effect_noise((8, 8), 60).save(path, format=format_)
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 16 + b"\r\n")
    assert is_intact(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert not is_intact(path), length
    path.unlink()
    assert not is_intact(path)


def test_sixteen_bit_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(CmlBenchError, match=r"deep\.png decodes to"):
        read_image(tmp_path / "deep.png")


def check_against_pycocotools(source: ImageFiles, instances: Path) -> None:
    """Ids, names, sizes, label sets and boxes are those that pycocotools reads."""
    oracle = pycocotools.COCO(str(instances))
    categories = oracle.loadCats(sorted(oracle.getCatIds()))
    images = oracle.loadImgs(sorted(oracle.getImgIds()))
    column = {category["id"]: c for c, category in enumerate(categories)}
    assert source.label_names == tuple(category["name"] for category in categories)
    assert source.ids.tolist() == [image["id"] for image in images]
    assert source.files.tolist() == [image["file_name"] for image in images]
    assert source.sizes is not None
    assert source.sizes.tolist() == [[image["height"], image["width"]] for image in images]
    annotations = [oracle.imgToAnns[image["id"]] for image in images]
    assert [set(np.flatnonzero(row).tolist()) for row in source.labels] == [
        {column[annotation["category_id"]] for annotation in of_image} for of_image in annotations
    ]
    if source.boxes is not None:
        given = [
            (r, column[a["category_id"]], *a["bbox"], a["area"]) for r, some in enumerate(annotations) for a in some
        ]
        boxes = source.boxes
        read = np.column_stack([boxes.rows, boxes.columns, boxes.xywh, boxes.areas])
        order = np.lexsort(read.T)
        expected = np.array(given, dtype=np.float32)
        assert (read[order] == expected[np.lexsort(expected.T)]).all()


def test_coco18_reads_as_pycocotools_reads_it() -> None:
    root = real("coco18")
    train, test = load("benchmarks", "split_coco")(root=str(root)).sources()
    assert [(len(s), s.counts["labels"], len(s.label_names)) for s in (train, test)] == [
        (6500, 10007, 18),
        (1500, 2327, 18),
    ]
    assert train.boxes is None
    for source, split in ((train, "train"), (test, "val")):
        check_against_pycocotools(source, root / "annotations" / f"instances_{split}.json")
    assert train.load(0).shape == (3, 240, 320)
    # The stored reference results were made on these very rows.
    assert train.fingerprint.startswith("1956bc5ba2cb4117")
    assert test.fingerprint.startswith("7e403168dce8aa61")


def test_coco80mini_reads_as_pycocotools_reads_it() -> None:
    root = real("coco80mini")
    source = COCO(root=str(root)).source("val2017", "test")
    assert (len(source), source.counts["annotations"], len(source.label_names)) == (227, 1797, 80)
    assert source.boxes is not None
    assert len(source.boxes) == 1797
    check_against_pycocotools(source, root / "annotations" / "instances_val2017.json")
