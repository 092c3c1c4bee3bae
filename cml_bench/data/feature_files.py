"""Files that hold feature vectors and labels together: ARFF, .npz and .safetensors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cml_bench.data.arff import Arff, Attribute, read_arff
from cml_bench.data.table import Ids
from cml_bench.data.text_lists import LABEL_LIST, read_lines
from cml_bench.data.xml_files import read_xml
from cml_bench.errors import CmlBenchError, suggest
from cml_bench.labels import OUT_OF_SCOPE, LabelArray
from cml_bench.npz import read_npz

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class FeatureFile:
    """What a file says of N rows.

    Attributes:
        label_names: C label names.
        labels: (N, C) int8 ``PRESENT``, ``ABSENT``, or ``OUT_OF_SCOPE`` where the file has a question mark.
        features: (N, D) float32.
        ids: (N,) ids, None if the file has none.
        counts: What was read and what was missing.
    """

    label_names: tuple[str, ...]
    labels: LabelArray
    features: npt.NDArray[np.float32]
    ids: Ids | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


def read_arff_file(path: Path, label_list: Path | None) -> FeatureFile:
    """Read a multi-label ARFF file of MULAN or MEKA.

    Labels are the attributes that MULAN's XML names, in its order; without an XML file, MEKA's ``-C n`` in the name of
    the relation says that they are the first n attributes, or the last -n.

    Features are as they are, not scaled. An attribute whose listed values are numbers is that number; one with other
    values is one 0/1 feature a value. Missing features (``?``) are 0, missing labels out of scope; both are counted.

    Args:
        path: The ARFF file.
        label_list: MULAN's XML file, None for MEKA.

    Raises:
        CmlBenchError: If a file is damaged, or does not say what the labels are.
    """
    arff = read_arff(path)
    columns = _meka_columns(arff, path) if label_list is None else _mulan_columns(arff, path, label_list)
    for column in columns:
        if set(arff.attributes[column].values or ()) != {"0", "1"}:
            raise CmlBenchError(
                f"label {arff.attributes[column].name!r} of {path} is not declared as {{0,1}}: correct it"
            )
    places = arff.data[:, columns]
    declared = np.array([int(arff.attributes[column].values == ("1", "0")) for column in columns], dtype=np.int8)
    unsaid = np.isnan(places)
    labels = np.where(unsaid, np.int8(OUT_OF_SCOPE), np.nan_to_num(places).astype(np.int8) ^ declared)
    others = np.setdiff1d(np.arange(len(arff.attributes)), columns)
    missing = int(np.isnan(arff.data[:, others]).sum())
    blocks = [_as_features(arff.attributes[column], arff.data[:, column]) for column in others]
    features = np.nan_to_num(np.column_stack([np.empty((len(labels), 0), dtype=np.float32), *blocks]))
    counts = {"features": features.shape[1], "missing_features": missing, "missing_labels": int(unsaid.sum())}
    return FeatureFile(tuple(arff.attributes[c].name for c in columns), labels, features, counts=counts)


def read_npz_file(path: Path, label_list: Path | None) -> FeatureFile:
    """Read ``features`` (N, D), ``labels`` (N, C) of 0 and 1, perhaps ``ids`` (N,) and ``label_names`` (C,).

    Raises:
        CmlBenchError: If the file is damaged, holds objects, or an array does not fit the others.
    """
    try:
        arrays = read_npz(path)
    except (OSError, ValueError) as error:
        raise CmlBenchError(f"{path} cannot be read as .npz of plain arrays ({error}): write it again") from None
    names = arrays.pop("label_names", np.empty(0)).tolist()
    return _from_arrays(path, arrays, names, label_list)


def read_safetensors_file(path: Path, label_list: Path | None) -> FeatureFile:
    """Read tensors ``features``, ``labels``, perhaps ``ids`` (whole numbers); names as JSON list in the metadata.

    Raises:
        CmlBenchError: If the file is damaged or a tensor does not fit the others.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stored:
            # float32 holds every float16 and bfloat16, which numpy may not know.
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            metadata = stored.metadata() or {}
        names = json.loads(metadata.get("label_names", "[]"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CmlBenchError(f"{path} cannot be read as .safetensors ({error}): write it again") from None
    arrays = {name: (value.float() if value.is_floating_point() else value).numpy() for name, value in tensors.items()}
    return _from_arrays(path, arrays, names, label_list)


READERS = {".arff": read_arff_file, ".npz": read_npz_file, ".safetensors": read_safetensors_file}
"""Ends of file names to their readers."""


def _from_arrays(path: Path, arrays: dict[str, Array], names: Any, label_list: Path | None) -> FeatureFile:
    """Check that arrays fit together; names come from the list if the file has none."""
    for name in ("features", "labels"):
        if name not in arrays:
            raise CmlBenchError(f"{path} has no array {name!r} ({suggest(name, arrays)}): add it")
    features, labels, ids = arrays["features"], arrays["labels"], arrays.get("ids")
    shapes = {"features": features.shape, "labels": labels.shape, "ids": labels.shape[:1] if ids is None else ids.shape}
    if [len(shape) for shape in shapes.values()] != [2, 2, 1] or len({shape[0] for shape in shapes.values()}) > 1:
        raise CmlBenchError(
            f"the arrays of {path} do not fit together ({shapes}): write features (N, D), labels (N, C) and ids (N,)"
        )
    if not names and label_list is not None:
        names = read_lines(label_list)
    if not isinstance(names, list) or len(names) != labels.shape[1] or not all(isinstance(n, str) for n in names):
        where = label_list if label_list is not None else f"{path} or in {LABEL_LIST} beside it"
        raise CmlBenchError(
            f"{path} has {labels.shape[1]} columns of labels: name as many under label_names in {where}"
        )
    if labels.dtype.kind not in "fiub":
        raise CmlBenchError(f"labels of {path} are no numbers but {labels.dtype}: write 0 or 1")
    for row, column in np.argwhere((labels != 0) & (labels != 1)):
        raise CmlBenchError(
            f"labels of {path} say {labels[row, column]} in row {row}, column {column} (from 0): write 0 or 1"
        )
    if features.dtype.kind not in "fiub":
        raise CmlBenchError(f"features of {path} are no numbers but {features.dtype}: write them as float32")
    if ids is not None and ids.dtype.kind not in "iuU":
        raise CmlBenchError(f"ids of {path} are {ids.dtype}: write whole numbers or strings")
    if ids is not None and ids.dtype.kind == "u" and ids.size and ids.max() > np.iinfo(np.int64).max:
        raise CmlBenchError(f"ids of {path} go up to {ids.max()}, more than {np.iinfo(np.int64).max}: write strings")
    with np.errstate(over="ignore"):
        features = features.astype(np.float32)
    for row, column in np.argwhere(~np.isfinite(features)):
        raise CmlBenchError(
            f"features of {path} say {features[row, column]} in row {row}, column {column} (from 0): write numbers"
        )
    counts = {"features": features.shape[1]}
    ids = ids if ids is None or ids.dtype.kind == "U" else ids.astype(np.int64)
    return FeatureFile(tuple(names), labels.astype(np.int8), features, ids, counts)


def _mulan_columns(arff: Arff, path: Path, label_list: Path) -> list[int]:
    """Return the columns that the XML file names, in its order; nested labels (hierarchies) count one by one."""
    try:
        root = read_xml(label_list)
    except ValueError as error:
        raise CmlBenchError(f"{label_list} is no label list of MULAN ({error}): fetch it again") from None
    names = [element.get("name", "") for element in root.iter() if element.tag.rpartition("}")[2] == "label"]
    places = {attribute.name: column for column, attribute in enumerate(arff.attributes)}
    told: set[str] = set()
    for name in names:
        if name in told:
            raise CmlBenchError(f"{label_list} names label {name!r:.80} twice: correct it, or fetch it again")
        if name not in places:
            raise CmlBenchError(
                f"{label_list} names label {name!r:.80}, no attribute of {path} ({suggest(name, places)}): use two "
                "files that belong together"
            )
        told.add(name)
    return [places[name] for name in names]


def _meka_columns(arff: Arff, path: Path) -> list[int]:
    found = re.search(r"-C\s+(-?\d{1,9})(?!\d)", arff.relation)
    count, width = int(found[1]) if found else 0, len(arff.attributes)
    if not 0 < abs(count) <= width:
        raise CmlBenchError(
            f"{path} does not say which attributes are labels: put MULAN's XML file beside it, named as the ARFF file "
            "begins, or '-C n' into the name of the relation (MEKA)"
        )
    return list(range(count)) if count > 0 else list(range(width + count, width))


def _as_features(attribute: Attribute, column: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the (N, 1) or (N, values) features that a column makes; NaN where it is missing."""
    if attribute.values is None:
        return column[:, None]
    missing = np.isnan(column)
    places = np.where(missing, 0, column).astype(np.int64)
    try:
        numbers = np.array([[float(value)] for value in attribute.values])
        if not (np.abs(numbers) <= np.finfo(np.float32).max).all():
            raise ValueError("no finite number")
        meaning = numbers.astype(np.float32)
    except ValueError:
        meaning = np.eye(len(attribute.values), dtype=np.float32)
    return np.where(missing[:, None], np.float32(np.nan), meaning[places])
