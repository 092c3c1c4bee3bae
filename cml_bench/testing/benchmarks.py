"""The public conformance kit for benchmarks: does a benchmark deal what it declares, the same each time?"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np
import torch

from cml_bench.data.source import Source
from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT
from cml_bench.options import arguments, as_text, convert
from cml_bench.registry import load
from cml_bench.runs.benchmark import Benchmark, BenchmarkMeta, load_benchmark
from cml_bench.runs.method import parse_method
from cml_bench.runs.plan import plan_method
from cml_bench.streams.scenario import MultiLabelScenario
from cml_bench.streams.timeline import ends_experience
from cml_bench.testing.case import PlugInCase
from cml_bench.testing.outcome import (
    CheckOutcome,
    NotApplicableError,
    declared,
    named,
    require,
    require_docstring,
    require_literals,
    run_checks,
)
from cml_bench.training.config import TrainingConfig


def check_benchmark(benchmark: str | type[Benchmark], *, raise_on_failure: bool = True) -> list[CheckOutcome]:
    """Check that a benchmark keeps the rules of the suite; nothing is trained.

    Args:
        benchmark: A name with options, as ``"split_voc root=/data/voc"`` or ``"./my_benchmark.py:MyBenchmark"``, or a
            class. Without the options that say where its data lie, only what it declares is looked at.
        raise_on_failure: Raise if a check fails, instead of only returning what was found.

    Returns:
        One outcome for each of ``BENCHMARK_CHECKS``.

    Raises:
        CmlBenchError: If nothing bears the name, an option is wrong, or a check fails.
    """
    return run_checks(BENCHMARK_CHECKS, BenchmarkCase(benchmark), raise_on_failure=raise_on_failure)


class BenchmarkCase(PlugInCase):
    """A benchmark under test.

    Attributes:
        missing: Options without a default that were not given: where its data lie.

    Raises:
        CmlBenchError: If nothing bears the name, it is no benchmark, or an option is wrong.
    """

    noun = "benchmark"

    def __init__(self, benchmark: str | type[Benchmark]) -> None:
        super().__init__(benchmark)
        self.missing = [
            name
            for name, parameter in arguments(self.kind).items()
            if parameter.default is parameter.empty and name not in self.given
        ]
        if not self.missing:
            convert(self.kind, self.given, owner=self.subject)

    @cached_property
    def benchmark(self) -> Benchmark:
        """The benchmark with its options."""
        if self.missing:
            needed = " ".join(f"{name}=..." for name in self.missing)
            raise NotApplicableError(f"its data lie on a disk: add {needed}")
        benchmark: Benchmark = self.kind(**convert(self.kind, self.given, owner=self.subject))
        return benchmark

    def look_up(self, name: str) -> type[Benchmark]:
        """Return the class of a benchmark."""
        return load_benchmark(name)

    @cached_property
    def scenario(self) -> MultiLabelScenario:
        """Its stream."""
        return self.benchmark.build()


def _metadata(case: BenchmarkCase) -> str:
    """Name, title, version, literals that lists can show, an own docstring that describes the options."""
    meta = declared(case.kind, BenchmarkMeta, case.listed_name, "name=..., title=..., version=..., source=..., ...")
    require(bool(meta.title and meta.source and meta.licence), "meta.title, meta.source or meta.licence is empty")
    require(meta.version >= 1, f"meta.version={meta.version} is no version: begin with 1")
    require_literals(case.kind)
    decorated = "__dataclass_params__" in vars(case.kind) and dataclasses.fields(case.kind)
    require(
        bool(decorated), f"{case.kind.__name__} is no dataclass: decorate it with @dataclass(frozen=True, kw_only=True)"
    )
    known = isinstance(getattr(case.kind, "training", None), TrainingConfig)
    require(known, f"{case.kind.__name__} has no training settings: add training = TrainingConfig(...)")
    return require_docstring(case.kind, (field.name for field in dataclasses.fields(case.kind)), "Attributes")


def _config_round_trip(case: BenchmarkCase) -> str:
    """Options written as text and read again are the same options."""
    options = {f.name: as_text(getattr(case.benchmark, f.name)) for f in dataclasses.fields(case.benchmark)}
    again = case.kind(**convert(case.kind, options, owner=case.subject))
    require(again == case.benchmark, f"{case.benchmark} is read again as {again}")
    return f"{len(options)} options are read as they are written"


def _methods(case: BenchmarkCase) -> str:
    """The methods that run when the user names none can be resolved."""
    methods = case.kind.meta.methods
    require(bool(methods), "meta.methods is empty: name what runs when the user names none")
    for text in methods:
        method = parse_method(text)
        plan_method(method, load("strategies", method.strategy), case.benchmark, {})
    return ", ".join(methods)


def _runs(case: BenchmarkCase) -> str:
    """Its stream is built: experiences with images, each with labels of its own, and images to test on."""
    scenario = case.scenario
    n_seen = scenario.n_seen
    require(bool(n_seen) and n_seen[-1] == len(scenario.label_names), f"{n_seen} labels are seen in the course of it")
    require(all(a < b for a, b in zip((0, *n_seen), n_seen, strict=False)), f"labels seen, {n_seen}, do not grow")
    for t, experience in enumerate(scenario.train_stream):
        require(len(experience.dataset) > 0, f"experience {t} has no image")
    for name in ("train", "test"):
        source = scenario.splits[name].source
        require(len(source) == len(np.unique(source.ids)), f"ids of the {name} images are not unique")
    return f"{len(n_seen)} experiences, {n_seen[-1]} labels, {_count(scenario, 'train')} images"


def _count(scenario: MultiLabelScenario, split: str) -> str:
    return " + ".join(str(len(rows)) for rows in scenario.splits[split].experiences)


def _counts_as_declared(case: BenchmarkCase) -> str:
    """With default options there are as many labels and images as its meta declares."""
    meta, scenario = case.kind.meta, case.scenario
    defaults = {field.name: field.default for field in dataclasses.fields(case.benchmark)}
    needed = [name for name, default in defaults.items() if default is dataclasses.MISSING]
    changed = [name for name in defaults if name not in needed and getattr(case.benchmark, name) != defaults[name]]
    if changed:
        raise NotApplicableError(f"{', '.join(changed)} differ from the default that meta speaks of")
    if any(source.missing for source in case.benchmark.sources()):
        raise NotApplicableError("images are missing on this disk")
    found = len(scenario.label_names)
    require(meta.n_labels in (None, found), f"meta.n_labels={meta.n_labels}, but there are {found}")
    for split, facts in (("train", meta.images), ("test", meta.test_images)):
        counted = tuple(len(rows) for rows in scenario.splits[split].experiences)
        require(facts in ((), counted), f"meta declares {facts} {split} images, but there are {counted}")
    return f"{found} labels and {_count(scenario, 'train')} images, as far as meta declares them"


def _labels_in_scope(case: BenchmarkCase) -> str:
    """An experience has columns for the labels seen, one of four states each, and test labels are fully known."""
    scenario = case.scenario
    t = 0
    for experience in scenario.train_stream:
        labels, width = experience.dataset.labels.data, scenario.n_seen[t]
        require(labels.shape[1] == width, f"experience {t} has {labels.shape[1]} label columns, but {width} are seen")
        least, most = int(labels.min()), int(labels.max())
        require(least >= OUT_OF_SCOPE and most <= PRESENT, f"labels of experience {t} go from {least} to {most}")
        asked = bool((labels[:, experience.dataset.labels.first_new :] > OUT_OF_SCOPE).any())
        require(asked, f"nobody was asked for the new labels of experience {t}")
        t += ends_experience(experience)
    states = set(np.unique(scenario.splits["test"].truth).tolist())
    require(states <= {ABSENT, PRESENT}, f"test labels have the states {sorted(states)}: they are to be fully known")
    return "columns are the labels seen, test labels are known"


def _builds_the_same(case: BenchmarkCase) -> str:
    """Built again, from sources read again, it deals the same images with the same labels."""
    again = case.benchmark.build()
    require(again.label_names == case.scenario.label_names, "labels come in another order when it is built again")
    pairs = zip(case.scenario.train_stream, again.train_stream, strict=True)
    for t, (one, other) in enumerate(pairs):
        same = torch.equal(one.dataset.sample_ids.data, other.dataset.sample_ids.data)
        require(same, f"experience {t} has other images when it is built again")
        require(torch.equal(one.dataset.labels.data, other.dataset.labels.data), f"labels of experience {t} change")
    first, second = (_fingerprints(case.benchmark.sources()) for _ in range(2))
    require(first == second, f"fingerprints of its data change from {first} to {second}")
    return "built twice, it is the same"


def _fingerprints(sources: tuple[Source, Source]) -> tuple[str, ...]:
    return tuple(source.fingerprint for source in sources)


def _images_load(case: BenchmarkCase) -> str:
    """The first and the last image of each split can be read, as uint8 (3, H, W); or there are feature vectors."""
    shapes: list[Any] = []
    for source in case.benchmark.sources():
        if source.features is not None:
            require(
                len(source.features) == len(source), f"{len(source.features)} feature rows for {len(source)} images"
            )
            shapes.append(tuple(source.features.shape[1:]))
            continue
        for row in (0, len(source) - 1):
            image = source.load(row)
            fits = image.dtype is torch.uint8 and image.dim() == 3 and image.shape[0] == 3
            require(fits, f"image {row} is {image.dtype} {tuple(image.shape)}, not uint8 (3, H, W)")
            shapes.append(tuple(image.shape))
    return f"shapes {', '.join(map(str, sorted(set(shapes))))}"


BENCHMARK_CHECKS = named(
    *(_metadata, _config_round_trip, _methods, _runs, _counts_as_declared, _labels_in_scope, _builds_the_same),
    *(_images_load,),
)
"""Name of each check of a benchmark to the function that makes it; the docstring says what it demands."""
