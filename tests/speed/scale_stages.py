"""One data set of a given size through all stages; prints seconds a stage and peak memory. Run by ``test_scale``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cml_bench.data.image_files import ImageFiles
from cml_bench.data.inputs import TensorInputs
from cml_bench.data.table import LabelTable
from cml_bench.losses.bce import BCE
from cml_bench.memory.herding import HerdingMemory
from cml_bench.memory.ocdm import OCDMMemory
from cml_bench.memory.prs import PRSMemory
from cml_bench.metrics.evaluate import evaluate
from cml_bench.metrics.predictions import Predictions
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.model import MultiLabelModel
from cml_bench.runs.cost import peak_resident_mb
from cml_bench.runs.learn import predict
from cml_bench.streams.builder import label_incremental_benchmark
from cml_bench.streams.scenario import MultiLabelScenario
from cml_bench.training.recorder import LogitRecorder
from cml_bench.training.template import MultiLabelTemplate

WIDTH, EXPERIENCES, MEMORY = 64, 10, 2000


class Stopwatch:
    """Seconds of each stage, and the most memory that was held by its end."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}
        self._before, self._last = peak_resident_mb(), time.perf_counter()

    def lap(self, stage: str) -> None:
        """End a stage."""
        now = time.perf_counter()
        self.stages[stage] = {"seconds": now - self._last, "megabytes": peak_resident_mb() - self._before}
        self._last = time.perf_counter()


def main(n: int, n_labels: int, folder: Path) -> None:
    """Go through the stages."""
    torch.set_num_threads(1)
    watch = Stopwatch()
    table = LabelTable.load(folder / "table.npz")
    # Stands in for cached features: read from the disk batch by batch.
    features = torch.from_numpy(np.memmap(folder / "features", dtype=np.float16, mode="w+", shape=(n, WIDTH)))
    sources = [ImageFiles(table, folder, name="made", split=split, missing="ignore") for split in ("train", "test")]
    inputs = TensorInputs(features)
    scenario = label_incremental_benchmark(
        *sources,
        class_order="random:1",
        increment=n_labels // EXPERIENCES,
        train_inputs=inputs,
        test_inputs=inputs,
    )
    watch.lap("build")
    experience, recorder = scenario.train_stream[0], LogitRecorder()
    model = MultiLabelModel(None, LinearHead(WIDTH))
    model.adaptation(experience)
    learner = MultiLabelTemplate(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        criterion=BCE(),
        train_mb_size=128,
        train_epochs=1,
        eval_mb_size=512,
        generator=torch.Generator(),
        plugins=[recorder],
    )
    learner.train(experience, eval_streams=[])
    watch.lap("train")
    for name, memory in {
        "PRS": PRSMemory(MEMORY, torch.Generator()),
        "OCDM": OCDMMemory(MEMORY, torch.Generator()),
        "herding": HerdingMemory(MEMORY),
    }.items():
        memory.post_adapt(learner, experience)
        watch.lap(name)
    logits = predict(learner, recorder, scenario, 0).to(torch.float16).numpy()
    watch.lap("predict")
    evaluate(stored(scenario, logits))
    watch.lap("metrics")
    print(json.dumps({"images": len(experience.dataset), "stages": watch.stages}))  # noqa: T201


def stored(scenario: MultiLabelScenario, logits: npt.NDArray[np.float16]) -> Predictions:
    """Return what a job would store after the first experience."""
    part, width = scenario.splits["test"], logits.shape[1]
    return Predictions(
        label_names=scenario.label_names[:width],
        sample_ids=part.source.ids[part.rows],
        truth=part.true_labels(part.rows, width),
        n_seen=(width,),
        test_rule="seen_images",
        test_images=np.isin(part.rows, part.experiences[0])[None],
        logits=(logits,),
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
