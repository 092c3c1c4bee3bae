"""Images of your own with a CSV file for each split."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cml_bench.data.data_set import DataCard, DataSet
from cml_bench.data.table import LabelTable
from cml_bench.data.text_lists import LABEL_LIST, read_lines
from cml_bench.data.vetting import as_texts, refuse_large, straight, table_from
from cml_bench.errors import CmlBenchError
from cml_bench.labels import LabelArray


@dataclass(frozen=True, kw_only=True)
class ImageFolder(DataSet):
    """``train.csv`` and ``test.csv`` (and any other split) in ``root``, separated by commas, with a head line.

    The first column names image files relative to ``root``; they are the ids. What follows is one of two spellings,
    told by the head line: one column a label, of 0 and 1 (``file,cat,dog``), or a single column with the name
    ``labels`` that lists label names joined by ``;`` (``file,labels`` and ``a.jpg,cat;dog``; empty for none).

    Columns keep the order of the head line. Listed names are in the order of ``label_names.txt`` in ``root`` (one a
    line), or, without that file, all names that any CSV file in ``root`` lists, alphabetically. Rows are in the order
    of the file.
    """

    meta = DataCard(
        name="image_folder",
        title="Image folder",
        version=1,
        splits={"train": {}, "test": {}},
        n_labels=None,
        licence="that of the images",
        homepage="",
        download="""Nothing to fetch. Put train.csv and test.csv in the folder of your images:
  file,cat,dog            or    file,labels
  photos/a.jpg,1,0              photos/a.jpg,cat
  photos/b.jpg,1,1              photos/b.jpg,cat;dog""",
        citation="none; cite your own data",
    )

    @property
    def splits(self) -> tuple[str, ...]:
        """The CSV files in ``root``."""
        return tuple(file.stem for file in self._files())

    def label_files(self, split: str) -> Sequence[Path]:
        """Return the split's CSV file, the others (they may list further names) and ``label_names.txt``."""
        files = self._files()
        own = [file for file in files if file.stem == split]
        if not own and split not in self.meta.splits:
            raise self.unknown_split(split)
        return [self.find_file(f"{split}.csv"), *(file for file in files if file not in own), *self._label_list()]

    def read(self, split: str) -> LabelTable:
        """Read the CSV file."""
        path, *_ = self.label_files(split)
        sheet = _Sheet.read(path)
        names = self._listed_names() if sheet.lists else sheet.head[1:]
        labels = sheet.listed(names, self._label_list()) if sheet.lists else sheet.marked()
        files = as_texts(path, [straight(row[0].strip()) for row in sheet.rows])
        return table_from(path, label_names=names, ids=files, labels=labels, files=files)

    def _files(self) -> list[Path]:
        return sorted(file for file in Path(self.root).glob("*.csv") if file.is_file())

    def _label_list(self) -> list[Path]:
        return list(Path(self.root).glob(LABEL_LIST))

    def _listed_names(self) -> tuple[str, ...]:
        for file in self._label_list():
            return tuple(read_lines(file))
        sheets = [sheet for sheet in map(_Sheet.read, self._files()) if sheet.lists]
        names = tuple(sorted({name for sheet in sheets for _, name in sheet.entries()}))
        if names and set(names) <= {"0", "1"}:
            raise CmlBenchError(
                f"{sheets[0].path} lists {' and '.join(names)} under 'labels', a column for names of labels: call the "
                f"column what 1 means, or name labels in {LABEL_LIST}"
            )
        return names


@dataclass(frozen=True, eq=False)
class _Sheet:
    """The text of a CSV file.

    Attributes:
        path: The file.
        head: Its first line.
        lines: The line that each further row ends on.
        rows: The further rows, as long as the head line.
    """

    path: Path
    head: tuple[str, ...]
    lines: list[int]
    rows: list[list[str]]

    @classmethod
    def read(cls, path: Path) -> _Sheet:
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, strict=True)
                told = [(reader.line_num, row) for row in reader if any(row)]
        except (csv.Error, UnicodeDecodeError) as error:
            raise CmlBenchError(f"{path} is no CSV file in UTF-8 ({error}): correct it") from None
        if not told:
            raise CmlBenchError(f"{path} is empty: write a head line, file,cat,dog say, and a line an image")
        if len(told[0][1]) < 2:
            raise CmlBenchError(f"{path} has one column or none: separate the file name and its labels with commas")
        (_, head), *rest = told
        # Labels may well be called 0 and 1; a first column that is called a.jpg is an image.
        if set(head[1:]) <= {"0", "1"} and Path(head[0]).suffix:
            raise CmlBenchError(
                f"the first line of {path} is {','.join(head)!r:.60}: write a head line, file,cat,dog say"
            )
        for line, row in rest:
            if len(row) != len(head):
                raise CmlBenchError(f"line {line} of {path} has {len(row)} values under {len(head)} heads: correct it")
            if not row[0].strip():
                raise CmlBenchError(f"line {line} of {path} names no image: write its file, or delete the line")
        return cls(path, tuple(name.strip() for name in head), [line for line, _ in rest], [row for _, row in rest])

    @property
    def lists(self) -> bool:
        return self.head[1:] == ("labels",)

    def entries(self) -> list[tuple[int, str]]:
        """Return every row number and name that is listed."""
        return [
            (number, name.strip()) for number, row in enumerate(self.rows) for name in row[1].split(";") if name.strip()
        ]

    def listed(self, names: tuple[str, ...], vocabulary: list[Path]) -> LabelArray:
        """Return the (N, C) labels of lists joined by semicolons."""
        places = {name: column for column, name in enumerate(names)}
        refuse_large(self.path, len(self.rows), len(names))
        labels = np.zeros((len(self.rows), len(names)), dtype=np.int8)
        for row, name in self.entries():
            if name not in places:
                raise CmlBenchError(
                    f"line {self.lines[row]} of {self.path} lists {name!r:.60}, which {vocabulary[0]} does not: "
                    "correct one"
                )
            labels[row, places[name]] = 1
        return labels

    def marked(self) -> LabelArray:
        """Return the (N, C) labels of columns of 0 and 1."""
        values = np.array([row[1:] for row in self.rows], dtype=object).reshape(len(self.rows), len(self.head) - 1)
        present, absent = values == "1", values == "0"
        for row, column in np.argwhere(~present & ~absent):
            raise CmlBenchError(
                f"line {self.lines[row]} of {self.path} says {values[row, column]!r:.60} for label "
                f"{self.head[column + 1]!r:.60}: write 0 or 1"
            )
        return np.asarray(present, dtype=np.int8)
