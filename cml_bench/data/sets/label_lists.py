"""Label lists: text files with one line an image, the file and the numbers of its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cml_bench.data.data_set import DataCard, DataSet
from cml_bench.data.table import LabelTable
from cml_bench.data.text_lists import read_lines
from cml_bench.data.vetting import as_texts, straight, table_from
from cml_bench.errors import CmlBenchError


@dataclass(frozen=True, kw_only=True)
class LabelLists(DataSet):
    """Images and labels as many papers release them: ``image.jpg, 0 52``, one line an image.

    Every ``.txt`` file in ``root`` is a split, named by its stem. The file name ends at the first blank or comma; label
    numbers count from 0, are separated by blanks or commas, and may be written as floats (``2.``). A line may name no
    label. Rows are lines, ids and files are the names as listed. What a list leaves out counts as absent, also in lists
    that were thinned out on purpose.

    Attributes:
        names: A text file in ``root`` with the label names in the order of the numbers, one a line.
        n_labels: Number of labels, where no names are known: they are then ``label_000``, ``label_001`` ... Give one of
            the two: the largest number that a list happens to hold says nothing of the vocabulary.
        images: Image folder, relative to ``root``.
    """

    names: str | None = None
    n_labels: int | None = None
    images: str = "."

    meta = DataCard(
        name="label_lists",
        title="Label lists",
        version=1,
        splits={
            "coco_train_full": {"images": 82081, "labels": 241035},
            "coco_train_0.75left": {"labels": 181422},
            "coco_train_0.4left": {"labels": 96251},
            "coco_train_singlelabel": {"labels": 82081},
            "nus_train_full": {"images": 119103, "labels": 286420},
            "nus_val": {"images": 50720, "labels": 122304},
            "coco_lt_test": {"images": 5000},
            "voc_lt_test": {"images": 4952, "labels": 7632},
        },
        n_labels=None,
        licence="the lists of the two repositories: MIT; other lists and all images: their own",
        homepage="https://github.com/chuangua/ContrastiveLossMLML",
        download="""Put lists into the folder that you give as root. Published ones:
  git clone https://github.com/chuangua/ContrastiveLossMLML  dataset/{coco_train_*,nus_train_full,nus_val}.txt
      COCO by category id (n_labels=80), NUS-WIDE in an order that is not named (n_labels=81)
  git clone https://github.com/jiexuanyan/hp_dval            data/{coco/coco_lt_test,voc/voc_lt_test}.txt
      COCO by category id; VOC2007 test in alphabetical order, where difficult objects make labels""",
        citation="ContrastiveLossMLML and hp_dval, repositories on GitHub",
        checksums={
            "coco_train_full.txt": "sha256:a0bd4ce7248bcc03f9f508e34d44a439202ebbafcc59005830e3db272c5c1af4",
            "nus_train_full.txt": "sha256:b7a5579ecf2df55507cdf8cd27c13f9e38c602c1c883ca5e23391a723cf98d83",
            "nus_val.txt": "sha256:47dc2cdb7d578c255d66cfd7b6bc0e153a4b84fa0229e116611ba733d51ea146",
            "coco_lt_test.txt": "sha256:4dda722463b0ed3aada172ce1c75f46f1391e4d2bee7643760549f916a8022e5",
            "voc_lt_test.txt": "sha256:43b2929a86e9fe685cdf3b6b72fb90b6838ff9f9f427807e8b9502111e73750a",
        },
    )

    def __post_init__(self) -> None:
        """Refuse lists of labels that nobody has counted."""
        if (self.names is None) == (self.n_labels is None):
            raise CmlBenchError("label lists hold numbers: give either names=FILE or n_labels=NUMBER")

    @property
    def splits(self) -> tuple[str, ...]:
        """The lists that are there."""
        return tuple(sorted(file.stem for file in Path(self.root).glob("*.txt") if file.name != self.names))

    def label_files(self, split: str) -> Sequence[Path]:
        """Return the list and, if given, the names."""
        if Path(self.root).is_dir() and split not in self.splits:
            raise self.unknown_split(split)
        names = [] if self.names is None else [self.find_file(self.names)]
        return [self.find_file(f"{split}.txt"), *names]

    def read(self, split: str) -> LabelTable:
        """Read a list."""
        path, *names = self.label_files(split)
        label_names = read_lines(names[0]) if names else [f"label_{number:03d}" for number in range(self.n_labels or 0)]
        entries = [line.replace(",", " ").partition(" ") for line in read_lines(path)]
        files = as_texts(path, [straight(file) for file, _, _ in entries])
        words = [numbers.split() for _, _, numbers in entries]
        rows = np.repeat(np.arange(len(entries)), [len(line) for line in words])
        columns = _numbers([word for line in words for word in line], rows, len(label_names), path)
        labels = np.zeros((len(entries), len(label_names)), dtype=np.int8)
        labels[rows, columns] = 1
        return table_from(
            path,
            label_names=tuple(label_names),
            ids=files,
            labels=labels,
            files=files,
            counts={"repeated_labels": len(rows) - int(labels.sum())},
        )

    def image_folder(self, split: str) -> Path:
        """Return the folder that ``images`` names."""
        return Path(self.root) / self.images


def _numbers(words: Sequence[str], rows: npt.NDArray[np.int64], n_labels: int, path: Path) -> npt.NDArray[np.int64]:
    """Return words as label numbers.

    Args:
        words: As written.
        rows: The row that each word stands in.
        n_labels: Number of labels.
        path: The list, for the error.

    Raises:
        CmlBenchError: If a word is no whole number from 0 to ``n_labels - 1``.
    """
    values = pd.to_numeric(np.array(words, dtype=object), errors="coerce").astype(np.float64)
    numbers = np.nan_to_num(values, nan=-1).clip(-1, n_labels).astype(np.int64)
    wrong = np.flatnonzero((numbers != values) | (numbers < 0) | (numbers == n_labels))
    if len(wrong):
        first = wrong[0]
        raise CmlBenchError(
            f"line {rows[first] + 1} of {path} says {words[first]!r:.60}, which is no label number from 0 to "
            f"{n_labels - 1}: correct it, or give the names or the number of labels that belong to the list"
        )
    return numbers
