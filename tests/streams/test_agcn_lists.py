"""AGCN's released lists through its Split-COCO and Split-WIDE, row by row against the csv files and COCO's labels."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from cml_bench.benchmarks.agcn_split_coco import AGCNSplitCOCO
from cml_bench.benchmarks.agcn_split_wide import LINES, AGCNSplitWIDE
from cml_bench.errors import CmlBenchError
from cml_bench.labels import OUT_OF_SCOPE
from cml_bench.strategies.er import ER
from cml_bench.strategies.joint import Joint
from cml_bench.streams.agcn_lists import agcn_lists
from cml_bench.streams.dealing import Curated
from cml_bench.streams.scenario import MultiLabelScenario

TEST_DATA = Path(os.environ.get("CML_BENCH_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
AGCN, TRAIN_2014 = TEST_DATA / "splits" / "agcn", TEST_DATA / "labels" / "coco_train_full.txt"
VAL_2017 = TEST_DATA / "labels" / "hpdval_val2017_coco_lt_test.txt"
CATEGORIES = TEST_DATA / "coco80mini" / "annotations" / "instances_val2017.json"
NEEDED = [AGCN / "Split-COCO.zip", AGCN / "Split-WIDE.zip", TRAIN_2014, VAL_2017, CATEGORIES]
ABSENT = [str(path) for path in NEEDED if not path.exists()]
real_lists = pytest.mark.skipif(
    bool(ABSENT), reason=f"real data not there: {', '.join(ABSENT)} (set CML_BENCH_TEST_DATA)"
)

# As published; the last list of Split-COCO names one of its 27,173 images twice.
COCO_TRAIN = (11_611, 6_299, 6_227, 6_118, 6_260, 6_102, 6_134, 6_161, 6_000, 4_160)
COCO_TEST = (2_664, 5_328, 7_992, 10_580, 13_202, 15_858, 18_570, 21_279, 24_431, 27_173)
WIDE_TRAIN = (32_994, 20_639, 20_723, 8_249, 24_710, 23_931, 13_612)
WIDE_TEST = (5_872, 11_799, 17_642, 23_520, 29_382, 35_278, 41_146)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CML_BENCH_CACHE", str(cache))


def csv_rows(stream: str, task: int, part: str) -> tuple[list[int], list[str]]:
    """Return the ascending image ids or lines of a csv file, and what follows each in its line; each image once."""
    with zipfile.ZipFile(AGCN / f"{stream}.zip") as archive:
        text = archive.read(f"{stream}/task{task}/{part}.csv").decode()
    rows = dict(line.split(",", 1) for line in text.splitlines())
    key = slice(-16, -4) if stream == "Split-COCO" else slice(None)
    found = sorted((int(name[key]), labels) for name, labels in rows.items())
    return [i for i, _ in found], [labels for _, labels in found]


def values(labels: list[str]) -> npt.NDArray[np.int8]:
    """Return lines like "1,0,0,1" as rows of numbers."""
    return np.array(labels, dtype=np.bytes_).view(np.int8).reshape(len(labels), -1)[:, ::2] - ord("0")


def check_stream(scenario: MultiLabelScenario, stream: str, step: int, id_of: Callable[[Any], int]) -> None:
    """Compare all training lists, and the first and the last test list, with the csv files; ids and labels."""
    last = len(scenario.n_seen) - 1
    tested = [("test", t, scenario.test_stream[t].dataset) for t in (0, last)]
    for part, t, data in (*(("train", t, e.dataset) for t, e in enumerate(scenario.train_stream)), *tested):
        ids, labels = csv_rows(stream, t, part)
        assert [id_of(i) for i in scenario.splits[part].source.ids[data.sample_ids.data]] == ids
        found, first = data.labels.data.numpy(), step * t if part == "train" else 0
        assert (found[:, first:] == values(labels)).all()
        assert (found[:, :first] == OUT_OF_SCOPE).all()


@real_lists
@pytest.mark.parametrize(
    ("stream", "train", "test"), [("Split-COCO", COCO_TRAIN, COCO_TEST), ("Split-WIDE", WIDE_TRAIN, WIDE_TEST)]
)
def test_lists_have_the_published_counts_and_share_no_image(stream: Any, train: Any, test: Any) -> None:
    found = agcn_lists(str(AGCN / f"{stream}.zip"), stream)
    assert tuple(len(part.ids) for part in found[0]) == train
    assert tuple(len(part.ids) for part in found[1]) == test
    trained = np.concatenate([part.ids for part in found[0]])
    assert len(np.unique(trained)) == sum(train)
    assert len(np.unique(found[1][-1].ids)) == (27_172 if stream == "Split-COCO" else 41_146)
    assert not np.isin(found[1][-1].ids, trained).any()
    for part in (*found[0], *found[1]):
        assert part.labels.any(axis=1).all()  # no row without a label
    for earlier, later in zip(found[1], found[1][1:], strict=False):
        assert np.isin(earlier.ids, later.ids).all()  # cumulative


def test_benchmarks_declare_the_published_counts() -> None:
    assert AGCNSplitCOCO.meta.images == COCO_TRAIN
    assert AGCNSplitCOCO.meta.test_images == (*COCO_TEST[:-1], 27_172)
    assert AGCNSplitWIDE.meta.images == WIDE_TRAIN
    assert AGCNSplitWIDE.meta.test_images == WIDE_TEST
    for benchmark in (AGCNSplitCOCO, AGCNSplitWIDE):
        names = [name for group in benchmark.experiences for name in group]
        assert len(set(names)) == len(names) == benchmark.meta.n_labels
        assert benchmark.online_chunk == benchmark.training.batch_size == 8
        assert benchmark.training.epochs == 1


def coco_labels(path: Path, categories: list[dict[str, Any]]) -> dict[int, set[str]]:
    """Return the label names of the images of a list: file, then indices in category-id order."""
    names = [category["name"] for category in sorted(categories, key=lambda category: category["id"])]
    lines = (line.replace(",", " ").split() for line in path.read_text().splitlines())
    return {int(file[-16:-4]): {names[int(i)] for i in labels} for file, *labels in lines}


def write_split(root: Path, split: str, categories: list[dict[str, Any]], shown: Mapping[int, set[str]]) -> None:
    id_of = {category["name"]: category["id"] for category in categories}
    images = [{"id": i, "file_name": f"COCO_{split}_{i:012}.jpg", "height": 480, "width": 640} for i in sorted(shown)]
    pairs = [(i, id_of[name]) for i in shown for name in sorted(shown[i])]
    # Crowds make labels: in a list of AGCN nobody can tell them apart.
    box = {"bbox": [0, 0, 9, 9], "area": 81}
    annotations = [
        {"id": n, "image_id": i, "category_id": c, "iscrowd": n % 2, **box} for n, (i, c) in enumerate(pairs)
    ]
    (root / "annotations").mkdir(exist_ok=True, parents=True)
    (root / "annotations" / f"instances_{split}.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )


@real_lists
def test_split_coco_is_coco_under_the_recovered_names(tmp_path: Path) -> None:
    """All 40 columns: of training images against train2014, of those test images that are in val2017 against that."""
    categories = json.loads(CATEGORIES.read_text())["categories"]
    names = [name for group in AGCNSplitCOCO.experiences for name in group]
    ids, labels = csv_rows("Split-COCO", 9, "test")
    val2017 = coco_labels(VAL_2017, categories)
    assert len(set(ids) & val2017.keys()) == 3_329
    listed = {i: set(itertools.compress(names, row)) for i, row in zip(ids, values(labels).tolist(), strict=True)}
    val2014 = {i: val2017.get(i, own) for i, own in listed.items()}
    trained = {i for task in range(10) for i in csv_rows("Split-COCO", task, "train")[0]}
    train2014 = coco_labels(TRAIN_2014, categories)
    few = {i: own for i, own in train2014.items() if i in trained or i % 50 == 0}
    write_split(tmp_path, "train2014", categories, few)
    write_split(tmp_path, "val2014", categories, {**val2014, 999_999: {"person"}})

    lists = str(AGCN / "Split-COCO.zip")
    benchmark = AGCNSplitCOCO(root=str(tmp_path), lists=lists, missing="ignore", online_chunk=None)
    scenario = benchmark.build()
    assert scenario.label_names == tuple(names)
    assert scenario.protocol == AGCNSplitCOCO.meta.protocol
    assert tuple(len(experience.dataset) for experience in scenario.train_stream) == AGCNSplitCOCO.meta.images
    assert tuple(len(experience.dataset) for experience in scenario.test_stream) == AGCNSplitCOCO.meta.test_images
    check_stream(scenario, "Split-COCO", 4, int)
    assert set(scenario.unassigned.values()) == {0}
    train = scenario.splits["train"].source
    assert train.files[0] == f"COCO_train2014_{train.ids[0]:012}.jpg"


@pytest.fixture
def image_list(tmp_path: Path) -> Path:
    """The official image list as far as Split-WIDE reads it: nothing else of NUS-WIDE is there."""
    (tmp_path / "ImageList").mkdir()
    entries = "".join(f"folder\\{i % 10_000:04}_{i}.jpg\n" for i in range(LINES))
    (tmp_path / "ImageList" / "Imagelist.txt").write_text(entries)
    return tmp_path


@real_lists
def test_split_wide_reads_ids_as_lines_from_zero(image_list: Path) -> None:
    lists = str(AGCN / "Split-WIDE.zip")
    benchmark = AGCNSplitWIDE(root=str(image_list), lists=lists, missing="ignore", online_chunk=None)
    scenario = benchmark.build()
    assert scenario.n_seen == (3, 6, 9, 12, 15, 18, 21)
    assert scenario.protocol == AGCNSplitWIDE.meta.protocol
    assert tuple(len(experience.dataset) for experience in scenario.train_stream) == AGCNSplitWIDE.meta.images
    assert tuple(len(experience.dataset) for experience in scenario.test_stream) == AGCNSplitWIDE.meta.test_images
    check_stream(scenario, "Split-WIDE", 3, lambda entry: int(entry[:-4].rpartition("_")[2]))
    assert set(scenario.unassigned.values()) == {0}
    source = scenario.splits["train"].source
    assert source.files[0].startswith("folder/")
    # Nobody knows what the lists do not say: not even the oracle.
    last = scenario.train_stream[6].dataset
    truth = scenario.oracle(last, scenario.label_names).labels.data
    assert torch.equal(truth[:, 18:], last.labels.data[:, 18:])
    assert (truth[:, :18] == OUT_OF_SCOPE).all()
    by_flickr_id = dataclasses.replace(benchmark, layout="flickr_id").sources()[0]
    assert by_flickr_id.files[0] == source.files[0].rpartition("_")[2]


@real_lists
def test_split_wide_refuses_another_image_list(image_list: Path) -> None:
    lists = str(AGCN / "Split-WIDE.zip")
    with (image_list / "ImageList" / "Imagelist.txt").open("a") as file:
        file.write("folder\\0000_1.jpg\n")
    with pytest.raises(CmlBenchError, match=r"Imagelist.txt has 269649 lines, .* official list of 269648"):
        AGCNSplitWIDE(root=str(image_list), lists=lists, missing="ignore").sources()


@real_lists
def test_archive_and_folder_are_read_alike(tmp_path: Path) -> None:
    with zipfile.ZipFile(AGCN / "Split-WIDE.zip") as archive:
        archive.extractall(tmp_path)
    packed, unpacked = (agcn_lists(str(place), "Split-WIDE") for place in (AGCN / "Split-WIDE.zip", tmp_path))
    for one, other in zip(packed, unpacked, strict=True):
        for a, b in zip(one, other, strict=True):
            assert (a.ids == b.ids).all()
            assert (a.labels == b.labels).all()
    file = tmp_path / "Split-WIDE" / "task3" / "train.csv"
    file.write_text(file.read_text().replace(",1", ",0", 1))
    agcn_lists.cache_clear()
    with pytest.raises(CmlBenchError, match=r"^Split-WIDE/task3/train.csv in .* is not the one that AGCN published"):
        agcn_lists(str(tmp_path), "Split-WIDE")


def test_archives_of_something_else_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "inner" / "Split-COCO.zip"
    place.parent.mkdir()
    with pytest.raises(CmlBenchError, match=r"holds no Split-COCO/task0/train.csv: git clone https://"):
        agcn_lists(str(place), "Split-COCO")
    place.write_bytes(b"this is no archive")
    with pytest.raises(CmlBenchError, match=r"Split-COCO/task0/train.csv in .* cannot be read"):
        agcn_lists(str(place), "Split-COCO")
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("../Split-COCO/task0/train.csv", "1,1,0,0,0\n")
        archive.writestr("__MACOSX/Split-COCO/task0/train.csv", "1,1,0,0,0\n")
    with pytest.raises(CmlBenchError, match=r"holds no Split-COCO/task0/train.csv"):
        agcn_lists(str(place), "Split-COCO")
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Split-COCO/task0/train.csv", bytes(2**26))
    with pytest.raises(CmlBenchError, match="is not the one that AGCN published"):
        agcn_lists(str(place), "Split-COCO")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [place]  # nothing was extracted


def test_no_strategy_learns_what_nobody_knows(tiny_scenario: Any, tiny_labels: Any, learn: Any) -> None:
    """Training images are truly known for their experience's labels only: then an oracle knows what is marked."""
    truth = tiny_labels(40, 6, 0)
    groups = tuple(tuple(f"label{i}" for i in range(t, t + 2)) for t in (0, 2, 4))
    train = [np.arange(t, 40, 3) for t in range(3)]
    for t, rows in enumerate(train):
        others = np.setdiff1d(np.arange(6), [2 * t, 2 * t + 1])
        truth[np.ix_(rows, others)] = OUT_OF_SCOPE
    lists = Curated(groups, tuple(rows + 1000 for rows in train), tuple(np.arange(1000, 1030) for _ in train))
    scenario = tiny_scenario(truth=truth, assignment="curated", curated=lists, increment=1)
    for oracle, marked in (
        (Joint(labels="oracle"), Joint(labels="as_annotated")),
        (ER(memory_size=12, relabel="oracle"), ER(memory_size=12)),
    ):
        one, other = learn(oracle, scenario), learn(marked, scenario)
        for name, value in one.state().items():
            assert torch.isfinite(value).all()
            assert torch.equal(value, other.state()[name])
