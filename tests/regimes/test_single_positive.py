"""Single positive labels: how many, which, and how often, against weights worked out by hand."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cml_bench.data.table import Boxes
from cml_bench.errors import CmlBenchError
from cml_bench.labels import OUT_OF_SCOPE, PRESENT, UNMARKED

BIASES = ("uniform", "size", "location", "semantic")


def boxes_of(found: list[tuple[int, int, tuple[float, ...], float]]) -> Boxes:
    """Boxes from (row, column, left-top-width-height, area)."""
    rows, columns, xywh, areas = zip(*found, strict=True)
    return Boxes(np.array(rows), np.array(columns), np.array(xywh, dtype=np.float32), np.array(areas, dtype=np.float32))


@pytest.fixture(scope="module")
def photos(test_data: Path) -> dict[str, Any]:
    path = test_data / "coco80mini" / "annotations" / "instances_val2017.json"
    if not path.is_file():
        pytest.skip(f"real boxes not there: {path} (set CML_BENCH_TEST_DATA)")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def weights_by_hand(photos: dict[str, Any], bias: str) -> dict[int, dict[str, float]]:
    """Weights of each image's labels, one annotation after the other."""
    name = {category["id"]: category["name"] for category in photos["categories"]}
    size = {image["id"]: (image["width"], image["height"]) for image in photos["images"]}
    weights: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for annotation in photos["annotations"]:
        image, label = annotation["image_id"], name[annotation["category_id"]]
        if bias == "uniform":
            weights[image][label] = 1
        elif bias == "semantic":
            weights[image][label] = len(label)
        elif bias == "size":
            weights[image][label] += annotation["area"]
        else:
            left, top, width, height = annotation["bbox"]
            across, down = left + width / 2 - size[image][0] / 2, top + height / 2 - size[image][1] / 2
            weights[image][label] += 1 / (math.sqrt(across**2 + down**2) or 0.0005)
    return weights


@pytest.mark.parametrize("bias", BIASES)
def test_frequencies_on_real_boxes_follow_the_weights(
    photos: dict[str, Any], bare_source: Any, answers: Any, tmp_path: Path, bias: str
) -> None:
    """Each photo is asked about 100 times, under another id each time; chi-square over its labels."""
    names = [category["name"] for category in photos["categories"]]
    column = {category["id"]: i for i, category in enumerate(photos["categories"])}
    n, times = len(photos["images"]), 100
    row = {image["id"]: i for i, image in enumerate(photos["images"])}
    found = [(row[a["image_id"]], column[a["category_id"]], a["bbox"], a["area"]) for a in photos["annotations"]]
    copies = [(r + n * copy, c, xywh, area) for copy in range(times) for r, c, xywh, area in found]
    labels = np.zeros((n * times, len(names)), dtype=np.int8)
    for r, c, _, _ in copies:
        labels[r, c] = 1
    sizes = np.tile([[image["height"], image["width"]] for image in photos["images"]], (times, 1)).astype(np.int32)
    source = bare_source(labels, names=names, boxes=boxes_of(copies), sizes=sizes)
    (tmp_path / "shares.json").write_text(json.dumps({name: len(name) for name in names}), encoding="utf-8")

    shares = f" shares={tmp_path / 'shares.json'}" if bias == "semantic" else ""
    left = answers(f"single_positive bias={bias}{shares}", source)
    drawn = left == PRESENT
    assert (drawn.sum(axis=1) == labels.any(axis=1)).all()
    assert set(left[~drawn].tolist()) == {UNMARKED}
    counts = drawn.reshape(times, n, -1).sum(axis=0)

    def chi_square(supposed: str) -> float:
        """P value over all labels of all photos that should come up at least five times."""
        expected = np.zeros_like(counts, dtype=np.float64)
        for image, weights in weights_by_hand(photos, supposed).items():
            for label, weight in weights.items():
                expected[row[image], names.index(label)] = times * weight / sum(weights.values())
        often = expected >= 5
        statistic = ((counts - expected)[often] ** 2 / expected[often]).sum()
        free = often.sum() - np.count_nonzero(often.any(axis=1))
        return float(stats.chi2.sf(statistic, free))

    assert chi_square(bias) > 1e-3
    assert all(chi_square(other) < 1e-6 for other in BIASES if other != bias), "the test could not tell"


def test_one_in_three_by_hand(bare_source: Any, answers: Any) -> None:
    """Areas 1 + 2 against 6; the third label is not there; in a 20 x 10 image distances 5 against 1 and 0."""
    n = 6000
    labels = np.tile([1, 1, 0], (n, 1))
    objects = [
        (0, (0.0, 4.0, 10.0, 2.0), 1.0),
        (0, (0.0, 4.0, 10.0, 2.0), 2.0),
        (1, (9.0, 5.0, 2.0, 2.0), 6.0),
    ]
    boxes = boxes_of([(r, c, xywh, area) for r in range(n) for c, xywh, area in objects])
    source = bare_source(labels, boxes=boxes, sizes=np.tile([10, 20], (n, 1)).astype(np.int32))
    by_size = (answers("single_positive bias=size", source) == PRESENT).sum(axis=0)
    assert by_size[0] == pytest.approx(n * 3 / 9, abs=4.5 * math.sqrt(n * 2 / 9))
    by_place = (answers("single_positive bias=location", source) == PRESENT).sum(axis=0)
    assert by_place[0] == pytest.approx(n * (2 / 5) / (2 / 5 + 1), abs=4.5 * math.sqrt(n * 10 / 49))
    assert by_size[2] == by_place[2] == 0


