"""Digits: scenes of handwritten digits over clutter, ten labels in five experiences; needs no download."""

from __future__ import annotations

from dataclasses import dataclass

from cml_bench.data.digits import digits_sources
from cml_bench.data.source import Source
from cml_bench.runs.benchmark import Benchmark, BenchmarkMeta
from cml_bench.training.config import TrainingConfig

__all__ = ["Digits"]


@dataclass(frozen=True, kw_only=True)
class Digits(Benchmark):
    """Scenes composed from scikit-learn's handwritten digits: long-tailed, correlated labels, real pixels.

    Attributes:
        n_train: Training scenes.
        n_test: Test scenes, from other digit instances.
        data_seed: Draws the scenes; the same for every seed of a sweep.
    """

    n_train: int = 1200
    n_test: int = 700
    data_seed: int = 0
    increment: int = 2

    meta = BenchmarkMeta(
        name="digits",
        title="Digits",
        version=1,
        source="digits",
        protocol="B0-C2",
        n_labels=10,
        licence="scikit-learn's digits: CC BY 4.0 (UCI, Alpaydin and Kaynak)",
        # The longest first: a worker that is left alone at the end has little to do.
        methods=(
            "derpp memory_size=200",
            "dlfl memory_size=200",
            "er memory_size=200",
            "ewc fisher_samples=200",
            "dlfl",
            "lwf",
            "naive",
            "joint",
        ),
    )
    training = TrainingConfig(
        backbone="test_resnet",
        backbone_options=(("channels", (24, 32, 32, 64)), ("output_stride", 8)),
        image_size=32,
        epochs=3,
        batch_size=32,
        lr=6e-3,
        weight_decay=0.05,
        schedule="constant",
    )

    def sources(self) -> tuple[Source, Source]:
        """Compose both splits."""
        return digits_sources(n_train=self.n_train, n_test=self.n_test, seed=self.data_seed)


if __name__ == "__main__":
    from cml_bench.cli import run_benchmark

    run_benchmark("digits")
