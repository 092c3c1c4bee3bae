"""Settings and class orders that came to the same under several names are one: to name a default changes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping

import pandas as pd

_DATA = ["benchmark", "version", "data"]


def by_shortest_settings(jobs: pd.DataFrame, plain: Iterable[str]) -> pd.DataFrame:
    """Return the jobs with settings and class orders called by the shortest name under which the same was run.

    Two class orders are one if they put the labels of a configuration in the same order (``default`` and
    ``alphabetical``, say). Two settings of a benchmark are one if every method that was run under both came to the same
    benchmark and training, and there is such a method.

    Args:
        jobs: What ``collect`` returned, or some of its rows, each with what it called its method in ``named``.
        plain: Names of the methods that give no training settings of their own, which would hide a difference.
    """
    jobs = jobs.assign(benchmark_options=_options(jobs, set(plain)))
    places = jobs.groupby([*_DATA, "benchmark_options"], dropna=False, sort=False).ngroup()
    return jobs.assign(class_order=shortest(jobs["class_order"], jobs["label_order"], within=places))


def shortest(
    names: pd.Series[str], meanings: Iterable[Hashable], within: pd.Series[int] | None = None
) -> pd.Series[str]:
    """Return, for each name, the shortest name of the same meaning.

    Args:
        names: Names.
        meanings: What each stands for; None or NaN where that is not known, which is then taken from elsewhere.
        within: Where a name has its meaning; None for one meaning everywhere.
    """
    places = [0] * len(names) if within is None else within.tolist()
    found: dict[tuple[int, str], set[Hashable]] = {}
    for place, name, meaning in zip(places, names, meanings, strict=True):
        if not (meaning is None or meaning != meaning):
            found.setdefault((place, name), set()).add(meaning)
    clear = {where: next(iter(known)) for where, known in found.items() if len(known) == 1}
    best: dict[tuple[int, Hashable], str] = {}
    for (place, name), meaning in clear.items():
        best[place, meaning] = min(best.get((place, meaning), name), name, key=_length)
    chosen = [best[where[0], clear[where]] if where in clear else where[1] for where in zip(places, names, strict=True)]
    return pd.Series(chosen, index=names.index, dtype=object)


def _options(jobs: pd.DataFrame, plain: set[str]) -> pd.Series[str]:
    """Return the settings that each job was given, those that came to the same by the shortest text."""
    places = jobs.groupby(_DATA, dropna=False, sort=False).ngroup()
    told = jobs["benchmark_settings"].notna() & jobs["training"].notna() & jobs["named"].isin(plain)
    meanings: dict[int, dict[str, dict[str, tuple[str, str]]]] = {}
    for place, row in zip(places[told], jobs[told].itertuples(), strict=True):
        of_methods = meanings.setdefault(int(place), {}).setdefault(str(row.benchmark_options), {})
        of_methods[str(row.named)] = (str(row.benchmark_settings), str(row.training))
    called = {(place, text): name for place, found in meanings.items() for text, name in _one_name_each(found).items()}
    texts = zip(places, jobs["benchmark_options"], strict=True)
    return pd.Series([called.get(where, where[1]) for where in texts], index=jobs.index, dtype=object)


def _one_name_each(found: Mapping[str, Mapping[str, tuple[str, str]]]) -> dict[str, str]:
    """Return the shortest text of the same settings, for each text of settings."""
    names = {text: text for text in found}
    for one, other in itertools.combinations(sorted(found, key=_length), 2):
        both = found[one].keys() & found[other].keys()
        if both and all(found[one][method] == found[other][method] for method in both):
            names[other] = names[one] if names[other] == other else names[other]
    return names


def _length(text: str) -> tuple[int, str]:
    return len(text), text
