"""What the result of a job says: the fields of ``schema.Result``, gathered."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import numpy as np
import torch

import cml_bench
from cml_bench.data.source import Source
from cml_bench.labels import PRESENT, row_blocks
from cml_bench.options import recorded
from cml_bench.runs.basis import Basis, data_basis
from cml_bench.runs.benchmark import Benchmark, load_sources
from cml_bench.runs.cost import CostMeter
from cml_bench.runs.environment import environment
from cml_bench.runs.federated import federation_record
from cml_bench.runs.job import LOCATIONS, Job
from cml_bench.runs.plan import Plan, plan
from cml_bench.runs.schema import LONGEST_TEXT, LONGEST_TRACE, SCHEMA_VERSION
from cml_bench.streams.scenario import MultiLabelScenario, Split


def success(
    job: Job,
    basis: Basis,
    resolved: Plan,
    scenario: MultiLabelScenario,
    backbone: dict[str, Any],
    metrics: dict[str, Any],
    meter: CostMeter,
    model: torch.nn.Module,
) -> dict[str, Any]:
    """Return the JSON-ready result of a job that came to its end; the predictions' checksum is added when these lie."""
    result = {
        **_header(basis.key, "ok"),
        "error": None,
        "job": {**_job_record(job, basis.plug_in_files), "files": dict(basis.files), "resolved": resolved.settings()},
        "benchmark": _benchmark_record(resolved.benchmark, scenario),
        "method": resolved.describe(),
        "metrics": metrics,
        "cost": _cost_record(meter, model),
        "data": {name: _split_record(part) for name, part in scenario.splits.items()},
        "missing": [name for split in ("train", "test") for name in scenario.splits[split].source.missing],
        "backbone": {**backbone, "options": recorded(backbone["options"], f"backbone {backbone['name']}")},
        "environment": environment(resolved.training.device),
    }
    if resolved.training.federated is not None:
        result["federation"] = recorded(federation_record(resolved, scenario), "a federation")
    return result


def failure(job: Job, sentence: str, trace: str | None) -> dict[str, Any]:
    """Return the JSON-ready result of a job that failed."""
    return {
        **_header(job.key, "failed"),
        "error": sentence[:LONGEST_TEXT],
        "traceback": trace and trace[-LONGEST_TRACE:],
        "job": _job_record(job, job.plug_in_files),
        "data": _data_of(job),
    }


def _header(key: str, status: str) -> dict[str, Any]:
    finished = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"schema_version": SCHEMA_VERSION, "key": key, "status": status, "finished": finished}


def _job_record(job: Job, plug_in_files: list[str | None]) -> dict[str, Any]:
    return {
        "benchmark": job.benchmark,
        "benchmark_options": {key: value for key, value in job.options if key not in LOCATIONS},
        "locations": {key: value for key, value in job.options if key in LOCATIONS},
        "method": job.method,
        "class_order": job.class_order,
        "seed": job.seed,
        "code_version": cml_bench.__version__,
        "plug_in_files": plug_in_files,
    }


def _benchmark_record(benchmark: Benchmark, scenario: MultiLabelScenario) -> dict[str, Any]:
    meta = benchmark.meta
    return {
        "name": meta.name,
        "title": meta.title,
        "version": meta.version,
        "protocol": scenario.protocol,
        "label_names": list(scenario.label_names),
        "n_seen": list(scenario.n_seen),
        "images_per_experience": [len(rows) for rows in scenario.splits["train"].experiences],
        "unassigned_images": scenario.unassigned,
        "label_groups": {group: list(names) for group, names in benchmark.label_groups.items()},
    }


def _data_of(job: Job) -> dict[str, Any] | None:
    """Return what a failed job was about, if that much can be read: it belongs to the table of its data."""
    try:
        return {source.split: _data_record(source) for source in load_sources(plan(job).benchmark)}
    except Exception:
        # Whatever made the job fail may raise here once more, a plug-in's own error too; its failure must be stored.
        return None


def _data_record(source: Source) -> dict[str, Any]:
    return {"name": source.name, **data_basis(source), "counts": source.counts}


def _split_record(split: Split) -> dict[str, Any]:
    shown = np.zeros(len(split.columns), dtype=np.int64)
    rows = split.rows
    for block in row_blocks(len(rows), len(split.columns)):
        shown += np.count_nonzero(split.true_labels(rows[block], len(split.columns)) == PRESENT, axis=0)
    names = [split.source.label_names[column] for column in split.columns]
    return {**_data_record(split.source), "label_counts": dict(zip(names, shown.tolist(), strict=True))}


def _cost_record(meter: CostMeter, model: torch.nn.Module) -> dict[str, Any]:
    footprint = meter.footprint
    return {
        "seconds": meter.seconds,
        "peak_memory_mb": meter.peak_memory_mb,
        "peak_gpu_memory_mb": meter.peak_gpu_memory_mb,
        "images": meter.images,
        "parameters": {
            "total": sum(parameter.numel() for parameter in model.parameters()),
            "trainable": footprint.trainable_parameters,
        },
        "memory": {"images": footprint.stored_images, "bytes": footprint.memory_bytes},
    }
