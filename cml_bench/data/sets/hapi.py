"""HAPI: what commercial image-tagging services said of COCO, PASCAL and MIRFLICKR, snapshot by snapshot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
import pandas as pd

from cml_bench.data.data_set import DataCard, DataSet, Missing
from cml_bench.data.json_files import read_json
from cml_bench.data.table import LabelTable
from cml_bench.data.vetting import as_texts, refuse_large, table_from
from cml_bench.errors import CmlBenchError
from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT

_COLUMNS = ("task", "dataset", "api", "date")


@dataclass(frozen=True, kw_only=True)
class HAPI(DataSet):
    """The multi-label task ``mic`` of HAPI, as its archive unpacks: ``tasks/meta.csv`` and ``tasks/mic/...``.

    A split is either the truth of a data set (``coco``, from ``mic/coco/labels.json``), or what a service said of it on
    a date (``coco/google_mic/20-10-28``, from ``mic/coco/google_mic/20-10-28.json``; year, month, day). ``meta.csv``
    tells which there are.

    Ids are HAPI's ``example_id``: names of image files without their end (``2011_000494``). Rows are in the order of
    the file, columns are the names that occur in it, alphabetically, as HAPI spells them. A service says what it sees
    and never what is absent, so what it does not name is out of scope. It may repeat a name; that is counted.

    There are labels here but no images: describe and compare the tables, or let a snapshot annotate the images of COCO
    or VOC with the regime ``hapi``.
    """

    meta = DataCard(
        name="hapi",
        title="HAPI",
        version=1,
        splits={},
        n_labels=None,
        licence="Apache-2.0; images: not part of it",
        homepage="https://github.com/lchen001/HAPI",
        download="""wget https://storage.googleapis.com/hapi-data/hapi.tar.gz && tar -xzf hapi.tar.gz
(205 MB, unpacked 1.2 GB.) Root is the folder that holds tasks/. Splits: one a data set (coco, pascal, mir), and one a
line of tasks/meta.csv with the task mic (coco/google_mic/20-10-28 ...).""",
        citation="Chen et al., HAPI: A Large-scale Longitudinal Dataset of Commercial ML API Predictions, "
        "NeurIPS 2022, arXiv:2209.08443",
    )

    @property
    def splits(self) -> tuple[str, ...]:
        """The data sets, then the snapshots by data set, service and date."""
        path = self._meta_csv()
        try:
            told = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
            task, dataset, api, date = (told[column] for column in _COLUMNS)
        except (ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise CmlBenchError(
                f"{path} is no table with the columns {', '.join(_COLUMNS)} ({reason:.200}): fetch it again"
            ) from None
        named = {*dataset[task == "mic"], *api[task == "mic"], *date[task == "mic"]}
        for name in sorted(named):
            # They become folders and files below the root.
            if not re.fullmatch(r"[\w-][\w.-]*", name):
                raise CmlBenchError(f"{path} names {name!r:.60}, which is no data set, service or date: fetch it again")
        snapshots = (dataset + "/" + api + "/" + date)[task == "mic"]
        return (*sorted(set(dataset[task == "mic"])), *sorted(set(snapshots)))

    def label_files(self, split: str) -> Sequence[Path]:
        """Return the JSON file of the split."""
        if split not in self.splits:
            raise self.unknown_split(split)
        inside = f"mic/{split}.json" if "/" in split else f"mic/{split}/labels.json"
        return [self.find_file(f"tasks/{inside}", inside)]

    def read(self, split: str) -> LabelTable:
        """Read the truth or a snapshot."""
        (path,) = self.label_files(split)
        ids, lists = _read(path, "predicted_label" if "/" in split else "true_label")
        said = [name for names in lists for name in names]
        rows = np.repeat(np.arange(len(lists)), [len(names) for names in lists])
        names = sorted(set(said))
        refuse_large(path, len(lists), len(names))
        labels = np.full((len(lists), len(names)), OUT_OF_SCOPE if "/" in split else ABSENT, dtype=np.int8)
        labels[rows, pd.Index(names, dtype=object).get_indexer(pd.Index(said, dtype=object))] = PRESENT
        counts = {"repeated_names": len(said) - int((labels == PRESENT).sum())}
        texts = as_texts(path, ids)
        return table_from(path, label_names=tuple(names), ids=texts, labels=labels, counts=counts)

    def source(self, split: str, role: Literal["train", "test"], *, missing: Missing = "error") -> NoReturn:
        """Refuse: HAPI has no images.

        Raises:
            CmlBenchError: Always.
        """
        raise CmlBenchError(
            "HAPI holds labels and no images: take those of coco or voc, with "
            "regime='hapi root=... dataset=... api=... date=...'"
        )

    def _meta_csv(self) -> Path:
        return self.find_file("tasks/meta.csv", "meta.csv")


def _read(path: Path, key: str) -> tuple[list[str], list[list[str]]]:
    """Return the example ids and the names under ``key``."""
    ids, lists = [], []
    for number, entry in enumerate(read_json(path, list)):
        told = entry if isinstance(entry, dict) else {}
        names = told.get(key)
        if (
            not isinstance(told.get("example_id"), str)
            or not isinstance(names, list)
            or not all(isinstance(name, str) for name in names)
        ):
            raise CmlBenchError(f"example {number} of {path} lacks example_id or a list {key}: fetch the file again")
        ids.append(told["example_id"])
        lists.append(names)
    return ids, lists
