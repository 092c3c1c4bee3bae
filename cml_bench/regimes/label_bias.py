"""Which of an image's positives an annotator is likely to name: by object size, by place, by what people name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from cml_bench.data.json_files import read_json
from cml_bench.data.table import Boxes
from cml_bench.errors import CmlBenchError, suggest
from cml_bench.regimes.regime import Question

Bias = Literal["uniform", "size", "location", "semantic"]
BIASES: tuple[Bias, ...] = get_args(Bias)
Weights = npt.NDArray[np.float64]

_CLOSEST = 0.0005
"""Distance in pixels that stands for 0, as in the authors' code."""


def label_weights(question: Question, bias: Bias, shares: str | None) -> Weights:
    """Return (n, c) weights >= 0, proportional within an image to the chance of each label that it shows.

    Source: Arroyo, Perona and Cole 2023, arXiv 2305.15584, with the authors' code where the paper is silent.

    Args:
        question: Images and labels.
        bias: ``uniform``: 1. ``size``: summed area of the label's objects. ``location``: sum over the label's objects
            of 1 / distance in pixels between the centres of box and image. ``semantic``: the label's share.
        shares: For ``semantic``, a JSON file ``{"person": 0.31, ...}``.

    Raises:
        CmlBenchError: If the source has no boxes or image sizes, or the file of shares cannot be used.
    """
    shape = question.labels.shape
    if bias == "semantic":
        names = [question.source.label_names[column] for column in question.columns]
        return np.broadcast_to(_shares_of(Path(str(shares)), names), shape)
    if bias == "uniform":
        return np.ones(shape)
    boxes = question.source.boxes
    if boxes is None:
        raise CmlBenchError(
            f"regime single_positive: bias={bias} needs object boxes and {question.source.name} has none; "
            "use bias=uniform or another data set"
        )
    row, column = np.full(len(question.source), -1), np.full(len(question.source.label_names), -1)
    row[question.rows], column[question.columns] = np.arange(shape[0]), np.arange(shape[1])
    rows, columns = row[boxes.rows], column[boxes.columns]
    asked = np.flatnonzero((rows >= 0) & (columns >= 0))
    value = boxes.areas[asked] if bias == "size" else 1 / _distances(question, boxes, asked)
    cells = rows[asked] * shape[1] + columns[asked]
    total = np.bincount(cells, weights=value, minlength=shape[0] * shape[1])
    return np.asarray(total, dtype=np.float64).reshape(shape)


def _distances(question: Question, boxes: Boxes, asked: npt.NDArray[np.intp]) -> Weights:
    """Return (m,) distances in pixels from the centre of each box asked for to the centre of its image."""
    sizes = question.source.sizes
    if sizes is None:
        raise CmlBenchError(
            f"regime single_positive: bias=location needs image sizes and {question.source.name} has none; "
            "use bias=size or another data set"
        )
    left_top, width_height = np.split(boxes.xywh[asked].astype(np.float64), 2, axis=1)
    offset = left_top + width_height / 2 - sizes[boxes.rows[asked], ::-1] / 2
    distance = np.hypot(offset[:, 0], offset[:, 1])
    return np.where(distance == 0, _CLOSEST, distance)


def _shares_of(path: Path, names: list[str]) -> Weights:
    """Return the (c,) shares of some labels."""
    shares = _read_shares(path)
    for name in names:
        if name not in shares:
            raise CmlBenchError(
                f"{path} has no share of label {name!r} ({suggest(name, shares)}): add it, 0 if unnamed"
            )
    return np.array([shares[name] for name in names])


def _read_shares(path: Path) -> dict[str, float]:
    found: dict[str, float] = read_json(path, dict, 'write {"name": share, ...} in JSON')
    for name, share in found.items():
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= sys.float_info.max:
            raise CmlBenchError(f"{path} has the share {share!r} for label {name!r}: give a number of at least 0")
    return found
