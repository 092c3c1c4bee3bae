"""VG-500: SSGRL's lists and Visual Genome's image data, small and in the real layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cml_bench.data.sets.visual_genome import VisualGenome
from cml_bench.errors import CmlBenchError

INDEX = {"2360596.jpg": [0, 499, 7], "77.jpg": [7], "1593179.jpg": [], "4.jpg": [1]}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "vg"
    folder.mkdir()
    (folder / "train_list_500.txt").write_text("2360596.jpg\n77.jpg\n1593179.jpg\n")
    (folder / "test_list_500.txt").write_text("4.jpg\n")
    (folder / "vg_category_500_labels_index.json").write_text(json.dumps(INDEX))
    data = [
        {
            "width": 800 + number,
            "url": f"https://cs.stanford.edu/people/rak248/{place}/{number}.jpg",
            "height": 600,
            "image_id": number,
            "coco_id": None,
            "flickr_id": None,
        }
        for number, place in ((1, "VG_100K_2"), (4, "VG_100K"), (77, "VG_100K_2"), (1593179, "VG_100K"))
    ]
    data.append({**data[0], "image_id": 2360596, "url": "https://cs.stanford.edu/people/rak248/VG_100K/2360596.jpg"})
    (folder / "image_data.json").write_text(json.dumps(data))
    return folder


def test_list_index_and_folders(root: Path) -> None:
    table = VisualGenome(root=str(root)).table("train")
    assert len(table.label_names) == 500
    assert table.label_names[7] == "007"
    assert table.ids.tolist() == [2360596, 77, 1593179]
    assert [row.nonzero()[0].tolist() for row in table.labels] == [[0, 7, 499], [7], []]
    assert table.files is not None
    assert table.files.tolist() == ["VG_100K/2360596.jpg", "VG_100K_2/77.jpg", "VG_100K/1593179.jpg"]
    assert table.sizes is not None
    assert table.sizes.tolist() == [[600, 801], [600, 877], [600, 1593979]]
    assert VisualGenome(root=str(root)).table("test").ids.tolist() == [4]


def test_merged_folders_need_no_image_data(root: Path) -> None:
    (root / "image_data.json").unlink()
    with pytest.raises(CmlBenchError, match=r"holds no image_data.json; 'cml-bench data info visual_genome'"):
        VisualGenome(root=str(root)).table("train")
    table = VisualGenome(root=str(root), merged=True).table("train")
    assert table.files is not None
    assert table.files.tolist() == ["VG_100K/2360596.jpg", "VG_100K/77.jpg", "VG_100K/1593179.jpg"]
    assert table.sizes is None


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "vg_category_500_labels_index.json",
            {**INDEX, "77.jpg": [500]},
            "numbers from 0 to 499 for '77.jpg' .line 2 of",
        ),
        ("vg_category_500_labels_index.json", {**INDEX, "77.jpg": [-1]}, "numbers from 0 to 499 for '77.jpg'"),
        ("vg_category_500_labels_index.json", {**INDEX, "77.jpg": [True]}, "numbers from 0 to 499 for '77.jpg'"),
        ("vg_category_500_labels_index.json", {**INDEX, "77.jpg": "7"}, "numbers from 0 to 499 for '77.jpg'"),
        ("vg_category_500_labels_index.json", {"4.jpg": [1]}, r"numbers from 0 to 499 for '2360596.jpg' \(line 1 of"),
        ("vg_category_500_labels_index.json", [1], "holds no JSON object"),
        ("image_data.json", [{"image_id": 77}], "lacks an image of the list, or its url"),
        ("image_data.json", [], "lacks an image of the list, .*2360596"),
        ("image_data.json", {}, "holds no JSON list"),
        ("image_data.json", ["x"], "lacks an image of the list"),
    ],
)
def test_what_does_not_fit_is_one_sentence(root: Path, file: str, content: Any, message: str) -> None:
    (root / file).write_text(json.dumps(content))
    with pytest.raises(CmlBenchError, match=message):
        VisualGenome(root=str(root)).table("train")


def test_lists_and_cut_files(root: Path) -> None:
    index = root / "vg_category_500_labels_index.json"
    index.write_text(index.read_text()[:-4])
    with pytest.raises(CmlBenchError, match=r"index.json is no JSON, or cut short"):
        VisualGenome(root=str(root)).table("train")
    index.write_text(json.dumps({**INDEX, "no.png": []}))
    (root / "train_list_500.txt").write_text("77.jpg\nno.png\n")
    with pytest.raises(CmlBenchError, match=r"line 2 of .*train_list_500.txt says 'no.png', no image like"):
        VisualGenome(root=str(root)).table("train")
    (root / "train_list_500.txt").write_text("77.jpg\n77.jpg\n")
    with pytest.raises(CmlBenchError, match="image id 77 is listed twice"):
        VisualGenome(root=str(root)).table("train")
    with pytest.raises(CmlBenchError, match="VG-500 has no split 'val'"):
        VisualGenome(root=str(root)).table("val")
