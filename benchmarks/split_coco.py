"""Split-COCO: the object labels of a COCO-layout folder arriving in groups (KRT's Bi-Cj protocol)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cml_bench.data.coco import coco_sources
from cml_bench.data.source import Source
from cml_bench.runs.benchmark import Benchmark, BenchmarkMeta
from cml_bench.training.config import TrainingConfig

__all__ = ["SplitCOCO"]


@dataclass(frozen=True, kw_only=True)
class SplitCOCO(Benchmark):
    """MS-COCO, or any folder in its layout, in label-incremental experiences (B0-C10 by default).

    Attributes:
        root: Folder with the image folders and, unless ``annotations`` says otherwise, ``annotations/``.
        annotations: Folder with ``instances_*.json``.
        crowd: Whether crowd annotations make a label: ``ignore`` or ``label``.
        missing: What to do about images that are listed but not there: ``error`` or ``allow``.
    """

    root: str
    annotations: str | None = None
    crowd: Literal["ignore", "label"] = "ignore"
    missing: Literal["error", "allow"] = "error"
    class_order: str = "alphabetical"
    increment: int = 10

    meta = BenchmarkMeta(
        name="split_coco",
        title="Split-COCO",
        version=1,
        source="coco",
        licence="COCO annotations CC BY 4.0; photos: Flickr terms",
        methods=(
            "joint",
            "naive",
            "naive head=dlfl",
            "ewc",
            "lwf",
            "er",
            "er head=dlfl",
            "derpp",
            "dlfl",
            "dlfl memory_size=2000",
        ),
        reference="KRT, arXiv:2302.13334",
    )
    training = TrainingConfig(
        backbone="resnet50", image_size=224, augment=True, epochs=20, batch_size=64, lr=1e-4, weight_decay=1e-4
    )

    def sources(self) -> tuple[Source, Source]:
        """Read both splits."""
        annotations = Path(self.annotations) if self.annotations else None
        return coco_sources(Path(self.root), annotations, crowd=self.crowd, missing=self.missing)


if __name__ == "__main__":
    from cml_bench.cli import run_benchmark

    run_benchmark("split_coco")
