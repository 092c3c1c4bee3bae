"""Methods that came to the same settings under several names are one: to name a default changes nothing."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable

import pandas as pd

from cml_bench.errors import CmlBenchError
from cml_bench.report.tables.repeats import CONFIGURATION
from cml_bench.report.tables.same_settings import by_shortest_settings, shortest
from cml_bench.runs.method import Method, parse_method


def by_shortest_name(jobs: pd.DataFrame) -> pd.DataFrame:
    """Return the jobs with method, settings and class order called by the shortest name under which the same was run.

    A result says what its job came to, defaults of strategy, head and criterion filled in. Two names mean the same
    everywhere if that is the same and they give the same training settings. Names that give other training settings
    mean the same on a configuration where these come to the same: what is a default there may be none elsewhere. A
    name that came to several things (the code has changed) stays by itself, and so does one without a finished job.

    Args:
        jobs: What ``collect`` returned, or some of its rows. Column ``named`` keeps what each job was called.
    """
    jobs = jobs.assign(named=jobs["named"].fillna(jobs["method"]))
    methods = {name: read_method(name) for name in jobs["named"].dropna().unique()}
    told = zip(jobs["named"], jobs["strategy_options"], strict=True)
    trains_its_own_way = {name for name, own in told if isinstance(own, str) and _training(methods[name], own)}
    jobs = by_shortest_settings(jobs, methods.keys() - trains_its_own_way)
    known = jobs.dropna(subset=["named"])
    named = known["named"]
    everywhere: list[Hashable] = []
    here: list[Hashable] = []
    for name, options, parts, training in zip(
        named, known["strategy_options"], known["parts"], known["training"], strict=True
    ):
        method = methods[name]
        core = (method.strategy, options, parts, _paths(method))
        everywhere.append((*core, _training(method, options)) if isinstance(options, str) else None)
        here.append((*core, training) if isinstance(training, str) else None)
    configurations = known.groupby(CONFIGURATION, dropna=False, sort=False).ngroup()
    return jobs.assign(method=shortest(shortest(named, everywhere), here, within=configurations))


def strategy_names(jobs: pd.DataFrame) -> pd.Series[str]:
    """Return each job's strategy with its options, those of the same settings by the shortest text.

    Args:
        jobs: Rows of what ``collect`` returned.
    """
    methods = {name: read_method(name) for name in jobs["method"].unique()}
    texts = jobs["method"].map({name: with_options(each.strategy, each.options) for name, each in methods.items()})
    settings = [
        (methods[name].strategy, options, _training(methods[name], options)) if isinstance(options, str) else None
        for name, options in zip(jobs["method"], jobs["strategy_options"], strict=True)
    ]
    return shortest(texts, settings)


def read_method(spec: str) -> Method:
    """Return the method that a text names; one that no longer reads as a method is still a name."""
    try:
        return parse_method(spec)
    except CmlBenchError:
        return Method(spec, None, None, (), (), ())


def with_options(name: str, options: Iterable[tuple[str, str]]) -> str:
    """Return a name followed by ``key=value`` pairs."""
    return " ".join([name, *(f"{key}={value}" for key, value in options)])


def _training(method: Method, options: str) -> tuple[tuple[str, str], ...]:
    """Return the training settings that a method gives: what is no option of its strategy."""
    own = json.loads(options)
    return tuple(pair for pair in method.options if pair[0] not in own)


def _paths(method: Method) -> tuple[str | None, ...]:
    """Return the parts that are files or modules of the user's, which may bear the name of another."""
    return tuple(part if part and ":" in part else None for part in (method.head, method.loss, method.wrap))
