"""MATLAB files: what attribute data sets publish, read into plain arrays and checked.

Indices in these files count from 1.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.io import loadmat

from cml_bench.data.mat_check import check_mat
from cml_bench.data.table import Ids, LabelTable, Texts
from cml_bench.data.vetting import as_texts, table_from
from cml_bench.errors import CmlBenchError
from cml_bench.files import read_plain
from cml_bench.labels import OUT_OF_SCOPE

UNCERTAIN = 2
"""How RAP writes that the annotator could not tell (its README: gender is 0 male, 1 female, 2 uncertain)."""


def load_mat(path: Path, *variables: str) -> dict[str, Any]:
    """Return variables of a MATLAB file; structs become dicts in field order, cells become lists or object arrays.

    Lengths of one are squeezed away, so that a list of one comes as its only item.

    Raises:
        CmlBenchError: If the file is no MATLAB 5 file, is damaged, or lacks a variable.
    """
    try:
        content = read_plain(path)
        if content[124:126] not in (b"\x00\x02", b"\x02\x00"):
            check_mat(content)
        # Given by name, other variables of the file are not made.
        found = loadmat(BytesIO(content), simplify_cells=True, variable_names=variables)
    except OSError as error:
        raise CmlBenchError(f"{path} cannot be read ({error.strerror}): make it readable") from None
    except NotImplementedError:
        raise CmlBenchError(
            f"{path} is a MATLAB 7.3 file, the original is not: fetch it again, or save it with -v7"
        ) from None
    except Exception as error:
        # Damaged bytes surface as errors of zlib, numpy and scipy's own.
        raise CmlBenchError(f"{path} is no MATLAB file, or damaged ({error}): fetch it again") from None
    for name in variables:
        if name not in found:
            raise CmlBenchError(f"{path} holds no variable {name!r}: use the original file of the data set")
    return {name: found[name] for name in variables}


def fields(value: Any, count: int, path: Path, what: str) -> list[Any]:
    """Return the fields of a struct in file order.

    Raises:
        CmlBenchError: If it is no struct of at least ``count`` fields.
    """
    if not isinstance(value, dict) or len(value) < count:
        raise CmlBenchError(
            f"{path}: {what} is no struct of at least {count} fields; use the original file of the data set"
        )
    return list(value.values())


def field(struct: Any, name: str, path: Path, what: str) -> Any:
    """Return one field of a struct.

    Raises:
        CmlBenchError: If it is no struct or has no such field.
    """
    if not isinstance(struct, dict) or name not in struct:
        raise CmlBenchError(f"{path}: {what} has no field {name!r}; use the original file of the data set")
    return struct[name]


def texts(value: Any, path: Path, what: str) -> Texts:
    """Return a cell array of texts as strings without surrounding blanks.

    Raises:
        CmlBenchError: If an item is no text.
    """
    items = items_of(value)
    for i, item in enumerate(items):
        if not isinstance(item, str) or not item.strip():
            raise CmlBenchError(f"{path}: item {i + 1} of {what} is no text; fetch the file again")
    return as_texts(path, [item.strip() for item in items])


def items_of(value: Any) -> list[Any]:
    """Return what a cell or struct array holds, also where squeezing left its only item, or nothing."""
    if isinstance(value, np.ndarray):
        items: list[Any] = value.ravel().tolist()
        return items
    return value if isinstance(value, list) else [value]


def choose_partition(value: Any, partition: int, path: Path) -> Any:
    """Return one of the published partitions, counted from 1.

    Raises:
        CmlBenchError: If there is no such partition.
    """
    partitions = items_of(value)
    if not 1 <= partition <= len(partitions):
        raise CmlBenchError(f"partition={partition} is none of the {len(partitions)} partitions of {path}")
    return partitions[partition - 1]


def from_zero(value: Any, count: int, path: Path, what: str) -> npt.NDArray[np.intp]:
    """Return MATLAB's indices, which count from 1, as indices that count from 0.

    Raises:
        CmlBenchError: If one is no index of ``count`` items.
    """
    indices = np.atleast_1d(np.asarray(value)).ravel()
    if indices.dtype.kind not in "iuf":
        raise CmlBenchError(f"{path}: {what} holds no numbers; fetch the file again")
    wrong = (indices < 1) | (indices > count) | (indices != np.floor(indices))
    if wrong.any():
        raise CmlBenchError(
            f"{path}: {what} lists number {indices[wrong][0]:g}, but its items are numbered from 1 to {count}; use the "
            "original file of the data set"
        )
    return indices.astype(np.intp) - 1


def number_matrix(value: Any, n_columns: int, path: Path, what: str) -> npt.NDArray[Any]:
    """Return a matrix of numbers.

    Raises:
        CmlBenchError: If it is something else or has another number of columns.
    """
    matrix = np.asarray(value)
    if matrix.ndim == 1 and n_columns > 1:
        matrix = matrix[None]
    if matrix.dtype.kind not in "iufb" or matrix.ndim != 2 or matrix.shape[1] != n_columns:
        raise CmlBenchError(
            f"{path}: {what} is no matrix of numbers with {n_columns} columns (its shape is {matrix.shape}); use the "
            "original file of the data set"
        )
    return matrix


def attribute_table(
    names: Texts, values: npt.NDArray[Any], ids: Ids, files: Texts, rows: npt.NDArray[np.intp], path: Path
) -> LabelTable:
    """Return the label table of some images: 1 is present, 0 absent, 2 uncertain (``OUT_OF_SCOPE``, counted).

    Args:
        names: C attribute names.
        values: (N, C) numbers of all images.
        ids: N public ids.
        files: N image files.
        rows: Rows of the images to take.
        path: The file, for messages.

    Raises:
        CmlBenchError: If there are not N rows of values, or an entry is none of the three.
    """
    if len(values) != len(ids):
        raise CmlBenchError(
            f"{path} names {len(ids)} images but has attributes of {len(values)}; use the original file of the data set"
        )
    values = values[rows]
    wrong = ~np.isin(values, (0, 1, UNCERTAIN))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise CmlBenchError(
            f"{path}: image {ids[rows[row]]} has {values[row, column]:g} for {names[column]}, which is none of 0 "
            "(absent), 1 (present) and 2 (uncertain); fetch the file again"
        )
    labels = values.astype(np.int8)
    uncertain = labels == UNCERTAIN
    labels[uncertain] = OUT_OF_SCOPE
    return table_from(
        path,
        label_names=tuple(names.tolist()),
        ids=ids[rows],
        labels=labels,
        files=files[rows],
        counts={"uncertain": int(uncertain.sum())},
    )
