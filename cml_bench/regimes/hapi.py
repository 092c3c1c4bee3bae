"""HAPI: a commercial service annotates the images, as it did on some date."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cml_bench.data.json_files import read_json
from cml_bench.data.sets.hapi import HAPI
from cml_bench.data.source import Source
from cml_bench.data.table import Ids, LabelTable
from cml_bench.errors import CmlBenchError, CmlBenchWarning, some, suggest
from cml_bench.labels import PRESENT, UNMARKED, LabelArray, is_known
from cml_bench.regimes.regime import Question, Regime, RegimeMeta

__all__ = ["APISnapshot"]


@dataclass(frozen=True)
class APISnapshot(Regime):
    """A label is present if the service named it, right or wrong; everything else is open.

    So true labels go missing and false ones are marked, as the service erred. What it did not name is not absent: it
    never says so. Images that the snapshot does not hold are open throughout. Source: HAPI, arXiv 2209.08443.

    Names are matched without regard to case, blanks and punctuation. Images are matched by id: a number is the one that
    HAPI's id ends in (COCO: ``COCO_train2014_000000057870`` is 57870), a text is the same text without the end of an
    image file (VOC: ``2011_000494``; ``im1.jpg`` is ``im1``). What finds no match is counted and told once.

    Attributes:
        root: Folder of HAPI, which holds ``tasks/``.
        dataset: HAPI's name of the data set: ``coco``, ``pascal`` or ``mir``.
        api: The service, ``google_mic``, say.
        date: The snapshot's date as ``meta.csv`` has it, ``20-10-28``, say.
        names: JSON file ``{"HAPI's name": "label", ...}`` for names that differ; None where all are alike.
    """

    root: str
    dataset: str
    api: str
    date: str
    names: str | None = None

    meta = RegimeMeta(name="hapi", title="commercial API", reference="arXiv:2209.08443")

    def observe(self, question: Question) -> LabelArray:
        """Return what the service named."""
        said = _match(self, question.source).said[np.ix_(question.rows, question.columns)]
        answers = np.where(said, np.int8(PRESENT), np.int8(UNMARKED))
        return np.where(is_known(question.labels), answers, question.labels)


@dataclass(frozen=True, eq=False)
class _Match:
    """A snapshot in the rows and columns of a source: (N, C) what was said, and what found no match."""

    said: npt.NDArray[np.bool_]
    counts: Mapping[str, int]


@functools.lru_cache(maxsize=1)
def _match(regime: APISnapshot, source: Source) -> _Match:
    table = HAPI(root=regime.root).table(f"{regime.dataset}/{regime.api}/{regime.date}")
    where = f"HAPI's {regime.dataset}/{regime.api}/{regime.date}"
    rows = _rows(table, source, where)
    columns = _columns(table, source, regime.names)
    present = table.labels == PRESENT
    said = np.zeros(source.labels.shape, dtype=np.bool_)
    for column, name in enumerate(columns):
        if name >= 0:
            said[:, name] |= (rows >= 0) & present[rows, column]
    counts = {
        "images": int((rows >= 0).sum()),
        "images_without_answer": int((rows < 0).sum()),
        "names": int((columns >= 0).sum()),
        "names_without_label": int((columns < 0).sum()),
        "answers_without_label": int(present[:, columns < 0].sum()),
    }
    if not counts["images"]:
        raise CmlBenchError(
            f"{where} holds no image of {source.name} (ids there: {some(table.ids.tolist())}; here: "
            f"{some(source.ids.tolist())}): use the images that it was made on"
        )
    if not counts["names"]:
        raise CmlBenchError(
            f"{where} names no label of {source.name} ({some(table.label_names)}): give names=FILE, a JSON object "
            "from HAPI's names to labels"
        )
    if counts["images_without_answer"] or counts["names_without_label"]:
        unknown = [name for name, column in zip(table.label_names, columns, strict=True) if column < 0]
        warnings.warn(
            f"{where} holds {counts['images']} of {len(source)} images of {source.name}; {len(unknown)} of its "
            f"{len(columns)} names are no label ({some(unknown)}; said {counts['answers_without_label']} times)",
            CmlBenchWarning,
            stacklevel=2,
        )
    return _Match(said, counts)


def _rows(table: LabelTable, source: Source, where: str) -> npt.NDArray[np.intp]:
    """Return the row of the snapshot that speaks of each image, -1 for none."""
    numbers = source.ids.dtype.kind in "iu"
    known = pd.Index(_image_numbers(table.ids) if numbers else table.ids.astype(object))
    if not known.is_unique:
        raise CmlBenchError(f"{where} has ids that end in the same number: they cannot be those of {source.name}")
    asked = source.ids if numbers else [re.sub(r"\.(jpe?g|png)$", "", text) for text in source.ids.tolist()]
    return np.asarray(known.get_indexer(pd.Index(asked)), dtype=np.intp)


def _image_numbers(ids: Ids) -> list[str | int]:
    """Return the number that each id ends in, or the id itself if it ends in none."""
    found = [re.search(r"\d+$", text) for text in ids.tolist()]
    return [int(end[0]) if end else text for end, text in zip(found, ids.tolist(), strict=True)]


def _columns(table: LabelTable, source: Source, names: str | None) -> npt.NDArray[np.intp]:
    """Return the column of the source that each name of the snapshot stands for, -1 for none."""
    renamed = {} if names is None else _read_names(Path(names), source)
    known = {plain_name(name): column for column, name in enumerate(source.label_names)}
    return np.array([known.get(plain_name(renamed.get(name, name)), -1) for name in table.label_names], dtype=np.intp)


def _read_names(path: Path, source: Source) -> dict[str, str]:
    found: dict[str, str] = read_json(path, dict, 'write {"HAPI\'s name": "label", ...} in JSON')
    for name, label in found.items():
        if label not in source.label_names:
            raise CmlBenchError(
                f"{path} maps {name!r} to {label!r}, no label of {source.name}: "
                f"{suggest(str(label), source.label_names)}"
            )
    return found


def plain_name(name: str) -> str:
    """Return a name without what services spell differently: case, blanks and punctuation."""
    return re.sub(r"[\W_]", "", name.casefold())
