"""NUS-WIDE: 269,648 Flickr photos and 81 concepts, from the official ground-truth and image lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from cml_bench.data.data_set import DataCard, DataSet
from cml_bench.data.table import LabelTable
from cml_bench.data.text_lists import read_lines
from cml_bench.data.vetting import as_texts, table_from
from cml_bench.errors import CmlBenchError, suggest
from cml_bench.labels import LabelArray

Layout = Literal["folders", "flickr_id"]

CONCEPTS_81 = tuple(
    """airport animal beach bear birds boats book bridge buildings cars castle cat cityscape clouds computer coral cow
    dancing dog earthquake elk fire fish flags flowers food fox frost garden glacier grass harbor horses house lake leaf
    map military moon mountain nighttime ocean person plane plants police protest railroad rainbow reflection road rocks
    running sand sign sky snow soccer sports statue street sun sunset surf swimmers tattoo temple tiger tower town toy
    train tree valley vehicle water waterfall wedding whales window zebra""".split()  # noqa: SIM905
)
"""The names of ``Concepts81.txt`` in its order, which is alphabetical."""

CONCEPTS_21 = tuple(
    """animal beach buildings clouds flowers grass lake mountain ocean person plants reflection road rocks sky snow
    sunset tree vehicle water window""".split()  # noqa: SIM905
)
"""The 21 most frequent concepts, known as NUS-WIDE-TC21 in the hashing literature, in the order of the 81."""

_PARTS = {
    "train": ("TrainImagelist", "TrainTestLabels", "_Train"),
    "test": ("TestImagelist", "TrainTestLabels", "_Test"),
    "all": ("Imagelist", "AllLabels", ""),
}
"""Of each split: its image list, its folder of labels and the end of the label files' names."""


@dataclass(frozen=True, kw_only=True)
class NUSWIDE(DataSet):
    r"""NUS-WIDE in its official layout: ``Groundtruth/{TrainTestLabels,AllLabels}`` and ``ImageList``.

    **Row i of a split is line i (from 0) of its image list**, as published divisions address images by line; ``all``
    follows ``Imagelist.txt``. Images without any concept stay, without a label. An id is the list's own entry with the
    folder (``actor\0001_2124494179.jpg`` becomes ``actor/0001_2124494179.jpg``): Flickr ids, the number after the
    underscore, are no ids, since some photos are listed twice, in two folders (counted as ``repeated_flickr_ids``).

    Many photos are gone from Flickr, so most copies are incomplete: give ``missing=allow``, which lists what is not
    there. Published counts below the official ones leave out such photos, or those without a label, or both.

    Attributes:
        concepts: 81, or 21 for the most frequent ones. The labels are the same; the columns are fewer.
        images: Image folder, relative to ``root``.
        layout: How that folder names photos: ``folders`` as in the lists (``actor/0001_2124494179.jpg``), ``flickr_id``
            by Flickr id alone (``2124494179.jpg``).
    """

    concepts: int = 81
    images: str = "Flickr"
    layout: Layout = "folders"

    meta = DataCard(
        name="nuswide",
        title="NUS-WIDE",
        version=1,
        splits={
            "train": {"images": 161789},
            "test": {"images": 107859},
            "all": {"images": 269648, "repeated_flickr_ids": 6},
        },
        n_labels=None,
        licence="labels for research, without a licence of their own; photos on request from the authors, Flickr terms",
        homepage="https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html",
        download="""From the homepage take "Groundtruth" and "Image List" and unpack both in the folder that you give as
root, so that it holds Groundtruth/TrainTestLabels/, Groundtruth/AllLabels/ and ImageList/.
Photos: ask the authors (a form on the homepage) and unpack them as Flickr/<folder>/<file>; or use a copy that
names them by Flickr id, with layout=flickr_id images=FOLDER.""",
        citation="Chua et al., NUS-WIDE: A Real-World Web Image Database from National University of Singapore, "
        "CIVR 2009",
        pretraining_names=("nuswide", "nus-wide"),
    )

    def __post_init__(self) -> None:
        """Refuse other vocabularies and layouts."""
        if self.concepts not in (81, 21):
            raise CmlBenchError(f"concepts={self.concepts} is no vocabulary of NUS-WIDE: give 81 or 21")
        if self.layout not in get_args(Layout):
            raise CmlBenchError(f"layout={self.layout!r} is not an option: {suggest(self.layout, get_args(Layout))}")

    @property
    def _names(self) -> tuple[str, ...]:
        return CONCEPTS_81 if self.concepts == 81 else CONCEPTS_21

    def label_files(self, split: str) -> Sequence[Path]:
        """Return the image list, then one label file a concept."""
        if split not in _PARTS:
            raise self.unknown_split(split)
        images, folder, end = _PARTS[split]
        return [
            self.find_file(f"ImageList/{images}.txt"),
            *(self.find_file(f"Groundtruth/{folder}/Labels_{name}{end}.txt") for name in self._names),
        ]

    def read(self, split: str) -> LabelTable:
        """Read the image list and every concept's label file."""
        image_list, *label_files = self.label_files(split)
        entries = [line.replace("\\", "/") for line in read_lines(image_list)]
        by_flickr_id = [entry.rpartition("/")[2].rpartition("_")[2] for entry in entries]
        labels = np.empty((len(label_files), len(entries)), dtype=np.int8)
        for column, file in zip(labels, label_files, strict=True):
            column[:] = _read_column(file, image_list, len(entries))
        ids = as_texts(image_list, entries)
        return table_from(
            image_list,
            label_names=self._names,
            ids=ids,
            labels=np.ascontiguousarray(labels.T),
            files=ids if self.layout == "folders" else as_texts(image_list, by_flickr_id),
            counts={"repeated_flickr_ids": len(entries) - len(set(by_flickr_id))},
        )

    def image_folder(self, split: str) -> Path:
        """Return the folder that ``images`` names."""
        return Path(self.root) / self.images


def _read_column(path: Path, image_list: Path, count: int) -> LabelArray:
    """Return the 0 or 1 of every line; whole files at once, since all concepts are 22 million lines."""
    text = path.read_bytes().translate(None, b" \t\r").rstrip(b"\n") + b"\n"
    pairs = np.frombuffer(text[: len(text) // 2 * 2], dtype=np.uint8).reshape(-1, 2)
    wrong = np.flatnonzero((pairs[:, 0] >> 1 != ord("0") >> 1) | (pairs[:, 1] != ord("\n")))
    if len(wrong) or len(text) % 2:
        # All lines before the first wrong pair are right, and two bytes long.
        line = int(wrong[0]) if len(wrong) else len(pairs)
        value = text[2 * line :].split(b"\n", 1)[0][:20].decode("ascii", "replace")
        raise CmlBenchError(f"line {line + 1} of {path} says {value!r}, neither 0 nor 1; fetch the file again")
    if len(pairs) != count:
        raise CmlBenchError(
            f"{path} has {len(pairs)} lines for the {count} images of {image_list}; fetch both from one place"
        )
    return pairs[:, 0].view(np.int8) - np.int8(ord("0"))
