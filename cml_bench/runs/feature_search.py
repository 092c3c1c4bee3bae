"""Where to take features of a diffusion transformer: a local search over blocks and steps, by validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from cml_bench.data.cache import default_cache_dir
from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError
from cml_bench.labels import PRESENT, LabelArray, is_known
from cml_bench.metrics.ranking import average_precision
from cml_bench.models.diff_feat import DiffFeat
from cml_bench.models.features import extract_features
from cml_bench.runs.benchmark import load_sources
from cml_bench.runs.devices import check_device
from cml_bench.runs.inputs import fillers
from cml_bench.runs.isolation import isolated
from cml_bench.runs.job import Job
from cml_bench.runs.plan import plan
from cml_bench.runs.setup import make_backbone, stream_order

Spot = tuple[int, int]
"""A block and a step."""


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        block: Best block.
        step: Best step.
        score: Its score.
        tried: Score of every pair that was looked at, in that order.
    """

    block: int
    step: int
    score: float
    tried: Mapping[Spot, float]


def local_search(score: Callable[[Spot], float], start: Spot, strides: Spot, bounds: tuple[Spot, Spot]) -> Found:
    """Go from a pair to the best of its four neighbours as long as that is better.

    Args:
        score: What is to be as large as possible; asked once for every pair.
        start: First pair.
        strides: How far neighbours are in blocks and in steps.
        bounds: First and last block, first and last step.
    """
    tried = {start: score(start)}
    here = start
    while True:
        (block, step), (by_block, by_step) = here, strides
        around = [(block - by_block, step), (block + by_block, step), (block, step - by_step), (block, step + by_step)]
        inside = [
            spot for spot in around if all(low <= at <= high for at, (low, high) in zip(spot, bounds, strict=True))
        ]
        for spot in inside:
            if spot not in tried:
                tried[spot] = score(spot)
        best = max(inside, key=lambda spot: tried[spot], default=here)
        if tried[best] <= tried[here]:
            return Found(*here, tried[here], tried)
        here = best


def search_features(
    job: Job, *, block_stride: int = 1, step_stride: int = 50, progress: Callable[[str], object] = lambda message: None
) -> Found:
    """Search for the block and step of a job whose backbone is ``diff_feat``, from those that it names.

    A pair's score is the mAP of a linear probe (ridge regression on standardised pooled features) that is trained on
    the images of the first experience, as annotated, and looks at the held-out ones of the first experience. No later
    experience and no test image is read.

    Source: arXiv 2509.15553, the search over (block, step) pairs; probe and strides are inferred.

    Args:
        job: Benchmark, with ``validation=0.1`` or another share of held-out images, and backbone; the method is not
            trained.
        block_stride: Distance of neighbours in blocks.
        step_stride: Distance of neighbours in steps.
        progress: Called with a line about each pair.

    Raises:
        CmlBenchError: If the backbone is another, nothing is held out that shows a label, or something cannot be read.
    """
    resolved = plan(job)
    check_device(resolved.training.device)
    benchmark = dataclasses.replace(resolved.benchmark, online_chunk=None)
    if not benchmark.validation:
        raise CmlBenchError("features are searched by held-out images: set validation=0.1, say")
    with isolated(job.seed, resolved.training.threads):
        sources = load_sources(benchmark)
        scenario = benchmark.build(class_order=stream_order(job))
        first, held_out = scenario.train_stream[0].dataset, scenario.splits["valid"]
        rows = held_out.experiences[0]
        truth = held_out.true_labels(rows, scenario.n_seen[0])
        if not (truth == PRESENT).any():
            raise CmlBenchError(
                "no held-out image of the first experience shows one of its labels: raise "
                f"validation={benchmark.validation}"
            )
        parts = (_Rows(sources[0], first.sample_ids.data.numpy()), _Rows(sources[0], rows))

        def backbone(block: int, step: int, seed: int) -> DiffFeat:
            name = f"diff_feat:block={block},step={step},seed={seed}"
            config = dataclasses.replace(resolved.training, backbone=name)
            built = make_backbone(dataclasses.replace(resolved, training=config), sources)
            assert isinstance(built, DiffFeat)
            return built

        start = make_backbone(resolved, sources)
        if not isinstance(start, DiffFeat):
            raise CmlBenchError(
                f"backbone={resolved.training.backbone} has no blocks and steps to search: set "
                "backbone=diff_feat:block=14,step=500"
            )

        def score(spot: Spot) -> float:
            model = backbone(*spot, start.place.seed)
            trained, unseen = (
                extract_features(
                    model,
                    part,
                    kind="pooled",
                    device=resolved.training.device,
                    cache_dir=default_cache_dir(),
                    workers=fillers(resolved.training),
                )
                for part in parts
            )
            found = probe_map(trained, first.labels.data.numpy(), unseen, truth)
            progress(f"block {spot[0]}, step {spot[1]}: validation mAP {100 * found:.2f}")
            return found

        bounds = (1, start.model.depth), (0, start.model.steps)
        return local_search(score, (start.place.block, start.place.step), (block_stride, step_stride), bounds)


def probe_map(features: Tensor, labels: LabelArray, unseen: Tensor, truth: LabelArray) -> float:
    """Return the mAP that ridge regression on standardised features reaches on unseen images.

    Args:
        features: (N, D) of annotated images.
        labels: (N, n) four-state labels; a label is fitted to its known entries.
        unseen: (M, D) of others.
        truth: (M, n) true labels.

    Returns:
        The mean over the labels that have positives among the unseen images; some must have.
    """
    x, y = features.float().numpy(), unseen.float().numpy()
    known = is_known(labels)
    logits = np.zeros(truth.shape)
    patterns, group = np.unique(known, axis=1, return_inverse=True)
    for number, column in enumerate(patterns.T):
        if column.any():
            members = np.flatnonzero(group.ravel() == number)
            probe = make_pipeline(StandardScaler(), Ridge())
            probe.fit(x[column], (labels[column][:, members] == PRESENT).astype(np.float64))
            logits[:, members] = probe.predict(y).reshape(len(y), -1)
    return float(np.nanmean(average_precision(logits, truth)))


class _Rows(Source):
    """Some rows of a source."""

    def __init__(self, source: Source, rows: npt.NDArray[np.int64]) -> None:
        super().__init__(source.label_names, source.labels[rows], source.ids[rows])
        self.name, self.split, self.image_size = source.name, source.split, source.image_size
        self.rendering, self.files_state = source.rendering, source.files_state
        self._source, self._rows = source, rows

    def load(self, index: int) -> Tensor:
        """Return image ``index``."""
        return self._source.load(int(self._rows[index]))
