"""FLAIR: 17 coarse labels of users' photos in four experiences."""

from __future__ import annotations

from dataclasses import dataclass

from cml_bench.data.sets.flair import FLAIR, Grain
from cml_bench.runs.benchmark import BenchmarkMeta, DataSetBenchmark
from cml_bench.training.config import TrainingConfig

__all__ = ["FLAIRB5C4"]


@dataclass(frozen=True, kw_only=True)
class FLAIRB5C4(DataSetBenchmark):
    """Five labels, then four at a time, in alphabetical order; the division is ours.

    Photos belong to users, so ``federated="clients=user rounds=50 per_round=50"`` makes clients of these, and results
    hold metrics averaged over the users of the test photos.

    Attributes:
        grain: ``coarse`` for 17 labels, ``fine`` for 1,628 (give an ``increment`` that suits them).
    """

    grain: Grain = "coarse"
    base: int = 5
    increment: int = 4

    meta = BenchmarkMeta(
        name="flair",
        title="FLAIR",
        version=1,
        source="flair",
        licence="annotations CC BY-NC 4.0; photos: their owners' terms",
        methods=("joint", "naive", "ewc", "lwf", "er", "er head=dlfl", "derpp", "dlfl", "dlfl memory_size=2000"),
        protocol="B5-C4",
        n_labels=17,
        reference="division: this suite; data and split: see the data set",
    )
    training = TrainingConfig(
        backbone="resnet18", image_size=224, augment=True, epochs=5, batch_size=16, optimizer="adam", lr=1e-4
    )
    train_split = "train"
    test_split = "test"

    def data_set(self) -> FLAIR:
        """Return the data set."""
        return FLAIR(root=self.root, grain=self.grain)


if __name__ == "__main__":
    from cml_bench.cli import run_benchmark

    run_benchmark("flair")
