"""Where labels look in one image, after their own experience and after later ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from cml_bench.data.images import read_image
from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError, suggest
from cml_bench.labels import PRESENT, is_known
from cml_bench.models.angles import angle_law, head_angles
from cml_bench.models.features import read_frozen
from cml_bench.models.heads.head import HeadOutput
from cml_bench.models.model import MultiLabelModel
from cml_bench.models.preprocess import EvalTransform
from cml_bench.registry import entries
from cml_bench.runs.snapshots import SavedRun, open_run

_MOST_LABELS = 4
"""Labels that are looked at if none are named."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where n labels look in one image after T experiences.

    Attributes:
        title: What is explained, in one line.
        image: (3, H, W) uint8.
        labels: Names of the labels.
        truth: Whether each label is present; None where nobody knows.
        experiences: Experiences that were looked at, from 1.
        arrived: Experience that brought each label, from 1.
        n_seen: Labels seen by each of the experiences.
        attention: (T, n, h, w) shares that sum to 1, the mean over attention heads; NaN before a label arrived.
        probability: (T, n) of the label; NaN before it arrived.
        angle: (T, n) degrees between the label's feature and its classifier row; NaN before it arrived, and for heads
            without such rows.
    """

    title: str
    image: Tensor
    labels: tuple[str, ...]
    truth: tuple[bool | None, ...]
    experiences: tuple[int, ...]
    arrived: tuple[int, ...]
    n_seen: tuple[int, ...]
    attention: Values
    probability: Values
    angle: Values

    @property
    def peak(self) -> Values:
        """(T, n) share of the place looked at most, in multiples of looking everywhere alike."""
        return np.asarray(self.attention.max(axis=(2, 3)) * self.attention[0, 0].size)

    @property
    def kept(self) -> Values:
        """(T, n) share of the attention that is where it was when the label was first seen here: 1 if nothing moved."""
        first = np.array([np.argmax(~np.isnan(column)) for column in self.probability.T])
        reference = self.attention[first, np.arange(len(self.labels))]
        overlap = np.minimum(self.attention, reference).sum(axis=(2, 3))
        return np.asarray(np.where(np.isnan(self.probability), np.nan, overlap))

    def table(self) -> pd.DataFrame:
        """Return one row a label and experience: probability, peak, share of attention kept, angles in degrees.

        ``angle_law`` is the angle that one feature shared by all labels seen would have to keep (see ``angle_law``).
        """
        rows = [
            {
                "label": label,
                "present": {True: "yes", False: "no", None: "?"}[self.truth[c]],
                "came_in": self.arrived[c],
                "after": experience,
                "probability": round(float(self.probability[t, c]), 3),
                "peak": round(float(self.peak[t, c]), 2),
                "kept": round(float(self.kept[t, c]), 2),
                "angle": round(float(self.angle[t, c]), 1),
                "angle_law": round(angle_law(self.n_seen[t]), 1),
            }
            for c, label in enumerate(self.labels)
            for t, experience in enumerate(self.experiences)
            if not np.isnan(self.probability[t, c])
        ]
        return pd.DataFrame(rows)

    def draw(self, path: Path | str) -> None:
        """Draw the image and, a row a label and a column an experience, where it was looked at.

        Raises:
            CmlBenchError: If the file cannot be written or is of no known kind.
        """
        from cml_bench.report.explanation.plot import draw

        draw(self, Path(path))


def explain(
    run: Path | str,
    image: Path | str,
    *,
    labels: Sequence[str] | None = None,
    after: Sequence[int | str] | Literal["all"] | None = None,
    options: Sequence[str] | None = None,
    trust: bool = False,
) -> Explanation:
    """Look through the models of a finished run at one image.

    Args:
        run: Result file of a job that was run with ``save_models``, or a results folder that holds one.
        image: An image file, or the id or file name of an image of the data set.
        labels: Labels to look for; None for the first that the image shows, or the most probable ones where nobody
            knows what it shows.
        after: Experiences, from 1; ``"all"``; or None for those that brought the labels, and the last.
        options: ``key=value`` of the job that have changed since, for data or weights that have moved.
        trust: Run the code that the result names outside the suite (``./file.py:Class``, ``module:Class``).

    Raises:
        CmlBenchError: If the run has no models, its head cannot say where it looks, or a name is unknown.
    """
    saved = open_run(Path(run), list(options or ()), trust=trust)
    if not saved.plan.head.meta.attention:
        named = ", ".join(name for name, entry in entries("heads").items() if entry.facts.get("attention"))
        raise CmlBenchError(
            f"head={saved.plan.head.meta.name} of {saved.path} does not say where labels look; heads that do: {named}"
        )
    picture, truth, ids = _find_image(saved, str(image))
    if labels is None:
        labels = _labels_to_show(saved, picture, truth, ids)
    columns = [_column(saved, label) for label in labels]
    n_seen = saved.n_seen
    arrived = [next(t for t, seen in enumerate(n_seen) if column < seen) for column in columns]
    chosen = _experiences(saved, after, arrived)
    if all(t < born for t in chosen for born in arrived):
        raise CmlBenchError(f"none of {', '.join(labels)} had come by experience {max(chosen) + 1}: choose a later one")
    looks = [_look(saved, saved.model(t), picture, ids, columns) for t in chosen]
    attention, probability, angle = (np.stack(parts) for parts in zip(*looks, strict=True))
    return Explanation(
        title=f"{image}: {saved.result['job']['method']} on {saved.result['benchmark']['title']}",
        image=picture,
        labels=tuple(labels),
        truth=tuple(truth.get(label) for label in labels),
        experiences=tuple(t + 1 for t in chosen),
        arrived=tuple(t + 1 for t in arrived),
        n_seen=tuple(n_seen[t] for t in chosen),
        attention=attention,
        probability=probability,
        angle=angle,
    )


def head_output(
    saved: SavedRun, model: MultiLabelModel, picture: Tensor, ids: npt.NDArray[np.uint64] | None
) -> HeadOutput:
    """Return all that a model says of one (3, H, W) uint8 image, read as in the run."""
    backbone = saved.backbone
    images = EvalTransform(backbone.image_size, backbone.mean, backbone.std)(picture)[None]
    with torch.no_grad():
        if not saved.plan.training.frozen:
            return model.head_output(images)
        return model.head_output(read_frozen(backbone, images, saved.plan.head.meta.features, ids).float())


def _look(
    saved: SavedRun,
    model: MultiLabelModel,
    picture: Tensor,
    ids: npt.NDArray[np.uint64] | None,
    columns: Sequence[int],
) -> tuple[Values, Values, Values]:
    """Return attention (n, h, w), probability (n,) and angle (n,) of some labels; NaN for those still to come."""
    model.head.need_attention = True
    output = head_output(saved, model, picture, ids)
    assert output.attention is not None
    angles, attention = head_angles(model.head, output), output.attention[0].double().mean(dim=0)
    here = [place for place, column in enumerate(columns) if column < model.head.n_labels]
    there = [columns[place] for place in here]
    looks = np.full((len(columns), *attention.shape[1:]), np.nan)
    probability, angle = np.full((2, len(columns)), np.nan)
    looks[here] = attention[there].numpy()
    probability[here] = output.logits[0, there].double().sigmoid().numpy()
    if angles is not None:
        angle[here] = angles[0, there].detach().numpy()
    return looks, probability, angle


def _find_image(saved: SavedRun, named: str) -> tuple[Tensor, dict[str, bool | None], npt.NDArray[np.uint64] | None]:
    """Return the image, what is known of the labels it shows, and its id key; nothing of a file from elsewhere."""
    train, test = saved.sources
    for source in (test, train):
        row = _row_of(source, named)
        if row is not None:
            entries_of = source.labels[row]
            known = [bool(entry == PRESENT) if is_known(entry) else None for entry in entries_of]
            return source.load(row), dict(zip(source.label_names, known, strict=True)), source.id_keys[row : row + 1]
    if not Path(named).is_file():
        raise CmlBenchError(
            f"{named} is neither a file nor an id of {len(train)} training and {len(test)} test images of {test.name}: "
            "give the path of an image"
        )
    return read_image(Path(named)), {}, None


def _row_of(source: Source, named: str) -> int | None:
    """Return the row of an image that is meant by its id, its file name, or the path of its file."""
    found = np.flatnonzero(source.ids.astype(np.str_) == named)
    files = getattr(source, "files", None)
    if not len(found) and files is not None:
        path, folder = Path(named), Path(source.folder)  # type: ignore[attr-defined]
        inside = path.is_file() and path.resolve().is_relative_to(folder.resolve())
        found = np.flatnonzero(files == (str(path.resolve().relative_to(folder.resolve())) if inside else named))
    return int(found[0]) if len(found) else None


def _labels_to_show(
    saved: SavedRun, picture: Tensor, truth: dict[str, bool | None], ids: npt.NDArray[np.uint64] | None
) -> list[str]:
    """Return the first labels that the image shows, else the most probable ones after the last experience."""
    names = saved.label_names
    present = [name for name in names if truth.get(name)]
    if present:
        return present[:_MOST_LABELS]
    logits = head_output(saved, saved.model(len(saved.n_seen) - 1), picture, ids).logits[0]
    return [names[column] for column in logits.topk(min(_MOST_LABELS, len(logits))).indices.tolist()]


def _column(saved: SavedRun, label: str) -> int:
    if label not in saved.label_names:
        raise CmlBenchError(f"{saved.path} has no label {label!r}: {suggest(label, saved.label_names)}")
    return saved.label_names.index(label)


def _experiences(saved: SavedRun, after: Sequence[int | str] | str | None, arrived: Sequence[int]) -> list[int]:
    """Return the chosen experiences, from 0, in order."""
    count = len(saved.n_seen)
    if after == "all":
        return list(range(count))
    if after is None:
        return sorted({*arrived, count - 1})
    numbers = []
    for text in after:
        if not str(text).strip().isdecimal() or not 1 <= int(text) <= count:
            raise CmlBenchError(f"experience {text!r} is not there: give numbers from 1 to {count}, or all")
        numbers.append(int(text) - 1)
    return sorted(set(numbers))
