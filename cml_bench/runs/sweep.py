"""Sweeps: many jobs, of which only the missing ones run."""

from __future__ import annotations

import itertools
import math
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cml_bench.errors import CmlBenchError, suggest
from cml_bench.options import as_text, parse_pairs
from cml_bench.runs.engines.engine import parse_engine
from cml_bench.runs.events import CHECKPOINT_EVERY, CheckpointEvery, Report
from cml_bench.runs.job import Job, make_jobs, parse_class_orders, parse_seeds
from cml_bench.runs.method import parse_method
from cml_bench.runs.rhythm import parse_rhythm


def execute(
    jobs: Sequence[Job],
    results: Path,
    *,
    workers: int | None,
    report: Report,
    engine: str | None = None,
    checkpoint_every: CheckpointEvery = CHECKPOINT_EVERY,
) -> None:
    """Run jobs, several at once if there are cores for them.

    Args:
        jobs: What to run.
        results: Results folder.
        workers: Jobs at once; None for as many as the engine has room for.
        report: Called with the jobs' events.
        engine: Where to run, as in ``"ray gpus=0.5"``; None for this machine: in this process if there is one worker
            (or a GPU and nothing said of workers), else in one process a core.
        checkpoint_every: When running jobs store their state.

    Raises:
        CmlBenchError: If the input is bad (nothing has run then).
    """
    parse_rhythm(checkpoint_every)
    _check_writable(results)
    if engine is None:
        # joblib counts the cores that this process may use, containers and CPU affinity included.
        from joblib import cpu_count

        if workers is None:
            workers = 1 if any(_uses_gpu(job) for job in jobs) else cpu_count()
        engine = "serial" if min(workers, len(jobs)) == 1 else "processes"
    parse_engine(engine).execute(jobs, results, report, workers, checkpoint_every)


