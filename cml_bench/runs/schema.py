"""What a result file holds, field by field; ``docs/reference/results.md`` is the same as a page.

A field's description and type are all that is said of it anywhere: the page is tested against these classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator

SCHEMA_VERSION: Final = 2
"""Version of the result files that this version of cml_bench writes."""

LONGEST_TEXT: Final = 10_000
LONGEST_TRACE: Final = 200_000


def _plain(text: str) -> str:
    """Return a text without what moves a terminal's cursor, changes its title or turns a line around."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _without_control(text: str) -> str:
    if not text.isprintable() and _CONTROL.search(text):
        raise ValueError(f"{text!r:.60} holds a control character")
    return text


_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
Text = Annotated[str, StringConstraints(max_length=LONGEST_TEXT), AfterValidator(_without_control)]
Message = Annotated[str, StringConstraints(max_length=LONGEST_TEXT), AfterValidator(_plain)]
# Bounded, so that sums and squares of what is read are finite and counts fit arrays.
Fraction = Annotated[float, Field(ge=-1e15, le=1e15)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Amount = Annotated[float, Field(ge=0, le=1e15)]
Options = dict[Text, JsonValue]
Series = list[Fraction | None]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class JobRecord(_Record):
    """What was run."""

    benchmark: Text = Field(description="Benchmark name or `./file.py:Class`.")
    benchmark_options: Options = Field({}, description="Options of benchmark and training that were given.")
    locations: dict[Text, Text] = Field({}, description="Options that say where data lie, such as `root`.")
    method: Text = Field(description="Method specification in its canonical form.")
    class_order: Text = Field(description="Class order that was asked for.")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(description="Seed.")
    resolved: Options = Field({}, description="All options of `benchmark` and `training`, defaults included.")
    code_version: Text | None = Field(None, description="Version of the package, part of the key; since version 2.")
    plug_in_files: list[Text | None] = Field(
        [], description="Sha256 of the file of each plug-in, null for a built-in; part of the key; since version 2."
    )
    files: dict[Text, Text] | None = Field(
        None,
        description="By name in the options, sha256 of files that they name beside data, weights and code (word "
        "vectors, say); null if failed, and in results that were made before it was kept.",
    )


class BenchmarkRecord(_Record):
    """What was learnt and tested."""

    name: Text = Field(description="Benchmark name.")
    title: Text | None = Field(None, description="Its title.")
    version: Count | Text | None = Field(
        None, description="Version of its definition; numbers of different ones never mix."
    )
    protocol: Text | None = Field(None, description="How labels are divided, as in `B0-C10`.")
    label_names: list[Text] = Field([], description="Labels in arrival order.")
    n_seen: list[Count] = Field([], description="Labels seen after each experience.")
    images_per_experience: list[Count] = Field([], description="Training images of each experience.")
    unassigned_images: dict[Text, Count] = Field({}, description="By split, images that are in no experience.")
    label_groups: dict[Text, list[Text]] = Field(
        {}, description="Groups of labels that the benchmark declares, such as `minor`; since version 2."
    )


class MethodRecord(_Record):
    """How it was learnt."""

    title: Text | None = Field(None, description="The method's name in papers.")
    family: Text | None = Field(None, description="Kind of strategy, such as `replay`.")
    head: Text | None = Field(None, description="Head.")
    head_options: Options = Field({}, description="Options of the head that were given, other than its defaults.")
    loss: Text | None = Field(None, description="Criterion.")
    loss_options: Options = Field({}, description="Options of the criterion that were given, other than its defaults.")
    wrap: Text | None = Field(None, description="Wrapper of the model; null for none.")
    wrap_options: Options = Field({}, description="Options of the wrapper that were given, other than its defaults.")
    options: Options = Field({}, description="All options of the strategy, defaults included.")
    replay_labels: Text | None = Field(None, description="Which labels stored images are replayed with.")


class ExperienceMetrics(BaseModel):
    """Figures after one experience; beside these fields one for each metric, named like `map` or `of1@0.5`."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    __pydantic_extra__: dict[str, Fraction | None] = Field(init=False)

    n_seen: Count = Field(description="Labels seen.")
    n_images: Count = Field(description="Images tested.")
    dropped_labels: list[Text] = Field(description="Seen labels without a positive among them, left out of means.")

    @property
    def figures(self) -> dict[str, float | None]:
        """The metrics by name."""
        return self.__pydantic_extra__


class Metrics(_Record):
    """How good it is: fractions (a gain is a forgetting below 0), or counts; null where undefined."""

    summary: dict[Text, Fraction | None] = Field(min_length=1, description="Metrics of the whole run by name.")
    per_experience: list[ExperienceMetrics] = Field([], description="Figures after each experience.")
    per_label_ap: dict[Text, Series] = Field(
        {}, description="By label, the average precision after each experience; null before it arrived."
    )
    performance: list[Series] = Field(
        [],
        description="Row k, column t: mAP of experience k's labels after experience t, on the same images each time.",
    )
    users: dict[Text, Count] | None = Field(
        None, description="Users `tested`, and those who define no metric (`undefined`), where images belong to users."
    )


class Parameters(_Record):
    """Size of the model."""

    total: Count = Field(description="Parameters of the model at the end.")
    trainable: Count | None = Field(
        description="Most parameters of model and criterion that were trained at any time; null if not measured. In "
        "version 1 those that were not frozen at the end."
    )


class MemoryCost(_Record):
    """What the memories of past images held at most; all clients of a federation together."""

    images: Count = Field(description="Images.")
    bytes: Count = Field(
        description="Bytes of these images as decoded (features where the model reads these), labels and ids, whether "
        "the memory keeps copies or reads images from their source."
    )


class Cost(_Record):
    """What it took."""

    seconds: dict[Text, Amount] = Field(
        {},
        description="Wall-clock seconds by phase: `data`, `cache` (features or pixels that all jobs share, made by "
        "whoever comes first), `training`, `evaluation`, `metrics`, `checkpoint`.",
    )
    peak_memory_mb: dict[Text, Amount] = Field({}, description="Peak memory of the process in MiB by phase.")
    peak_gpu_memory_mb: dict[Text, Amount] = Field(
        {}, description="Most memory that torch held of the job's GPU in MiB by phase; empty on a CPU."
    )
    images: Count | None = Field(
        None,
        description="Images of all training batches, as often as they came; those of a memory where they are joined to "
        "the batch, not draws of their own. Null if not measured. By the seconds of `training`: images a second.",
    )
    parameters: Parameters | None = Field(None, description="Size of the model.")
    memory: MemoryCost | None = Field(None, description="Stored images; null if not measured; since version 2.")


class DataRecord(_Record):
    """One split of the data."""

    name: Text | None = Field(None, description="Name of the data set.")
    fingerprint: Text = Field(description="Sha256 over label names, image ids and true labels.")
    content: Text | None = Field(
        None,
        description="Sha256 over feature vectors, where the data are these; null for images, and in results that were "
        "made before it was kept.",
    )
    counts: dict[Text, Count] = Field({}, description="What was read.")
    label_counts: dict[Text, Count] | None = Field(
        None, description="By label, images of the stream that truly show it, each counted once; since version 2."
    )


class BackboneRecord(_Record):
    """Where features came from."""

    name: Text = Field(description="timm name.")
    options: Options = Field({}, description="Options of the architecture.")
    parameters: Count | None = Field(None, description="Number of parameters.")
    checkpoint: Text | None = Field(None, description="File name of the weights; null for random ones.")
    sha256: Text | None = Field(None, description="Checksum of that file.")
    pretraining: Text | None = Field(None, description="What it was trained on.")
    image_size: Count | list[Count] | None = Field(None, description="Pixels of a side that the model reads.")
    mean: list[Fraction] = Field([], description="Mean that images are normalised with.")
    std: list[Fraction] = Field([], description="Deviation that images are normalised with.")


class Device(_Record):
    """What computed it."""

    kind: Text = Field(description="As torch names it.")
    name: Text = Field(description="A GPU's model; a CPU's architecture and vector instructions (sums round by them).")


class Environment(_Record):
    """Where it was made."""

    code_version: Text = Field(description="Version of cml_bench, with the commit when run from a checkout.")
    python: Text = Field(description="Version of Python.")
    packages: dict[Text, Text] = Field({}, description="Versions of packages.")
    device: Device = Field(description="What computed it.")
    platform: Text = Field(description="Operating system.")


class PredictionsRecord(_Record):
    """The file beside the result, with suffix `.npz`."""

    sha256: Text = Field(description="Its checksum.")


class Result(_Record):
    """One job."""

    schema_version: Literal[2] = Field(description="Version of this schema.")
    key: Text = Field(description="Identity: sha256 over job, code version and plug-in files, 16 digits.")
    status: Literal["ok", "failed"] = Field(description="Whether the job came to its end.")
    error: Message | None = Field(None, description="Why it failed, in one sentence.")
    traceback: Annotated[str, StringConstraints(max_length=LONGEST_TRACE), AfterValidator(_plain)] | None = Field(
        None, description="Where it failed, if nobody expected that."
    )
    finished: Text | None = Field(None, description="When, in UTC, as in `2026-01-31T12:00:00Z`; since version 2.")
    job: JobRecord = Field(description="What was run.")
    benchmark: BenchmarkRecord | None = Field(None, description="What was learnt and tested; null if failed.")
    method: MethodRecord | None = Field(None, description="How it was learnt; null if failed.")
    metrics: Metrics | None = Field(None, description="How good it is; null if failed.")
    cost: Cost | None = Field(None, description="What it took; null if failed.")
    data: dict[Text, DataRecord] | None = Field(None, description="By split; null if it could not be read.")
    missing: list[Text] = Field([], description="Images that are listed but could not be found.")
    backbone: BackboneRecord | None = Field(None, description="Where features came from.")
    environment: Environment | None = Field(None, description="Where it was made.")
    federation: Options | None = Field(None, description="Settings and clients, where the learner was a federation.")
    predictions: PredictionsRecord | None = Field(
        None, description="The predictions file; null if failed, and in version 1."
    )

    @model_validator(mode="after")
    def _whole(self) -> Result:
        parts = ("benchmark", "method", "metrics", "cost", "data")
        absent = [part for part in parts if getattr(self, part) is None] if self.status == "ok" else []
        if absent:
            raise ValueError(f"status is 'ok' but there is no {absent[0]}")
        if self.benchmark is not None and self.metrics is not None:
            _check_lengths(self.benchmark, self.metrics)
        return self


def _check_lengths(benchmark: BenchmarkRecord, metrics: Metrics) -> None:
    """Refuse figures that are not of the experiences that the benchmark has, or of as many if it does not say."""
    seen = benchmark.n_seen
    if seen != sorted(seen) or (seen and seen[-1] > len(benchmark.label_names)):
        raise ValueError(f"n_seen is {seen!s:.60} with {len(benchmark.label_names)} label names")
    lengths = {f"per_label_ap.{label:.60}": {len(series)} for label, series in metrics.per_label_ap.items()}
    if metrics.per_experience:
        lengths["per_experience"] = {len(metrics.per_experience)}
    if metrics.performance:
        lengths["performance"] = {len(metrics.performance), *map(len, metrics.performance)}
    count = len(seen) or max(set().union(*lengths.values()), default=0)
    for name, found in lengths.items():
        if found != {count}:
            raise ValueError(f"metrics.{name}: {min(found - {count})} items for {count} experiences")


def _from_1(tree: dict[str, Any]) -> None:
    """Upgrade a result of version 1: what it did not measure becomes null."""
    cost = tree.get("cost")
    parameters = cost.get("parameters") if isinstance(cost, dict) else None
    if isinstance(parameters, dict):
        # Frozen at the end is not frozen throughout.
        parameters["trainable"] = None


UPGRADES: Final[dict[int, Callable[[dict[str, Any]], None]]] = {1: _from_1}
"""Version to what makes the next one of it, in place."""
