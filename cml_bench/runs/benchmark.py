"""The benchmark contract: a source and a protocol, declared in one short file."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from cml_bench.data.data_set import DataSet, Missing
from cml_bench.data.inputs import Inputs
from cml_bench.data.overlap import both_in
from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError, CmlBenchWarning
from cml_bench.options import as_text
from cml_bench.registry import load
from cml_bench.streams.builder import Annotation, label_incremental_benchmark
from cml_bench.streams.dealing import Assignment, Curated, TestRule
from cml_bench.streams.orders import refuse_beside_lists
from cml_bench.streams.scenario import MultiLabelScenario
from cml_bench.training.config import TrainingConfig


@dataclass(frozen=True)
class BenchmarkMeta:
    """What is declared of a benchmark.

    Attributes:
        name: File stem and registry name.
        title: How tables call it.
        version: Counts up when the definition changes; results of different versions never share a table row.
        source: Name of the data set.
        licence: Terms of the data.
        methods: Methods that run when the user names none.
        protocol: How labels arrive, as the field writes it: ``"B40-C10"``.
        n_labels: Number of labels; None where it depends on the options.
        images: Training images of each experience with default options and nothing missing, as published or counted
            from the published label lists; empty where neither can be done.
        test_images: Test images after each experience, likewise.
        reference: Where the protocol was published.

    Write every argument as a literal: ``cml-bench list benchmarks`` imports nothing.
    """

    name: str
    title: str
    version: int
    source: str
    licence: str
    methods: tuple[str, ...]
    protocol: str = ""
    n_labels: int | None = None
    images: tuple[int, ...] = ()
    test_images: tuple[int, ...] = ()
    reference: str = ""


@dataclass(frozen=True, kw_only=True)
class Benchmark(ABC):
    """A source and a protocol. Every field is an option of the command line.

    See ``label_incremental_benchmark`` for what the protocol fields mean.

    Attributes:
        class_order: Order in which labels arrive.
        base: Labels of the first experience; 0 for as many as later ones.
        increment: Labels of each later experience.
        experiences: Explicit label lists, in place of the three above.
        assignment: ``overlap`` or ``disjoint``; ``curated`` where published lists say which images come when.
        annotation: ``current``, ``seen`` or ``all``.
        regime: What the annotator marks of the labels that are asked for: regimes with options, joined by ``+``, as in
            ``"long_tail + missing_positives rate=0.4"``. ``full`` marks everything.
        test: ``seen_images``, ``all_images`` or ``per_experience``.
        validation: Fraction of training images held out.
        evaluate_on: ``test``, or ``valid`` for choosing hyper-parameters without a look at the test set.
        online_chunk: Single pass in chunks of this many images.
        first_experiences: End the stream after this many experiences: with held-out images, hyper-parameters are chosen
            on these alone.
        stream_seed: Draws the disjoint assignment, the held-out images and what annotators leave out; the same for
            every seed of a sweep.
    """

    class_order: str = "published"
    base: int = 0
    increment: int = 1
    experiences: tuple[tuple[str, ...], ...] | None = None
    assignment: Assignment = "overlap"
    annotation: Annotation = "current"
    regime: str = "full"
    test: TestRule = "seen_images"
    validation: float = 0.0
    evaluate_on: Literal["test", "valid"] = "test"
    online_chunk: int | None = None
    first_experiences: int | None = None
    stream_seed: int = 0

    meta: ClassVar[BenchmarkMeta]
    training: ClassVar[TrainingConfig]
    label_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Published groups of labels, such as ``minor``, for metrics on each; kept with every result."""

    def __post_init__(self) -> None:
        """Refuse an evaluation on images that are not held out."""
        if self.evaluate_on == "valid" and not self.validation:
            raise CmlBenchError("evaluate_on=valid needs held-out images: set validation=0.2, say")

    @abstractmethod
    def sources(self) -> tuple[Source, Source]:
        """Return the training and the test source."""

    def curated(self) -> Curated | None:
        """Return the published lists behind ``assignment="curated"``."""
        return None

    def build(
        self,
        *,
        class_order: str | Sequence[str] | None = None,
        train_inputs: Inputs | None = None,
        test_inputs: Inputs | None = None,
    ) -> MultiLabelScenario:
        """Return the Avalanche scenario; ``class_order`` overrides the benchmark's own.

        Raises:
            CmlBenchError: As ``label_incremental_benchmark``; if an option is overruled by another; or if there is no
                image to evaluate on. An experience without one is none of these: its metrics are undefined.
        """
        train, test = load_sources(self)
        curated = self.curated() if self.assignment == "curated" else None
        scenario = label_incremental_benchmark(
            train,
            test,
            **self._division(class_order, curated),
            assignment=self.assignment,
            curated=curated,
            regime=self.regime,
            annotation=self.annotation,
            test=self.test,
            validation=self.validation,
            online_chunk=self.online_chunk,
            first_experiences=self.first_experiences,
            seed=self.stream_seed,
            train_inputs=train_inputs,
            test_inputs=test_inputs,
        )
        if not len(scenario.splits[self.evaluate_on].rows):
            last = len(scenario.n_seen)
            which = "experience 1 tests" if last == 1 else f"experiences 1 to {last} test"
            raise CmlBenchError(
                f"validation={self.validation:g} of {len(train)} training images holds out none that {which}: hold out "
                "more of them"
                if self.evaluate_on == "valid"
                else f"the test split has no image that {which} under test={self.test}: take test=all_images, or more "
                "experiences"
            )
        return scenario

    def _division(self, class_order: str | Sequence[str] | None, curated: Curated | None) -> dict[str, Any]:
        """Return what says how labels arrive; refuses an option that another one overrules."""
        defaults = {each.name: each.default for each in dataclasses.fields(self)}
        options = {name: getattr(self, name) for name in ("class_order", "base", "increment")}
        given = {name: value for name, value in options.items() if value != defaults[name]}
        if class_order is not None and "class_order" in given:
            raise CmlBenchError(
                f"class order {class_order!r:.60} and the option class_order={self.class_order!r:.60} are two answers: "
                "leave the option out, and name each order that is meant in --class-orders"
            )
        if class_order is not None:
            given["class_order"] = options["class_order"] = class_order
        if curated and self.experiences not in (None, curated.labels):
            raise CmlBenchError(
                f"experiences={as_text(self.experiences):.60} changes nothing, as published lists say which labels "
                "come when: leave it out"
            )
        if curated or self.experiences:
            refuse_beside_lists(given)
            return {"experiences": self.experiences}
        return options


