"""Some of the results: the benchmarks and methods that a reader asks for."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pandas as pd

from cml_bench.errors import CmlBenchError, suggest
from cml_bench.options import split_words
from cml_bench.report.tables.baseline import meant


def chosen(
    jobs: pd.DataFrame,
    benchmarks: Collection[str] = (),
    methods: Collection[str] = (),
    baseline: str | None = None,
) -> pd.DataFrame:
    """Return the jobs of these benchmarks and methods, and what cannot be read, which may be one of them.

    Args:
        jobs: What ``by_shortest_name`` returned.
        benchmarks: Names as jobs give them; none for all.
        methods: Words that a method must have, as in ``"er head=dlfl"``, which stands for every ``er`` with that head,
            whatever its other options; a method of any of them is taken, none for all.
        baseline: A method, in full or by its first word, that is taken as well if none of those chosen is it.

    Raises:
        CmlBenchError: If no job is of a benchmark or method that is asked for.
    """
    if benchmarks:
        known = jobs["benchmark"].dropna().unique()
        for name in benchmarks:
            if name not in known:
                raise CmlBenchError(f"no result is of benchmark {name!r:.80}: {suggest(name, known)}")
        jobs = jobs[jobs["benchmark"].isin(benchmarks) | (jobs["status"] == "unreadable")]
    if methods:
        # What a table calls a method, and what its job was given, which may name defaults.
        words = {text: set(split_words(text)) for text in {*jobs["method"].dropna(), *jobs["named"].dropna()}}
        wanted = {text for method in methods for text in _with_words(method, words)}
        if baseline is not None and not meant(baseline, wanted):
            wanted.update(meant(baseline, words))
        jobs = jobs[jobs["method"].isin(wanted) | jobs["named"].isin(wanted) | (jobs["status"] == "unreadable")]
    return jobs


def _with_words(method: str, words: Mapping[str, Collection[str]]) -> list[str]:
    asked = split_words(method)
    found = [text for text, has in words.items() if set(asked) <= set(has)]
    if not found:
        known = {word for has in words.values() for word in has}
        unknown = [word for word in asked if word not in known]
        mend = suggest(unknown[0], known) if unknown else "leave out some of its words"
        raise CmlBenchError(f"no result is of a method with {method!r:.80}: {mend}")
    return found
