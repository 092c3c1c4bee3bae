"""What the model of a job reads: cached features, cached pixels, or images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from joblib import cpu_count

from cml_bench.data.cache import default_cache_dir
from cml_bench.data.inputs import ImageInputs, InMemoryImages, Inputs, TensorInputs
from cml_bench.data.pixel_cache import CROP_MARGIN, PixelInputs, cached_pixels
from cml_bench.data.source import Source
from cml_bench.models.backbones import Backbone
from cml_bench.models.features import extract_features
from cml_bench.models.preprocess import EvalTransform, StrongBatch, StrongTransform, TrainBatch, TrainTransform
from cml_bench.runs.given_features import GivenFeatures
from cml_bench.runs.plan import Plan
from cml_bench.runs.progress import counting
from cml_bench.training.config import TrainingConfig
from cml_bench.training.context import private_generator

_IN_MEMORY_BYTES = 512 * 2**20


def make_inputs(
    plan: Plan,
    backbone: Backbone | GivenFeatures,
    sources: tuple[Source, Source],
    seed: int,
    progress: Callable[[str], object],
) -> tuple[Inputs, Inputs]:
    """Return what the model reads of the training and the test images.

    Feature vectors are read as they are. With a frozen backbone the inputs are its features, from the cache; else
    images, from the pixel cache if that is asked for, else kept in memory as tensors where they are few, small and not
    augmented.
    """
    train, test = (_split_inputs(plan, backbone, source, seed, progress) for source in sources)
    return train, test


def fillers(config: TrainingConfig) -> int:
    """Return the number of threads that read images into a cache."""
    return config.num_workers or cpu_count()


def _split_inputs(
    plan: Plan, backbone: Backbone | GivenFeatures, source: Source, seed: int, progress: Callable[[str], object]
) -> Inputs:
    config = plan.training
    if isinstance(backbone, GivenFeatures):
        assert source.features is not None
        return TensorInputs(source.features)
    if config.frozen:
        return TensorInputs(
            extract_features(
                backbone,
                source,
                kind=plan.head.meta.features,
                device=config.device,
                cache_dir=default_cache_dir(),
                progress=counting(progress, f"features of {source.split} images", len(source)),
                workers=fillers(config),
            )
        )
    augment = config.augment if source.split == "train" else False
    generator = private_generator(seed, "augmentation")
    if config.cache == "pixels":
        return _pixels(config, backbone, source, augment, generator, progress)
    size, mean, std = backbone.image_size, backbone.mean, backbone.std
    kind = StrongTransform if augment == "strong" else TrainTransform
    training = kind(size, mean, std, generator, flip=config.flip) if augment else None
    inputs = ImageInputs(source, EvalTransform(size, mean, std), training, config.num_workers or config.threads)
    if training is None and source.image_size is not None and len(source) * 3 * size**2 * 4 <= _IN_MEMORY_BYTES:
        return InMemoryImages(inputs)
    return inputs


def _pixels(
    config: TrainingConfig,
    backbone: Backbone,
    source: Source,
    augment: bool | str,
    generator: torch.Generator,
    progress: Callable[[str], object],
) -> PixelInputs:
    size, mean, std, device = backbone.image_size, backbone.mean, backbone.std, config.device
    # Crops are magnified, so they are cut from a larger square; all else sees the whole image at the model's size.
    side = round(CROP_MARGIN * size) if augment is True else size
    pixels = cached_pixels(
        source,
        side,
        cache_dir=default_cache_dir(),
        progress=counting(progress, f"pixels of {source.split} images", len(source)),
        workers=fillers(config),
    )
    kind = StrongBatch if augment == "strong" else TrainBatch
    training = kind(size, mean, std, generator, flip=config.flip, device=device) if augment else None
    return PixelInputs(source, pixels, side, EvalTransform(size, mean, std, device), training, device)