def test_an_object_in_the_very_middle_wins(bare_source: Any, answers: Any) -> None:
    """Distance 0 counts as 0.0005 pixels: 2,000 against 1 / 5."""
    boxes = boxes_of([(r, c, (c * 5.0, 0.0, 10.0, 10.0), 1.0) for r in range(200) for c in (0, 1)])
    source = bare_source(np.ones((200, 2)), boxes=boxes, sizes=np.full((200, 2), 10, dtype=np.int32))
    assert (answers("single_positive bias=location", source) == PRESENT).sum(axis=0).tolist() == [200, 0]


def test_a_label_without_a_box_is_drawn_only_where_none_has_one(bare_source: Any, answers: Any) -> None:
    boxes = boxes_of([(r, 2, (0.0, 0.0, 1.0, 1.0), 1.0) for r in range(500)])
    source = bare_source([[1, 1, 1]] * 500 + [[1, 1, 0]] * 500, boxes=boxes)
    drawn = answers("single_positive bias=size", source) == PRESENT
    assert drawn[:500].sum(axis=0).tolist() == [0, 0, 500]
    assert drawn[500:].sum(axis=1).tolist() == [1] * 500
    assert 180 < drawn[500:, 0].sum() < 320, "no weight anywhere is not uniform"


def test_shares_of_zero_give_way(bare_source: Any, answers: Any, tmp_path: Path) -> None:
    path = tmp_path / "shares.json"
    path.write_text('{"label0": 0, "label1": 0.1, "label2": 0, "zebra": 3}', encoding="utf-8")
    source = bare_source([[1, 1, 1]] * 300 + [[1, 0, 1]] * 300)
    drawn = answers(f"single_positive bias=semantic shares={path}", source) == PRESENT
    assert drawn[:300].sum(axis=0).tolist() == [0, 300, 0]
    assert 110 < drawn[300:, 0].sum() < 190
    assert (drawn.sum(axis=1) == 1).all()


def test_every_set_of_labels_asked_together_gets_its_own_positive(coco_source: Any, answers: Any) -> None:
    groups = np.split(np.arange(80), [40, 50, 60, 70])
    drawn = answers("single_positive", coco_source, groups) == PRESENT
    for group in groups:
        assert (drawn[:, group].sum(axis=1) == coco_source.labels[:, group].any(axis=1)).all()


def test_an_image_that_comes_back_is_drawn_anew(bare_source: Any, answers: Any) -> None:
    """What it got among the labels of one experience tells nothing of what it gets among those of another."""
    source = bare_source(np.ones((6000, 6)))
    drawn = answers("single_positive", source, [np.arange(3), np.arange(3, 6)]) == PRESENT
    first, second = drawn[:, :3].argmax(axis=1), drawn[:, 3:].argmax(axis=1)
    together = np.bincount(first * 3 + second, minlength=9)
    assert stats.chisquare(together).pvalue > 1e-3


def test_out_of_scope_stays_so_and_is_never_drawn(bare_source: Any, answers: Any) -> None:
    source = bare_source([[OUT_OF_SCOPE, 1, 0], [OUT_OF_SCOPE, 0, 0]])
    assert answers("single_positive", source).tolist() == [
        [OUT_OF_SCOPE, PRESENT, UNMARKED],
        [OUT_OF_SCOPE, UNMARKED, UNMARKED],
    ]


def test_what_a_bias_needs_is_named(bare_source: Any, answers: Any) -> None:
    bare = bare_source([[1, 1]])
    for bias in ("size", "location"):
        with pytest.raises(CmlBenchError, match=f"bias={bias} needs object boxes and bare has none"):
            answers(f"single_positive bias={bias}", bare)
    with_boxes = bare_source([[1, 1]], boxes=boxes_of([(0, 0, (0.0, 0.0, 1.0, 1.0), 1.0)]))
    with pytest.raises(CmlBenchError, match="needs image sizes and bare has none"):
        answers("single_positive bias=location", with_boxes)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read .No such file"),
        ("{", "is no JSON, or cut short"),
        ("[1, 2]", "holds no JSON object: write"),
        ('{"label0": 1}', "no share of label 'label1'"),
        ('{"label0": 1, "label1": -2}', "share -2 for label 'label1'"),
        ('{"label0": true, "label1": 2}', "share True for label 'label0'"),
        ('{"label0": NaN, "label1": 2}', "it holds NaN, which is no number"),
        ('{"label0": Infinity, "label1": 2}', "it holds Infinity, which is no number"),
        ('{"label0": "many", "label1": 2}', "share 'many' for label 'label0'"),
    ],
)
def test_a_bad_file_of_shares_is_named(
    bare_source: Any, answers: Any, tmp_path: Path, content: str | None, sentence: str
) -> None:
    path = tmp_path / "shares.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(CmlBenchError, match=sentence) as caught:
        answers(f"single_positive bias=semantic shares={path}", bare_source([[1, 1]]))
    assert str(path) in str(caught.value)
