"""What a stream holds, experience by experience: images, labels, what the annotation hides, how unequal labels are.

Everything is counted from label tables, so label files alone suffice. Imbalance is measured as the multi-label
literature does, by the ratio IRLbl of a label and its mean: Charte, Rivera, del Jesus, Herrera 2015, "Addressing
imbalance in multilabel classification: Measures and random resampling algorithms", Neurocomputing 163, 3-16.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cml_bench.labels import PRESENT, UNMARKED, is_known, row_blocks
from cml_bench.options import as_text, convert
from cml_bench.runs.benchmark import Benchmark, load_benchmark, option_of_benchmark
from cml_bench.streams.builder import Annotation
from cml_bench.streams.scenario import MultiLabelScenario, Split, n_seen_before

MISMATCH = "NOT AS PUBLISHED"
"""How the fact ``published`` begins if the stream differs from what is published."""

_COLUMNS = [
    *("experience", "new_labels", "n_seen", "images", "published_images", "positives", "labels_per_image", "density"),
    *("unmarked", "hidden_old", "hidden_old_share", "hidden_future", "hidden_future_share"),
    *("mean_ir", "max_ir", "empty_labels", "repeated_images", "test_images", "published_test_images"),
]

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class StreamDescription:
    """A benchmark's stream in figures.

    Attributes:
        title: What is described, in one line.
        facts: What holds for the whole stream, by name, for people to read. Cardinality (labels an image), density
            (positives over known entries) and imbalance are those of the truth of the training images. Entries that
            nobody knows are counted by themselves, as neither present nor absent.
        rows: One row an experience. ``experience`` counts from 1; ``new_labels`` are names, ``n_seen`` the labels seen
            after it; ``images`` and ``test_images``, beside them ``published_images`` and ``published_test_images``
            (missing where nothing is published of this protocol); ``positives`` what the annotation shows of the labels
            it is asked for, ``labels_per_image`` and ``density`` those over images and over known entries asked for;
            ``unmarked`` entries that were asked for and left open; ``hidden_old`` true labels of earlier experiences
            that the annotation does not show, ``hidden_old_share`` the share of images with such a label,
            ``hidden_future`` and its share likewise for labels still to come (missing where nobody knows the truth of
            such an entry); ``mean_ir`` and ``max_ir`` of the new labels, as annotated; ``empty_labels`` new labels
            without a positive, which both leave out; and ``repeated_images`` that an earlier experience held already.
        labels: One row a label in arrival order: ``label``, ``experience``, ``positives`` as annotated in its own
            experience, ``true_positives`` in the training images of the stream, ``ir`` (IRLbl) of the latter,
            ``unknown`` the entries of these images whose truth nobody knows.
        shares: (T, T) share of the images of experience t that truly show a label of experience k; NaN where nobody
            knows the truth of such an entry.
    """

    title: str
    facts: dict[str, str]
    rows: pd.DataFrame
    labels: pd.DataFrame
    shares: npt.NDArray[np.float64]

    def __str__(self) -> str:
        """Return the description as Markdown."""
        # Formats stand on this module.
        from cml_bench.report.stream.formats import to_markdown

        return to_markdown(self)

    def plot(self, path: Path | str) -> None:
        """Draw the stream into a PNG, PDF or SVG file."""
        from cml_bench.report.stream.plot import draw

        draw(self, Path(path))


def describe(benchmark: str, *, class_order: str | Sequence[str] | None = None, **options: object) -> StreamDescription:
    """Describe a benchmark's stream from its label files; images need not be there.

    Args:
        benchmark: Name or ``./file.py:Class``.
        class_order: In place of the benchmark's own order of labels.
        **options: Options of the benchmark. ``missing`` is ``ignore`` unless it is given.

    Raises:
        CmlBenchError: If a name, an option or the data cannot be used.
    """
    kind = load_benchmark(benchmark)
    given = {key: as_text(value) for key, value in options.items()}
    if "ignore" in typing.get_args(typing.get_type_hints(kind).get("missing")):
        given.setdefault("missing", "ignore")
    made = kind(**convert(kind, given, owner=f"benchmark {benchmark}", written=option_of_benchmark))
    scenario = made.build(class_order=class_order)
    rows, labels, shares = count_stream(scenario, made.annotation)
    facts = _facts(made, scenario, class_order, labels)
    protocol_options = {field.name for field in dataclasses.fields(Benchmark)}
    is_default = class_order is None and not protocol_options & set(_changed(made))
    published = {name: getattr(made.meta, name) if is_default else () for name in ("images", "test_images")}
    for name, figures in published.items():
        rows[f"published_{name}"] = pd.Series(figures, dtype="Int64").reindex(rows.index)
    facts["published"] = _compare(rows, published)
    return StreamDescription(
        title=f"{made.meta.title}, {scenario.protocol}, version {made.meta.version}",
        facts=facts,
        rows=rows[_COLUMNS],
        labels=labels,
        shares=shares,
    )


def count_stream(
    scenario: MultiLabelScenario, annotation: Annotation
) -> tuple[pd.DataFrame, pd.DataFrame, npt.NDArray[np.float64]]:
    """Count what ``StreamDescription`` holds: rows (without published figures), labels, shares.

    Label tables are gone through in blocks of rows; only counts are kept.
    """
    split, names, n_seen = scenario.splits["train"], scenario.label_names, scenario.n_seen
    before = n_seen_before(n_seen)
    rows: list[dict[str, Any]] = []
    shares = np.zeros((len(n_seen), len(n_seen)))
    own_positives = np.zeros(len(names), dtype=np.int64)
    held = np.zeros(len(split.source), dtype=np.bool_)
    for t, members in enumerate(split.experiences):
        old, new, future = slice(before[t]), slice(before[t], n_seen[t]), slice(n_seen[t], None)
        asked = {"current": new, "seen": slice(n_seen[t]), "all": slice(None)}[annotation]
        first = before[t] if annotation == "current" else 0
        found = _count(split, members, asked, (old, future), before)
        own_positives[new] = found.shown[new]
        positives, n = int(found.shown[: n_seen[t]].sum()), len(members)
        known = n * (n_seen[t] - first) - int(found.unknown[first : n_seen[t]].sum())
        rows.append(
            {
                "experience": t + 1,
                "new_labels": names[new],
                "n_seen": n_seen[t],
                "images": n,
                "positives": positives,
                "labels_per_image": positives / n,
                "density": positives / known if known else np.nan,
                "unmarked": int(found.unmarked[: n_seen[t]].sum()),
                **_hidden("old", found, old, 0, n),
                **_hidden("future", found, future, 1, n),
                **_imbalance(found.shown[new]),
                "repeated_images": int(held[members].sum()),
                "test_images": len(scenario.splits["test"].experiences[t]),
            }
        )
        shares[t] = np.where(np.add.reduceat(found.unknown, before) > 0, np.nan, found.groups / n)
        held[members] = True
    everything = np.flatnonzero(held)
    true_positives, unknown = np.zeros((2, len(names)), dtype=np.int64)
    for block in row_blocks(len(everything), len(names)):
        true = split.true_labels(everything[block], len(names))
        true_positives += (true == PRESENT).sum(axis=0)
        unknown += (~is_known(true)).sum(axis=0)
    labels = pd.DataFrame(
        {
            "label": names,
            "experience": np.repeat(np.arange(1, len(n_seen) + 1), np.diff(n_seen, prepend=0)),
            "positives": own_positives,
            "true_positives": true_positives,
            "ir": _ir(true_positives),
            "unknown": unknown,
        }
    )
    return pd.DataFrame(rows).astype({"hidden_old": "Int64", "hidden_future": "Int64"}), labels, shares


@dataclass(frozen=True)
class _Found:
    """Counts in the images of one experience: per label, per part of the labels (old, future), per group of labels."""

    shown: Counts
    unmarked: Counts
    unknown: Counts
    hidden: tuple[int, int]
    hiding: tuple[int, int]
    groups: Counts


def _count(
    split: Split, members: npt.NDArray[np.intp], asked: slice, parts: tuple[slice, slice], starts: Sequence[int]
) -> _Found:
    """Count in the given rows; ``parts`` are the old and the future labels, ``starts`` where each group begins."""
    n_labels = len(split.columns)
    shown, unmarked, unknown = np.zeros((3, n_labels), dtype=np.int64)
    hidden, hiding = np.zeros((2, 2), dtype=np.int64)
    groups = np.zeros(len(starts), dtype=np.int64)
    for block in row_blocks(len(members), n_labels):
        true = split.true_labels(members[block], n_labels)
        unknown += (~is_known(true)).sum(axis=0)
        truth = true == PRESENT
        groups += np.logical_or.reduceat(truth, starts, axis=1).sum(axis=0)
        # Gathering rows is what takes the time; where everything is marked, once is enough.
        full = split.annotated is split.source.labels
        left = (true if full else split.annotated_labels(members[block], n_labels))[:, asked]
        unmarked[asked] += (left == UNMARKED).sum(axis=0)
        shown[asked] += (left == PRESENT).sum(axis=0)
        truth[:, asked] &= left != PRESENT
        for i, part in enumerate(parts):
            hidden[i] += np.count_nonzero(truth[:, part])
            hiding[i] += np.count_nonzero(truth[:, part].any(axis=1))
    return _Found(shown, unmarked, unknown, (int(hidden[0]), int(hidden[1])), (int(hiding[0]), int(hiding[1])), groups)


def _hidden(name: str, found: _Found, part: slice, number: int, n: int) -> dict[str, int | float | None]:
    """Return the columns on a part of the labels: what is hidden of it cannot be told if some truth is unknown."""
    if found.unknown[part].any():
        return {f"hidden_{name}": None, f"hidden_{name}_share": np.nan}
    return {f"hidden_{name}": found.hidden[number], f"hidden_{name}_share": found.hiding[number] / n}


def _ir(positives: Counts) -> npt.NDArray[np.float64]:
    """Return IRLbl of each label: positives of the commonest label over its own; infinite without a positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(positives > 0, positives.max() / positives, np.inf)


