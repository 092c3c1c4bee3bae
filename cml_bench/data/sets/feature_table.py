"""Feature tables: vectors and labels in ARFF files of MULAN and MEKA, in .npz or in .safetensors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cml_bench.data.data_set import DataCard, DataSet, Missing
from cml_bench.data.feature_files import READERS, FeatureFile
from cml_bench.data.feature_rows import FeatureRows
from cml_bench.data.table import LabelTable
from cml_bench.data.text_lists import LABEL_LIST
from cml_bench.data.vetting import table_from
from cml_bench.errors import CmlBenchError


@dataclass(frozen=True, kw_only=True)
class FeatureTable(DataSet):
    """The ``.arff``, ``.npz`` or ``.safetensors`` files in ``root`` that have the word train or test in their names.

    ``Corel5k-train-sparse.arff``, ``train.npz`` and ``my_test.safetensors`` are such names. Rows are in the order of
    the file.

    ``.arff``: dense or sparse. Labels are the attributes that MULAN's XML file names, in its order; that is the XML
    whose name the name of the ARFF file begins with (``Corel5k.xml``). Without one, MEKA's ``-C n`` in the name of the
    relation counts the labels. Listed values that are no numbers become one 0/1 feature each. Missing features are 0
    and missing labels out of scope; both are counted.

    ``.npz``: arrays ``features`` (N, D), ``labels`` (N, C) of 0 and 1, and if wanted ``ids`` (N,) and ``label_names``
    (C,). ``.safetensors``: the same tensors, ids as whole numbers, and the names as a JSON list under ``label_names``
    in the metadata. Names may also stand in ``label_names.txt`` in ``root``, one a line.

    Features are as they stand in the file, not scaled. Without ids a row is called ``train-0``, ``train-1`` ...

    Attributes:
        prefix: How the names of the files begin, for a folder that holds several data sets.
    """

    prefix: str = ""

    meta = DataCard(
        name="feature_table",
        title="Feature table",
        version=1,
        splits={"train": {}, "test": {}},
        n_labels=None,
        licence="that of the files",
        homepage="https://mulan.sourceforge.net/datasets-mlc.html",
        download="""Put the files of one data set in a folder and give it as root. MULAN's collection (homepage) and
that of the KDIS group (https://www.uco.es/kdis/mllresources/) have train and test ARFF files with their XML.
Files of your own: numpy.savez("train.npz", features=..., labels=..., label_names=...), and test.npz likewise.""",
        citation="Tsoumakas et al., Mulan: A Java Library for Multi-Label Learning, JMLR 12, 2011; "
        "Read et al., MEKA: A Multi-label/Multi-target Extension to WEKA, JMLR 17, 2016; else that of your files",
    )

    def label_files(self, split: str) -> Sequence[Path]:
        """Return the file of the split, and the file that names its labels if there is one."""
        path = self._file(split)
        if path.suffix.lower() == ".arff":
            lists = [file for file in path.parent.glob("*.xml") if path.stem.lower().startswith(file.stem.lower())]
            return [path, *sorted(lists, key=lambda file: (-len(file.stem), file.name))[:1]]
        return [path, *path.parent.glob(LABEL_LIST)]

    def read(self, split: str) -> LabelTable:
        """Read the labels."""
        return self._table(split, self._content(split))

    def source(self, split: str, role: Literal["train", "test"], *, missing: Missing = "error") -> FeatureRows:
        """Return a split as a source of feature vectors; nothing can be ``missing``, since there are no images."""
        content = self._content(split)
        return FeatureRows(self._table(split, content), content.features, name=self.meta.name, split=role)

    def _content(self, split: str) -> FeatureFile:
        path, *label_list = self.label_files(split)
        return READERS[path.suffix.lower()](path, label_list[0] if label_list else None)

    def _table(self, split: str, content: FeatureFile) -> LabelTable:
        ids = content.ids
        if ids is None:
            ids = np.array([f"{split}-{row}" for row in range(len(content.labels))], dtype=np.str_)
        names, labels, counts = content.label_names, content.labels, content.counts
        return table_from(self._file(split), label_names=names, ids=ids, labels=labels, counts=counts)

    def _file(self, split: str) -> Path:
        if split not in self.splits:
            raise self.unknown_split(split)
        root = Path(self.root)
        if not root.is_dir():
            raise CmlBenchError(f"{root} is not a folder; give the folder that holds the feature files as root")
        files = [
            file
            for file in sorted(root.iterdir())
            if file.suffix.lower() in READERS
            and file.name.startswith(self.prefix)
            and split in re.split(r"[^a-z0-9]", file.stem.lower())
        ]
        if not files:
            raise CmlBenchError(
                f"{root} holds no file named {self.prefix}*{split}* that ends in {', '.join(READERS)}; name it "
                f"{split}.npz, say"
            )
        if len(files) > 1:
            names = ", ".join(file.name for file in files[:3])
            raise CmlBenchError(
                f"{root} holds several files for {split} ({names}): give prefix=, how the right one begins"
            )
        return files[0]
