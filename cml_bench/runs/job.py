"""Jobs: frozen plain data that determine a result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cml_bench
from cml_bench.errors import CmlBenchError
from cml_bench.files import plain_name
from cml_bench.options import Pairs, names_in, parse_pairs
from cml_bench.registry import code_digest, find
from cml_bench.runs.events import Log
from cml_bench.runs.method import parse_method

MOST = 10_000
"""Seeds or class orders that a count may ask for; more is a slip."""
LOCATIONS = frozenset({"root", "annotations", "lists", "checkpoint"})
"""Options that say where data lie on a machine. Tables tell results apart by the data themselves instead."""


@dataclass(frozen=True)
class Job:
    """One cell of a sweep: (benchmark, method, class order, seed) with its options.

    Attributes:
        benchmark: Benchmark name or path.
        method: Canonical method specification.
        class_order: ``"default"`` for the benchmark's own, or any order that the stream builder knows.
        seed: Seed of everything random in the run.
        options: Options of the benchmark and training settings, as typed.
        save_models: Whether the model after each experience is kept beside the result. It changes no number, so it is
            no part of the job's identity; nor is ``log``.
        log: Experiment tracker that follows the job; None for none.
    """

    benchmark: str
    method: str
    class_order: str = "default"
    seed: int = 0
    options: Pairs = ()
    save_models: bool = False
    log: Log | None = None

    @property
    def determinants(self) -> dict[str, Any]:
        """The fields that a result depends on."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in ("save_models", "log")}

    @property
    def all_options(self) -> Pairs:
        """The options of benchmark, training and method, as typed."""
        return (*self.options, *parse_method(self.method).all_options)

    @property
    def plug_in_files(self) -> list[str | None]:
        """Sha256 of the file of each plug-in that the job names, None for a built-in: benchmark, strategy, others.

        Built-in parts are left out, and so is what options name unless it is a plug-in (a regime, say).
        """
        method = parse_method(self.method)
        files = [code_digest("benchmarks", self.benchmark), code_digest("strategies", method.strategy)]
        parts = [("heads", method.head), *(("criteria", name) for name in method.losses), ("wrappers", method.wrap)]
        for kind, part in parts:
            digest = part and code_digest(kind, part)
            if part and (":" in part or digest):
                files.append(digest)
        values = [value for key, value in self.all_options if key == "regime" or ":" in value]
        named = {name for value in values for name in names_in(value)} - {part for _, part in parts}
        return files + [digest for name in sorted(named) if (digest := code_digest("regimes", name))]

    @property
    def key(self) -> str:
        """Identity of the result: a hash over the job, the code version and the content of plug-in files."""
        return self.key_with(cml_bench.__version__, self.plug_in_files)

    def key_with(self, version: str, files: list[str | None]) -> str:
        """Return the key that the job has with another code version and other plug-in files."""
        identity = {"job": self.determinants, "version": version, "files": files}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def slug(self) -> str:
        """Path of the result below the results folder, without suffix; readable, unique by the key."""
        parts = (plain_name(self.method)[:80], plain_name(self.class_order)[:40], f"seed{self.seed}", self.key)
        return f"{plain_name(self.benchmark)}/{'__'.join(parts)}"


def make_jobs(
    benchmarks: Iterable[str],
    methods: Iterable[str],
    class_orders: Iterable[str],
    seeds: Iterable[int],
    options: Iterable[str] = (),
) -> list[Job]:
    """Return the product benchmarks x methods x class orders x seeds, seeds slowest: a table fills evenly.

    Args:
        benchmarks: Names or paths.
        methods: Method specifications.
        class_orders: Orders; see ``parse_class_orders``.
        seeds: Seeds; see ``parse_seeds``.
        options: ``key=value`` options of benchmark and training.

    Raises:
        CmlBenchError: If a name is unknown (found without importing anything) or something is listed twice.
    """
    parsed = [parse_method(method) for method in methods]
    specs = [method.spec for method in parsed]
    pairs = parse_pairs(options)
    orders, names, numbers = list(class_orders), list(benchmarks), list(seeds)
    for name in names:
        find("benchmarks", name)
    for method in parsed:
        parts = {"strategies": method.strategy, "heads": method.head, "criteria": method.loss, "wrappers": method.wrap}
        for kind, named in parts.items():
            if named is not None:
                find(kind, named)
    listed: dict[str, list[Any]] = {"method": specs, "class order": orders, "benchmark": names, "seed": numbers}
    for kind, values in listed.items():
        repeated = [value for value, times in Counter(values).items() if times > 1]
        if repeated:
            raise CmlBenchError(f"{kind} {repeated[0]!r:.100} is listed twice: list it once")
    return [
        Job(benchmark=name, method=spec, class_order=order, seed=seed, options=pairs)
        for seed in numbers
        for order in orders
        for name in names
        for spec in specs
    ]


def with_extras(jobs: Iterable[Job], save_models: bool, log: Log | None) -> list[Job]:
    """Return the same jobs, told whether to keep the model after each experience and who follows them."""
    return [dataclasses.replace(job, save_models=save_models, log=log) for job in jobs]


def parse_seeds(text: str) -> list[int]:
    """Parse ``"3"`` (seeds 0, 1, 2) or ``"0,4,7"``."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise CmlBenchError(f"seeds {text!r:.60} cannot be read: write a count, as 3, or a list, as 0,4,7") from None
    if numbers and max(numbers) >= 2**31:
        raise CmlBenchError(f"seed {max(numbers)!s:.60} is too large: give seeds below {2**31}")
    if not numbers or min(numbers) < 0 or (len(numbers) == 1 and "," not in text and numbers[0] < 1):
        raise CmlBenchError(f"seeds {text!r:.60} name no run: write a count of at least 1, or a list, as 0,4,7")
    if "," not in text and numbers[0] > MOST:
        raise CmlBenchError(f"{numbers[0]} seeds are too many: write at most {MOST}, or a comma behind a single seed")
    return numbers if "," in text else list(range(numbers[0]))


def parse_class_orders(text: str) -> list[str]:
    """Parse ``"3"`` (the default order, random:1 and random:2) or a list, as ``"default,frequency,random:5"``."""
    if text.isdecimal():
        # Not int: of thousands of digits it makes nothing.
        count = MOST + 1 if len(text) > len(str(MOST)) else int(text)
        if count > MOST:
            raise CmlBenchError(f"{text:.60} class orders are too many: write at most {MOST}")
        orders = ["default", *(f"random:{i}" for i in range(1, count))] if count else []
    else:
        orders = [part.strip() for part in text.split(",") if part.strip()]
    if not orders:
        raise CmlBenchError(f"class orders {text!r:.60} name no run: write a count of at least 1, or a list of orders")
    return orders


def seeds_text(seeds: Iterable[int]) -> str:
    """Return the shortest text that ``parse_seeds`` reads as these, sorted."""
    # A column of a table in which one is missing holds them as fractions.
    numbers = sorted({int(seed) for seed in seeds})
    if numbers == list(range(len(numbers))):
        return str(len(numbers))
    return ",".join(map(str, numbers)) + ("," if len(numbers) == 1 else "")


def class_orders_text(class_orders: Iterable[str]) -> str:
    """Return a text that ``parse_class_orders`` reads as these, the default first."""
    orders = sorted(set(class_orders), key=lambda order: (order != "default", order))
    # A single number would read as a count.
    return ",".join(orders) + ("," if len(orders) == 1 and orders[0].isdigit() else "")
