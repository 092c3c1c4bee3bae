"""What jobs are grouped by, and what must then be the same for two of them to be a pair."""

from __future__ import annotations

import json
from typing import Any, Final, TypeVar

import pandas as pd

from cml_bench.errors import CmlBenchError
from cml_bench.report.tables.repeats import CONFIGURATION
from cml_bench.report.tables.same_methods import read_method, strategy_names, with_options

_Of = TypeVar("_Of", str, int)

KEYS: Final = ("method", "strategy", "head", "loss", "benchmark", "class_order")
"""What rows and columns of a table may be; columns may also be metrics."""

RANKED: Final = ("method", "strategy", "head", "loss")
"""Keys whose values compete. Benchmarks and class orders are conditions: none of them is the best."""

BLOCK: Final = {
    "method": ("benchmark", "class_order", "seed"),
    "strategy": ("benchmark", "head", "loss", "wrap", "class_order", "seed"),
    "head": ("benchmark", "strategy", "loss", "wrap", "class_order", "seed"),
    "loss": ("benchmark", "strategy", "head", "wrap", "class_order", "seed"),
    "benchmark": ("method", "class_order", "seed"),
    "class_order": ("benchmark", "method", "seed"),
}
"""For each key everything else that a job is: two jobs that differ in the key alone are a pair."""


def job_keys(jobs: pd.DataFrame) -> pd.DataFrame:
    """Return, for each job, the label of each key, of its wrapper, and its seed.

    A method falls into strategy, head, criterion and wrapper, each with its own options, so that the four together are
    the method. A head that was not named is the strategy's own, as the result tells. Options are left out of labels
    where nothing needs them to be told apart.

    Args:
        jobs: Rows of what ``collect`` returned.

    Returns:
        A frame with the index of ``jobs`` and text columns ``method``, ``strategy``, ``head``, ``loss``, ``wrap``,
        ``benchmark``, ``class_order``, and ``seed``.
    """
    methods = {spec: read_method(spec) for spec in jobs["method"].unique()}
    told = {part: _told(jobs, part) for part in ("head", "loss", "wrap")}
    parts = {
        spec: {
            "head": (told["head"].get(spec) or method.head or "", method.head_options),
            "loss": (told["loss"].get(spec) or method.loss or "", method.loss_options),
            "wrap": (told["wrap"].get(spec) or method.wrap or "", method.wrap_options),
        }
        for spec, method in methods.items()
    }
    # A strategy is named with its options everywhere; of the others it is a rare thing to vary them.
    keys: dict[str, Any] = {"method": jobs["method"].astype(str), "strategy": strategy_names(jobs)}
    for part in ("head", "loss", "wrap"):
        values = {spec: each[part] for spec, each in parts.items()}
        labels = {spec: with_options(*value) for spec, value in values.items()}
        keys[part] = jobs["method"].map(_shortest({spec: value[0] for spec, value in values.items()}, labels))
    keys["benchmark"] = _benchmark_labels(jobs)
    keys["class_order"] = jobs["class_order"].astype(str)
    keys["seed"] = jobs["seed"]
    return pd.DataFrame(keys, index=jobs.index)


def check_keys(rows: str, columns: str) -> None:
    """Raise CmlBenchError unless a table can have these rows and columns."""
    if rows not in KEYS:
        raise CmlBenchError(f"rows={rows!r} cannot be rows of a table: use one of {', '.join(KEYS)}")
    if columns not in ("metric", *KEYS):
        raise CmlBenchError(f"columns={columns!r} cannot be columns of a table: use metric, {', '.join(KEYS)}")
    parts = {"method", "strategy", "head", "loss"}
    if rows == columns or ("method" in (rows, columns) and {rows, columns} <= parts):
        raise CmlBenchError(f"rows={rows} and columns={columns} say the same twice: choose another for one of them")


def _told(jobs: pd.DataFrame, part: str) -> dict[str, str]:
    """Return what the results say of a part of each method: a failed job says nothing, others of the method do."""
    told = jobs.dropna(subset=[part]).groupby("method")[part].first()
    return {str(method): str(name) for method, name in told.items()}


def _shortest(names: dict[_Of, str], full: dict[_Of, str]) -> dict[_Of, str]:
    """Return the bare names where they tell apart all that the full ones do."""
    variants: dict[str, set[str]] = {}
    for key, name in names.items():
        variants.setdefault(name, set()).add(full[key])
    return {key: name if len(variants[name]) == 1 else full[key] for key, name in names.items()}


def _benchmark_labels(jobs: pd.DataFrame) -> pd.Series[str]:
    """Return title and protocol of each job's configuration; where two have the same, also what tells them apart."""
    configurations = jobs.groupby(CONFIGURATION, dropna=False, sort=False).ngroup()
    groups = {int(str(number)): group for number, group in jobs.groupby(configurations)}
    labels: dict[int, str] = {}
    for title, family in _families(groups).items():
        shared = _shared(family)
        apart = {number: [part for part in told if part not in shared] for number, told in family.items()}
        # Where one says less than another, nothing would be left of it.
        told = apart if all(apart.values()) else family
        labels |= {number: ", ".join([title, *told[number]] if len(family) > 1 else [title]) for number in family}
    return configurations.map(labels)


def shared_settings(jobs: pd.DataFrame) -> list[str]:
    """Return a line for each title that several configurations bear: what all of these have in common."""
    groups = dict(enumerate(group for _, group in jobs.groupby(CONFIGURATION, dropna=False, sort=False)))
    families = {title: family for title, family in _families(groups).items() if len(family) > 1}
    lines = []
    for title, family in families.items():
        parts = [part for part in next(iter(family.values())) if part in _shared(family)]
        lines += [f"{title}: {', '.join(parts)}"] if parts else []
    return lines


def _families(groups: dict[int, pd.DataFrame]) -> dict[str, dict[int, list[str]]]:
    """Return, for each title, what is told of each configuration that bears it."""
    families: dict[str, dict[int, list[str]]] = {}
    for number, group in groups.items():
        families.setdefault(benchmark_title(group), {})[number] = [*_facts(group), *_options(group)]
    return families


def _shared(family: dict[int, list[str]]) -> set[str]:
    return set.intersection(*(set(told) for told in family.values()))


def benchmark_title(jobs: pd.DataFrame) -> str:
    """Return title and protocol of jobs of one configuration."""
    title = next((str(title) for title in jobs["title"].dropna()), str(jobs["benchmark"].iloc[0]))
    protocol = next((str(protocol) for protocol in jobs["protocol"].dropna() if protocol not in title), "")
    return ", ".join(filter(None, (title, protocol)))


def benchmark_heading(jobs: pd.DataFrame) -> str:
    """Return one line that tells a configuration from all others."""
    return ", ".join(filter(None, (benchmark_title(jobs), *_facts(jobs), " ".join(_options(jobs)))))


def _facts(jobs: pd.DataFrame) -> list[str]:
    return [f"{name} {jobs[name].iloc[0]}" for name in ("version", "data") if not pd.isna(jobs[name].iloc[0])]


def _options(jobs: pd.DataFrame) -> list[str]:
    return [f"{key}={value}" for key, value in json.loads(str(jobs["benchmark_options"].iloc[0])).items()]