def _imbalance(positives: Counts) -> dict[str, float]:
    """Return MeanIR and the largest IRLbl of some labels; labels without positives are counted, not averaged."""
    ratios = _ir(positives)[positives > 0]
    return {
        "mean_ir": float(ratios.mean()) if len(ratios) else np.nan,
        "max_ir": float(ratios.max()) if len(ratios) else np.nan,
        "empty_labels": len(positives) - len(ratios),
    }


def _changed(benchmark: Benchmark) -> dict[str, Any]:
    """Return the options that are not at the benchmark's default; those without one are left out."""
    defaults = {f.name: f.default for f in dataclasses.fields(benchmark) if f.default is not dataclasses.MISSING}
    values = {name: getattr(benchmark, name) for name in defaults}
    return {name: value for name, value in values.items() if value != defaults[name]}


def _compare(rows: pd.DataFrame, published: Mapping[str, Sequence[int]]) -> str:
    """Return in words whether the stream is as published."""
    differences = []
    for name, figures in published.items():
        what = name.replace("_", " ")
        if figures and len(figures) != len(rows):
            differences.append(f"{what} are published for {len(figures)} experiences, these are {len(rows)}")
        elif figures and (differs := rows[name] != rows[f"published_{name}"]).any():
            differences.append(f"{what} of experience {', '.join(map(str, rows.loc[differs, 'experience']))} differ")
    if differences:
        return f"{MISMATCH}: {'; '.join(differences)}"
    given = [name.replace("_", " ") for name, figures in published.items() if figures]
    return f"{' and '.join(given)} as published" if given else "no figures are published of this protocol"


