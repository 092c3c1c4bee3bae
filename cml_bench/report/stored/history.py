"""What a finished job did, experience by experience: the stored figures that pictures are drawn from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cml_bench.errors import CmlBenchError
from cml_bench.metrics.retention import mean_defined
from cml_bench.report.stored.label_groups import label_groups
from cml_bench.runs.results import read_result
from cml_bench.runs.schema import Result

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class History:
    """One job after each of its T experiences; NaN where undefined and before a label arrives.

    Attributes:
        label_names: C names in arrival order.
        n_seen: (T,) labels seen after each experience.
        map: (T,) mAP over the seen labels, under the benchmark's test rule.
        label_ap: (T, C) average precisions.
        performance: (T, T); ``[k, t]`` is the mAP of experience k's labels after experience t, on fixed images.
        label_groups: Groups of labels that hold some, by name: those that the benchmark declares, else major, moderate
            and minor by training images; empty where the result does not say.
        test_rule: Which images are tested after an experience; see ``metrics.predictions.TEST_RULES``.
        options: Options that were given, without those that say where data lie.
        locations: Names of the latter.
        code_version: Version of the code that ran it.
    """

    label_names: tuple[str, ...]
    n_seen: tuple[int, ...]
    map: Values
    label_ap: Values
    performance: Values
    label_groups: dict[str, frozenset[str]]
    test_rule: str
    options: dict[str, object]
    locations: tuple[str, ...]
    code_version: str

    def group_map(self, group: Iterable[str]) -> Values:
        """Return the mAP after each experience over the seen labels of a group.

        Under the test rule ``per_experience`` it is the mean over the experiences so far that have such a label, as it
        is for all labels together.
        """
        member = np.isin(self.label_names, list(group))
        blocks = np.split(np.arange(len(self.label_names)), self.n_seen[:-1])
        if self.test_rule != "per_experience":
            return np.array([mean_defined(row[member]) for row in self.label_ap])
        return np.array(
            [
                mean_defined(mean_defined(row[block][member[block]]) for block in blocks[: t + 1])
                for t, row in enumerate(self.label_ap)
            ]
        )


def read_history(path: Path | str) -> History:
    """Read what a finished job did from its result file.

    Raises:
        CmlBenchError: If the file is no result, or that of a failed job.
    """
    result = read_result(path)
    if result.metrics is None or result.benchmark is None:
        raise CmlBenchError(f"{path} is the result of a job that failed: run it again")
    return History(
        label_names=tuple(result.metrics.per_label_ap) or tuple(result.benchmark.label_names),
        n_seen=tuple(result.benchmark.n_seen),
        map=_values([after.figures.get("map") for after in result.metrics.per_experience]),
        label_ap=_values(list(result.metrics.per_label_ap.values())).T,
        performance=_values(result.metrics.performance),
        label_groups=_groups(result),
        test_rule=_test_rule(result.job.resolved),
        options=dict(result.job.benchmark_options),
        locations=tuple(sorted(result.job.locations)),
        code_version=result.environment.code_version if result.environment else "",
    )


def _groups(result: Result) -> dict[str, frozenset[str]]:
    try:
        groups = label_groups(result)
    except CmlBenchError:
        return {}
    return {name: frozenset(labels) for name, labels in groups.items() if labels}


def _test_rule(resolved: Mapping[str, object]) -> str:
    benchmark = resolved.get("benchmark")
    return str(benchmark.get("test", "")) if isinstance(benchmark, dict) else ""


def _values(figures: object) -> Values:
    # None, which is JSON's NaN, becomes one.
    return np.array(figures, dtype=np.float64)
