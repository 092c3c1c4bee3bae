"""Feature table: any multi-label data set of feature vectors, ARFF (MULAN, MEKA), .npz or .safetensors."""

from __future__ import annotations

from dataclasses import dataclass

from cml_bench.data.sets.feature_table import FeatureTable
from cml_bench.runs.benchmark import BenchmarkMeta, DataSetBenchmark
from cml_bench.training.config import TrainingConfig

__all__ = ["FeatureTableBenchmark"]


@dataclass(frozen=True, kw_only=True)
class FeatureTableBenchmark(DataSetBenchmark):
    """The labels of a feature table in the order of its files, ten at a time; no backbone, no images.

    Small data sets have rare labels: each experience needs a row that shows one of its labels, so give ``increment``
    to match (Corel5k: ``increment=34`` or more). Labels without a positive in the test set have no average precision
    and are counted, not averaged.

    Attributes:
        prefix: How the names of the files begin, for a folder that holds several data sets.
    """

    prefix: str = ""
    increment: int = 10

    meta = BenchmarkMeta(
        name="feature_table",
        title="Feature table",
        version=1,
        source="feature_table",
        licence="that of the files",
        methods=("joint", "naive", "ewc", "lwf", "er", "derpp"),
        protocol="B0-C10",
        reference="division: this suite; data: your own, or MULAN's and MEKA's collections",
    )
    training = TrainingConfig(epochs=10, batch_size=32, lr=1e-2, weight_decay=1e-4, schedule="constant")
    train_split = "train"
    test_split = "test"

    def data_set(self) -> FeatureTable:
        """Return the data set with its options."""
        return FeatureTable(root=self.root, prefix=self.prefix)


if __name__ == "__main__":
    from cml_bench.cli import run_benchmark

    run_benchmark("feature_table")
