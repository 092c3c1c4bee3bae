"""Published lists: whatever is done to a copy, it is the published one or refused."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cml_bench.errors import CmlBenchError
from cml_bench.streams import agcn_lists, prs_lists
from cml_bench.streams.published import LARGEST, Release

Fuzz = Callable[..., Counter[str]]

LIST = json.dumps([391895, 522418, 184613]).encode()
SHEET = b"COCO_train2014_000000000965.jpg,0,1,0\n000000000042.jpg,1,1,0\n"


def release(title: str, name: str, content: bytes) -> Release:
    return Release(title, get="fetch it", sha256={name: hashlib.sha256(content).hexdigest()})


def test_prs(tmp_path: Path, fuzz: Fuzz, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"COCOseq/ids/{part}_task0_id_coco.json" for part in ("train", "test")]
    digest = hashlib.sha256(LIST).hexdigest()
    monkeypatch.setattr(prs_lists, "PRS", Release("PRS", get="clone it", sha256=dict.fromkeys(names, digest)))
    (tmp_path / "COCOseq/ids").mkdir(parents=True)
    for name in names:
        (tmp_path / name).write_bytes(LIST)

    def sound(lists: Any) -> None:
        assert [part.tolist() for (part,) in lists] == [[391895, 522418, 184613]] * 2

    fuzz(tmp_path / names[0], [LIST], lambda: prs_lists.prs_lists(str(tmp_path), "COCOseq", [0]), sound, count)


def archive(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("Split-COCO/task0/train.csv", content)
    return file.getvalue()


def test_agcn(tmp_path: Path, fuzz: Fuzz, zip_members: Sequence[Any], count: int, monkeypatch: Any) -> None:
    """A release in an archive; another content, another name or another compression never passes."""
    name, path = "Split-COCO/task0/train.csv", tmp_path / "Split-COCO.zip"
    sha256 = {f"Split-COCO/task0/{part}.csv": hashlib.sha256(SHEET).hexdigest() for part in ("train", "test")}
    monkeypatch.setattr(agcn_lists, "AGCN", Release("AGCN", get="clone it", sha256=sha256))
    made = release("AGCN", name, SHEET)

    def sound(content: bytes) -> None:
        assert content == SHEET

    fuzz(path, [archive(SHEET)], lambda: made.read(str(path), name), sound, min(count, 5000), zip_members)


def test_a_bomb_is_another_file(tmp_path: Path) -> None:
    path = tmp_path / "Split-COCO.zip"
    path.write_bytes(archive(b"\0" * (4 * LARGEST)))
    assert path.stat().st_size < LARGEST / 100
    with pytest.raises(CmlBenchError, match=r"train.csv in .*Split-COCO.zip is not the one that AGCN published"):
        release("AGCN", "Split-COCO/task0/train.csv", SHEET).read(str(path), "Split-COCO/task0/train.csv")