@dataclass(frozen=True, kw_only=True)
class DataSetBenchmark(Benchmark):
    """A benchmark on two official splits of a data set on the user's disk.

    Attributes:
        root: Folder of the data set; ``cml-bench data info NAME`` says what it holds.
        missing: What to do about images that are listed but not there: ``error``, ``allow`` (leave them out and list
            them with every result) or ``ignore`` (do not look; enough to describe the benchmark).
    """

    root: str
    missing: Missing = "error"

    train_split: ClassVar[str]
    test_split: ClassVar[str]

    @abstractmethod
    def data_set(self) -> DataSet:
        """Return the data set with its options."""

    def sources(self) -> tuple[Source, Source]:
        """Read both splits."""
        data = self.data_set()
        return (
            data.source(self.train_split, "train", missing=self.missing),
            data.source(self.test_split, "test", missing=self.missing),
        )


def load_benchmark(name: str) -> type[Benchmark]:
    """Return the benchmark class behind a name, ``./file.py:Class`` or ``pkg.module:Class``.

    Raises:
        CmlBenchError: If nothing bears the name, or it is no benchmark.
    """
    kind = load("benchmarks", name)
    if not (inspect.isclass(kind) and issubclass(kind, Benchmark)):
        raise CmlBenchError(f"{name!r} is no benchmark: give a subclass of cml_bench.Benchmark")
    return kind


def option_of_benchmark(name: str) -> str:
    """Return how an option of a benchmark is written, and where: the ``written`` of ``options.convert``."""
    typed = "--root VALUE" if name == "root" else f"--set {name}=VALUE"
    return f"{name}=VALUE ({typed} on the command line, set: {{{name}: VALUE}} in a suite)"


@functools.lru_cache(maxsize=2)
def load_sources(benchmark: Benchmark) -> tuple[Source, Source]:
    """Return a benchmark's sources, read once for all jobs of a sweep; warns of images that are in both."""
    train, test = benchmark.sources()
    if sentence := both_in(train, test):
        warnings.warn(f"{benchmark.meta.name}: {sentence}", CmlBenchWarning, stacklevel=2)
    return train, test
