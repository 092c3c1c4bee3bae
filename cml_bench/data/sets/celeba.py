"""CelebA: 202,599 faces of celebrities and 40 attributes, from the official text files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cml_bench.data.data_set import DataCard, DataSet
from cml_bench.data.table import LabelTable, Texts
from cml_bench.data.text_lists import read_lines
from cml_bench.data.vetting import as_texts, table_from
from cml_bench.errors import CmlBenchError
from cml_bench.labels import LabelArray

_SPLITS = {"train": 0, "valid": 1, "test": 2}
"""How ``list_eval_partition.txt`` numbers the splits."""


@dataclass(frozen=True, kw_only=True)
class CelebA(DataSet):
    """CelebA's official text files beside ``img_align_celeba/``, as torchvision has them in its ``celeba`` folder.

    Rows are in the order of the files, which ascends by image; ids are the file names. An attribute of -1 is absent:
    all 40 are known of every face. Splits share no person.
    """

    meta = DataCard(
        name="celeba",
        title="CelebA",
        version=1,
        splits={"train": {"images": 162770}, "valid": {"images": 19867}, "test": {"images": 19962}},
        n_labels=40,
        licence="non-commercial research only (CelebA agreement)",
        homepage="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        download="""From the homepage take list_attr_celeba.txt (Anno), list_eval_partition.txt (Eval) and
img_align_celeba.zip (Img). Root is the folder that holds both lists and img_align_celeba/000001.jpg ...;
torchvision.datasets.CelebA(FOLDER, download=True) makes it as FOLDER/celeba.""",
        citation="Liu et al., Deep Learning Face Attributes in the Wild, ICCV 2015",
        checksums={
            "list_attr_celeba.txt": "md5:75e246fa4810816ffd6ee81facbd244c",
            "list_eval_partition.txt": "md5:d32c9cbf5e040fd4025c592c306e6668",
        },
        pretraining_names=("celeba",),
    )

    def label_files(self, split: str) -> Sequence[Path]:
        """Return the lists of attributes and of splits."""
        if split not in _SPLITS:
            raise self.unknown_split(split)
        return [self.find_file("list_attr_celeba.txt"), self.find_file("list_eval_partition.txt")]

    def read(self, split: str) -> LabelTable:
        """Read both lists and take the rows of the split."""
        attributes, partition = self.label_files(split)
        names, files, labels = _read_attributes(attributes)
        rows = np.flatnonzero(_read_partition(partition, attributes, files) == _SPLITS[split])
        return table_from(attributes, label_names=names, ids=files[rows], labels=labels[rows], files=files[rows])

    def image_folder(self, split: str) -> Path:
        """Return ``img_align_celeba``."""
        return Path(self.root) / "img_align_celeba"


def _read_attributes(path: Path) -> tuple[tuple[str, ...], Texts, LabelArray]:
    """Return attribute names, image files and (N, C) labels: a count, a line of names, then a line an image."""
    count, header, *lines = [*read_lines(path), ""]
    names, lines = tuple(header.split()), lines[:-1]
    if not lines or count != str(len(lines)):
        raise CmlBenchError(f"{path} announces {count[:20]!r} images but lists {len(lines)}: fetch it again")
    files, packed = [], []
    for number, line in enumerate(lines, start=3):
        file, *values = line.split()
        if len(values) != len(names) or not {*values} <= {"-1", "1"}:
            raise CmlBenchError(
                f"line {number} of {path} is no image file followed by {len(names)} values of -1 or 1: fetch it again"
            )
        files.append(file)
        # One character a value: eight million of them would be half a gigabyte of strings.
        packed.append("".join(values).replace("-1", "0"))
    labels = np.frombuffer("".join(packed).encode(), dtype=np.int8).reshape(-1, len(names)) == ord("1")
    return names, as_texts(path, files), labels.view(np.int8)


def _read_partition(path: Path, attributes: Path, files: Texts) -> npt.NDArray[np.int8]:
    """Return the (N,) number of each image's split."""
    lines = read_lines(path)
    if len(lines) != len(files):
        raise CmlBenchError(f"{path} lists {len(lines)} images, {attributes} {len(files)}: fetch both again")
    splits = []
    for number, (line, file) in enumerate(zip(lines, files.tolist(), strict=True), start=1):
        listed, _, split = line.partition(" ")
        if listed != file or split not in ("0", "1", "2"):
            raise CmlBenchError(
                f"line {number} of {path} says {line[:40]!r}, not {file!r:.40} as {attributes} and 0 (train), 1 "
                "(valid) or 2 (test): fetch both again"
            )
        splits.append(int(split))
    return np.array(splits, dtype=np.int8)