def _check_writable(results: Path) -> None:
    """Find out before hours of training that results cannot be written."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            pass
    except OSError as error:
        raise CmlBenchError(
            f"results folder {results} cannot be written ({error.strerror}): name a folder with --results"
        ) from None


def _uses_gpu(job: Job) -> bool:
    # A method's own settings win over those of all.
    settings = {**dict(job.options), **dict(parse_method(job.method).options)}
    return settings.get("device", "cpu") != "cpu"


@dataclass(frozen=True)
class Suite:
    """A sweep as a YAML file declares it."""

    title: str
    jobs: tuple[Job, ...]


MOST_JOBS = 100_000
"""Jobs of a sweep; a slip in a list of values asks for more."""
LONGEST_TITLE = 1000
_SUITE_KEYS = ("title", "benchmarks", "methods", "class_orders", "seeds", "set", "vary")


def read_suite(
    path: Path, options: Sequence[str] = (), *, seeds: str | None = None, class_orders: str | None = None
) -> Suite:
    """Read a suite file.

    Keys: ``benchmarks`` and ``methods`` (lists), ``class_orders`` and ``seeds`` (a count or a list, default 1), ``set``
    (options of benchmark and training), ``vary`` (options with a list of values each, of which every combination is a
    table), ``title``. An item of ``methods`` is a method, or a mapping that crosses lists, as in
    ``{strategy: [naive, er], head: [linear, dlfl], loss: bce}``; a single value is a list of one.

    Args:
        path: YAML file.
        options: ``key=value`` options that win over those of the file (a data folder, say).
        seeds: Seeds in place of the file's; see ``parse_seeds``.
        class_orders: Class orders in place of the file's; see ``parse_class_orders``.

    Raises:
        CmlBenchError: If the file is missing, no YAML, or holds unknown or missing keys.
    """
    # Imported here: what is run without a suite needs no YAML.
    from cml_bench.runs.suite_file import read_suite_file

    content = read_suite_file(path)
    for key in content:
        if key not in _SUITE_KEYS:
            raise CmlBenchError(f"suite {path} has no key {key!r:.60}: {suggest(f'{key!s:.60}', _SUITE_KEYS)}")
    title = content.get("title", path.stem)
    if isinstance(title, (dict, list)) or len(str(title)) > LONGEST_TITLE:
        raise CmlBenchError(f"suite {path} needs a text of up to {LONGEST_TITLE} letters as title, not {title!r:.60}")
    names, methods = _strings(content.get("benchmarks"), "benchmarks", path), _methods(content.get("methods"), path)
    given, settings, varied = dict(parse_pairs(options)), content.get("set") or {}, content.get("vary") or {}
    if not isinstance(settings, dict):
        raise CmlBenchError(f"suite {path} needs key: value pairs under 'set', not {settings!r:.60}")
    if isinstance(varied, dict):
        for key in varied:
            if key in settings:
                raise CmlBenchError(f"suite {path} has {key!r:.60} under both 'set' and 'vary': keep one of them")
        varied = {key: values for key, values in varied.items() if key not in given}
    jobs: list[Job] = []
    combinations = _product(varied, "vary", path)
    try:
        orders = parse_class_orders(class_orders or _joined(content.get("class_orders", 1)))
        numbers = parse_seeds(seeds or _joined(content.get("seeds", 1)))
        _check_count(len(combinations) * len(names) * len(methods) * len(orders) * len(numbers))
        for combination in combinations:
            shared = {str(key): as_text(value) for key, value in {**settings, **combination}.items()}
            given_here = [f"{key}={value}" for key, value in {**shared, **given}.items()]
            jobs += make_jobs(names, methods, orders, numbers, given_here)
        # As within a combination: tables fill evenly.
        jobs.sort(key=lambda job: (numbers.index(job.seed), orders.index(job.class_order)))
    except CmlBenchError as error:
        raise CmlBenchError(f"suite {path}: {error!s:.1000}") from None
    return Suite(str(title), tuple(jobs))


def _check_count(jobs: int) -> None:
    if jobs > MOST_JOBS:
        raise CmlBenchError(f"{jobs} jobs are more than the {MOST_JOBS} of a sweep: divide it")


def _strings(values: object, key: str, path: Path) -> list[str]:
    if values is None:
        raise CmlBenchError(f"suite {path} has no {key}: add a list of names under {key!r}")
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise CmlBenchError(f"suite {path} needs a list of names under {key!r}, not {values!r:.60}")
    return values


def _methods(items: object, path: Path) -> list[str]:
    """Return method specifications; a mapping among them stands for all combinations of its lists."""
    if not isinstance(items, list):
        return _strings(items, "methods", path)
    found: list[str] = []
    for item in items:
        if isinstance(item, dict):
            for choice in _product(item, "methods", path):
                strategy = choice.pop("strategy", None)
                if strategy is None:
                    mend = "write {strategy: er, memory_size: 50} or a plain text, er memory_size=50"
                    raise CmlBenchError(f"suite {path} crosses {item!r:.60} without 'strategy': {mend}")
                found.append(" ".join([strategy, *(f"{key}={shlex.quote(value)}" for key, value in choice.items())]))
        else:
            found.append(item)
    return _strings(found, "methods", path)


def _product(lists: object, key: str, path: Path) -> list[dict[str, str]]:
    """Return every combination of one value a key."""
    if not isinstance(lists, dict):
        raise CmlBenchError(f"suite {path} needs key: list pairs under {key!r}, not {lists!r:.60}")
    for name, values in lists.items():
        if values is None or values == []:
            raise CmlBenchError(f"suite {path} gives no value for {name!r:.60} under {key!r}: write one, or a list")
    choices = {name: values if isinstance(values, list) else [values] for name, values in lists.items()}
    _check_count(math.prod(map(len, choices.values())))
    texts = [[as_text(value) for value in values] for values in choices.values()]
    for name, values in zip(lists, texts, strict=True):
        if len(set(values)) < len(values):
            # The same job twice would be run twice at once.
            raise CmlBenchError(f"suite {path} lists a value of {name!r:.60} twice under {key!r}: list it once")
    return [dict(zip(map(str, lists), values, strict=True)) for values in itertools.product(*texts)]


def _joined(value: object) -> str:
    # A list of one keeps its comma, or it would read as a count.
    return ",".join(map(str, value)) + "," if isinstance(value, list) else str(value)