def _facts(
    benchmark: Benchmark, scenario: MultiLabelScenario, class_order: str | Sequence[str] | None, labels: pd.DataFrame
) -> dict[str, str]:
    train, test = scenario.splits["train"].source, scenario.splits["test"].source
    in_stream, positives = len(train) - scenario.unassigned["train"], labels["true_positives"].to_numpy()
    imbalance = _imbalance(positives)
    entries, unknown = in_stream * len(labels), int(labels["unknown"].sum())
    named = benchmark.class_order if class_order is None else class_order
    order = named if isinstance(named, str) else ", ".join(named)
    if benchmark.experiences or benchmark.assignment == "curated":
        order = "explicit lists"
    elif class_order is None:
        # As runs and tables call it. The option is called published where nothing need have been.
        order = f"default ({'as in the data set' if order == 'published' else order})"
    changed = {key: value for key, value in _changed(benchmark).items() if key != "missing"}
    if class_order is not None:
        changed["class_order"] = class_order
    looked = getattr(benchmark, "missing", "error") != "ignore"
    return {
        "source": benchmark.meta.source,
        "protocol": f"{scenario.protocol}: {len(labels)} labels in {len(scenario.n_seen)} experiences",
        "class order": order,
        "assignment": benchmark.assignment,
        "annotation": benchmark.annotation,
        "regime": benchmark.regime,
        "test": benchmark.test,
        "options": ", ".join(f"{key}={as_text(value)}" for key, value in changed.items()) or "default",
        "training images": f"{len(train):,}, {in_stream:,} of them in the stream",
        "test images": f"{len(test):,}, {len(test) - scenario.unassigned['test']:,} of them tested",
        "unassigned images": ", ".join(f"{count:,} ({name})" for name, count in scenario.unassigned.items()),
        "missing images": f"{len(train.missing):,} (train), {len(test.missing):,} (test)"
        if looked
        else "not looked for (missing=ignore)",
        **({"unknown entries": f"{unknown:,} of {entries:,} ({unknown / entries:.0%})"} if unknown else {}),
        "cardinality": f"{positives.sum() / in_stream:.3f} {'known ' * bool(unknown)}labels an image",
        "density": f"{positives.sum() / (entries - unknown):.4f}{' of known entries' * bool(unknown)}",
        "imbalance": f"MeanIR {imbalance['mean_ir']:.1f}, largest IRLbl {imbalance['max_ir']:.1f}"
        + (f", {imbalance['empty_labels']} labels without a positive" if imbalance["empty_labels"] else ""),
        "fingerprint": f"{train.fingerprint[:16]} (train), {test.fingerprint[:16]} (test)",
    }
