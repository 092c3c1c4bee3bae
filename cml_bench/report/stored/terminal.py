"""Results to read in a terminal: a line a job, or a page of one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cml_bench.errors import CmlBenchError
from cml_bench.report.stored.collect import costs
from cml_bench.report.stored.settings import differing
from cml_bench.runs.results import ResultError, read_result, result_files
from cml_bench.runs.schema import ExperienceMetrics, Result


def list_results(results: Path | str | Sequence[Path | str]) -> pd.DataFrame:
    """Return one row a result file, newest last.

    Returns:
        Columns ``key``, ``status`` (``ok``, ``failed``, ``unreadable``), ``benchmark``, ``method``, ``settings`` (those
        given of benchmark and training that not all jobs share, as ``key=value ...``), ``class_order``, ``seed``,
        ``last_map`` (NaN where there is none), ``finished`` (UTC; when the file was written, if the result
        does not say), ``error``, ``path``.

    Raises:
        CmlBenchError: If there is no result.
    """
    rows = [_line(path) for path in result_files(results)]
    frame = pd.DataFrame(rows).astype({"seed": "Int64", "last_map": "float64"})
    settings = differing(frame["settings"].dropna())
    texts = settings.apply(
        lambda row: " ".join(f"{key}={value}" for key, value in row.dropna().items()), axis="columns"
    )
    frame["settings"] = texts.reindex(frame.index, fill_value="") if len(settings.columns) else ""
    return frame.sort_values("finished", kind="stable", ignore_index=True)


def _line(path: Path) -> dict[str, object]:
    written = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    names = ("key", "status", "benchmark", "method", "settings", "class_order", "seed", "last_map")
    row: dict[str, object] = dict.fromkeys(names)
    try:
        result = read_result(path)
    except ResultError as error:
        return {**row, "status": "unreadable", "finished": written, "error": error.reason, "path": str(path)}
    return {
        "key": result.key,
        "status": result.status,
        "benchmark": result.job.benchmark,
        "method": result.job.method,
        "settings": dict(result.job.benchmark_options),
        "class_order": result.job.class_order,
        "seed": result.job.seed,
        "last_map": result.metrics.summary.get("last_map") if result.metrics else None,
        "finished": result.finished or written,
        "error": result.error,
        "path": str(path),
    }


def list_to_terminal(rows: pd.DataFrame) -> Group:
    """Return a Rich renderable: a line a job, and the reasons of those that failed or cannot be read below."""
    # A column of nothing would take room from methods.
    apart = ("settings",) if (rows["settings"] != "").any() else ()
    names = ("key", "status", "benchmark", "method", *apart, "class_order", "seed")
    headings = [name.removeprefix("class_") for name in names]
    grid = _grid((*headings, "last mAP", "finished"), right=(len(names) - 1, len(names)))
    for row in rows.to_dict("records"):
        value = "-" if pd.isna(row["last_map"]) else f"{100 * row['last_map']:.1f}"
        cells = (*(row[name] for name in names), value)
        when = str(row["finished"]).replace("T", " ").removesuffix("Z")[:16]
        grid.add_row(*(Text("" if pd.isna(cell) else str(cell)) for cell in cells), Text(when))
    reasons = rows[rows["status"] != "ok"]
    lines = [f"{row.status}: {row.path}: {row.error}" for row in reasons.itertuples()]
    return Group(grid, *map(Text, lines))


def find_result(given: str, results: Path) -> Path:
    """Return the result file that is meant: a path, or the beginning of a key.

    Args:
        given: Path of a result file, or of a folder with one; or at least the first 4 digits of a key.
        results: Folder where keys are looked for.

    Raises:
        CmlBenchError: If there is no such result, or there are several.
    """
    path = Path(given)
    if path.exists():
        found = result_files(path)
    elif len(given) >= 4 and given.isalnum():
        files = result_files(results) if results.exists() else []
        found = [file for file in files if file.stem.rpartition("__")[2].startswith(given)]
    else:
        raise CmlBenchError(f"{given} does not exist: give a result file (.json) or at least four digits of a key")
    if not found:
        raise CmlBenchError(f"no result in {results} has a key that begins with {given!r}: see cml-bench results list")
    if len(found) > 1:
        raise CmlBenchError(f"{given} is {len(found)} results, {found[0]} and others: name one of them")
    return found[0]


def page(path: Path) -> Group:
    """Return a Rich renderable: all that a result says, for a reader.

    Raises:
        CmlBenchError: If it cannot be read.
    """
    result = read_result(path)
    parts: list[RenderableType] = [
        Text(f"{result.job.method} on {_title(result)}", style="bold"),
        *_facts(path, result),
    ]
    if result.metrics is not None:
        parts += [_experiences(result.metrics.per_experience), _labels(result)]
        names = ("forgetting", "forgetting_relative", "backward_transfer")
        values = {name: result.metrics.summary.get(name) for name in names}
        parts.append(Text("  ".join(f"{name.replace('_', ' ')} {_percent(value)}" for name, value in values.items())))
    if result.missing:
        shown = ", ".join(result.missing[:10]) + (", ..." if len(result.missing) > 10 else "")
        parts.append(Text(f"missing: {len(result.missing)} images ({shown})"))
    elif result.status == "ok":
        parts.append(Text("missing: no image"))
    return Group(*parts)


def _title(result: Result) -> str:
    benchmark = result.benchmark
    if benchmark is None:
        return result.job.benchmark
    named = [benchmark.title or benchmark.name]
    if benchmark.protocol and benchmark.protocol not in named[0]:
        named.append(benchmark.protocol)
    return ", ".join([*named, f"version {benchmark.version}"])


def _facts(path: Path, result: Result) -> Iterable[RenderableType]:
    job, method = result.job, result.method
    options = " ".join(f"{name}={_plain(value)}" for name, value in job.benchmark_options.items())
    facts = {
        "key": f"{result.key} ({result.status})",
        "error": result.error,
        "job": f"class order {job.class_order}, seed {job.seed}" + (f", {options}" if options else ""),
        "method": method
        and ", ".join(filter(None, (method.title, method.family, method.head, method.loss, method.wrap))),
        "options": method and " ".join(f"{name}={_plain(value)}" for name, value in method.options.items()),
        "backbone": result.backbone and _backbone(result),
        "made": ", ".join(filter(None, (result.finished, _machine(result)))),
        "data": result.data and "; ".join(_data(split, result) for split in result.data),
        "cost": _cost(result),
        "predictions": result.predictions
        and f"{path.with_suffix('.npz').name}, sha256 {result.predictions.sha256[:16]}",
    }
    grid = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        if value:
            grid.add_row(Text(name, style="dim"), Text(str(value)))
    yield grid
    if result.traceback:
        yield Text(result.traceback)


def _backbone(result: Result) -> str:
    backbone = result.backbone
    assert backbone is not None
    weights = backbone.checkpoint or "random weights"
    return f"{backbone.name}, {weights}, pretraining {backbone.pretraining}, image size {_plain(backbone.image_size)}"


def _machine(result: Result) -> str | None:
    where = result.environment
    if where is None:
        return None
    packages = ", ".join(f"{name} {version}" for name, version in where.packages.items())
    code = f"cml_bench {where.code_version}, Python {where.python}"
    return f"{code}, {packages}, {where.device.kind} ({where.device.name}), {where.platform}"


def _data(split: str, result: Result) -> str:
    assert result.data is not None
    record = result.data[split]
    counts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in record.counts.items())
    return f"{split}: {record.name or ''} {record.fingerprint[:16]} ({counts})"


def _cost(result: Result) -> str:
    found = costs(result.cost)
    texts = {
        "seconds": "{:.1f} s",
        "training_seconds": "training {:.1f} s",
        "images_per_second": "{:,.0f} images/s",
        "peak_memory_mb": "peak memory {:.0f} MiB",
        "peak_gpu_memory_mb": "peak GPU memory {:.0f} MiB",
        "stored_images": "{:,.0f} stored images",
        "memory_mb": "{:.1f} MiB of them",
        "trainable_parameters": "{:,.0f} trainable parameters",
    }
    return ", ".join(text.format(found[name]) for name, text in texts.items() if found.get(name) is not None)


def _experiences(after: Sequence[ExperienceMetrics]) -> Table:
    names = list(after[0].figures) if after else []
    grid = _grid(("experience", "labels", "images", "dropped", *names), right=range(4 + len(names)))
    for number, each in enumerate(after, start=1):
        counts = (number, each.n_seen, each.n_images, len(each.dropped_labels))
        grid.add_row(*map(str, counts), *(_percent(each.figures.get(name)) for name in names))
    return grid


def _labels(result: Result) -> Table:
    assert result.metrics is not None
    series = result.metrics.per_label_ap
    width = max(map(len, series.values()), default=0)
    train = (result.data or {}).get("train")
    counts = (train and train.label_counts) or {}
    grid = _grid(
        ("AP of label", "train images", *(f"after {t}" for t in range(1, width + 1))), right=range(1, width + 2)
    )
    for label, values in series.items():
        grid.add_row(Text(label), str(counts.get(label, "-")), *map(_percent, values))
    return grid


def _grid(headings: Sequence[str], right: Iterable[int]) -> Table:
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    aligned = set(right)
    for number, heading in enumerate(headings):
        if number in aligned:
            grid.add_column(Text(heading), justify="right")
        else:
            grid.add_column(Text(heading), overflow="fold")
    return grid


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
