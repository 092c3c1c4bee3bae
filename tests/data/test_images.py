"""Reading image files: whole ones to the bit, damaged ones as a sentence, never as a crash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cml_bench.data.images import read_image
from cml_bench.errors import CmlBenchError


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_whole_file_is_what_pillow_reads(tmp_path: Path, kind: str, mode: str) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(24, 30, 3), dtype=np.uint8)
    path = tmp_path / f"image.{kind}"
    Image.fromarray(pixels).convert(mode).save(path, **({"lossless": True} if kind == "webp" else {}))
    expected = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)
    found = read_image(path)
    # JPEG decoders differ by rounding.
    assert (found.int() - expected.int()).abs().max() <= (0 if kind != "jpg" else 3)


def test_no_damage_to_a_png_takes_the_process_down(tmp_path: Path) -> None:
    """Every byte of the pixel data in turn; torchvision's decoder alone ends in a segmentation fault."""
    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(256, size=(6, 6, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    for place in range(whole.index(b"IDAT"), len(whole) - 12):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(CmlBenchError, match=r"image.png cannot be decoded \(a PNG chunk is damaged\)"):
            read_image(path)
    for length in range(8, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(CmlBenchError, match="cannot be decoded"):
            read_image(path)


def test_what_is_no_image_is_said_to_be_none(tmp_path: Path) -> None:
    for content in (b"", b"no image", b"\xff\xd8\xff"):
        (tmp_path / "image.jpg").write_bytes(content)
        with pytest.raises(CmlBenchError, match=r"image.jpg cannot be decoded"):
            read_image(tmp_path / "image.jpg")
    with pytest.raises(CmlBenchError, match="does not exist"):
        read_image(tmp_path / "nowhere.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(CmlBenchError, match="does not exist"):
        read_image(tmp_path / "folder.jpg")


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "AVIF", "GIF"])
def test_a_picture_of_another_kind_is_to_be_converted(tmp_path: Path, kind: str) -> None:
    """To fetch it again would change nothing."""
    path = tmp_path / "image.jpg"
    Image.new("RGB", (8, 8)).save(path, format=kind)
    with pytest.raises(CmlBenchError, match=rf"image\.jpg is a .*{kind}; convert it to JPEG or PNG"):
        read_image(path)
