"""Streams of attributes and emotions, on random labels in the real file layouts, against brute force."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from cml_bench.data.sets.celeba import CelebA
from cml_bench.data.sets.emotic import NAMES
from cml_bench.errors import CmlBenchError
from cml_bench.labels import OUT_OF_SCOPE
from cml_bench.registry import entries, load

N = 400
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))


def cell(items: Sequence[Any], *, row: bool = False) -> np.ndarray[Any, Any]:
    made = np.empty((1, len(items)) if row else (len(items), 1), dtype=object)
    for i, item in enumerate(items):
        made.flat[i] = item
    return made


def attributes(count: int) -> np.ndarray[Any, Any]:
    return (RNG.random((N, count)) < 0.2).astype(np.uint8)


def names(count: int) -> np.ndarray[Any, Any]:
    return cell([f"attribute{i}" for i in range(count)])


TRAIN, VAL, TEST = np.arange(1, 201), np.arange(201, 251), np.arange(251, N + 1)
"""Numbers of the images of each split, from 1."""


def write_peta(root: Path) -> np.ndarray[Any, Any]:
    labels = attributes(105)
    part = {"train": TRAIN[:, None], "val": VAL[:, None], "test": TEST[:, None]}
    data = np.hstack([np.ones((N, 4), dtype=np.uint8), labels])
    fields = {"data": data, "names": names(105), "other": np.zeros((0, 0)), "partitions": cell([part] * 5)}
    savemat(root / "PETA.mat", {"peta": fields})
    return labels[:, :35]


def write_rapv1(root: Path) -> np.ndarray[Any, Any]:
    labels = attributes(92)
    part = {"train": np.append(TRAIN, VAL)[None], "test": TEST[None]}
    files = cell([f"CAM01_{i}.png" for i in range(N)])
    fields = {"partion": cell([part] * 5), "label": labels, "attribute_eng": names(92), "imagesname": files}
    (root / "RAP_annotation").mkdir()
    savemat(root / "RAP_annotation/RAP_annotation.mat", {"RAP_annotation": fields})
    return labels[:, :51]


def write_rapv2(root: Path) -> np.ndarray[Any, Any]:
    labels = attributes(152)
    fields = {
        "name": cell([f"CAM10-{i}.png" for i in range(N)]),
        "data": labels,
        "attribute": names(152),
        "selected_attribute": np.arange(1, 55)[None],
        "partition_attribute": cell(
            [{"train_index": TRAIN[None], "val_index": VAL[None], "test_index": TEST[None]}] * 5, row=True
        ),
    }
    (root / "RAP_annotation").mkdir()
    savemat(root / "RAP_annotation/RAP_annotation.mat", {"RAP_annotation": fields})
    return labels[:, :54]


def write_pa100k(root: Path) -> np.ndarray[Any, Any]:
    labels = attributes(26)
    variables: dict[str, Any] = {"attributes": names(26)}
    for part, numbers in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        variables[f"{part}_images_name"] = cell([f"{i:06}.jpg" for i in numbers])
        variables[f"{part}_label"] = labels[numbers - 1]
    savemat(root / "annotation.mat", variables)
    return labels


@pytest.mark.parametrize(
    ("name", "write", "sizes"),
    [
        ("peta", write_peta, [5] * 7),
        ("rapv1", write_rapv1, [11, 10, 10, 10, 10]),
        ("rapv2", write_rapv2, [9] * 6),
        ("pa100k", write_pa100k, [6, 5, 5, 5, 5]),
    ],
)
def test_pedestrian_attributes(tmp_path: Path, name: str, write: Any, sizes: list[int]) -> None:
    truth = write(tmp_path)
    benchmark = load("benchmarks", name)(root=str(tmp_path), missing="ignore")
    scenario = benchmark.build()
    assert np.diff(scenario.n_seen, prepend=0).tolist() == sizes
    assert scenario.label_names == tuple(f"attribute{i}" for i in range(sum(sizes)))
    assert scenario.protocol == entries("benchmarks")[name].facts["protocol"]
    assert entries("benchmarks")[name].facts["n_labels"] == sum(sizes)
    # Training and validation images are the first 250.
    given = np.zeros(250, dtype=int)
    first = 0
    for experience, seen in zip(scenario.train_stream, scenario.n_seen, strict=True):
        rows = experience.dataset.sample_ids.data.numpy()
        given[rows] += 1
        labels = experience.dataset.labels.data.numpy()
        assert labels.shape == (len(rows), seen)
        assert (labels[:, :first] == OUT_OF_SCOPE).all()
        assert (labels[:, first:] == truth[rows, first:seen]).all()
        assert labels[:, first:].any(axis=1).all(), "an image shows a label of its experience"
        first = seen
    assert (given == truth[:250].any(axis=1)).all(), "every image that shows something is in one experience"
    for experience, seen in zip(scenario.test_stream, scenario.n_seen, strict=True):
        rows = np.flatnonzero(truth[250:, :seen].any(axis=1))
        assert experience.dataset.sample_ids.data.tolist() == rows.tolist()
    repeated = load("benchmarks", name)(root=str(tmp_path), missing="ignore", assignment="overlap").build()
    assert sum(len(experience.dataset) for experience in repeated.train_stream) > 2 * 250


def test_emotic(tmp_path: Path) -> None:
    """Against the published division: five emotions, then seven times three, people with a current emotion."""
    people = {split: [] for split in ("train", "test")}
    variables = {}
    for split, found in people.items():
        images = np.empty((1, 60), dtype=[("filename", object), ("folder", object), ("person", object)])
        for i in range(60):
            persons = np.empty((1, 1 + i % 2), dtype=[("body_bbox", object), ("annotations_categories", object)])
            for j in range(1 + i % 2):
                felt = RNG.choice(len(NAMES), size=i % 4, replace=False)
                persons[0, j] = (np.array([[1, 2, 30, 40]]), {"categories": cell([NAMES[c] for c in felt], row=True)})
                if len(felt):
                    found.append((f"mscoco/images/{i}.jpg", set(felt.tolist())))
            images[0, i] = (f"{i}.jpg", "mscoco/images", persons)
        variables[split] = images
    savemat(tmp_path / "CVPR17_Annotations.mat", variables)
    scenario = load("benchmarks", "emotic")(root=str(tmp_path), missing="ignore").build()
    assert scenario.protocol == "B5-C3"
    assert scenario.label_names == NAMES
    bounds = [0, 5, 8, 11, 14, 17, 20, 23, 26]
    assert scenario.n_seen == tuple(bounds[1:])
    source = scenario.splits["train"].source
    assert source.files.tolist() == [file for file, _ in people["train"]]
    for t, (low, high) in enumerate(pairwise(bounds)):
        learnt = [row for row, (_, felt) in enumerate(people["train"]) if felt & set(range(low, high))]
        assert scenario.train_stream[t].dataset.sample_ids.data.tolist() == learnt
        tested = [row for row, (_, felt) in enumerate(people["test"]) if felt & set(range(high))]
        assert scenario.test_stream[t].dataset.sample_ids.data.tolist() == tested


CELEBA_NAMES = [
    *("Bags_Under_Eyes", "Bald", "Blond_Hair", "Eyeglasses", "Heavy_Makeup", "Male", "Receding_Hairline", "Smiling"),
    *("Wearing_Necklace", "Young"),
]
SEQUENCE = (
    *("Heavy_Makeup", "Blond_Hair", "Receding_Hairline", "Young"),
    *("Wearing_Necklace", "Bags_Under_Eyes", "Smiling", "Eyeglasses"),
)


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    values = np.where(np.random.default_rng(1).random((6000, len(CELEBA_NAMES))) < 0.4, 1, -1)
    files = [f"{i + 1:06}.jpg" for i in range(len(values))]
    lines = [f"{file} {' '.join(map(str, row))}" for file, row in zip(files, values, strict=True)]
    text = "\n".join([str(len(files)), " ".join(CELEBA_NAMES), *lines])
    (tmp_path / "list_attr_celeba.txt").write_text(text)
    parts = "\n".join(f"{file} {2 if i % 3 == 0 else 0}" for i, file in enumerate(files))
    (tmp_path / "list_eval_partition.txt").write_text(parts)
    return tmp_path


def ids_of(scenario: Any, stream: str, t: int) -> list[str]:
    part = scenario.splits[stream]
    return part.source.ids[part.experiences[t]].tolist()


def test_seq_celeba_draws_what_its_protocol_says(celeba: Path) -> None:
    kind = load("benchmarks", "celeba")
    options = {"root": str(celeba), "missing": "ignore", "images": 80, "test_group": 7}
    scenario = kind(**options, test="per_experience").build()
    assert scenario.label_names == SEQUENCE
    assert scenario.n_seen == tuple(range(1, 9))
    tables = {split: CelebA(root=str(celeba)).table(split) for split in ("train", "test")}
    used: dict[str, list[str]] = {"train": [], "test": []}
    for t, name in enumerate(SEQUENCE):
        for stream, with_it, against_it in (("train", 38, 2), ("test", 7, 7)):
            table = tables[stream]
            drawn = ids_of(scenario, stream, t)
            used[stream] += drawn
            of = {key: (has, man) for key, has, man in zip(table.ids.tolist(), *columns(table, name), strict=True)}
            groups = [of[key] for key in drawn]
            assert groups.count((True, False)) == groups.count((False, True)) == with_it
            assert groups.count((True, True)) == groups.count((False, False)) == against_it
    for drawn in used.values():
        assert len(drawn) == len(set(drawn)), "no image is drawn twice"
    labels = scenario.train_stream[3].dataset.labels.data.numpy()
    assert labels.shape == (80, 4)
    assert (labels[:, :3] == OUT_OF_SCOPE).all()
    assert sorted(np.unique(labels[:, 3]).tolist()) == [0, 1]
    assert labels[:, 3].sum() == 40

    again, other = kind(**options).build(), kind(**options, stream_seed=1).build()
    assert ids_of(again, "train", 5) == ids_of(scenario, "train", 5)
    assert ids_of(other, "train", 5) != ids_of(scenario, "train", 5)
    everything = kind(**options, test="all_images").build()
    for t in range(8):
        own = [set(ids_of(scenario, "test", k)) for k in range(8)]
        assert set(ids_of(again, "test", t)) == set().union(*own[: t + 1])
        assert set(ids_of(everything, "test", t)) == set().union(*own)


def columns(table: Any, name: str) -> tuple[list[bool], list[bool]]:
    return tuple((table.labels[:, table.label_names.index(key)] == 1).tolist() for key in (name, "Male"))


def test_seq_celeba_takes_what_there_is(celeba: Path) -> None:
    """A gender that is rarer than asked for in testing gives all it has, and the other gives as few."""
    scenario = load("benchmarks", "celeba")(root=str(celeba), missing="ignore", images=80, test_group=500).build()
    table = CelebA(root=str(celeba)).table("test")
    has, man = (np.array(column) for column in columns(table, SEQUENCE[0]))
    smallest = [min((has & man).sum(), (has & ~man).sum()), min((~has & man).sum(), (~has & ~man).sum())]
    assert len(ids_of(scenario, "test", 0)) == 2 * sum(smallest)


def test_seq_celeba_has_one_class_order(celeba: Path) -> None:
    with pytest.raises(CmlBenchError, match="contradicts the explicit label lists"):
        load("benchmarks", "celeba")(root=str(celeba), missing="ignore", images=80).build(class_order="alphabetical")


def test_lists_beside_published_ones_are_refused(celeba: Path) -> None:
    options = {"root": str(celeba), "missing": "ignore", "images": 80}
    with pytest.raises(
        CmlBenchError, match=r"^experiences=.* changes nothing, as published lists say .*: leave it out"
    ):
        load("benchmarks", "celeba")(**options, experiences=(("Young",), ("Smiling",))).build()
